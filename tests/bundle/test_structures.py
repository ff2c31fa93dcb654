"""Structures that overlap, from a folder of RTSTRUCT or DICOM SEG to masks and segments that `predict` writes."""

from __future__ import annotations

import nibabel
import numpy as np
import pydicom
import pytest

from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.inspection import check_manifest
from monai_transfer.manifest import build_manifest
from monai_transfer.predict.images import predict_images
from tests.manifest.layouts import test_dicom, test_dicom_vendors

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
SIZE, SLICES = 32, 16


@pytest.fixture(autouse=True)
def _of_a_size_to_train_on(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_TRANSFER_SECRET", str(tmp_path / "secret" / "key"))
    for module in (test_dicom, test_dicom_vendors):
        for name, value in (("ROWS", SIZE), ("COLUMNS", SIZE), ("SLICES", SLICES)):
            monkeypatch.setattr(module, name, value)


def write(folder, kind):
    """Eight patients with a liver and a cyst wholly inside it."""
    rng = np.random.default_rng(0)
    for i in range(8):
        files = test_dicom.series(folder / f"p{i}" / "image", f"P{i}", f"1.2.{i + 3}", n=SLICES)
        for path in files:
            dataset = pydicom.dcmread(path)
            dataset.PixelData = rng.integers(-100, 100, (SIZE, SIZE)).astype("<i2").tobytes()
            dataset.save_as(path)
        liver, cyst = range(3, 13), range(5, 9)
        if kind == "rtstruct":
            box = test_dicom.box
            rois = {"liver": [box(4, 20, 4, 20, k) for k in liver], "cyst": [box(8, 12, 8, 12, k) for k in cyst]}
            test_dicom.rtstruct(folder / f"p{i}" / "rs.dcm", files[0], rois)
        else:
            patch = test_dicom_vendors.patch
            frames = [(1, k, patch(1, slice(4, 21), slice(4, 21))) for k in liver]
            frames += [(2, k, patch(1, slice(8, 13), slice(8, 13))) for k in cyst]
            test_dicom_vendors.seg(folder / f"p{i}" / "seg.dcm", files, frames, labels=("liver", "cyst"))


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
def test_overlaps_are_regions_from_the_manifest_to_the_prediction(tmp_path, kind):
    write(tmp_path / "data", kind)
    manifest, _ = build_manifest(tmp_path / "data", tmp_path / "m.json", overlaps="regions")
    assert set(manifest.regions) == {"liver", "cyst"}
    codes = {finding.code for finding in check_manifest(manifest)}
    assert codes <= {"equal-names", "tiny-split"}, "the cyst occurs, though never alone"
    bundle = tmp_path / "organs_segmentation"
    spec = new_bundle(bundle, manifest.path, size="small", epochs=1, steps_per_epoch=2)
    assert set(spec.labels.values()) == {"liver", "cyst"}
    run = run_workflow(bundle, "train", {"pretrained": None}, log=False)
    written = predict_images(bundle, [manifest.path], tmp_path / "masks", run=run, split="test").written
    values = {int(value) for path in written for value in np.unique(nibabel.load(path).get_fdata())}
    assert written and values <= {0, *map(int, manifest.labels)}
    (told,) = predict_images(bundle, [tmp_path / "data" / "p0"], tmp_path / "seg", run=run, format="dicom-seg").written
    segments = pydicom.dcmread(told).SegmentSequence
    assert {segment.SegmentLabel for segment in segments} <= {"liver", "cyst"}
