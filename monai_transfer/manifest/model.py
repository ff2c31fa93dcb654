"""The manifest: cases, patients, sites and splits in one JSON file that MONAI's Decathlon loader reads as it is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.files import write_json
from monai_transfer.manifest.case import Case
from monai_transfer.manifest.checks import SPLITS, closest, validate
from monai_transfer.manifest.labelled import select_labelled
from monai_transfer.manifest.paths import absolute, portable

__all__ = ["Case", "Manifest", "select_labelled"]

_TEXTS = ("name", "description", "task", "modality", "licence", "reference")
_PATH_LABELS = ("segmentation", "localization")


@dataclass(frozen=True)
class Manifest:
    """A data set as a list of cases. Use :meth:`load`; :meth:`filter` gives a domain of it.

    Attributes:
        name, description, task, modality, licence, reference: as in the file; ``task`` is ``classification``,
            ``segmentation``, ``regression`` or ``localization``.
        labels: class names by number as text, ``{"0": "background", ...}``.
        channel_names: channel names by number as text.
        root: what the file gives as root of its paths (relative to ``folder``), if anything.
        training, validation, test, unlabeled: the cases of each split.
        folder: where the manifest's file lies; paths in the file are relative to it, or to ``root``.
        path: the file it was read from or written to, if any.
    """

    name: str
    task: str
    labels: dict[str, str] = field(default_factory=dict)
    training: list[Case] = field(default_factory=list)
    validation: list[Case] = field(default_factory=list)
    test: list[Case] = field(default_factory=list)
    unlabeled: list[Case] = field(default_factory=list)
    description: str | None = None
    modality: str | dict[str, str] | None = None
    licence: str | None = None
    reference: str | None = None
    channel_names: dict[str, str] = field(default_factory=dict)
    root: str | None = None
    folder: Path = field(default_factory=Path.cwd, compare=False)
    path: Path | None = field(default=None, compare=False)

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read and validate a manifest file.

        Raises:
            InputError: the file is missing, not JSON, or breaks the schema or a rule of a manifest.
        """
        path = Path(path)
        if not path.is_file():
            hint = "give a manifest file; `monai-transfer manifest DIR -o FILE` makes one"
            raise InputError("is a folder" if path.is_dir() else "no such file", path=path, hint=hint)
        try:
            text = path.read_text(encoding="utf-8-sig")
            content = json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constant)
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"is not JSON ({error})", path=path, hint="give a manifest file") from None
        except _JsonFault as error:
            raise InputError(str(error), path=path) from None
        return cls.from_dict(content, path.parent, path=path)

    @classmethod
    def from_dict(
        cls, content: dict[str, Any], folder: str | Path = ".", *, path: str | Path | None = None
    ) -> Manifest:
        """A manifest from its JSON content; ``folder`` is where its relative paths start (or ``root`` within it).

        Raises:
            InputError: the content breaks the schema or a rule of a manifest; names ``path`` where given.
        """
        validate(content, path)
        folder = Path(absolute(folder, Path.cwd()))
        base = absolute(content.get("root", ""), folder)
        index = {name: int(number) for number, name in content.get("labels", {}).items()}

        def read(item: dict[str, Any]) -> Case:
            item = dict(item)
            image, label = item["image"], item.get("label")
            item["image"] = absolute(image, base) if isinstance(image, str) else [absolute(i, base) for i in image]
            if label is not None:
                if content["task"] in _PATH_LABELS:
                    item["label"] = absolute(label, base)
                elif content["task"] == "classification":
                    item["label_name"] = label if isinstance(label, str) else None
                    item["label"] = index[label] if isinstance(label, str) else int(label)
                else:
                    item["label"] = float(label)
            return Case(**item)

        fields: dict[str, Any] = {key: content[key] for key in (*_TEXTS, "root") if key in content}
        fields |= {key: _by_number(content.get(key, {})) for key in ("labels", "channel_names")}
        fields |= {split: [read(item) for item in content.get(split, [])] for split in SPLITS}
        return cls(
            **fields,
            folder=folder,
            path=Path(path) if path is not None else None,
        )

    def to_dict(self, folder: str | Path | None = None) -> dict[str, Any]:
        """The JSON content, with paths as they read from ``folder`` (default: where the manifest lies)."""
        folder = Path(absolute(folder, Path.cwd())) if folder is not None else self.folder
        content: dict[str, Any] = {key: getattr(self, key) for key in _TEXTS if getattr(self, key)}
        content |= {key: _by_number(getattr(self, key)) for key in ("labels", "channel_names") if getattr(self, key)}
        base: str | Path = folder
        if self.root is not None:
            base = absolute(self.root, self.folder)
            content["root"] = (
                self.root if folder == self.folder or Path(self.root).is_absolute() else portable(base, folder)
            )

        def write(case: Case) -> dict[str, Any]:
            image = (
                portable(case.image, base) if isinstance(case.image, str) else [portable(i, base) for i in case.image]
            )
            label = case.label if case.label_name is None else case.label_name
            if isinstance(label, str) and self.task in _PATH_LABELS:
                label = portable(label, base)
            item = {"image": image, "label": label, "case": case.case, "patient": case.patient, "site": case.site}
            more = {key: getattr(case, key) for key in ("acquired", "sha256", "sha256_label", "fold")}
            return item | {key: value for key, value in more.items() if value is not None}

        # MONAI's loader indexes the first test case, so an empty list is left out.
        return content | {split: [write(case) for case in cases] for split, cases in self._splits() if cases}

    def save(self, path: str | Path) -> Path:
        """Write the manifest, atomically, with paths as they read from the new place.

        Raises:
            InputError: it breaks a rule of manifests, or a text value (case, patient, site) names a file or folder
                beside it, which MONAI's loader would turn into a path.
        """
        path = Path(path)
        if path.is_dir():
            raise InputError("is a folder", path=path, hint="give the name of a .json file to write")
        content = self.to_dict(path.parent)
        validate(content, path)
        bases = {Path(absolute(path.parent, Path.cwd())), Path(absolute(content.get("root", ""), path.parent))}
        for key in ("site", "case", "patient", "label_name"):
            for value in sorted({getattr(case, key) for case in self._all()} - {None}):
                for found in (base / value for base in bases if os.path.lexists(base / value)):
                    what = key.removesuffix("_name")
                    fault = f"the {what} {value!r} is also the name of {found}: MONAI would read it as that path"
                    hint = f"write the manifest to another folder, or choose another name for the {what}"
                    raise InputError(fault, path=path, hint=hint)
        try:
            write_json(path, content)
        except OSError as error:
            raise InputError(f"cannot be written ({error.strerror})", path=path, hint="choose another place") from None
        return path

    @property
    def sites(self) -> list[str]:
        """All sites, sorted."""
        return sorted({case.site for case in self._all()})

    @property
    def patients(self) -> list[str]:
        """All patients, sorted."""
        return sorted({case.patient for case in self._all()})

    @property
    def class_names(self) -> list[str]:
        """Class names in the order of their numbers; for segmentation this includes the background."""
        return [self.labels[key] for key in sorted(self.labels, key=int)]

    @property
    def n_channels(self) -> int:
        """Number of image files per case, or of named channels where one file holds several."""
        first = next(iter(self._all()), None)
        return len(first.images) if first and isinstance(first.image, list) else max(1, len(self.channel_names))

    @property
    def sha256(self) -> str:
        """SHA-256 of the content (paths as they read from the manifest's own place)."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def label_index(self, name: str) -> int:
        """The number of a class.

        Raises:
            InputError: no class has that name.
        """
        for number, known in self.labels.items():
            if known == name:
                return int(number)
        raise InputError(f"no class {name!r}", path=self.path, hint=closest(name, self.labels.values()))

    def filter(self, site: str | Sequence[str] | None = None) -> Manifest:
        """The part of the manifest that comes from one site (or several): a domain.

        Raises:
            InputError: a site is not in the manifest.
        """
        parts: dict[str, Any] = {split: self.cases(split, site=site) for split in SPLITS}
        return replace(self, **parts)

    def cases(self, split: str, *, site: str | Sequence[str] | None = None, labelled: bool | None = None) -> list[Case]:
        """The cases of a split, of some sites only where asked, with or without a label only where asked.

        Raises:
            InputError: no such split, or no such site in the manifest.
        """
        if split not in SPLITS:
            raise InputError(f"no split {split!r}", path=self.path, hint=closest(split, SPLITS))
        wanted = self._sites(site)
        return [
            case
            for case in getattr(self, split)
            if case.site in wanted and (labelled is None or (case.label is not None) == labelled)
        ]

    def datalist(
        self,
        split: str,
        *,
        site: str | Sequence[str] | None = None,
        n_labelled: int | None = None,
        seed: int = 0,
        labelled: bool = True,
    ) -> list[dict[str, Any]]:
        """The data dictionaries of a split, as MONAI's datasets take them, with absolute paths.

        Keys: ``image`` (path or list of paths), ``label`` (mask path, class number or float; the key is *absent* where
        there is no label, and everywhere with ``labelled=False``), ``case``, ``patient``, ``site``.

        Args:
            split: ``training``, ``validation``, ``test`` or ``unlabeled``.
            site: one site, or several; all by default.
            n_labelled: only this many labelled cases, see :func:`~monai_transfer.manifest.labelled.select_labelled`.
            seed: of that choice.
            labelled: ``False`` hides all labels.

        Raises:
            InputError: no such split or site, or fewer labelled cases than asked for.
        """
        cases = self.cases(split, site=site)
        if n_labelled is not None:
            cases = select_labelled(cases, n_labelled, seed, self.task)
        items = []
        for case in cases:
            item: dict[str, Any] = {"image": case.image if isinstance(case.image, str) else list(case.image)}
            if labelled and case.label is not None:
                item["label"] = case.label
            items.append(item | {"case": case.case, "patient": case.patient, "site": case.site})
        return items

    def _splits(self) -> list[tuple[str, list[Case]]]:
        return [(split, getattr(self, split)) for split in SPLITS]

    def _all(self) -> Iterable[Case]:
        return (case for _, cases in self._splits() for case in cases)

    def _sites(self, site: str | Sequence[str] | None) -> set[str]:
        known = set(self.sites)
        if site is None:
            return known
        wanted = [site] if isinstance(site, str) else list(site)
        for name in wanted:
            if name not in known:
                raise InputError(f"no site {name!r}", path=self.path, hint=closest(name, known))
        return set(wanted)


def _by_number(names: dict[str, str]) -> dict[str, str]:
    return {key: names[key] for key in sorted(names, key=int)}


class _JsonFault(Exception):
    pass


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        raise _JsonFault(f"holds the key {next(n for n in names if names.count(n) > 1)!r} twice in one object")
    return content


def _no_constant(name: str) -> Any:
    raise _JsonFault(f"holds {name}, which is not JSON; write null where a value is missing")
