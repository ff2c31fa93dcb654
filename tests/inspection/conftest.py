"""A small sound segmentation set on disk, and its manifest, which each test damages in one way."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError, printable
from monai_transfer.inspection.case import inspect_case
from monai_transfer.inspection.facts import CaseJob
from monai_transfer.manifest.checksums import sha256_image
from monai_transfer.manifest.model import Manifest

AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])
SHAPE = (24, 20, 12)


class DataSet:
    """Six patients per split: ``image(n)``, ``label(n)`` are paths; ``manifest()`` writes and loads the manifest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content: dict = {
            "name": "set",
            "task": "segmentation",
            "modality": "MR",
            "labels": {"0": "background", "1": "tumour"},
            "channel_names": {"0": "T1"},
        }
        for n, split in enumerate(["training"] * 6 + ["validation"] * 6 + ["test"] * 6):
            rng = np.random.default_rng(n)
            mask = np.zeros(SHAPE, np.uint8)
            mask[5:12, 6:12, 3:9] = 1
            self.write(self.image(n), (rng.normal(100, 20, SHAPE) + 80 * mask).astype(np.int16))
            self.write(self.label(n), mask)
            item = {"image": f"images/c{n:02d}.nii.gz", "label": f"labels/c{n:02d}.nii.gz"}
            self.content.setdefault(split, []).append(item | {"case": f"c{n:02d}", "patient": f"p{n}", "site": "A"})

    def image(self, n: int) -> Path:
        return self.folder / "images" / f"c{n:02d}.nii.gz"

    def label(self, n: int) -> Path:
        return self.folder / "labels" / f"c{n:02d}.nii.gz"

    @staticmethod
    def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
        path.parent.mkdir(exist_ok=True)
        image = nib.Nifti1Image(array, affine)
        image.set_qform(affine, 1)
        image.set_sform(affine, 1)
        image.header.set_xyzt_units("mm")
        image.to_filename(path)

    def mask(self, n: int) -> np.ndarray:
        return np.asarray(nib.load(self.label(n)).dataobj)

    def hash(self) -> None:
        """Write the checksums of all files as they are now."""
        for split in ("training", "validation", "test"):
            for item in self.content[split]:
                item["sha256"] = sha256_image(self.folder / item["image"])
                item["sha256_label"] = sha256_image(self.folder / item["label"])

    def manifest(self) -> Manifest:
        path = self.folder / "manifest.json"
        path.write_text(json.dumps(self.content))
        return Manifest.load(path)


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    (tmp_path / "set").mkdir()
    return DataSet(tmp_path / "set")


@pytest.fixture
def judge():
    """Reads items of a collection; returns how many came out equal, how many were refused, and what came out wrong."""

    def run(items):
        reader, equal, refused, wrong = SafeReader(), 0, 0, []
        for one in items:
            try:
                volume = reader.read_volume(one.path)
            except InputError as error:
                message, refused = str(error), refused + 1
                if "\n" in message or printable(one.path) not in message:
                    wrong.append(f"{one.name}: the message is not one line with the path: {message!r}")
                elif one.truth is not None and not one.either:
                    wrong.append(f"{one.name}: sound, but refused: {message}")
                elif one.words and not re.search(one.words, message):
                    wrong.append(f"{one.name}: {message!r} does not say {one.words!r}")
                findings = inspect_case(CaseJob([str(one.path)])).findings
                if [f.code for f in findings] != ["unreadable"]:
                    wrong.append(f"{one.name}: check finds {findings}")
                continue
            except Exception as error:
                wrong.append(f"{one.name}: {type(error).__name__}: {error}")
                continue
            equal += 1
            if one.truth is None:
                wrong.append(f"{one.name}: accepted, as {volume.array.shape} {volume.array.dtype}")
                continue
            due, found = np.squeeze(one.truth).astype(float), np.squeeze(volume.array).astype(float)
            if due.shape != found.shape or not np.allclose(due, found, rtol=1e-6, atol=one.atol or 1e-7):
                wrong.append(f"{one.name}: other voxels than were written")
            elif one.affine is not None and not np.allclose(volume.affine, one.affine, atol=1e-4):
                wrong.append(f"{one.name}: another affine than was written: {volume.affine.tolist()}")
        return equal, refused, wrong

    return run
