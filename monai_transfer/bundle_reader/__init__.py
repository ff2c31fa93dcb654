"""Reads MONAI bundles of others without running them: one reader for every command that opens one.

``read_bundle(folder)`` gives a ``BundleDescription``: network, preprocessing, inferer, post-processing, loss, labels,
channels, licence, and what could not be read. Objects are made of a closed table of classes (``table.py``).
"""

from monai_transfer.bundle_reader.building import as_config, build
from monai_transfer.bundle_reader.component import Component, Unread
from monai_transfer.bundle_reader.description import BundleDescription
from monai_transfer.bundle_reader.reading import read_bundle, read_metadata

__all__ = ["BundleDescription", "Component", "Unread", "as_config", "build", "read_bundle", "read_metadata"]
