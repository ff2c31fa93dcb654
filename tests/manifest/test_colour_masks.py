"""Masks of colours become class numbers, by colours that are declared or found, or are refused with what works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_transfer.errors import InputError
from monai_transfer.manifest import build_manifest
from monai_transfer.manifest.masks import is_picture_of_numbers, read_mask

COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255], [255, 255, 255]], dtype=np.uint8)


def write_set(folder, *, kinds=(0, 1, 2), ending=".png", mode="RGB", n=6):
    rng = np.random.default_rng(0)
    numbers = {}
    for i in range(n):
        for name in ("images", "masks"):
            (folder / name).mkdir(exist_ok=True, parents=True)
        Image.fromarray(rng.integers(0, 255, (16, 12), dtype=np.uint8)).save(folder / "images" / f"p{i}.png")
        mask = np.zeros((16, 12), dtype=int)
        mask[2 : 5 + i, 3:9] = kinds[1 + i % (len(kinds) - 1)]
        numbers[f"p{i}"] = mask
        colours = COLOURS[mask] if 0 in kinds else COLOURS[np.where(mask == 0, kinds[0], mask)]
        Image.fromarray(colours).convert(mode).save(folder / "masks" / f"p{i}{ending}")
    return numbers


def built(folder, tmp_path, **options):
    manifest, notes = build_manifest([folder], tmp_path / "m.json", **options)
    cases = [case for split in ("training", "validation", "test") for case in manifest.cases(split)]
    return manifest, notes, {Path(case.image).stem: read_mask(Path(case.label)) for case in cases}


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_that_are_found(tmp_path, mode):
    due = write_set(tmp_path / "set", mode=mode)
    assert is_picture_of_numbers(tmp_path / "set" / "masks" / "p0.png")
    manifest, notes, masks = built(tmp_path / "set", tmp_path)
    assert manifest.labels == {"0": "background", "1": "#0000ff", "2": "#ff0000"}
    assert any("#ff0000 = #ff0000" in note and "6 coloured masks" in note for note in notes)
    swapped = np.array([0, 2, 1])
    assert all(np.array_equal(masks[name], swapped[mask]) for name, mask in due.items())
    named, _, _ = built(tmp_path / "set", tmp_path, labels=["background", "vein", "artery"])
    assert named.labels == {"0": "background", "1": "vein", "2": "artery"}


def test_colours_that_are_declared(tmp_path):
    due = write_set(tmp_path / "set", kinds=(0, 1, 2, 3))
    labels = {"#FF0000": "tumour", "#0000ff": "tumour", "#ffffff": "node"}
    manifest, _, masks = built(tmp_path / "set", tmp_path, labels=labels)
    assert manifest.labels == {"0": "background", "1": "tumour", "2": "node"}
    table = np.array([0, 1, 1, 2])
    assert all(np.array_equal(masks[name], table[mask]) for name, mask in due.items()), "white beside colours is one"
    with pytest.raises(InputError, match=r"holds the colour #0000ff, which is not declared.*add #0000ff=NAME"):
        built(tmp_path / "set", tmp_path, labels={"#ff0000": "tumour", "#ffffff": "node"})
    with pytest.raises(InputError, match="mixes colours with '2'"):
        built(tmp_path / "set", tmp_path, labels={"#ff0000": "tumour", "2": "node"})


def test_a_blue_mask_is_not_empty(tmp_path):
    write_set(tmp_path / "set", kinds=(0, 2))
    manifest, _, masks = built(tmp_path / "set", tmp_path)
    assert manifest.labels["1"] == "#0000ff" and masks["p0"].max() == 1
    _, _, binary = built(tmp_path / "set", tmp_path, binarize=True)
    assert binary["p0"].max() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": (3, 1, 2)}, "none of them black.*say which is which"),
        ({"ending": ".jpg"}, "a JPEG does not keep colours"),
    ],
)
def test_what_colours_do_not_tell_is_refused(tmp_path, options, message):
    write_set(tmp_path / "set", **options)
    with pytest.raises(InputError, match=message):
        built(tmp_path / "set", tmp_path)


def test_colours_without_a_coloured_mask(tmp_path):
    write_set(tmp_path / "set", mode="L", kinds=(0, 3))
    with pytest.raises(InputError, match="holds the colour #ffffff, which is not declared"):
        built(tmp_path / "set", tmp_path, labels={"#ff0000": "tumour"})
