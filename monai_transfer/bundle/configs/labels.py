"""Labels: from what stands in the files to what the network sees, where that is not the same."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.parts import ours
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import ref

__all__ = ["encode", "label_mapping", "targets"]


def label_mapping(s: BundleSpec) -> dict[str, Any]:
    """The mapping as a root id; nothing where files hold class numbers."""
    if s.mapping is None:
        return {}
    said = "what stands in the label files, and the network's outputs (docs/labels.md)"
    return {"label_mapping": note(s.mapping, said)}


def encode(s: BundleSpec) -> list[Any]:
    """Behind loading: values of the files to class numbers, findings to a vector; -1 where nothing is known."""
    return [] if s.mapping is None else [ours("data.labels.EncodeLabelsd", keys="label", mapping=ref("label_mapping"))]


def targets(s: BundleSpec) -> list[Any]:
    """Last: a channel for each output, -1 where the case cannot tell; for regions, or where not all was looked for."""
    if not (s.partly_annotated or s.kind.channels):
        return []
    return [ours("data.labels.LabelTargetsd", keys="label", mapping=ref("label_mapping"))]
