"""A label mask against its image: the same grid, declared whole-number classes, and something under it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from monai_transfer.data.readers import Volume
from monai_transfer.inspection.finding import Finding
from monai_transfer.manifest.label_arrays import NEAR

__all__ = ["canonical", "check_label", "near_whole"]


def check_label(label: Volume, image: Volume, classes: Mapping[int, str]) -> tuple[list[Finding], dict[int, int]]:
    """Faults of one label (their ``file`` is not filled in), and how many voxels each class has.

    Args:
        label: the mask as read, palette images as indices.
        image: the (first) image of the case, as read.
        classes: declared class names by number; empty accepts any whole number.
    """
    faults: list[Finding] = []
    if label.channels > 1:
        fault = f"the label has {label.channels} channels, not one with class numbers"
        return [_error("label-channels", fault, "merge the channels into one mask of class numbers")], {}
    array = label.array[..., 0] if label.channel_last else label.array
    grid = _check_grid(Volume(array, label.affine), image)
    if grid is not None:
        faults.append(grid)
    if "rounded" in label.meta:
        fault = f"the label holds {label.meta['rounded']:g} and the like, read here as whole numbers"
        hint = "other tools may cut them (0.999 to 0): write whole numbers"
        faults.append(_warning("label-fraction", fault, hint, fixable=True))
    values, counts = np.unique(array, return_counts=True)
    faults += _check_values(values, counts, classes)
    foreground = array != 0
    if not foreground.any():
        faults.append(_warning("label-empty", "the label is empty (background alone)", "is that meant?"))
    elif grid is None:
        faults += _check_cover(foreground, image)
        gap = _skipped_slice(foreground)
        if gap is not None:
            faults.append(
                _warning(
                    "label-gap",
                    f"slice {gap[1]} of axis {gap[0]} has no label, but both its neighbours have nearly the same one",
                    "was it forgotten?",
                )
            )
    whole = {int(v): int(n) for v, n in zip(values, counts, strict=True) if np.isfinite(v) and v == np.round(v)}
    return faults, whole


def near_whole(values: np.ndarray) -> bool:
    """Whether all values are whole numbers but for rounding, so that rounding them loses nothing."""
    return bool(np.all(np.abs(values - np.round(values)) <= NEAR))


def _check_grid(label: Volume, image: Volume) -> Finding | None:
    """The same voxels at the same places; for volumes a different order of the axes is only worth a warning."""
    if label.affine is None or image.affine is None:
        if label.spatial_shape == image.spatial_shape:
            return None
        fault = f"label of {_size(label)} for an image of {_size(image)}"
        return _error("label-grid", fault, "find the label that belongs to this image")
    turned = False
    if label.spatial_shape != image.spatial_shape or _distance(label, image) > 0.1:
        turned = True
        label, image = canonical(label), canonical(image)
    if label.spatial_shape != image.spatial_shape:
        fault = f"label of {_size(label)} voxels for an image of {_size(image)} (axes turned to RAS)"
        return _error("label-grid", fault, "resample the label onto the image, or find the one that belongs to it")
    distance = _distance(label, image)
    if distance > 0.1:  # of a voxel
        millimetres = _corner_distance(label, image)
        fault = f"label is not where the image is: up to {millimetres:.3g} mm ({distance:.3g} voxels) away"
        return _error("label-grid", fault, "resample the label onto the image, or correct the wrong affine")
    if turned:
        fault = "label and image store the same grid in a different order of axes"
        return _warning("label-axes", fault, "orient both when loading (Orientationd), or rewrite the label")
    return None


def _distance(label: Volume, image: Volume) -> float:
    """The greatest distance of the corners, in voxels of the image."""
    assert image.affine is not None
    return _corner_distance(label, image) / float(np.linalg.norm(image.affine[:3, :3], axis=0).min())


def _corner_distance(label: Volume, image: Volume) -> float:
    assert label.affine is not None and image.affine is not None
    shape = (*label.spatial_shape, 1, 1)[:3]
    corners = np.array([[*c, 1] for c in itertools.product(*((0, s - 1) for s in shape))], dtype=float).T
    return float(np.linalg.norm(((label.affine - image.affine) @ corners)[:3], axis=0).max())


def canonical(volume: Volume) -> Volume:
    """The same volume with its axes turned so that they run as near to RAS as whole turns allow."""
    assert volume.affine is not None
    if len(volume.spatial_shape) != 3:
        return volume
    orientation = io_orientation(volume.affine)
    array = apply_orientation(volume.array, orientation)
    affine = volume.affine @ inv_ornt_aff(orientation, volume.spatial_shape)
    return Volume(array, affine, volume.channel_last)


def _check_values(values: np.ndarray, counts: np.ndarray, classes: Mapping[int, str]) -> list[Finding]:
    faults = []
    fractional = values[values != np.round(values)]
    if fractional.size:
        shown = ", ".join(f"{v:g}" for v in fractional[:3]) + (", ..." if fractional.size > 3 else "")
        fixable = near_whole(values)
        hint = "round it" if fixable else "make it again without interpolation (nearest neighbour)"
        faults.append(_error("label-fraction", f"the label holds {shown}, no class numbers", hint, fixable=fixable))
    whole = values[values == np.round(values)]
    if whole.size and np.abs(whole.astype(float)).max() >= 2**24:
        fault = f"the label holds {whole.max():.0f}, which float32 rounds (above 2^24)"
        return [*faults, _error("label-overflow", fault, "number the classes from 0")]
    unknown = [int(v) for v in whole if classes and int(v) not in classes]
    if not unknown:
        return faults
    binary = set(classes) == {0, 1} and len(unknown) == 1 and set(map(int, whole)) <= {0, unknown[0]}
    if binary and unknown[0] in (255, 65535):  # "white" of a picture; any other number may be another class
        fault = f"the label holds {unknown[0]} where 1 ({classes[1]}) is declared"
        faults.append(_error("label-scale", fault, f"write 1 for {unknown[0]}", fixable=True))
    else:
        shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        declared = ", ".join(f"{k}={v}" for k, v in sorted(classes.items())[:10])
        share = counts[np.isin(values, unknown)].sum() / counts.sum()
        fault = f"the label holds {shown} ({share:.2%} of the voxels), which the manifest does not declare"
        faults.append(_error("label-unknown", fault, f"declare it in labels (now {declared}) or correct the mask"))
    return faults


def _check_cover(foreground: np.ndarray, image: Volume) -> list[Finding]:
    """A label that lies wholly on the image's emptiest value marks nothing that the image shows."""
    array = image.array.reshape(*image.spatial_shape, -1)[..., 0]
    low = array.min()
    if low == array.max() or (array[foreground] != low).any() or not (array[~foreground] != low).any():
        return []
    fault = f"the label covers nothing of the image: it holds {low:g} (its minimum) under every labelled voxel"
    return [_error("label-cover", fault, "find the label that belongs to this image")]


def _skipped_slice(foreground: np.ndarray) -> tuple[int, int] | None:
    """Axis and index of an empty slice between two with nearly the same mask (Dice above 0.8), if there is one."""
    if foreground.ndim != 3:
        return None
    for axis in range(3):
        slices = np.moveaxis(foreground, axis, 0)
        sizes = slices.sum((1, 2))
        for n in np.flatnonzero(sizes == 0):
            if 0 < n < len(sizes) - 1 and min(sizes[n - 1], sizes[n + 1]) >= 10:
                both = int((slices[n - 1] & slices[n + 1]).sum())
                if 2 * both > 0.8 * (sizes[n - 1] + sizes[n + 1]):
                    return axis, int(n)
    return None


def _size(volume: Volume) -> str:
    return " x ".join(map(str, volume.spatial_shape))


def _error(code: str, fault: str, hint: str, fixable: bool = False) -> Finding:
    return Finding("error", fault, code, hint=hint, fixable=fixable)


def _warning(code: str, fault: str, hint: str, fixable: bool = False) -> Finding:
    return Finding("warning", fault, code, hint=hint, fixable=fixable)
