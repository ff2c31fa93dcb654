"""Manifests: what the data are, where they lie, whose they are, and which part each plays."""

from monai_transfer.manifest.build import build_manifest
from monai_transfer.manifest.merge import merge_manifests
from monai_transfer.manifest.model import Case, Manifest, select_labelled

__all__ = ["Case", "Manifest", "build_manifest", "merge_manifests", "select_labelled"]
