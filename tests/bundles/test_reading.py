"""Training reads with checks, inference with MONAI alone: both give the same voxels of every sound file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import LoadImage
from monai.utils import set_determinism
from PIL import Image
from scipy.spatial.transform import Rotation

from monai_transfer.bundle.run import run_workflow
from monai_transfer.data.phantom.sites import SITES
from monai_transfer.data.phantom.write import write_dicom, write_nifti
from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")
PROTOCOL = SITES["site_b"].protocol
AFFINE = np.diag([-2.0, 2, 3, 1])  # tilted below
AFFINE[:3, :3] = Rotation.from_euler("xyz", [5, -8, 12], degrees=True).as_matrix() @ AFFINE[:3, :3]


def both(bundle: Path, image: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The image as the test part of train.yaml sees it, and as inference.yaml does."""
    found = []
    for config, key in (("train", "test#preprocessing"), ("inference", "preprocessing")):
        parser = ConfigParser(ConfigParser.load_config_file(str(bundle / "configs" / f"{config}.yaml")))
        parser["bundle_root"] = str(bundle)
        item = {"image": str(image)}
        if config == "train" and "segmentation" in bundle.name:
            item["label"] = str(image)
        found.append(parser.get_parsed_content(key)(item)["image"])
    return found[0], found[1]


def assert_equal(pair: tuple[torch.Tensor, torch.Tensor], tolerance: float = 0) -> None:
    ours, plain = pair
    assert ours.dtype == plain.dtype and ours.std() > 0
    torch.testing.assert_close(ours.as_tensor(), plain.as_tensor(), rtol=0, atol=tolerance)
    torch.testing.assert_close(ours.affine, plain.affine, rtol=0, atol=1e-10)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4000, (20, 18, 12)).astype(np.int16)


@pytest.mark.parametrize("bundle", ["head_mr_segmentation"], indirect=True)
def test_volumes(bundle, pixels, tmp_path):
    write_nifti(tmp_path / "a.nii.gz", pixels, AFFINE)
    assert_equal(both(bundle, tmp_path / "a.nii.gz"))
    write_nifti(tmp_path / "b.nii.gz", pixels.astype(np.float32) / 7, np.diag([-1.0, -1, 2, 1]))
    assert_equal(both(bundle, tmp_path / "b.nii.gz"))
    write_dicom(
        tmp_path / "series", pixels, np.diag([-2.0, -2, 3, 1]), patient_id="P", protocol=SITES["site_b"].protocol
    )
    assert_equal(both(bundle, tmp_path / "series"))


@pytest.mark.parametrize("bundle", ["head_mr_slice_classification"], indirect=True)
@pytest.mark.parametrize("kind", ["grey", "16 bits", "colour", "palette", "one bit", "turned", "opaque"])
def test_pictures(bundle, pixels, tmp_path, kind):
    grey = (pixels[..., 0] % 256).astype(np.uint8)
    colours = (pixels[..., :3] % 256).astype(np.uint8)
    path, options = tmp_path / "a.png", {}
    if kind == "grey":
        image = Image.fromarray(grey)
    elif kind == "16 bits":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 16)
    elif kind == "palette":
        image = Image.fromarray(colours).quantize(17)
    elif kind == "one bit":
        image = Image.fromarray(grey > 99)
    elif kind == "opaque":
        image = Image.fromarray(colours).convert("RGBA")
    else:
        image = Image.fromarray(colours)
    if kind == "turned":
        path, options = tmp_path / "a.jpg", {"exif": Image.Exif()}
        options["exif"][0x0112] = 6
    image.save(path, **options)
    assert_equal(both(bundle, path))


@pytest.mark.parametrize("bundle", ["head_mr_segmentation"], indirect=True)
def test_real_series(bundle, real_data):
    for folder in sorted(path for path in (real_data / "dicom" / "series").iterdir() if path.is_dir()):
        ours, plain = LoadImage(reader=SafeReader())(folder), LoadImage()(folder)
        assert torch.equal(ours.as_tensor(), plain.as_tensor())
        # ITK rounds an oblique direction in the 14th digit, so resampling cannot be bitwise equal
        assert_equal(both(bundle, folder), tolerance=1e-4)


@pytest.mark.parametrize("bundle", ["head_mr_segmentation"], indirect=True)
def test_a_dicom_folder_trains_and_a_damaged_file_is_one_line(bundle, tmp_path):
    rng = np.random.default_rng(0)
    items: dict[str, list] = {"training": [], "validation": [], "test": []}
    for n, split in enumerate(["training", "training", "validation", "test"]):
        label = np.zeros((16, 16, 12), np.uint8)
        label[4:12, 4:12, 3:8] = 1
        image = (label * np.int16(400) + rng.integers(0, 100, label.shape)).astype(np.int16)
        affine = np.diag([-4.0, -4, 4, 1])
        write_dicom(tmp_path / f"scan{n}", image, affine, patient_id=f"P{n}", protocol=PROTOCOL)
        write_nifti(tmp_path / f"label{n}.nii.gz", label, affine)
        case = {"image": f"scan{n}", "label": f"label{n}.nii.gz", "case": f"c{n}", "patient": f"p{n}", "site": "site_b"}
        items[split].append(case)
    labels = {"0": "background", "1": "ventricle", "2": "lesion"}
    manifest = {"name": "series", "task": "segmentation", "modality": "MR", "labels": labels, **items}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    given = {"dataset_dir": str(tmp_path), "source_site": None, "n_labelled": None}
    short = {"max_epochs": 1, "steps_per_epoch": 1, "val_interval": 1}
    run = run_workflow(bundle, "train", {**given, **short}, log=False)
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], record["labelled_train"]) == ("finished", 2)
    # one slice cut short: MONAI's own reader would drop it, and average the spacing over the gap
    (slice_, *_) = sorted(path for path in (tmp_path / "scan0").iterdir())
    slice_.write_bytes(slice_.read_bytes()[:-200])
    with pytest.raises(Exception, match="") as caught:
        run_workflow(bundle, "train", {**given, **short, "output_dir": str(tmp_path / "again")}, log=False)
    error: BaseException = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, InputError) and "scan0" in str(error) and "\n" not in str(error)
    set_determinism(None)
