"""Safe fixes: a corrected copy that the check then finds sound; originals untouched; what is not safe is left alone."""

from __future__ import annotations

import gzip
import hashlib

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_transfer.inspection import check_manifest, fix_manifest
from monai_transfer.inspection.check import inspect_manifest
from monai_transfer.inspection.fixes import fix_label, fix_picture, fixable_volume
from monai_transfer.manifest.checksums import sha256_image


def edit_header(path, edit):
    """Change a .nii.gz's header bytes, which nibabel would set right on writing."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    header = nib.Nifti1Header(bytes(content[:348]))
    edit(header)
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content)))


def in_metres(header):
    header["pixdim"][1:4] /= 1000
    for field in ("srow_x", "srow_y", "srow_z", "qoffset_x", "qoffset_y", "qoffset_z"):
        header[field] = header[field] / 1000
    header["xyzt_units"] = 1


def flat_sform(header):
    header["srow_x"] = 0


def digest(folder):
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_mended_set_is_sound_and_originals_are_untouched(data, tmp_path):
    masks = [data.mask(n) for n in range(4)]
    true_affine = nib.load(data.image(4)).affine
    data.write(data.label(0), masks[0].astype(np.float32) * 0.999)
    data.write(data.label(1), masks[1] * 255)
    edit_header(data.image(4), flat_sform)
    edit_header(data.image(5), in_metres)
    data.hash()
    manifest = data.manifest()
    before = digest(data.folder)
    findings = check_manifest(manifest)
    assert len(findings) == 4 and all(f.fixable for f in findings), findings
    assert [f.severity for f in findings] == ["error"] * 3 + ["warning"]  # the reader rounds what is nearly whole
    fixed, written = fix_manifest(manifest, inspect_manifest(manifest), tmp_path / "fixed")
    assert digest(data.folder) == before
    assert len(written) == 4 and check_manifest(fixed) == []
    cases = {case.case: case for case in fixed.training}
    for n in (0, 1):
        np.testing.assert_array_equal(np.asarray(nib.load(cases[f"c0{n}"].label).dataobj), masks[n])
    for n in (4, 5):
        image = nib.load(cases[f"c0{n}"].image)
        np.testing.assert_allclose(image.affine, true_affine, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(nib.load(data.image(n)).dataobj))
    assert cases["c02"].image == str(data.image(2))  # sound files stay where they are
    assert cases["c04"].sha256 == sha256_image(cases["c04"].image)
    assert cases["c00"].sha256_label == sha256_image(cases["c00"].label)


def mirror(header):
    affine = header.get_sform()
    affine[0] *= -1
    header.set_sform(affine, 1)


@pytest.mark.parametrize("edit", [mirror, lambda h: h.set_sform(None, 0) or h.set_qform(None, 0)])
def test_what_only_people_can_know_is_not_mended(data, edit):
    edit_header(data.image(2), edit)
    assert not fixable_volume(data.image(2))
    (finding,) = check_manifest(data.manifest())
    assert finding.code == "unreadable" and not finding.fixable


def nudged(millimetres, degrees=0.0):
    def edit(header):
        turn = np.radians(degrees)
        rotation = np.eye(4)
        rotation[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        affine = rotation @ header.get_sform()
        affine[0, 3] += millimetres
        header.set_sform(affine, 1)

    return edit


@pytest.mark.parametrize(("millimetres", "degrees", "code"), [(0.05, 0, None), (0.3, 0, "w"), (0.1, 0.7, "w")])
def test_forms_that_differ_by_a_fraction_are_a_warning_and_become_one(data, tmp_path, millimetres, degrees, code):
    for path in (data.image(3), data.label(3)):
        edit_header(path, nudged(millimetres, degrees))
    data.hash()
    manifest = data.manifest()
    findings = check_manifest(manifest)
    if code is None:
        assert findings == []
        return
    assert [(f.code, f.severity, f.fixable) for f in findings] == [("qform-sform", "warning", True)] * 2
    assert "voxels apart at the far corner; the sform is used" in findings[0].fault
    sform = nib.load(data.label(3)).get_sform()
    fixed, written = fix_manifest(manifest, inspect_manifest(manifest), tmp_path / "fixed")
    assert len(written) == 2 and check_manifest(fixed) == []
    case = next(case for case in fixed.training if case.case == "c03")
    for path, original in ((case.image, data.image(3)), (case.label, data.label(3))):
        made = nib.load(path)
        np.testing.assert_allclose(made.get_qform(), sform, atol=1e-3)
        np.testing.assert_allclose(made.get_sform(), sform, atol=1e-6)
        np.testing.assert_array_equal(np.asarray(made.dataobj), np.asarray(nib.load(original).dataobj))


@pytest.mark.parametrize(("millimetres", "degrees"), [(0.7, 0), (0, 1.5), (0.3, 2)])
def test_forms_that_differ_by_more_are_refused(data, millimetres, degrees):
    edit_header(data.image(3), nudged(millimetres, degrees))
    (finding,) = check_manifest(data.manifest())
    assert finding.code == "unreadable" and "qform and sform disagree" in finding.fault and not finding.fixable


def test_nothing_is_mended_that_does_not_match_its_checksum(data, tmp_path):
    data.hash()
    data.write(data.label(0), data.mask(0) * 255)
    manifest = data.manifest()
    _, written = fix_manifest(manifest, inspect_manifest(manifest), tmp_path / "fixed")
    assert written == []


def test_pictures(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (9, 13), dtype=np.uint8)
    rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    fixed = fix_picture(tmp_path / "rgba.png", tmp_path / "out" / "a")
    assert Image.open(fixed).mode == "L"
    np.testing.assert_array_equal(np.asarray(Image.open(fixed)), grey)
    colour = rng.integers(0, 256, (9, 13, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colour).save(tmp_path / "turned.png", exif=exif)
    turned = Image.open(fix_picture(tmp_path / "turned.png", tmp_path / "out" / "b"))
    np.testing.assert_array_equal(np.asarray(turned), np.rot90(colour, -1))
    indices = rng.integers(0, 3, (9, 13), dtype=np.uint8)
    palette = Image.fromarray(indices).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "mask.png")
    mask = Image.open(fix_label(tmp_path / "mask.png", tmp_path / "out" / "c", ["label-picture"]))
    assert mask.mode == "L"
    np.testing.assert_array_equal(np.asarray(mask), indices)
