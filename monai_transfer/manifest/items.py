"""One item of a manifest's lists as a :class:`Case`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_transfer.manifest.case import Case
from monai_transfer.manifest.paths import absolute, portable

__all__ = ["PATH_LABELS", "read_item", "write_item"]

PATH_LABELS = ("segmentation", "localization")
"""The tasks whose labels are files."""


def read_item(item: Mapping[str, Any], task: str, names: Mapping[str, int], base: str | Path) -> Case:
    """The case that an item (validated) describes, with paths from ``base``; ``names`` are class numbers by name."""
    fields = dict(item)
    image, label = fields["image"], fields.get("label")
    fields["image"] = absolute(image, base) if isinstance(image, str) else [absolute(i, base) for i in image]
    if label is None:
        return Case(**fields)
    if task in PATH_LABELS:
        fields["label"] = absolute(label, base)
    elif task == "classification":
        if isinstance(label, Mapping):
            fields["label"] = {str(name): value if value is None else int(value) for name, value in label.items()}
        else:
            fields["label_name"] = label if isinstance(label, str) else None
            fields["label"] = names[label] if isinstance(label, str) else int(label)
    else:
        fields["label"] = float(label)
    return Case(**fields)


def write_item(case: Case, task: str, base: str | Path) -> dict[str, Any]:
    """The item of a case, with paths as they read from ``base``."""
    image = portable(case.image, base) if isinstance(case.image, str) else [portable(i, base) for i in case.image]
    label = case.label if case.label_name is None else case.label_name
    if isinstance(label, str) and task in PATH_LABELS:
        label = portable(label, base)
    item = {"image": image, "label": label, "case": case.case, "patient": case.patient, "site": case.site}
    more = {key: getattr(case, key) for key in ("annotated", "missing", "acquired", "sha256", "sha256_label", "fold")}
    return item | {key: value for key, value in more.items() if value is not None and value != []}
