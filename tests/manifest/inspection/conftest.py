"""A small sound segmentation set on disk, and its manifest, which each test damages in one way."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

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
