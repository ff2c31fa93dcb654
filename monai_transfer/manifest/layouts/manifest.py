"""A manifest that is already there: its file, or a folder with a ``manifest.json``. Several are merged in this way."""

from __future__ import annotations

from pathlib import Path

from monai_transfer.errors import InputError
from monai_transfer.manifest.checks import SPLITS
from monai_transfer.manifest.layouts.base import FolderContents, Options, RawCase, count
from monai_transfer.manifest.model import Manifest
from monai_transfer.tasks import get_task

__all__ = ["detect", "read"]

TAKES_FILE = True
PSEUDONYMS = True


def _file(folder: Path) -> Path:
    return folder / "manifest.json" if folder.is_dir() else folder


def detect(folder: Path) -> float:
    """1 for a file that can be loaded as a manifest; least of all for a folder with one, which is mostly our output."""
    path = _file(folder)
    if path.suffix.lower() != ".json" or not path.is_file():
        return 0.0
    try:
        Manifest.load(path)
    except InputError:
        return 0.0
    return 1.0 if folder.is_file() else 0.05


def read(folder: Path, options: Options) -> FolderContents:
    """The manifest's cases with their splits, patients and sites.

    Raises:
        InputError: it is no valid manifest.
    """
    manifest = Manifest.load(_file(folder))
    masks = get_task(manifest.task).label.is_path
    found = FolderContents([], labels={int(number): name for number, name in manifest.labels.items()})
    found.channel_names = {int(number): name for number, name in manifest.channel_names.items()}
    found.label_values = {int(number): list(values) for number, values in manifest.label_values.items()}
    found.regions = {name: list(values) for name, values in manifest.regions.items()}
    found.regions_class_order = manifest.regions_class_order
    found.ignore, found.annotated = list(manifest.ignore), dict(manifest.annotated)
    for key in ("name", "description", "task", "licence", "reference", "modality"):
        value = getattr(manifest, key)
        if value:
            found.texts[key] = value if isinstance(value, str) else ", ".join(value.values())
    folds = 0
    for split in SPLITS:
        for case in manifest.cases(split):
            label = Path(case.label) if masks and isinstance(case.label, str) else case.label
            images = [Path(path) for path in case.images]
            raw = RawCase(images, case.case, case.case, label, case.patient, case.site, split, case.acquired)
            raw.annotated, raw.missing = case.annotated, list(case.missing)
            found.cases.append(raw)
            folds += case.fold is not None
    if folds:
        found.notes.append(f"folds of {count(folds, 'case')} left out: ask for new ones with --folds")
    return found
