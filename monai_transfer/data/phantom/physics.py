"""How a scanner turns tissue into intensities: signal equations, coil shading, k-space resolution, Rician noise.

Tissue values (1.5 T) are those that the BrainWeb simulator publishes (Kwan, Evans, Pike, IEEE TMI 18(11), 1999, and
Collins et al., IEEE TMI 17(3), 1998). The signal equations are the textbook ones (Bernstein, King, Zhou, Handbook of
MRI Pulse Sequences, 2004): spin echo, spoiled gradient echo (Ernst) and inversion recovery. Noise in a magnitude image
is Rician (Gudbjartsson and Patz, MRM 34, 1995).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import fft

from .anatomy import TISSUES

__all__ = ["RELAXATION", "Protocol", "coil_shading", "draw_relaxation", "kspace_crop", "rician", "signal"]

# tissue: proton density (relative), T1, T2, T2* in ms
RELAXATION: dict[str, tuple[float, float, float, float]] = {
    "air": (0.0, 1000.0, 100.0, 50.0),
    "muscle": (1.0, 900.0, 47.0, 30.0),
    "fat": (1.0, 350.0, 70.0, 58.0),
    "skull": (0.03, 500.0, 30.0, 5.0),
    "csf": (1.0, 2569.0, 329.0, 58.0),
    "grey": (0.86, 833.0, 83.0, 69.0),
    "white": (0.77, 500.0, 70.0, 61.0),
    "ventricle": (1.0, 2569.0, 329.0, 58.0),
    "lesion": (0.85, 1400.0, 180.0, 90.0),
}


@dataclass(frozen=True)
class Protocol:
    """A pulse sequence and its settings: what gives an image its contrast.

    Args:
        sequence: the kind of pulse sequence.
        tr: repetition time, ms.
        te: echo time, ms.
        flip: flip angle, degrees; of a gradient echo only.
        ti: inversion time, ms; of an inversion recovery only.
        fat_saturation: share of the fat signal that a spectral pre-pulse takes away.

    Fluid (long T1) is bright under a long repetition time, dark under a short one:

    >>> long, short = Protocol("spin_echo", tr=8000, te=10), Protocol("spin_echo", tr=500, te=10)
    >>> fluid = np.array([4000.0]), np.array([2000.0])
    >>> [round(signal(protocol, np.ones(1), *fluid, np.ones(1)).item(), 2) for protocol in (long, short)]
    [0.86, 0.12]
    """

    sequence: Literal["spin_echo", "spoiled_gradient_echo", "inversion_recovery"]
    tr: float
    te: float
    flip: float = 90.0
    ti: float = 0.0
    fat_saturation: float = 0.0


def signal(protocol: Protocol, pd: np.ndarray, t1: np.ndarray, t2: np.ndarray, t2_star: np.ndarray) -> np.ndarray:
    """Steady-state magnitude of the signal for tissues of the given proton density and relaxation times (ms).

    Args:
        protocol: pulse sequence and settings.
        pd: proton density, any shape.
        t1: ms, of the same shape.
        t2: ms.
        t2_star: ms; of a gradient echo only.

    An echo at T2 leaves 1/e of the signal:

    >>> echo = Protocol("spin_echo", tr=1e9, te=80)
    >>> signal(echo, np.array([1.0]), np.array([900.0]), np.array([80.0]), np.array([40.0])).round(3).tolist()
    [0.368]
    """
    e1 = np.exp(-protocol.tr / t1)
    if protocol.sequence == "spoiled_gradient_echo":
        flip = np.deg2rad(protocol.flip)
        return pd * np.sin(flip) * (1 - e1) / (1 - np.cos(flip) * e1) * np.exp(-protocol.te / t2_star)
    if protocol.sequence == "inversion_recovery":
        return pd * np.abs(1 - 2 * np.exp(-protocol.ti / t1) + e1) * np.exp(-protocol.te / t2)
    return pd * (1 - e1) * np.exp(-protocol.te / t2)


def draw_relaxation(rng: np.random.Generator, spread: float = 0.05) -> np.ndarray:
    """The relaxation table of one patient, (tissue, 4): each value times a log-normal factor of relative ``spread``.

    Args:
        rng: where the draws come from.
        spread: relative standard deviation of the times among patients.

    >>> draw_relaxation(np.random.default_rng(0), spread=0.0).shape == (len(TISSUES), 4)  # PD, T1, T2, T2*
    True
    """
    table = np.array([RELAXATION[name] for name in TISSUES])
    factors = np.exp(rng.normal(0.0, spread, table.shape))
    factors[:, 0] **= 0.4  # proton density varies less than relaxation does
    return table * factors


def kspace_crop(fine: np.ndarray, factor: int = 2) -> np.ndarray:
    """Acquire a finely sampled object at ``factor`` times larger voxels: only the centre of k-space is kept.

    A Hann-like filter calms the ringing at sharp edges, as scanners do. The result is complex; its voxel centres are
    those of blocks of ``factor`` fine voxels per axis. The shape must be divisible by ``2 * factor``.

    Args:
        fine: the object, every axis divisible by 2 * ``factor``.
        factor: fine voxels per acquired one and axis.

    An even object stays as bright as it is, on half as many voxels per axis:

    >>> acquired = np.abs(kspace_crop(np.ones((8, 8))))
    >>> acquired.shape, acquired.round(3).min(), acquired.round(3).max()
    ((4, 4), np.float32(1.0), np.float32(1.0))
    """
    spectrum = fft.fftn(fine.astype(np.complex64))
    for axis, size in enumerate(fine.shape):
        kept = size // factor
        index = np.r_[0 : kept // 2, size - kept // 2 : size]
        frequency = fft.fftfreq(kept)  # cycles per acquired voxel
        shift = np.exp(2j * np.pi * frequency * (factor - 1) / (2 * factor))  # to the middle of the block
        window = 0.7 + 0.3 * np.cos(2 * np.pi * frequency)
        shape = [-1 if other == axis else 1 for other in range(fine.ndim)]
        spectrum = np.take(spectrum, index, axis) * (shift * window).astype(np.complex64).reshape(shape)
    return fft.ifftn(spectrum) / factor**fine.ndim


def coil_shading(
    rng: np.random.Generator, strength: float, x: np.ndarray, y: np.ndarray, z: np.ndarray, elements: int = 6
) -> np.ndarray:
    """Sensitivity of a ring of receive coils (root of the sum of squares), mean 1 over the grid of x, y, z (mm).

    ``strength`` 0 is a perfectly even coil; at 1 the elements sit close and the field falls off steeply.

    Args:
        rng: where the draws come from.
        strength: 0 to 1.
        x: coordinates in mm, 1D.
        y: likewise.
        z: likewise.
        elements: coils in the ring.

    >>> grid = np.linspace(-90, 90, 5)
    >>> shading = coil_shading(np.random.default_rng(0), 1.0, grid, grid, np.zeros(1))
    >>> shading.shape, round(float(shading.mean()), 3), bool(shading.max() > 1.2)  # brighter beside the coils
    ((5, 5, 1), 1.0, True)
    """
    total = np.zeros((len(x), len(y), len(z)))
    start = rng.uniform(0, 2 * np.pi)
    for angle in start + np.arange(elements) * 2 * np.pi / elements:
        gain = np.exp(rng.normal(0.0, 0.5))  # elements are never equally well tuned
        centre = 125.0 * np.array([np.cos(angle), np.sin(angle), rng.uniform(-0.3, 0.3)])
        distance = ((x - centre[0]) ** 2)[:, None, None] + ((y - centre[1]) ** 2)[:, None] + (z - centre[2]) ** 2
        total += gain * (1.0 + distance / 110.0**2) ** -2
    shading = np.sqrt(total)
    return (shading / shading.mean()) ** strength


def rician(rng: np.random.Generator, image: np.ndarray, sigma: float) -> np.ndarray:
    """Magnitude of a complex image with Gaussian noise of standard deviation ``sigma`` in both channels.

    Args:
        rng: where the draws come from.
        image: real or complex, any shape.
        sigma: in the image's unit.

    Where there is no signal, the mean of the noise is sigma * sqrt(pi / 2), not 0:

    >>> round(float(rician(np.random.default_rng(0), np.zeros(100_000), 1.0).mean()), 2)
    1.25
    """
    noise = rng.normal(0.0, sigma, (2, *image.shape))
    return np.abs(image + noise[0] + 1j * noise[1])
