"""The simulated hospitals and the act of scanning: one patient, one site, one image with its truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .anatomy import FAT, GREY, LESION, VENTRICLE, WHITE, Anatomy
from .physics import Protocol, coil_shading, draw_relaxation, kspace_crop, rician, signal

__all__ = ["SITES", "Scan", "Site", "scan_patient"]

FINE = 2  # the anatomy is sampled this many times finer than the scan, per axis


@dataclass(frozen=True)
class Site:
    """One scanner and its habits.

    Attributes:
        name: the domain's name in the manifest.
        number: enters every seed of this site.
        protocol: pulse sequence and its settings.
        spacing: voxel size in mm, along Right-Left, Anterior-Posterior, Superior-Inferior.
        size: voxels along the same three directions (even numbers).
        axes: the array's axes as nibabel names them: ("L", "P", "S") means that index 0 grows to the patient's Left.
        shading: strength of the coil's uneven sensitivity (0 to 1).
        noise: standard deviation of the noise as a share of the mean signal of the brain.
        gain: mean intensity of the brain after the scanner's scaling.

    >>> first, second = SITES["site_a"], SITES["site_b"]  # other times of the pulse sequence, other voxels
    >>> first.protocol != second.protocol, first.spacing != second.spacing
    (True, True)
    """

    name: str
    number: int
    protocol: Protocol
    spacing: tuple[float, float, float]
    size: tuple[int, int, int]
    axes: tuple[str, str, str]
    shading: float
    noise: float
    gain: float


SITES: dict[str, Site] = {
    site.name: site
    for site in (
        Site(
            name="site_a",
            number=1,
            protocol=Protocol("spoiled_gradient_echo", tr=22.0, te=4.0, flip=28.0),
            spacing=(4.0, 4.0, 4.0),
            size=(44, 48, 40),
            axes=("R", "A", "S"),
            shading=0.3,
            noise=0.025,
            gain=900.0,
        ),
        Site(
            name="site_b",
            number=2,
            protocol=Protocol("spoiled_gradient_echo", tr=30.0, te=8.0, flip=12.0, fat_saturation=0.9),
            spacing=(3.5, 3.5, 5.0),
            size=(50, 54, 32),
            axes=("P", "L", "I"),
            shading=0.9,
            noise=0.03,
            gain=210.0,
        ),
    )
}


@dataclass
class Scan:
    """What a scan leaves behind.

    Attributes:
        image: int16 magnitude image in the site's own axes.
        label: uint8 in the same grid: 0 background, 1 ventricle, 2 lesion.
        affine: 4 x 4, voxel index to millimetres in RAS (nibabel's convention).
        ventricle_ml: true volume of the ventricles in millilitres, from the finely sampled anatomy.
        lesion_mm2: true lesion area in mm2 of every axial slice, from inferior to superior.

    >>> scan = scan_patient(SITES["site_a"], 1)
    >>> scan.image.dtype, scan.label.shape == scan.image.shape, 5 < scan.ventricle_ml < 80  # of an adult, in ml
    (dtype('int16'), True, True)
    """

    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray
    ventricle_ml: float
    lesion_mm2: np.ndarray


def scan_patient(site: Site, patient: int, *, seed: int = 0, lesions: int | None = None) -> Scan:
    """Scan patient number ``patient`` at ``site``; bitwise repeatable for equal arguments.

    The head depends on (seed, site, patient), so sites have different patients, as hospitals do.

    Args:
        site: the scanner.
        patient: their number.
        seed: of all patients.
        lesions: how many; None draws it.

    >>> one, again = (scan_patient(SITES["site_b"], 3, lesions=2) for _ in range(2))
    >>> np.array_equal(one.image, again.image), sorted(np.unique(one.label).tolist())
    (True, [0, 1, 2])
    """
    anatomy = Anatomy([seed, site.number, patient], lesions=lesions)
    rng = np.random.default_rng([seed, site.number, patient, 1])

    fine = [_centres(n * FINE, mm / FINE) for n, mm in zip(site.size, site.spacing, strict=True)]
    coarse = [_centres(n, mm) for n, mm in zip(site.size, site.spacing, strict=True)]
    tissues = anatomy.tissues(*fine)

    contrast = signal(site.protocol, *draw_relaxation(rng).T)
    contrast[FAT] *= 1 - site.protocol.fat_saturation
    texture = 1.0 + 0.03 * rng.standard_normal(tissues.shape, np.float32)  # below the resolution: tissue is no plastic
    object_signal = contrast.astype(np.float32)[tissues] * texture
    acquired = kspace_crop(object_signal, FINE) * coil_shading(rng, site.shading, coarse[0], coarse[1], coarse[2])

    brain = contrast[[GREY, WHITE]].mean()
    image = rician(rng, acquired, site.noise * brain) * site.gain / brain * np.exp(rng.normal(0.0, 0.08))
    image = np.clip(np.rint(image), 0, np.iinfo(np.int16).max).astype(np.int16)

    ventricle, lesion = _share(tissues == VENTRICLE), _share(tissues == LESION)
    label = np.where(lesion >= 0.5, 2, np.where(ventricle >= 0.5, 1, 0)).astype(np.uint8)
    x, y, z = site.spacing
    affine = np.diag([*site.spacing, 1.0])
    affine[:3, 3] = [axis[0] for axis in coarse]
    image, _ = _reorient(image, affine, site.axes)
    label, affine = _reorient(label, affine, site.axes)
    return Scan(image, label, affine, float(ventricle.sum() * x * y * z / 1000.0), lesion.sum((0, 1)) * x * y)


def _centres(count: int, spacing: float) -> np.ndarray:
    """Voxel centres in mm, symmetric about 0."""
    return (np.arange(count) - (count - 1) / 2) * spacing


def _share(mask: np.ndarray) -> np.ndarray:
    """Share of every acquired voxel that the mask fills."""
    nx, ny, nz = (n // FINE for n in mask.shape)
    return mask.reshape(nx, FINE, ny, FINE, nz, FINE).mean((1, 3, 5))


def _reorient(volume: np.ndarray, affine: np.ndarray, axes: tuple[str, str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Store an RAS volume along other axes; the affine changes with it, so that no voxel moves in the room."""
    order = ["RLAPSI".index(axis) // 2 for axis in axes]
    volume = volume.transpose(order)
    matrix = affine[:, [*order, 3]]
    for position, axis in enumerate(axes):
        if axis in "LPI":
            matrix[:3, 3] += matrix[:3, position] * (volume.shape[position] - 1)
            matrix[:3, position] *= -1
            volume = np.flip(volume, position)
    return np.ascontiguousarray(volume), matrix
