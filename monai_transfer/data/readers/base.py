"""What all readers share: one volume as it was read, the limits it must keep, and the way into MONAI's ``LoadImage``.

``LoadImage`` catches every exception of ``read`` and then tries the next reader it knows, so a file that one reader
refuses would be loaded by another without its checks. Therefore ``read`` here only notes the paths, and all reading
and checking happens in ``get_data``, whose errors reach the user.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from monai.data.image_reader import ImageReader
from monai.utils import MetaKeys, SpaceKeys

from monai_transfer.errors import InputError

__all__ = ["CheckedReader", "Paths", "Volume", "check_memory", "check_spacing", "check_values", "memory_limit"]

FLOAT32_MAX = float(np.finfo(np.float32).max)
FARTHEST = 1e5
"""mm from the origin; no scanner's room is wider."""


@dataclass
class Volume:
    """One image as it was read.

    Attributes:
        array: spatial axes first (x, y[, z], as MONAI's readers order them); channels, if any, on the last axis.
        affine: 4 x 4, voxel index to millimetres in RAS; ``None`` where the format knows no geometry (PNG, JPEG, TIFF).
        channel_last: whether the last axis of ``array`` holds channels.
        meta: further plain facts (numbers, the modality); never a name, an identifier, a date or free text.

    >>> volume = Volume(np.zeros((4, 5, 3, 2)), np.diag([0.5, 0.5, 2.0, 1.0]), channel_last=True)
    >>> volume.spatial_shape, volume.channels, volume.spacing
    ((4, 5, 3), 2, (0.5, 0.5, 2.0))
    """

    array: np.ndarray
    affine: np.ndarray | None
    channel_last: bool = False
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Number of voxels along each spatial axis."""
        return self.array.shape[:-1] if self.channel_last else self.array.shape

    @property
    def channels(self) -> int:
        """Number of channels; 1 where there is no channel axis."""
        return self.array.shape[-1] if self.channel_last else 1

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Voxel size in mm along the spatial axes, or ``None`` without a geometry."""
        if self.affine is None:
            return None
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0)[: len(self.spatial_shape)])


class Paths(tuple):
    """The paths that ``read`` was given; ``get_data`` reads them.

    >>> Paths(["scan.nii"])
    ('scan.nii',)
    """


def memory_limit(max_memory: int | str | None = None) -> int:
    """The bytes that reading one image may take: a number, a text like ``"2GiB"``, or the default.

    The default is the variable ``MONAI_TRANSFER_MAX_MEMORY`` or else 4 GiB, but at most half of the machine's memory.

    Args:
        max_memory: bytes, or a text with a unit; None is the default.

    Raises:
        InputError: it is no amount of memory, or not positive.

    >>> memory_limit("2GiB"), memory_limit(1000)
    (2147483648, 1000)
    """
    value = max_memory if max_memory is not None else os.environ.get("MONAI_TRANSFER_MAX_MEMORY")
    if value is None:
        return min(4 * 2**30, psutil.virtual_memory().total // 2)
    if isinstance(value, str):
        text = value.strip().lower()
        units = {"kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9, "b": 1, "": 1}
        number = text.rstrip("kmgib ")
        try:
            value = int(float(number) * units[text[len(number) :].strip()])
        except (KeyError, ValueError):
            raise InputError(f"{value!r} is no amount of memory", hint="write e.g. 2GiB or a number of bytes") from None
    if value <= 0:
        raise InputError(f"the memory allowed must be positive, not {value}", hint="write e.g. 2GiB")
    return int(value)


def check_memory(needed: int, limit: int, path: Path) -> None:
    """Refuse an image whose header promises more than ``limit`` bytes, before anything is allocated.

    Args:
        needed: bytes, by the header.
        limit: bytes, of ``memory_limit``.
        path: named in the error.

    Raises:
        InputError: more is needed than allowed.

    A few kilobytes on the disk that unpack to 2 TiB:

    >>> try:
    ...     check_memory(2 * 2**40, memory_limit("4GiB"), Path("bomb.nii.gz"))
    ... except InputError as error:
    ...     print(error.fault)
    reading it needs 2.05e+03 GiB by its header, and 4 GiB are allowed
    """
    if needed > limit:
        raise InputError(
            f"reading it needs {needed / 2**30:.3g} GiB by its header, and {limit / 2**30:.3g} GiB are allowed",
            path=path,
            hint="check the header, or allow more with max_memory or MONAI_TRANSFER_MAX_MEMORY",
        )


def check_values(array: np.ndarray, path: Path) -> None:
    """Refuse NaN, infinity, and values that float32 (what networks compute in) cannot hold.

    Args:
        array: voxels of any type; whole numbers always pass.
        path: named in the error.

    Raises:
        InputError: a voxel is NaN or infinite, or too large for float32.

    >>> try:
    ...     check_values(np.array([0.5, np.nan]), Path("scan.nii"))
    ... except InputError as error:
    ...     print(error.fault)
    1 of 2 voxels are NaN or infinite
    """
    if array.dtype.kind not in "fc":
        return
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise InputError(
            f"{bad} of {array.size} voxels are NaN or infinite",
            path=path,
            hint="replace them at the source; normalisation would spread them to the whole volume",
        )
    if array.dtype.itemsize > 4 and array.size and max(abs(float(array.max())), abs(float(array.min()))) > FLOAT32_MAX:
        raise InputError("values are too large for float32", path=path, hint="rescale the intensities")


def check_spacing(
    spacing: Sequence[float], shape: Sequence[int], limits: tuple[float, float], path: Path, what: str = "voxel size"
) -> None:
    """Refuse voxel sizes in mm outside ``limits``; an axis with a single voxel has no spacing to judge.

    Args:
        spacing: mm per axis.
        shape: voxels per axis.
        limits: least and greatest size in mm.
        path: named in the error.
        what: the word for it in the error.

    Raises:
        InputError: a size is not positive or finite, or outside the limits.

    Centimetres in a field of millimetres:

    >>> try:
    ...     check_spacing([0.07, 0.07, 120.0], [256, 256, 30], (0.01, 50.0), Path("scan.nii"))
    ... except InputError as error:
    ...     print(error.fault)
    voxel size 0.07 x 0.07 x 120 mm is implausible (allowed 0.01 to 50 mm)
    """
    low, high = limits
    for size, count in zip(spacing, shape, strict=False):
        if not np.isfinite(size) or size <= 0 or (count > 1 and not low <= size <= high):
            sizes = " x ".join(f"{s:g}" for s in spacing)
            raise InputError(
                f"{what} {sizes} mm is implausible (allowed {low:g} to {high:g} mm)",
                path=path,
                hint="correct the units in the header, or widen spacing_limits if it is true",
            )


class CheckedReader(ImageReader):
    """Base of our readers: subclasses give ``read_volume``; this class is the way into ``LoadImage``.

    A sequence of paths is read as channels of one image, as MONAI's readers do; the files must share one grid.

    Args:
        max_memory: bytes (or a text like ``"2GiB"``) that reading one image may take; see ``memory_limit``.

    A reader of one's own, as used by ``LoadImage``:

    >>> from monai.transforms import LoadImage
    >>> class Blank(CheckedReader):
    ...     def read_volume(self, path):
    ...         return Volume(np.zeros((4, 5, 3), dtype=np.float32), np.diag([0.5, 0.5, 2.0, 1.0]))
    >>> image = LoadImage(reader=Blank())("blank.of_ours")
    >>> tuple(image.shape), image.pixdim.tolist()
    ((4, 5, 3), [0.5, 0.5, 2.0])
    """

    def __init__(self, max_memory: int | str | None = None) -> None:
        super().__init__()
        self.max_memory = memory_limit(max_memory)

    @abstractmethod
    def read_volume(self, path: str | Path) -> Volume:
        """Read one image fully. Raises ``InputError`` (one line: file, fault, hint) for every fault."""

    def verify_suffix(self, filename: Any) -> bool:
        """Content decides, not the name, so every name may be tried."""
        return True

    def read(self, data: Any, **kwargs: Any) -> Paths:
        """Note the path or paths; they are read in ``get_data`` (the module says why)."""
        return Paths([data] if isinstance(data, (str, os.PathLike)) else data)

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """The array and the metadata that ``LoadImage`` makes a ``MetaTensor`` of; ``InputError`` for every fault."""
        paths = img if isinstance(img, Paths) else self.read(img)
        volumes = [self.read_volume(path) for path in paths]
        first = volumes[0]
        for path, volume in zip(paths[1:], volumes[1:], strict=True):
            if volume.spatial_shape != first.spatial_shape or not _same_affine(volume.affine, first.affine):
                raise InputError(
                    f"not on the same grid as {paths[0]}, with which it forms one image",
                    path=path,
                    hint="resample the channels to one grid",
                )
        meta: dict[str, Any] = dict(first.meta)
        meta[MetaKeys.SPATIAL_SHAPE] = np.asarray(first.spatial_shape)
        if first.affine is not None:
            meta[MetaKeys.AFFINE] = first.affine.copy()
            meta[MetaKeys.ORIGINAL_AFFINE] = first.affine.copy()
            meta[MetaKeys.SPACE] = SpaceKeys.RAS
        if len(volumes) == 1:
            meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = -1 if first.channel_last else float("nan")
            return first.array, meta
        if any(v.channel_last for v in volumes):
            meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = -1
            return np.concatenate([v.array if v.channel_last else v.array[..., None] for v in volumes], -1), meta
        meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = 0
        return np.stack([v.array for v in volumes]), meta


def _same_affine(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    return bool(np.allclose(a, b, rtol=1e-4, atol=1e-3))


def existing(path: str | Path) -> Path:
    """``path`` as a ``Path``, which is there, may be read and is not empty.

    Args:
        path: of a file, or of a folder with one DICOM series.

    Raises:
        InputError: nothing is there, it is empty, or it may not be read.

    >>> import tempfile
    >>> empty = Path(tempfile.mkdtemp()) / "scan.nii"
    >>> empty.touch()
    >>> try:
    ...     existing(empty)
    ... except InputError as error:
    ...     print(error.fault)
    empty file (0 bytes)
    """
    path = Path(path)
    try:
        if not path.exists():
            raise InputError("not found", path=path, hint="look at its spelling, and whether its drive is mounted")
        if not os.access(path, os.R_OK):
            raise InputError("may not be read (permission denied)", path=path, hint="change its permissions")
        if not (path.is_file() or path.is_dir()):  # opening a pipe or a device would wait for ever
            raise InputError(
                "neither a file nor a folder", path=path, hint="give a file, or a folder with one DICOM series"
            )
        if path.is_file() and path.stat().st_size == 0:
            raise InputError("empty file (0 bytes)", path=path, hint="copy it again from the source")
    except OSError as error:
        raise InputError(
            f"cannot be opened ({error.strerror})", path=path, hint="copy it again, or look at the drive"
        ) from error
    return path
