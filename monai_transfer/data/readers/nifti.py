"""NIfTI-1 and NIfTI-2 through nibabel, read to the last byte and with one declared rule for the geometry.

The rule: a set sform is used; else a set qform; both set must agree to half a voxel and one degree (``check`` warns of
anything above a tenth of a voxel); none set is refused, since left and right are then unknown. A gzip stream is read to
its end, so its CRC-32 and length are verified (nibabel alone stops before).
"""

from __future__ import annotations

import gzip
import io
import itertools
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.nifti1 import data_type_codes
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from monai_transfer.data.readers.base import (
    FARTHEST,
    CheckedReader,
    Volume,
    check_memory,
    check_spacing,
    check_values,
    existing,
)
from monai_transfer.errors import InputError

__all__ = ["NiftiReader", "agreement", "forms_apart", "nifti_kind"]

HEADER_BYTES = 540  # the longer of the two headers
CHUNK = 4 * 2**20
_APART = 0.5
"""Voxels that qform and sform may be apart at the far corner."""
_TURNED = 1.0
"""Degrees that their axes may be turned."""


def nifti_kind(start: bytes) -> Any:
    """``Nifti1Image`` or ``Nifti2Image`` by a file's first (unpacked) bytes, in either byte order; else ``None``.

    Args:
        start: of the file, unpacked, 4 bytes or more.

    >>> nifti_kind(b"NRRD0004") is None, nifti_kind((348).to_bytes(4, "little")).__name__
    (True, 'Nifti1Image')
    """
    for size, kind in ((348, nib.Nifti1Image), (540, nib.Nifti2Image)):
        if start[:4] in (size.to_bytes(4, "little"), size.to_bytes(4, "big")):
            return kind
    return None


class NiftiReader(CheckedReader):
    """Reads ``.nii`` and ``.nii.gz``; values, axes and affine equal MONAI's ``NibabelReader`` for every sound file.

    Refused with an ``InputError``: broken or short or overlong data, qform and sform that disagree, no or a singular
    affine, an affine whose voxel size is not the header's, units other than mm, implausible voxel sizes, NaN and
    infinity, complex voxels, more memory than allowed (before allocation).

    Args:
        max_memory: bytes (or ``"2GiB"``) that one image may take.
        spacing_limits: smallest and largest plausible voxel size in mm.
        channels: how many channels an image must have; ``None`` accepts any number (a fourth axis holds channels).

    A damaged file is one line that names it, where MONAI's reader gives other voxels:

    >>> import tempfile, nibabel, numpy as np
    >>> from pathlib import Path
    >>> from monai_transfer.data.readers.nifti import NiftiReader
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "scan.nii.gz"
    >>> nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4)), path)
    >>> reader = NiftiReader()
    >>> reader.get_data(reader.read(str(path)))[0].shape
    (4, 5, 6)
    >>> _ = path.write_bytes(path.read_bytes()[:-9])
    >>> try:
    ...     _ = reader.get_data(reader.read(str(path)))
    ... except ValueError as error:
    ...     print("damaged gzip data" in str(error))
    True
    """

    def __init__(
        self,
        max_memory: int | str | None = None,
        spacing_limits: tuple[float, float] = (0.01, 50.0),
        channels: int | None = None,
    ) -> None:
        super().__init__(max_memory)
        self.spacing_limits = (float(spacing_limits[0]), float(spacing_limits[1]))
        self.channels = channels

    def read_volume(self, path: str | Path) -> Volume:
        """Read one file. The array keeps the stored type where no scaling is declared, else it is float64."""
        path = existing(path)
        try:
            with path.open("rb") as raw:
                packed = raw.read(2) == b"\x1f\x8b"
                raw.seek(0)
                stream = gzip.GzipFile(fileobj=raw) if packed else raw
                start = stream.read(HEADER_BYTES)
                kind = nifti_kind(start)
                if kind is None:
                    raise InputError(
                        "not a NIfTI file (header size is neither 348 nor 540)",
                        path=path,
                        hint="copy it again, or convert it to NIfTI",
                    )
                header = self._header(kind, start, path)
                length = self._length(header, path)
                content = _read_all(stream, start, length, path)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"damaged gzip data ({error})", path=path, hint="copy or export the file again") from error
        except OSError as error:
            raise InputError(
                f"cannot be read ({error})", path=path, hint="copy the file again, or look at its drive"
            ) from error
        affine, apart = self._affine(header, path)
        array = self._array(header, content, path)
        meta: dict[str, Any] = {
            name: np.array(header[name]) for name in ("dim", "pixdim", "qform_code", "sform_code", "xyzt_units")
        }
        if apart is not None:
            meta["qform_sform_voxels"] = apart
        volume = Volume(array, affine, channel_last=array.ndim > 3, meta=meta)
        if self.channels is not None and volume.channels != self.channels:
            raise InputError(
                f"{volume.channels} channels ({array.ndim}D) where {self.channels} are expected",
                path=path,
                hint="split the file, or choose the frame to use",
            )
        check_values(array, path)
        return volume

    def _header(self, kind: Any, start: bytes, path: Path) -> nib.Nifti1Header:
        size = int(kind.header_class.sizeof_hdr)
        if len(start) < size:
            raise InputError(
                f"holds {len(start)} bytes, less than a NIfTI header", path=path, hint="copy or export the file again"
            )
        # not from_fileobj: that reads the extensions too, which say nothing about the voxels and may be long
        order = "<" if start[:4] == size.to_bytes(4, "little") else ">"
        header = kind.header_class(start[:size], endianness=order, check=False)
        magic = bytes(header["magic"].tobytes()[:3])
        if magic not in (b"n+1", b"n+2"):
            what = "the header of a .hdr/.img pair" if magic == b"ni1" else "an ANALYZE or unknown header"
            raise InputError(
                f"not a single-file NIfTI but {what} (its magic is {magic!r})",
                path=path,
                hint="convert it to .nii.gz, and make sure of left and right",
            )
        code = int(header["datatype"])
        if code not in data_type_codes:
            raise InputError(f"broken NIfTI header (datatype {code} is none)", path=path, hint="export the file again")
        name = data_type_codes.label[code]
        if code in (0, 1, 255) or "complex" in name or name == "float128":
            raise InputError(f"voxels of type {name} cannot be used", path=path, hint="convert them to float32")
        try:
            header.get_slope_inter()
        except HeaderDataError as error:
            raise InputError(f"broken NIfTI header ({error})", path=path, hint="export the file again") from error
        if np.isinf(header["scl_slope"]):  # NaN and 0 mean "no scaling"; nibabel takes infinity for that, too
            raise InputError("broken NIfTI header (scl_slope is infinite)", path=path, hint="export the file again")
        if header["pixdim"][0] == 0:  # the standard: qfac 0 is 1
            header["pixdim"][0] = 1
        if not 1 <= header["dim"][0] <= 7 or min(header.get_data_shape(), default=0) < 1:
            raise InputError(
                f"impossible shape in the header (dim {header['dim'].tolist()})",
                path=path,
                hint="export the file again",
            )
        return header

    def _length(self, header: nib.Nifti1Header, path: Path) -> int:
        """The bytes that the header promises; refused beyond the memory allowed."""
        voxels = 1
        for size in header.get_data_shape():
            voxels *= int(size)
        data = voxels * header.get_data_dtype().itemsize
        offset = float(header["vox_offset"])
        if not header.sizeof_hdr <= offset <= 2**24 or offset != int(offset):
            raise InputError(
                f"impossible data offset in the header (vox_offset {offset:g})", path=path, hint="export the file again"
            )
        offset = int(offset)
        # nibabel scales in float64, and LoadImage converts to float32 beside the stored bytes
        scaled = 8 * voxels if header.get_slope_inter()[0] is not None else 0
        check_memory(offset + data + scaled + 4 * voxels, self.max_memory, path)
        return offset + data

    def _affine(self, header: nib.Nifti1Header, path: Path) -> tuple[np.ndarray, float | None]:
        """The affine, and how far qform and sform are apart in voxels, where that is worth a word."""
        qform_code, sform_code = int(header["qform_code"]), int(header["sform_code"])
        if not (0 <= qform_code <= 5 and 0 <= sform_code <= 5):
            raise InputError(
                f"unknown qform_code {qform_code} or sform_code {sform_code}", path=path, hint="export the file again"
            )
        if qform_code == 0 and sform_code == 0:
            raise InputError(
                "no affine is declared (qform_code and sform_code are 0), so left and right are unknown",
                path=path,
                hint="export it again with its geometry, or set the sform if you know it",
            )
        unit = int(header["xyzt_units"]) & 7
        if unit in (1, 3):
            raise InputError(
                f"lengths are declared in {'metres' if unit == 1 else 'micrometres'}, and readers take them as mm",
                path=path,
                hint="rewrite the file in mm",
            )
        shape = (*header.get_data_shape(), 1, 1)[:3]
        pixdim = np.abs(np.asarray(header["pixdim"][1:4], dtype=float))[: min(int(header["dim"][0]), 3)]
        check_spacing(pixdim, shape, self.spacing_limits, path)
        try:
            qform = header.get_qform() if qform_code else None
        except (HeaderDataError, ValueError) as error:
            raise InputError(f"broken qform ({error})", path=path, hint="set it again from the source") from error
        sform = header.get_sform() if sform_code else None
        affine = np.asarray(sform if sform is not None else qform, dtype=float)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if not np.all(np.isfinite(affine)) or np.any(spacing == 0) or _flatness(affine) < 1e-3:
            raise InputError("the affine is singular or not finite", path=path, hint="set it again from the source")
        if np.abs(affine[:3, 3]).max() > FARTHEST:
            raise InputError(
                f"its origin lies {np.abs(affine[:3, 3]).max():.3g} mm away", path=path, hint="set it from the source"
            )
        if not np.allclose(spacing[: len(pixdim)], pixdim, rtol=1e-3, atol=1e-4):
            raise InputError(
                f"the sform's voxel size {_sizes(spacing)} mm is not the header's {_sizes(pixdim)} mm",
                path=path,
                hint="find out which is true and write it to both",
            )
        apart = None
        if qform is not None and sform is not None:
            apart = agreement(qform, sform, shape, path)
        return affine, apart

    def _array(self, header: nib.Nifti1Header, content: bytearray, path: Path) -> np.ndarray:
        offset = int(header["vox_offset"])
        array = np.frombuffer(content, header.get_data_dtype(), offset=offset).reshape(
            header.get_data_shape(), order="F"
        )
        slope, inter = header.get_slope_inter()
        if slope is not None:
            array = apply_read_scaling(array, slope, inter)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if array.dtype.names:  # RGB and RGBA
            if "A" in array.dtype.names and array["A"].min() != array["A"].max():
                raise InputError(
                    "partly transparent, so its colours are undefined", path=path, hint="flatten it onto a background"
                )
            array = np.stack([array[name] for name in array.dtype.names if name != "A"], axis=-1)
            if array.ndim == 3:  # a 2D colour image: keep three spatial axes, as for every other NIfTI
                array = array[:, :, None, :]
        while array.ndim > 4 and array.shape[-1] == 1:
            array = array[..., 0]
        if array.ndim == 5 and array.shape[3] == 1:  # NIfTI's place for vectors is the fifth axis
            array = array[:, :, :, 0, :]
        if array.ndim > 4:
            raise InputError(
                f"{array.ndim}D data (shape {array.shape})", path=path, hint="split it into 3D or 4D files"
            )
        return array


def _read_all(stream: io.BufferedIOBase, start: bytes, length: int, path: Path) -> bytearray:
    """Everything in ``stream``, which must be ``length`` bytes; stops early where it turns out to hold more."""
    content = bytearray(start)
    while chunk := stream.read(CHUNK):
        content += chunk
        if len(content) > length:
            raise InputError(
                f"holds more data than its header promises ({length} bytes)",
                path=path,
                hint="its header is wrong; export the file again",
            )
    if len(content) != length:
        raise InputError(
            f"holds {len(content)} bytes where its header promises {length}",
            path=path,
            hint="it is cut off or its header is wrong; copy or export the file again",
        )
    return content


def agreement(qform: np.ndarray, sform: np.ndarray, shape: Sequence[int], path: Path | None = None) -> float | None:
    """Hold that both send the volume's corners to nearly the same places.

    Args:
        qform: 4 x 4, voxel index to mm.
        sform: likewise.
        shape: voxels per axis.
        path: named in the error.

    Returns:
        their distance at the far corner in voxels, where it is above a tenth; it is at most half a voxel (or what the
        rounding of quaternions can make of a large volume), and the axes are turned by at most one degree.

    Raises:
        InputError: they are farther apart.

    Forms of 1 mm voxels, apart by 0.3 mm, which is told, and by 3 mm, which is refused:

    >>> moved, far = np.eye(4), np.eye(4)
    >>> moved[0, 3], far[0, 3] = 0.3, 3.0
    >>> agreement(np.eye(4), moved, (10, 10, 10))
    0.3
    >>> try:
    ...     agreement(np.eye(4), far, (10, 10, 10))
    ... except InputError as error:
    ...     print(error.fault)
    qform and sform disagree by up to 3 mm (0 degrees), so tools differ about where things are
    """
    spacing = np.linalg.norm(sform[:3, :3], axis=0)
    distance, turned = forms_apart(qform, sform, shape)
    limit = max(_APART * float(spacing.min()), 5e-4 * float(np.max(spacing * np.asarray(shape))))
    if not (distance <= limit and turned <= _TURNED):  # a qform may be NaN
        fault = f"qform and sform disagree by up to {distance:.3g} mm ({turned:.2g} degrees)"
        fault += ", so tools differ about where things are"
        raise InputError(fault, path=path, hint="find out which is true and write it to both")
    voxels = distance / float(spacing.min())
    return round(voxels, 3) if voxels > 0.1 else None


def forms_apart(qform: np.ndarray, sform: np.ndarray, shape: Sequence[int]) -> tuple[float, float]:
    """How far two affines send a volume's far corner apart, in mm, and how far their axes are turned, in degrees.

    Args:
        qform: 4 x 4, voxel index to mm.
        sform: likewise.
        shape: voxels per axis.

    Voxels of 1 and of 1.01 mm: the last of 101 lies 1 mm farther:

    >>> distance, degrees = forms_apart(np.eye(4), np.diag([1.01, 1, 1, 1]), (101, 1, 1))
    >>> round(distance, 6), degrees
    (1.0, 0.0)
    """
    corners = np.array([[*c, 1] for c in itertools.product(*((0, s - 1) for s in shape))], dtype=float).T
    with np.errstate(invalid="ignore"):
        distance = float(np.linalg.norm(((qform - sform) @ corners)[:3], axis=0).max())
    return distance, _turn(qform, sform)


def _turn(a: np.ndarray, b: np.ndarray) -> float:
    """The angle in degrees between the axes of two affines; NaN where one has none."""
    with np.errstate(invalid="ignore"):  # a qform of NaN is refused by whoever asks
        axes = [m[:3, :3] / np.linalg.norm(m[:3, :3], axis=0) for m in (a, b)]
    return float(np.degrees(np.arccos(np.clip(np.sum(axes[0] * axes[1], axis=0), -1, 1)).max()))


def _flatness(affine: np.ndarray) -> float:
    """Volume of the voxel over that of a box of the same edges: 1 for right angles, 0 for a singular affine."""
    return float(abs(np.linalg.det(affine[:3, :3])) / np.prod(np.linalg.norm(affine[:3, :3], axis=0)))


def _sizes(spacing: np.ndarray) -> str:
    return " x ".join(f"{s:.4g}" for s in spacing)
