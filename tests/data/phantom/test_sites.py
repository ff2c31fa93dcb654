"""Scanning: repeatable, in the site's own grid, with a label that lies on the image."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_fill_holes, distance_transform_edt

from monai_transfer.data.phantom import SITES, Scan, scan_patient


@pytest.fixture(scope="module")
def scans() -> dict[str, list[Scan]]:
    return {name: [scan_patient(site, patient) for patient in (1, 2, 3)] for name, site in SITES.items()}


@pytest.mark.parametrize("name", list(SITES))
def test_a_scan_is_bitwise_repeatable(scans, name):
    again = scan_patient(SITES[name], 2)
    first = scans[name][1]
    assert first.image.tobytes() == again.image.tobytes()
    assert first.label.tobytes() == again.label.tobytes()
    assert first.ventricle_ml == again.ventricle_ml
    other = scan_patient(SITES[name], 2, seed=1)
    assert other.image.tobytes() != first.image.tobytes()


@pytest.mark.parametrize("name", list(SITES))
def test_grid_is_the_sites(scans, name):
    site, scan = SITES[name], scans[name][0]
    assert nib.aff2axcodes(scan.affine) == site.axes
    canonical = nib.as_closest_canonical(nib.Nifti1Image(scan.image, scan.affine))
    assert canonical.header.get_zooms() == pytest.approx(site.spacing)
    assert canonical.shape == site.size
    centre = canonical.affine @ [*((np.array(site.size) - 1) / 2), 1]
    assert centre[:3] == pytest.approx([0, 0, 0], abs=1e-6)
    assert scan.image.dtype == np.int16
    assert scan.label.dtype == np.uint8
    assert scan.label.shape == scan.image.shape


def test_sites_differ_in_spacing_orientation_sequence_and_scale(scans):
    a, b = SITES["site_a"], SITES["site_b"]
    assert a.spacing != b.spacing
    assert a.axes != b.axes
    assert a.protocol != b.protocol
    means = [np.mean([scan.image.mean() for scan in scans[name]]) for name in ("site_a", "site_b")]
    assert means[0] > 2 * means[1]


def test_labels_lie_on_what_they_name(scans):
    """Ventricles and lesions are darker than the tissue around them (both sequences are T1-weighted)."""
    for name in SITES:
        for scan in scans[name]:
            for value in set(np.unique(scan.label)) - {0}:
                inside = scan.label == value
                around = binary_dilation(inside, iterations=3) & ~binary_dilation(scan.label > 0)
                assert scan.image[inside].mean() < 0.97 * scan.image[around].mean()


def test_fat_saturation_darkens_the_scalp_and_nothing_else(scans):
    site = SITES["site_b"]
    saturated = scans["site_b"][0]
    plain = scan_patient(replace(site, protocol=replace(site.protocol, fat_saturation=0.0)), 1)
    lost = plain.image.astype(float) - saturated.image
    head = binary_fill_holes(plain.image > 0.25 * np.percentile(plain.image, 95))
    depth = distance_transform_edt(head, sampling=nib.affines.voxel_sizes(plain.affine))
    brain = plain.image[depth > 25].mean()
    assert lost.max() > 0.5 * brain
    assert np.abs(lost[depth > 25]).mean() < 0.01 * brain


def test_known_quantities_agree_with_the_label(scans):
    for name, site in SITES.items():
        for scan in scans[name]:
            voxel_ml = np.prod(site.spacing) / 1000
            assert (scan.label == 1).sum() * voxel_ml == pytest.approx(scan.ventricle_ml, rel=0.2)
            assert len(scan.lesion_mm2) == site.size[2]
            axial = nib.as_closest_canonical(nib.Nifti1Image(scan.label, scan.affine)).get_fdata() == 2
            drawn = axial.sum((0, 1)) * site.spacing[0] * site.spacing[1]
            assert np.abs(drawn - scan.lesion_mm2).mean() < 0.15 * scan.lesion_mm2.mean() + 5


def test_lesions_can_be_asked_for():
    assert not (scan_patient(SITES["site_a"], 5, lesions=0).label == 2).any()
    assert (scan_patient(SITES["site_a"], 5, lesions=4).label == 2).sum() > 20
