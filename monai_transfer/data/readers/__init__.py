"""Readers that are right or refuse: MONAI-compatible, for ``LoadImaged(reader=...)`` in any config."""

from monai_transfer.data.readers.base import CheckedReader, Volume, memory_limit
from monai_transfer.data.readers.dicom import DicomReader
from monai_transfer.data.readers.itk_formats import ItkReader
from monai_transfer.data.readers.nifti import NiftiReader
from monai_transfer.data.readers.raster import RasterReader
from monai_transfer.data.readers.safe import SafeReader

__all__ = [
    "CheckedReader",
    "DicomReader",
    "ItkReader",
    "NiftiReader",
    "RasterReader",
    "SafeReader",
    "Volume",
    "memory_limit",
]
