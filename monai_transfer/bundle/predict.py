"""``monai-transfer predict``: the bundle's own inference config on the user's files."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monai_transfer.bundle.run import best_weights, open_workflow
from monai_transfer.errors import InputError
from monai_transfer.files import atomic_path

__all__ = ["find_images", "predict_images"]

SUFFIXES = (".nii.gz", ".nii", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".mha", ".mhd", ".nrrd")


def _is_image(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def find_images(inputs: Sequence[str | Path], leave_out: Path | None = None) -> list[Path]:
    """The images named, and those below the folders named; a folder with DICOM files is one series.

    ``leave_out``: a folder not to look into: predictions of an earlier call must not be predicted on.

    Raises:
        InputError: an input does not exist, or a folder holds nothing to predict on.
    """
    found: list[Path] = []
    for item in map(Path, inputs):
        if not item.exists():
            raise InputError("no such file or folder", path=item)
        if item.is_file():
            found.append(item)
            continue
        images = sorted(path for path in item.rglob("*") if _is_image(path) and not _below(path, leave_out))
        series = sorted(
            folder
            for folder in [item, *(p for p in item.rglob("*") if p.is_dir())]
            if any(_is_dicom(path) for path in folder.iterdir() if path.is_file())
        )
        if not images and not series:
            raise InputError("holds no image", path=item, mend=f"it reads {', '.join(SUFFIXES)} and DICOM series")
        found += images + series
    return [path.resolve() for path in dict.fromkeys(found)]


def _below(path: Path, folder: Path | None) -> bool:
    return folder is not None and path.resolve().is_relative_to(folder)


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def predict_images(
    bundle: str | Path, inputs: Sequence[str | Path], output: str | Path, *, run: str | Path | None = None
) -> Iterator[str]:
    """Predict and yield a line per written file.

    Segmentations become ``<name>_pred`` files in each image's own grid, below ``output`` in the folders of the inputs
    (so that equal names never collide); classifications and regressions one row per image in ``predictions.csv``.

    Raises:
        InputError: the bundle has no inference config or weights, or an input cannot be found.
    """
    output = Path(output).resolve()
    if output.is_file():
        raise InputError("is a file", path=output, mend="name a folder for the predictions")
    images = find_images(inputs, leave_out=output)
    _refuse_collisions(images)
    weights = best_weights(bundle, run)
    common = Path(os.path.commonpath([image.parent for image in images]))
    overrides: dict[str, Any] = {
        "dataset_dir": str(common),
        "output_dir": str(output),
        "ckpt": str(weights.resolve()),
        "dataset#data": [{"image": str(image)} for image in images],
    }
    flow = open_workflow(bundle, "infer", overrides)
    flow.initialize()
    output.mkdir(parents=True, exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    flow.run()
    flow.finalize()
    _name_rows(output / "predictions.csv", flow, common)
    written = sorted(
        path for path in output.rglob("*") if path.is_file() and before.get(path) != path.stat().st_mtime_ns
    )
    if not written:
        raise InputError("the bundle's inference config wrote nothing", path=bundle, mend="look at its postprocessing")
    for path in written:
        yield f"wrote {path}"


def _refuse_collisions(images: Sequence[Path]) -> None:
    """Two images of one folder whose names differ in the suffix alone would write the same file."""
    seen: dict[Path, Path] = {}
    for image in images:
        name = next((image.name[: -len(s)] for s in SUFFIXES if image.name.lower().endswith(s)), image.name)
        other = seen.setdefault(image.with_name(name), image)
        if other != image:
            raise InputError(f"would be written over by the prediction of {image.name}", path=other, mend="rename one")


def _name_rows(path: Path, flow: Any, common: Path) -> None:
    """Put a header on MONAI's CSV, with the classes by name and paths relative to the inputs' common folder."""
    if not path.is_file():
        return
    metadata = flow.parser.get("_meta_") or {}
    outputs = metadata.get("network_data_format", {}).get("outputs", {}).get("pred", {})
    names = [name for _, name in sorted(outputs.get("channel_def", {}).items(), key=lambda item: int(item[0]))]
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    if not rows or rows[0][:1] == ["image"]:
        return
    width = len(rows[0]) - 1
    if len(names) != width:
        names = [f"output {i}" for i in range(width)]
    classes = width > 1
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["image", *([f"p_{name}" for name in names] if classes else names), *(["prediction"] if classes else [])]
        )
        for image, *values in rows:
            best = [names[max(range(width), key=lambda i: float(values[i]))]] if classes else []
            writer.writerow([os.path.relpath(image, common), *values, *best])
