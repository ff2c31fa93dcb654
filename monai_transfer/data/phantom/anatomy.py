"""A procedural human head: which tissue lies at a point, given in millimetres. No atlas, no image file.

Every surface is an implicit function of warped coordinates, so one patient can be sampled on the grid of any scanner.
The head is a warped ellipsoid of scalp, fat, skull and cerebrospinal fluid; the cortex is folded along a gyroid (a
smooth labyrinth with grooves of even depth); lateral and third ventricles, deep grey matter and lesions vary in size,
place and number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["FAT", "GREY", "LESION", "TISSUES", "VENTRICLE", "WHITE", "Anatomy", "Lesion"]

TISSUES = ("air", "muscle", "fat", "skull", "csf", "grey", "white", "ventricle", "lesion")
AIR, MUSCLE, FAT, SKULL, CSF, GREY, WHITE, VENTRICLE, LESION = range(len(TISSUES))

LESION_COUNTS = {0: 0.15, 1: 0.2, 2: 0.25, 3: 0.2, 4: 0.2}  # share of the patients
FOLD_MM = 40.0  # period of the cortical folds
SULCUS_MM = 10.0  # depth that the grooves reach below the skull
CORTEX_MM = 4.0


@dataclass(frozen=True)
class Lesion:
    """One lesion of a simulated head.

    Args:
        centre: mm, head coordinates, (3,).
        radii: semi-axes, mm, (3,).
        rugged: how rugged the border is, as a share of the radius.
        phase: of the ruggedness.

    >>> Lesion(np.zeros(3), np.array([6.0, 5.0, 4.0]), rugged=0.1, phase=0.0).radii.max()  # mm
    np.float64(6.0)
    """

    centre: np.ndarray
    radii: np.ndarray
    rugged: float
    phase: float


class Anatomy:
    """The head of one patient, drawn from a seed; equal seeds give equal heads.

    Args:
        seed: anything that ``numpy.random.default_rng`` takes, for example ``[site, patient]``.
        lesions: number of lesions; None draws it (none in 15 % of the patients).

    >>> Anatomy(7, lesions=2).lesions[0].centre.tolist() == Anatomy(7, lesions=2).lesions[0].centre.tolist()
    True
    >>> middle = np.zeros(1)
    >>> TISSUES[int(Anatomy(7).tissues(middle, middle, np.array([300.0]))[0, 0, 0])]  # 30 cm above the head
    'air'
    """

    def __init__(self, seed: int | list[int], *, lesions: int | None = None) -> None:
        rng = np.random.default_rng(seed)
        self.axes = np.array([69.0, 84.0, 67.0]) * rng.normal(1.0, 0.03, 3).clip(0.93, 1.07)  # semi-axes in mm
        self.offset = rng.uniform(-3.0, 3.0, 3)  # the patient never lies quite in the centre, nor quite straight
        self.rotation = _rotation(np.deg2rad(rng.normal(0.0, 4.0, 3).clip(-8, 8)))
        self.warp = rng.normal(0.0, 1.6, (3, 4, 4, 4))  # cosine coefficients of the displacement, mm
        self.fold_phase = rng.uniform(0.0, 2 * np.pi, 3)
        self.layers = np.array([2.5, 6.0, 12.0]) * rng.normal(1.0, 0.08, 3).clip(
            0.85, 1.15
        )  # depths of the inner borders
        self.csf = rng.uniform(1.5, 3.5)
        self.ventricle = np.clip(np.exp(rng.normal(0.0, 0.2)), 0.68, 1.5)  # scale of the cross-section: atrophy, age
        self.asymmetry = rng.normal(1.0, 0.07, 2).clip(0.85, 1.15)
        self.deep = rng.normal(1.0, 0.08)
        wanted = lesions if lesions is not None else rng.choice(list(LESION_COUNTS), p=list(LESION_COUNTS.values()))
        self.lesions = [self._draw_lesion(rng) for _ in range(int(wanted))]

    def tissues(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Tissue index (into ``TISSUES``) on the grid spanned by three axes of coordinates.

        Args:
            x, y, z: 1D coordinates in mm, to the Right, Anterior and Superior, zero in the middle of the field of view.

        Returns:
            ``uint8`` array of shape (len(x), len(y), len(z)).
        """
        px, py, pz = self._head_coordinates(x, y, z)
        radius = np.sqrt(px**2 + py**2 + pz**2) + 1e-3
        a, b, c = self.axes.astype(np.float32)
        depth = radius / np.sqrt((px / a) ** 2 + (py / b) ** 2 + (pz / c) ** 2 + 1e-6) - radius  # mm below the skin

        tissue = np.full(depth.shape, WHITE, np.uint8)
        below_skull = depth - np.float32(self.layers[2])
        to_csf = np.minimum(below_skull - np.float32(self.csf), self._folds(px, py, pz, below_skull))
        tissue[to_csf < CORTEX_MM] = GREY
        tissue[self._deep_grey(px, py, pz) < 1] = GREY
        tissue[to_csf < 0] = CSF
        ventricles = self._ventricles(px, py, pz)
        for lesion in self.lesions:
            inside = _lesion_level(lesion, px, py, pz) < 1
            tissue[inside & (to_csf >= 0) & (ventricles > 4)] = LESION  # fills no groove, breaks into no ventricle
        tissue[ventricles < 1] = VENTRICLE
        for index, inner in zip((SKULL, FAT, MUSCLE), self.layers[::-1], strict=True):
            tissue[depth < inner] = index
        tissue[depth < 0] = AIR
        return tissue

    def _head_coordinates(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, ...]:
        """Scanner to head coordinates: shift, turn, then a smooth warp of low cosine waves."""
        axes = [np.asarray(axis, np.float64) for axis in (x, y, z)]
        waves = [np.cos(np.pi * np.outer(axis / 200.0 + 0.5, np.arange(4))) for axis in axes]
        decay = 1.0 / (1.0 + sum(np.meshgrid(*[np.arange(4) ** 2] * 3, indexing="ij")))
        moved = [axis - offset for axis, offset in zip(axes, self.offset, strict=True)]
        result = []
        for row, coefficients in zip(self.rotation, self.warp, strict=True):
            bend = np.einsum("abc,kc->abk", coefficients * decay * 2.0, waves[2])
            bend = np.einsum("abk,jb->ajk", bend, waves[1])
            bend = np.tensordot(waves[0].astype(np.float32), bend.astype(np.float32), axes=1)
            straight = row[0] * moved[0][:, None, None] + row[1] * moved[1][:, None] + row[2] * moved[2]
            result.append(straight.astype(np.float32) + bend)
        return tuple(result)

    def _folds(self, px: np.ndarray, py: np.ndarray, pz: np.ndarray, below_skull: np.ndarray) -> np.ndarray:
        """Distance (mm, about) to the nearest groove: sheets of a gyroid near the skull, the fissure in the middle."""
        k = np.float32(2 * np.pi / FOLD_MM)
        u, v, w = (k * p + np.float32(phase) for p, phase in zip((px, py, pz), self.fold_phase, strict=True))
        gyroid = np.sin(u) * np.cos(v) + np.sin(v) * np.cos(w) + np.sin(w) * np.cos(u)
        sulcus = np.maximum(np.abs(gyroid) / (k * np.float32(1.2)) - 0.7, below_skull - SULCUS_MM)
        fissure = np.maximum(np.abs(px) - 1.0, below_skull - 20.0)
        return np.minimum(sulcus, fissure)

    def _deep_grey(self, px: np.ndarray, py: np.ndarray, pz: np.ndarray) -> np.ndarray:
        side = np.abs(px) - np.float32(22.0 * self.deep)
        return (side / 7.0) ** 2 + ((py - 4.0) / 15.0) ** 2 + ((pz + 2.0) / 10.0) ** 2

    def _ventricles(self, px: np.ndarray, py: np.ndarray, pz: np.ndarray) -> np.ndarray:
        """Level of the ventricles (< 1 inside): two bent, diverging tubes and the slit below them."""
        s = self.ventricle
        bend_x = 11.0 * np.sqrt(s) + 0.005 * py**2
        bend_z = pz - 9.0 + 0.006 * (py + 4.0) ** 2
        lengthwise = ((py + 4.0) / (29.0 * s**0.3)) ** 2 + (bend_z / (11.0 * s)) ** 2
        left, right = ((9.0 * s * size) for size in self.asymmetry)
        lateral = np.minimum(((px + bend_x) / left) ** 2, ((px - bend_x) / right) ** 2) + lengthwise
        third = (px / (2.8 * s)) ** 2 + ((py + 2.0) / 11.0) ** 2 + ((pz + 6.0) / 9.0) ** 2
        return np.minimum(lateral, third)

    def _draw_lesion(self, rng: np.random.Generator) -> Lesion:
        """A lesion somewhere in the brain, clear of the ventricles."""
        inner = self.axes - self.layers[2]
        while True:
            direction = rng.normal(size=3)
            centre = direction / np.linalg.norm(direction) * rng.uniform(0.3, 0.65) * inner
            radii = np.clip(np.exp(rng.normal(2.6, 0.2)), 9.5, 18.0) * rng.uniform(0.85, 1.15, 3)
            if self._ventricles(*(np.array([v]) for v in centre))[0] > (1.0 + (radii.max() + 4.0) / 10.0) ** 2:
                return Lesion(centre, radii, rng.uniform(0.03, 0.15), rng.uniform(0, 2 * np.pi))


def _lesion_level(lesion: Lesion, px: np.ndarray, py: np.ndarray, pz: np.ndarray) -> np.ndarray:
    dx, dy, dz = (
        (p - np.float32(c)) / np.float32(r) for p, c, r in zip((px, py, pz), lesion.centre, lesion.radii, strict=True)
    )
    level = dx**2 + dy**2 + dz**2
    near = level < 2.5  # waves only where they can matter
    if near.any():
        waves = np.sin(3 * dx[near] + lesion.phase) + np.sin(4 * dy[near] - lesion.phase) + np.sin(3.5 * dz[near])
        level[near] *= 1.0 + np.float32(lesion.rugged) * waves
    return level


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation matrix from three angles (radians) about x, y and z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
