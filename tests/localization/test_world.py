import json

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImage
from PIL import Image

from monai_transfer.data.readers import SafeReader
from monai_transfer.localization import boxes_from_labels
from monai_transfer.localization.prediction import FindBoxes
from monai_transfer.localization.world import box_records, boxes_to_world, has_physical_size


def test_a_box_in_the_room_written_out():
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = [10, 20, 30]
    # voxel centres 1..2, 0..0, 5..5: half a step around them
    world = boxes_to_world([[1, 0, 5, 3, 1, 6]], affine)
    np.testing.assert_allclose(world, [[11, 18.5, 48, 15, 21.5, 52]])


def test_other_axes_same_place():
    """A volume stored along P L I instead of R A S has its lesion at the same millimetres."""
    rng = np.random.default_rng(1)
    mask = np.zeros((9, 11, 7), dtype=np.uint8)
    mask[2:5, 6:9, 1:4] = 1
    affine = np.diag([2.0, 1.5, 3.0, 1.0])
    affine[:3, 3] = rng.normal(size=3)
    image = nib.Nifti1Image(mask, affine)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt(("P", "L", "I")))
    assert nib.aff2axcodes(turned.affine) != nib.aff2axcodes(affine)
    one = boxes_to_world(boxes_from_labels(mask).voxels, affine)
    two = boxes_to_world(boxes_from_labels(np.asarray(turned.dataobj)).voxels, turned.affine)
    np.testing.assert_allclose(one, two)


def test_an_oblique_box_is_surrounded():
    turn = np.deg2rad(30)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    ((*low, x, y, _),) = boxes_to_world([[0, 0, 0, 4, 2, 1]], affine)
    assert x - low[0] == pytest.approx(4 * np.cos(turn) + 2 * np.sin(turn))
    assert y - low[1] == pytest.approx(4 * np.sin(turn) + 2 * np.cos(turn))


def test_pictures_and_slices():
    assert boxes_to_world([[0, 1, 2, 3]], np.eye(3)).tolist() == [[-0.5, 0.5, 1.5, 2.5]]
    assert boxes_to_world([[0, 1, 2, 3]], np.diag([2.0, 2.0, 5.0, 1.0])).tolist() == [[-1, 1, 3, 5]]
    assert boxes_to_world(np.zeros((0, 6)), np.eye(4)).shape == (0, 6)


def test_records_are_plain():
    mask = np.zeros((4, 4, 4))
    mask[1:3, 1:3, 1:3] = 1
    (record,) = box_records(boxes_from_labels(mask, [2, 2, 2]), np.diag([2, 2, 2, 1]), {1: "lesion"})
    assert record == {
        "label": "lesion",
        "score": 1.0,
        "size": 64.0,
        "size_unit": "mm3",
        "voxel_low": [1, 1, 1],
        "voxel_high": [3, 3, 3],
        "world_low": [1.0, 1.0, 1.0],
        "world_high": [5.0, 5.0, 5.0],
    }


def test_pictures_have_pixels_and_no_place_in_millimetres(tmp_path):
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:5, 3:7] = 255
    Image.fromarray(mask).save(tmp_path / "a.png")
    nib.save(nib.Nifti1Image(mask[..., None], np.diag([0.5, 0.5, 1, 1])), tmp_path / "a.nii")
    nib.save(nib.Nifti1Image(mask[..., None].repeat(3, 2), np.eye(4)), tmp_path / "isotropic.nii")
    told = {}
    for name in ("a.png", "a.nii", "isotropic.nii"):
        for reader in (None, SafeReader):  # MONAI's, and ours
            image = LoadImage(reader=reader, image_only=True, ensure_channel_first=True)(tmp_path / name)
            told.setdefault(name, set()).add(has_physical_size(image))
    assert told == {"a.png": {False}, "a.nii": {True}, "isotropic.nii": {True}}
    picture = LoadImage(image_only=True, ensure_channel_first=True)(tmp_path / "a.png")
    found = FindBoxes({"threshold": 0.5}, ["lesion"], str(tmp_path))(picture / 255)
    assert "mm" not in json.dumps(found["boxes"])
    assert (found["boxes"][0]["size"], found["boxes"][0]["size_unit"]) == (12.0, "pixels")
