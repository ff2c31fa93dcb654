"""Manifests: what the data are, where they lie, whose they are, and which part each plays."""

from monai_transfer.manifest.model import Case, Manifest, select_labelled

__all__ = ["Case", "Manifest", "select_labelled"]
