"""Synthetic cases: two blobs in smooth noise, without MONAI, so that both sides can make them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from scipy import ndimage


def write_case(folder: Path, kind: str, seed: int) -> tuple[list[str], str]:
    """The files of a case's channels, and of its label map."""
    draw = np.random.default_rng([seed, sum(map(ord, kind))])
    if kind == "png":
        shape: tuple[int, ...] = (70, 58)
    elif "thick" in kind:
        shape = (34, 30, 9)
    else:
        shape = (26, 34, 22)
    field = ndimage.gaussian_filter(draw.standard_normal(shape), 2)
    label = np.zeros(shape, np.uint8)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    for value, share in ((1, 0.36), (2, 0.62)):
        centre = [n * share + draw.uniform(-1, 1) for n in shape]
        radius = [n * draw.uniform(0.14, 0.2) + 1 for n in shape]
        distance = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radius, strict=True))
        label[distance < 1] = value
    image = 100 + 200 * field / np.abs(field).max() + 180 * ndimage.gaussian_filter((label == 1) * 1.0, 0.7)
    image += 350 * ndimage.gaussian_filter((label == 2) * 1.0, 0.7)
    stem = f"{kind}{seed}"
    if kind == "png":
        grey = np.clip(image / 3, 0, 255)
        colour = np.stack([grey, np.clip(grey * 0.8 + 20, 0, 255), 255 - grey], -1).astype(np.uint8)
        Image.fromarray(colour.transpose(1, 0, 2)).save(folder / f"{stem}_0000.png")
        Image.fromarray((label.T > 0).astype(np.uint8)).save(folder / f"{stem}_seg.png")
        return [str(folder / f"{stem}_0000.png")], str(folder / f"{stem}_seg.png")
    if kind == "two":  # nothing around, and a hole in it
        image[:3], image[:, :, -2:], label[:3], label[:, :, -2:] = 0, 0, 0, 0
        image[10, 10, 10] = 0
    spacing = (0.9, 1.0, 4.2) if "thick" in kind else (1.0, 0.9, 1.2)
    affine = np.diag([*([-spacing[0], -spacing[1]] if seed % 2 else spacing[:2]), spacing[2], 1.0])
    channels = [image, np.sqrt(np.abs(image)) * 10] if kind == "two" else [image]
    files = []
    for number, channel in enumerate(channels):
        files.append(str(folder / f"{stem}_{number:04d}.nii.gz"))
        nib.save(nib.Nifti1Image(channel.astype(np.float32), affine), files[-1])
    nib.save(nib.Nifti1Image(label, affine), folder / f"{stem}_seg.nii.gz")
    return files, str(folder / f"{stem}_seg.nii.gz")
