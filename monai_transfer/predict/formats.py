"""What masks are written as; light, so that a wrong word is answered at once."""

__all__ = ["FORMATS"]

FORMATS = ("nifti", "dicom-seg")
