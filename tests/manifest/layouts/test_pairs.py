"""Folders of images and of masks: own suffixes and endings, splits in the folder's name, masks that are no images."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_transfer.errors import InputError
from monai_transfer.manifest import build_manifest
from monai_transfer.manifest.layouts.pairs import is_mask_folder

RANDOM = np.random.default_rng(0)


def picture(path: Path, mask: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.resize((0, 1), (12, 10)) if mask else RANDOM.integers(0, 256, (12, 10))
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def every(manifest):
    return [case for split in ("training", "validation", "test", "unlabeled") for case in manifest.cases(split)]


def labelled(manifest):
    return {case.case: Path(case.label).name for case in every(manifest) if case.label}


def test_a_suffix_of_its_own_is_proposed_and_taken(tmp_path):
    for i in range(6):
        picture(tmp_path / "d" / "images" / f"a{i}.png")
        picture(tmp_path / "d" / "masks" / f"a{i}_tumourborder.png", mask=True)
    with pytest.raises(InputError, match="they end in '_tumourborder': say so with --mask-suffix"):
        build_manifest(tmp_path / "d", tmp_path / "m.json")
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", mask_suffix="_tumourborder")
    assert labelled(manifest) == {f"a{i}": f"a{i}_tumourborder.png" for i in range(6)}


def test_a_suffix_beside_the_image(tmp_path):
    for i in range(6):
        picture(tmp_path / "d" / f"a{i}.png")
        picture(tmp_path / "d" / f"a{i}_outline.png", mask=True)
    with pytest.raises(InputError, match="a0_outline.png: holds few numbers.*--mask-suffix _outline"):
        build_manifest(tmp_path / "d", tmp_path / "m.json", task="segmentation", labels=["background", "x"])
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json", mask_suffix="_outline")
    assert labelled(manifest) == {f"a{i}": f"a{i}_outline.png" for i in range(6)}
    assert any("read as beside" in note for note in notes)


def test_one_name_with_two_endings(tmp_path):
    for i in range(6):
        picture(tmp_path / "d" / f"a{i}.bmp")
        picture(tmp_path / "d" / f"a{i}.png", mask=True)
    with pytest.raises(InputError, match="a0.bmp and a0.png share a name.*--mask-ending .png"):
        build_manifest(tmp_path / "d", tmp_path / "m.json", layout="beside")
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", mask_ending=".png")
    assert labelled(manifest) == {f"a{i}": f"a{i}.png" for i in range(6)}


def test_masks_in_class_folders_are_refused(tmp_path):
    for i in range(6):
        picture(tmp_path / "named" / "photographs" / f"a{i}.png")
        picture(tmp_path / "named" / "masks" / f"a{i}.png", mask=True)
        picture(tmp_path / "unnamed" / "photographs" / f"a{i}.png")
        picture(tmp_path / "unnamed" / "outlines" / f"a{i}.png", mask=True)
        picture(tmp_path / "classes" / "ill" / f"a{i}.png")
        picture(tmp_path / "classes" / "well" / f"a{i}.png")
    with pytest.raises(InputError, match="'masks' would be a class"):
        build_manifest(tmp_path / "named", tmp_path / "m.json")
    with pytest.raises(InputError, match="outlines/a0.png holds few numbers.*a mask, no class"):
        build_manifest(tmp_path / "unnamed", tmp_path / "m.json")
    assert build_manifest(tmp_path / "classes", tmp_path / "m.json")[0].task == "classification"


def test_decathlon_folders_without_their_list(tmp_path):
    for part, names in {"Tr": ("images", "labels"), "Ts": ("images",)}.items():
        for kind in names:
            for i in range(6):
                values = np.arange(60).reshape(3, 4, 5) % 2 if kind == "labels" else RANDOM.random((3, 4, 5))
                path = tmp_path / "d" / f"{kind}{part}" / f"{part}{i}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), path)
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json")
    assert manifest.task == "segmentation" and any("read as pairs (12 cases)" in note for note in notes)
    assert len(manifest.unlabeled) == 6 and len(manifest.test) > 0 and len(labelled(manifest)) == 6


def test_what_a_folder_was_taken_for_is_said_before_anything_is_written(tmp_path):
    for i in range(6):
        picture(tmp_path / "d" / "images" / f"a{i}.png")
        picture(tmp_path / "d" / "masks" / f"a{i}.png", mask=True)
    said = []

    def say(text):
        said.append((text, (tmp_path / "m.json").exists()))

    build_manifest(tmp_path / "d", tmp_path / "m.json", say=say)
    (text, written), *_ = said
    assert not written and "read as pairs (6 cases), e.g. images/a0.png with the mask masks/a0.png" in text
    assert "images/a1.png with the mask masks/a1.png" in text


@pytest.mark.parametrize("name", ["masks", "labelsTr", "labels_test", "Ground_Truth", "1st_manual", "segs-val"])
def test_names_of_mask_folders(name):
    assert is_mask_folder(name)
    assert not is_mask_folder("imagesTr") and not is_mask_folder("normal")
