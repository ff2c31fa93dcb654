"""Pictures of single cases: the scan in grey (a photograph in colour), the truth's and the prediction's contours.

3D scans are shown as a radiologist expects them: axial, coronal and sagittal plane, the patient's right on the left.
Drawn with Pillow: about 10 ms each. The two colours stay apart for colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from monai_transfer.files import atomic_path

__all__ = ["PREDICTION_COLOUR", "TRUTH_COLOUR", "draw_case", "draw_segmentation"]

TRUTH_COLOUR = (0, 190, 255)
PREDICTION_COLOUR = (255, 140, 0)
_PIXELS = 280  # of the longest side of a plane
_STRIP = 22


def draw_segmentation(
    path: str | Path,
    image: np.ndarray | Sequence[np.ndarray] | None,
    truth: np.ndarray,
    prediction: np.ndarray,
    affine: np.ndarray,
) -> None:
    """Write a PNG of the planes through the largest cross-sections of the foreground.

    Args:
        path: the PNG to write.
        image: intensities (H, W) or (H, W, D), or three of them: red, green, blue; None draws the contours on black.
        truth: label map of the same shape; 0 is background.
        prediction: the same.
        affine: voxel to world (RAS, mm), as in a ``MetaTensor``; identity for plain pictures.

    >>> import tempfile
    >>> from PIL import Image
    >>> truth = np.zeros((32, 32, 8), np.uint8)
    >>> truth[8:16, 8:16, 2:6] = 1
    >>> path = Path(tempfile.mkdtemp()) / "case.png"
    >>> draw_segmentation(path, truth * 100.0, truth, np.roll(truth, 2, axis=0), np.diag([1, 1, 4, 1.0]))
    >>> Image.open(path).format
    'PNG'
    """
    channels = _channels(np.zeros(truth.shape, dtype=np.float32) if image is None else image)
    seen = truth if np.any(truth) else prediction
    panels = []
    for *background, true, predicted, size, marks in _planes([*channels, truth, prediction], affine, seen):
        picture = _picture(background, size)
        true, predicted = (_enlarge(mask, size) for mask in (true, predicted))
        picture[_thicken(_contour(true))] = TRUTH_COLOUR  # broad below, narrow above: both show where they agree
        picture[_thicken(_contour(predicted), 2)] = PREDICTION_COLOUR
        panels.append(_mark(picture, marks))
    _save(path, panels, [("truth", TRUTH_COLOUR), ("prediction", PREDICTION_COLOUR)])


def draw_case(path: str | Path, image: np.ndarray | Sequence[np.ndarray], affine: np.ndarray, text: str) -> None:
    """Write a PNG of the image's middle planes, with ``text`` below; arguments as in :func:`draw_segmentation`.

    Args:
        path: of the PNG.
        image: (spatial), or one per channel.
        affine: 4 x 4, voxel index to RAS millimetres.
        text: one line.

    >>> import tempfile
    >>> from PIL import Image
    >>> path = Path(tempfile.mkdtemp()) / "case.png"
    >>> draw_case(path, np.random.default_rng(0).normal(size=(32, 32, 8)), np.diag([1, 1, 4, 1.0]), "volume 20 ml")
    >>> Image.open(path).format
    'PNG'
    """
    panels = [_mark(_picture(planes, size), marks) for *planes, size, marks in _planes(_channels(image), affine, None)]
    _save(path, panels, [(text, (235, 235, 235))])


def _planes(volumes: list[np.ndarray], affine: np.ndarray, seen: np.ndarray | None) -> list[tuple]:
    """For each plane: the slice of each volume (rows down, columns right), its size in pixels, its side marks."""
    dims = volumes[0].ndim
    flips, order, step, known = _orientation(affine, dims)
    volumes = [np.flip(np.transpose(v, order), flips) for v in volumes]
    seen = volumes[0] * 0 if seen is None else np.flip(np.transpose(seen, order), flips)
    extent = np.array(volumes[0].shape) * step
    scale = _PIXELS / extent.max()
    # now the axes run to the patient's left, posterior, inferior: column, then row, is how a picture is read
    result = []
    for fixed in (2, 1, 0) if dims == 3 else (None,):
        axes = [a for a in range(dims) if a != fixed]
        cut: tuple = (slice(None),) * dims
        if fixed is not None:
            area = np.count_nonzero(seen, axis=tuple(axes))
            at = int(area.argmax()) if area.any() else volumes[0].shape[fixed] // 2
            cut = tuple(at if a == fixed else slice(None) for a in range(dims))
        size = tuple(max(1, int(round(extent[a] * scale))) for a in axes)
        marks = ("R", "L") if known and axes[0] == 0 else ("A", "P") if known else ("", "")
        result.append((*[np.ascontiguousarray(v[cut].T) for v in volumes], size, marks))
    return result


def _orientation(affine: np.ndarray, dims: int) -> tuple[tuple[int, ...], tuple[int, ...], np.ndarray, bool]:
    """Which axes to flip after transposing by ``order``, so that they run left, posterior (and inferior); voxel size
    in that order; whether the header says where right and left are (a plain picture's affine, positive and
    diagonal, does not)."""
    matrix = np.eye(4)
    matrix[:dims, :dims] = np.asarray(affine, dtype=float)[:dims, :dims]
    step = np.linalg.norm(matrix[:dims, :dims], axis=0)
    step = np.where(step > 0, step, 1.0)
    try:
        turn = nib.orientations.io_orientation(matrix)[:dims]
    except np.linalg.LinAlgError:
        turn = np.full((dims, 2), np.nan)
    # a picture without a patient's axes, perhaps resized: its rows run down already
    plain = dims == 2 and bool(np.all(np.diag(matrix) > 0)) and np.allclose(matrix, np.diag(np.diag(matrix)))
    if plain or np.isnan(turn).any() or sorted(turn[:, 0].astype(int)) != list(range(dims)):
        return (), tuple(range(dims)), step, False
    order = tuple(int(a) for a in np.argsort(turn[:, 0]))
    flips = tuple(a for a in range(dims) if turn[order[a], 1] > 0)  # world axes run right, anterior, superior
    return flips, order, step[list(order)], True


def _channels(image: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    """One grey level, or three: red, green and blue on one scale, so that colours stay what they are."""
    if isinstance(image, np.ndarray):
        return [_grey_levels(image)]
    return list(np.moveaxis(_grey_levels(np.stack(list(image), axis=-1)), -1, 0))


def _picture(planes: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The planes as one RGB picture of that size."""
    whole = planes[0] if len(planes) == 1 else np.stack(planes, axis=-1)
    picture = Image.fromarray(whole).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    return np.array(picture, dtype=np.uint8)


def _grey_levels(image: np.ndarray) -> np.ndarray:
    """Intensities to 0..255 between their 1st and 99th percentile."""
    image = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)
    low, high = np.percentile(image.reshape(-1)[:: 1 + image.size // 50_000], [1.0, 99.0])
    if high <= low:
        low, high = float(image.min()), float(image.max())
    return (255 * np.clip((image - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8)


def _enlarge(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    _, small = np.unique(mask, return_inverse=True)  # any label values, few of them: fits 8 bits
    whole = Image.fromarray((small.reshape(mask.shape) + (0 if (mask == 0).any() else 1)).astype(np.uint8))
    return np.asarray(whole.resize(size, Image.Resampling.NEAREST))


def _contour(labels: np.ndarray) -> np.ndarray:
    """The outermost pixels inside each label."""
    padded = np.pad(labels, 1, mode="constant")
    inside = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return (inside > 0) & np.any([inside != n for n in neighbours], axis=0)


def _thicken(mask: np.ndarray, width: int = 3) -> np.ndarray:
    padded = np.pad(mask, 1)
    rows, columns = mask.shape
    return np.any([padded[i : i + rows, j : j + columns] for i in range(width) for j in range(width)], axis=0)


def _mark(picture: np.ndarray, marks: tuple[str, str]) -> Image.Image:
    image = Image.fromarray(picture)
    if marks[0] and image.width > 60 and image.height > 40:
        pen, font = ImageDraw.Draw(image), ImageFont.load_default(12)
        for x, mark in zip((4, image.width - 12), marks, strict=True):
            pen.text((x, image.height // 2 - 7), mark, fill=(235, 235, 235), font=font)
    return image


def _save(path: str | Path, panels: list[Image.Image], legend: list[tuple[str, tuple[int, int, int]]]) -> None:
    font, gap = ImageFont.load_default(13), 6
    wide = sum(panel.width for panel in panels) + gap * (len(panels) - 1)
    words = sum(int(font.getlength(text)) + 16 for text, _ in legend)
    canvas = Image.new("RGB", (max(wide, words), max(panel.height for panel in panels) + _STRIP), (12, 12, 14))
    x = 0
    for panel in panels:
        canvas.paste(panel, (x, (canvas.height - _STRIP - panel.height) // 2))
        x += panel.width + gap
    pen, x = ImageDraw.Draw(canvas), 6
    for text, colour in legend:
        pen.text((x, canvas.height - _STRIP + 3), text, fill=colour, font=font)
        x += int(font.getlength(text)) + 16
    with atomic_path(path) as temporary:
        canvas.save(temporary, format="PNG", compress_level=3)  # quicker than the default of 6, and hardly larger
