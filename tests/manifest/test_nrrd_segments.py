"""3D Slicer segmentations: names over the whole set, and layers that overlap."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import itk
import nibabel
import numpy as np
import pytest
from monai.transforms import LoadImage

from monai_transfer.errors import InputError
from monai_transfer.manifest import build_manifest
from monai_transfer.manifest.nrrd import read_layers
from monai_transfer.manifest.nrrd_segments import segments

AFFINE = np.array([[-0.5, 0, 0, 10], [0, -0.7, 0, 20], [0, 0, 2, -30], [0, 0, 0, 1.0]])  # RAS; LPS is 0.5, 0.7, 2


def seg_nrrd(path: Path, layers: np.ndarray, named: list[tuple[str, int, int]], encoding="raw") -> None:
    """``layers``: layer x column x row x slice, or without the first axis for one layer."""
    sizes = " ".join(map(str, layers.shape))
    listed = layers.ndim == 4
    header = [
        "NRRD0004",
        "type: unsigned char",
        f"dimension: {layers.ndim}",
        "space: left-posterior-superior",
        f"sizes: {sizes}",
        f"space directions: {'none ' if listed else ''}(0.5,0,0) (0,0.7,0) (0,0,2)",
        f"kinds: {'list ' if listed else ''}domain domain domain",
        "endian: little",
        f"encoding: {encoding}",
        "space origin: (-10,-20,-30)",
    ]
    for i, (name, value, layer) in enumerate(named):
        header += [f"Segment{i}_Name:={name}", f"Segment{i}_LabelValue:={value}", f"Segment{i}_Layer:={layer}"]
    data = layers.astype(np.uint8).tobytes(order="F")
    data = gzip.compress(data) if encoding == "gzip" else data
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join(header) + "\n\n").encode() + data)


def image(path: Path, i: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(i).random((4, 5, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)


def every(manifest):
    return [case for split in ("training", "validation", "test") for case in manifest.cases(split)]


def test_names_decide_not_numbers(tmp_path):
    for i in range(4):
        image(tmp_path / "d" / f"c{i}.nii.gz", i)
        mask = np.zeros((4, 5, 3))
        mask[1, 2, 1], mask[3, 4, 2] = (1, 2) if i % 2 else (2, 1)  # the same anatomy under changing numbers
        named = [("liver", 1, 0), ("tumour", 2, 0)] if i % 2 else [("liver", 2, 0), ("tumour", 1, 0)]
        seg_nrrd(tmp_path / "d" / f"c{i}.seg.nrrd", mask, named, encoding=("raw", "gzip")[i // 2])
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json")
    assert manifest.class_names == ["background", "liver", "tumour"] and len(every(manifest)) == 4
    for case in every(manifest):
        scan, mask = LoadImage(image_only=True)(case.image), LoadImage(image_only=True)(case.label)
        assert np.allclose(scan.affine, mask.affine) and scan.shape == mask.shape
        assert mask[1, 2, 1] == 1 and mask[3, 4, 2] == 2 and mask.sum() == 3
    assert any("4 segmentations (.seg.nrrd) drawn" in note for note in notes)


def test_overlapping_layers_are_said_aloud(tmp_path):
    for i in range(3):
        image(tmp_path / "d" / "images" / f"c{i}.nii.gz", i)
        layers = np.zeros((2, 4, 5, 3))
        layers[0, 1:3] = 1
        layers[1, 2, 2] = 1
        seg_nrrd(tmp_path / "d" / "labels" / f"c{i}.seg.nrrd", layers, [("organ", 1, 0), ("tumour", 1, 1)])
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json")
    mask = np.asarray(LoadImage(image_only=True)(manifest.training[0].label))
    expected = np.zeros((4, 5, 3))
    expected[1:3] = 1
    expected[2, 2] = 2
    assert np.array_equal(mask, expected)
    (note,) = [note for note in notes if "structures overlap" in note]
    assert "in the order organ, tumour (by size), later ones on top; lost: organ 10.0%, tumour 0.0%" in note
    layers[0], layers[1] = layers[1].copy(), layers[0].copy()  # the alphabet does not decide
    for i in range(3):
        segments = [("tumour", 1, 0), ("an organ", 1, 1)]
        seg_nrrd(tmp_path / "d" / "labels" / f"c{i}.seg.nrrd", layers, segments)
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json")
    assert manifest.class_names == ["background", "an organ", "tumour"]
    assert np.array_equal(np.asarray(LoadImage(image_only=True)(manifest.training[0].label)), expected)
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", labels={"tum*": "lesion"})
    assert manifest.class_names == ["background", "lesion"]
    assert np.asarray(LoadImage(image_only=True)(manifest.training[0].label)).sum() == 3


def test_faults(tmp_path):
    image(tmp_path / "d" / "c.nii.gz", 0)
    (tmp_path / "d" / "c.seg.nrrd").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="c.seg.nrrd: is no NRRD file"):
        build_manifest(tmp_path / "d", tmp_path / "m.json")
    seg_nrrd(tmp_path / "d" / "c.seg.nrrd", np.zeros((4, 5, 3)), [])
    with pytest.raises(InputError, match="names no segment"):
        build_manifest(tmp_path / "d", tmp_path / "m.json")
    seg_nrrd(tmp_path / "d" / "c.seg.nrrd", np.zeros((4, 5, 3)), [("a", 1, 0)])
    whole = (tmp_path / "d" / "c.seg.nrrd").read_bytes()
    (tmp_path / "d" / "c.seg.nrrd").write_bytes(whole[:-20])
    with pytest.raises(InputError, match="c.seg.nrrd: cannot be read as a segmentation"):
        build_manifest(tmp_path / "d", tmp_path / "m.json")


def test_layers_agree_with_itk_where_it_can_read_them(tmp_path):
    values = np.random.default_rng(0).integers(0, 5, (4, 5, 3))
    seg_nrrd(tmp_path / "x.nrrd", values, [("a", 1, 0)], encoding="gzip")
    layers, affine = read_layers(tmp_path / "x.nrrd")
    by_itk = itk.imread(str(tmp_path / "x.nrrd"))
    assert np.array_equal(layers[..., 0], itk.array_from_image(by_itk).T) and np.array_equal(layers[..., 0], values)
    assert np.allclose(affine, AFFINE) and np.allclose(np.asarray(by_itk.GetSpacing()), [0.5, 0.7, 2])


def test_names_keep_their_letters_and_no_more_is_unpacked_than_declared(tmp_path):
    values = np.random.default_rng(0).integers(0, 5, (4, 5, 3))
    seg_nrrd(tmp_path / "x.nrrd", values, [("Körper", 1, 0)], encoding="gzip")
    assert segments(tmp_path / "x.nrrd") == [("Körper", 1, 0)]
    whole = (tmp_path / "x.nrrd").read_bytes()
    head = whole[: whole.index(b"\n\n") + 2]
    (tmp_path / "x.nrrd").write_bytes(head + gzip.compress(values.astype(np.uint8).tobytes("F") + bytes(20_000_000)))
    tracemalloc.start()
    layers, _ = read_layers(tmp_path / "x.nrrd")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(layers[..., 0], values) and peak < 2_000_000
    (tmp_path / "x.nrrd").write_bytes(head.replace(b"sizes: 4 5 3", b"sizes: 4 5 0") + whole[len(head) :])
    with pytest.raises(InputError, match="sizes 4 5 0"):
        read_layers(tmp_path / "x.nrrd")
