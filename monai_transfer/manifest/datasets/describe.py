"""Reading a data set's description, and building its manifest from a copy that the user has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.manifest.build import build_manifest
from monai_transfer.manifest.checks import SPLITS, closest
from monai_transfer.manifest.model import Manifest

__all__ = ["Dataset", "build_dataset", "content_sha256", "dataset_names", "load_dataset"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Dataset:
    """A known data set.

    Attributes:
        name: what ``--dataset`` takes.
        title, description, modality, licence, reference: texts; all but the title go into the manifest.
        obtain: how to get a copy.
        layout: what the copy must look like for the options below.
        folders: subfolders of the copy that are read, by default the copy itself.
        options: arguments of :func:`~monai_transfer.manifest.build.build_manifest`; ``table`` is relative to the copy.
        cases: how many cases a whole copy has, where that is known.
        content_sha256: of all image files, see :func:`content_sha256`, where it was computed from a whole copy.
        archive_md5: what the source publishes for its archive.

    >>> load_dataset("acdc").licence, load_dataset("acdc").cases
    ('CC BY-NC-SA 4.0', 300)
    """

    name: str
    title: str
    description: str
    modality: str
    licence: str
    reference: str
    obtain: str
    layout: str
    folders: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    cases: int | None = None
    content_sha256: str | None = None
    archive_md5: str | None = None


def dataset_names() -> list[str]:
    """Names of all known data sets, sorted.

    >>> "acdc" in dataset_names()
    True
    """
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_dataset(name: str) -> Dataset:
    """The description of a known data set.

    Args:
        name: one of ``dataset_names()``.

    Raises:
        InputError: no data set has that name.

    >>> load_dataset("acdc").modality
    'MR'
    """
    if name not in dataset_names():
        raise InputError(f"no data set is called {name!r}", hint=closest(name, dataset_names()))
    return Dataset(**json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def content_sha256(manifest: Manifest) -> str:
    """SHA-256 over the sorted SHA-256 of all image files: equal for equal images, whatever their names.

    Args:
        manifest: with checksums.

    >>> case = {"image": "a.png", "label": 1.0, "case": "a", "patient": "a", "site": "x", "sha256": "0" * 64}
    >>> one = Manifest.from_dict({"name": "one", "task": "regression", "training": [case]}, Path())
    >>> other = Manifest.from_dict({"name": "other", "task": "regression", "test": [case | {"image": "b.png"}]}, Path())
    >>> content_sha256(one) == content_sha256(other)
    True
    """
    hashes: list[str] = []
    for split in SPLITS:
        for case in manifest.cases(split):
            hashes += [case.sha256] if isinstance(case.sha256, str) else case.sha256 or []
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def build_dataset(
    name: str, folder: str | Path, output: str | Path, build: Callable[..., Any] = build_manifest, **overrides: Any
) -> tuple[Manifest, list[str]]:
    """Build the manifest of a known data set from a copy; arguments are those of :func:`build_manifest`.

    The notes say whether the copy is whole and unchanged.

    Args:
        name: one of ``dataset_names()``.
        folder: of the copy.
        output: the ``.json`` file to write.
        build: what builds it.
        overrides: options in place of the description's own.

    Raises:
        InputError: no such data set, or the copy does not look as it should (the message says how to obtain it).

    Where the copy is not there, the error says how to get one:

    >>> try:
    ...     build_dataset("acdc", "nowhere", "acdc.json")
    ... except InputError as error:
    ...     print(error.hint == load_dataset("acdc").obtain)
    True
    """
    known, folder = load_dataset(name), Path(folder)
    parts = [folder / part for part in known.folders] or [folder]
    for part in parts:
        if not part.exists():
            raise InputError(f"is not there, but {known.title} has it", path=part, hint=known.obtain)
    options = dict(known.options)
    if "table" in options:
        options["table"] = folder / options["table"]
    texts = {key: getattr(known, key) for key in ("description", "modality", "licence", "reference")}
    made, notes = build(parts, output, **({"name": name} | texts | options | overrides))
    found = sum(len(made.cases(split)) for split in SPLITS)
    if known.cases is not None and found != known.cases:
        notes.append(f"this copy has {found} cases, a whole one {known.cases}")
    if known.content_sha256 and overrides.get("checksums", True):
        same = content_sha256(made) == known.content_sha256
        notes.append(
            "its images are those of the described copy" if same else "its images differ from the described copy's"
        )
    notes.append(f"licence: {known.licence}")
    return made, notes
