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
from monai_transfer.manifest.checks import SPLITS, closest, has_findings, validate
from monai_transfer.manifest.items import read_item, write_item
from monai_transfer.manifest.label_mapping import LabelMapping
from monai_transfer.manifest.labelled import select_labelled
from monai_transfer.manifest.paths import absolute, portable
from monai_transfer.safe_parse import read_json

__all__ = ["Case", "Manifest", "select_labelled"]

_TEXTS = ("name", "description", "task", "modality", "licence", "reference")
_BYTE = 255  # what label files of one byte hold
_OF_LABELS = ("regions", "regions_class_order", "ignore", "annotated", "surface_tolerance")


@dataclass(frozen=True)
class Manifest:
    """A data set as a list of cases. Use :meth:`load`; :meth:`filter` gives a domain of it.

    Attributes:
        name, description, task, modality, licence, reference: as in the file; ``task`` is ``classification``,
            ``segmentation``, ``regression`` or ``localization``.
        labels: class names by number as text, ``{"0": "background", ...}``; for masks the number is the value in the
            file, and may have gaps. What a network sees of it is ``label_mapping``.
        label_values: the values of a class by its number, where they are not just that number.
        regions: mask values by the name of a region; with regions, these are what is predicted.
        regions_class_order: the value that each region writes, where the file says it.
        ignore: mask values that are neither learned from nor scored.
        surface_tolerance: by class, how far apart two outlines may lie and still agree in the surface Dice, mm.
        annotated: by site the classes that were looked for there; see ``annotated_in``.
        multi_label: classification in which every case has several findings.
        channel_names: channel names by number as text.
        root: what the file gives as root of its paths (relative to ``folder``), if anything.
        training, validation, test, unlabeled: the cases of each split.
        folder: where the manifest's file lies; paths in the file are relative to it, or to ``root``.
        path: the file it was read from or written to, if any.

    >>> import json, tempfile
    >>> from pathlib import Path
    >>> from monai_transfer.manifest.model import Manifest
    >>> folder = Path(tempfile.mkdtemp())
    >>> case = {"image": "a.nii.gz", "label": 1, "case": "a", "patient": "p1", "site": "us"}
    >>> content = {"name": "tiny", "task": "classification", "labels": {"0": "healthy", "1": "ill"}, "training": [case]}
    >>> _ = (folder / "m.json").write_text(json.dumps(content))
    >>> manifest = Manifest.load(folder / "m.json")
    >>> manifest.task, manifest.sites, [case.patient for case in manifest.cases("training")]
    ('classification', ['us'], ['p1'])
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
    label_values: dict[str, list[int]] = field(default_factory=dict)
    regions: dict[str, list[int]] = field(default_factory=dict)
    regions_class_order: list[int] | None = None
    ignore: list[int] = field(default_factory=list)
    annotated: dict[str, list[str]] = field(default_factory=dict)
    surface_tolerance: dict[str, float] = field(default_factory=dict)
    multi_label: bool = False
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
        content = read_json(path, strict=True, hint="give a manifest file")
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
        task, given = content["task"], content.get("labels", {})
        labels = {key: one if isinstance(one, str) else one["name"] for key, one in _by_number(given).items()}
        numbers = {name: int(number) for number, name in labels.items()}
        items = {split: [read_item(item, task, numbers, base) for item in content.get(split, [])] for split in SPLITS}
        fields: dict[str, Any] = {key: content[key] for key in (*_TEXTS, "root", *_OF_LABELS) if key in content}
        if isinstance(fields.get("ignore"), int):
            fields["ignore"] = [fields["ignore"]]
        return cls(
            **fields,
            **items,  # type: ignore[arg-type]
            labels=labels,
            label_values={key: list(one["values"]) for key, one in given.items() if not isinstance(one, str)},
            channel_names=_by_number(content.get("channel_names", {})),
            multi_label=has_findings(content),
            folder=folder,
            path=Path(path) if path is not None else None,
        )

    def to_dict(self, folder: str | Path | None = None) -> dict[str, Any]:
        """The JSON content, with paths as they read from ``folder`` (default: where the manifest lies)."""
        folder = Path(absolute(folder, Path.cwd())) if folder is not None else self.folder
        content: dict[str, Any] = {key: getattr(self, key) for key in _TEXTS if getattr(self, key)}
        content |= {key: _by_number(getattr(self, key)) for key in ("labels", "channel_names") if getattr(self, key)}
        for key, values in self.label_values.items():
            content["labels"][key] = {"name": self.labels[key], "values": list(values)}
        content |= {key: getattr(self, key) for key in _OF_LABELS if getattr(self, key)}
        content |= {"multi_label": True} if self.multi_label else {}
        base: str | Path = folder
        if self.root is not None:
            base = absolute(self.root, self.folder)
            content["root"] = (
                self.root if folder == self.folder or Path(self.root).is_absolute() else portable(base, folder)
            )

        # MONAI's loader indexes the first test case, so an empty list is left out.
        return content | {
            split: [write_item(case, self.task, base) for case in cases] for split, cases in self._splits() if cases
        }

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
        texts = {key: {getattr(case, key) for case in self._all()} - {None} for key in ("site", "case", "patient")}
        texts["label"] = {case.label_name for case in self._all()} - {None}
        texts["annotated class"] = {name for case in self._all() for name in case.annotated or ()}
        for what, values in texts.items():
            for value in sorted(values):
                for found in (base / value for base in bases if os.path.lexists(base / value)):
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
    def label_mapping(self) -> LabelMapping:
        """What stands in the label files, what a network sees, and back."""
        content = {key: getattr(self, key) for key in ("task", "regions", "regions_class_order", "ignore")}
        labels: dict[str, Any] = dict(self.labels)
        labels |= {key: {"name": self.labels[key], "values": values} for key, values in self.label_values.items()}
        return LabelMapping.from_dict(content | {"labels": labels, "multi_label": self.multi_label})

    def annotated_in(self, case: Case) -> list[str] | None:
        """The classes that were looked for in a case: its own list, else its site's; ``None``: all of them."""
        return case.annotated if case.annotated is not None else self.annotated.get(case.site)

    @property
    def partly_annotated(self) -> bool:
        """Whether any site or case was not looked at for every class."""
        return bool(self.annotated) or any(case.annotated is not None for case in self._all())

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
        kept = {case.site for cases in parts.values() for case in cases}
        annotated = {name: classes for name, classes in self.annotated.items() if name in kept}
        return replace(self, **parts, annotated=annotated)

    def with_classes(self, names: Sequence[str]) -> Manifest:
        """The manifest with further classes, for which none of its cases was looked at: those that a source knows.

        Each gets a value of its own: the next above those in use, or, above 255, the smallest that is free. A site or
        case that does not say what was looked for there was looked at for the manifest's own classes. Classes that are
        there already are left out.

        Raises:
            InputError: it declares regions, of which a further class would be none.

        >>> from monai_transfer.manifest.model import Manifest
        >>> case = {"image": "a.nii.gz", "label": "b.nii.gz", "case": "a", "patient": "p1", "site": "us"}
        >>> labels = {"0": "background", "1": "spleen"}
        >>> content = {"name": "tiny", "task": "segmentation", "labels": labels, "training": [case]}
        >>> manifest = Manifest.from_dict(content).with_classes(["liver"])
        >>> manifest.labels, manifest.annotated
        ({'0': 'background', '1': 'spleen', '2': 'liver'}, {'us': ['spleen']})
        """
        more = [name for name in dict.fromkeys(names) if name not in self.labels.values()]
        if not more:
            return self
        if self.regions:
            raise InputError(
                "declares regions, and a further class is none of them",
                path=self.path,
                hint="--no-keep-classes leaves out what the source knows beyond them",
            )
        used = {int(key) for key in self.labels} | {v for vs in self.label_values.values() for v in vs}
        used |= set(self.ignore)
        labels = dict(self.labels)
        for name in more:
            above = max(used, default=-1) + 1
            value = above if above <= _BYTE or above - 1 > _BYTE else next(v for v in range(above + 1) if v not in used)
            labels[str(value)] = name
            used.add(value)
        if self.multi_label:  # a finding that a case does not name is unknown there
            return replace(self, labels=_by_number(labels))
        own = self.class_names[1:]
        annotated = {site: list(own) for site in self.sites} | self.annotated
        return replace(self, labels=_by_number(labels), annotated=annotated)

    def complete(self) -> Manifest:
        """The manifest without the cases that lack a channel."""
        parts: dict[str, Any] = {split: [c for c in cases if not c.missing] for split, cases in self._splits()}
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

        Keys: ``image`` (path or list of paths), ``label`` (mask path, class number, float, or ``{finding: 1, 0 or
        None}``; the key is *absent* where there is no label, and everywhere with ``labelled=False``), ``case``,
        ``patient``, ``site``, and, beside the label of a set that is partly annotated, ``annotated`` (the names of the
        classes that were looked for); :class:`~monai_transfer.data.labels.EncodeLabelsd` turns it into a tensor. Where
        a case lacks a channel, every item has ``missing`` (channel numbers), for
        :class:`~monai_transfer.data.missing.ZeroMissingd`.

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
        items, partly, everything = [], self.partly_annotated, self.label_mapping.outputs
        any_missing = any(case.missing for case in self._all())
        for case in cases:
            item: dict[str, Any] = {"image": case.image if isinstance(case.image, str) else list(case.image)}
            if labelled and case.label is not None:
                item["label"] = dict(case.label) if isinstance(case.label, dict) else case.label
                if partly:
                    known = self.annotated_in(case)
                    item["annotated"] = list(everything if known is None else known)
            if any_missing:
                item["missing"] = list(case.missing)
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


def _by_number(names: dict[str, Any]) -> dict[str, Any]:
    return {key: names[key] for key in sorted(names, key=int)}
