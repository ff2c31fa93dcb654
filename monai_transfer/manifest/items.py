"""One item of a manifest's lists as a :class:`Case`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_transfer.manifest.case import Case
from monai_transfer.manifest.paths import absolute, portable
from monai_transfer.tasks import get_task
from monai_transfer.tasks.multilabel import FINDINGS

__all__ = ["read_item", "write_item"]


def read_item(item: Mapping[str, Any], task: str, names: Mapping[str, int], base: str | Path) -> Case:
    """The case that an item (validated) describes, with paths from ``base``; ``names`` are class numbers by name."""
    fields = dict(item)
    image, label = fields["image"], fields.get("label")
    fields["image"] = absolute(image, base) if isinstance(image, str) else [absolute(i, base) for i in image]
    if label is None:
        return Case(**fields)
    kind = FINDINGS if isinstance(label, Mapping) else get_task(task).label
    read = kind.read(label, names)
    fields["label"] = absolute(read, base) if kind.is_path else read
    if kind.is_class and isinstance(label, str):
        fields["label_name"] = label
    return Case(**fields)


def write_item(case: Case, task: str, base: str | Path) -> dict[str, Any]:
    """The item of a case, with paths as they read from ``base``."""
    image = portable(case.image, base) if isinstance(case.image, str) else [portable(i, base) for i in case.image]
    label = case.label if case.label_name is None else case.label_name
    if isinstance(label, str) and get_task(task).label.is_path:
        label = portable(label, base)
    item = {"image": image, "label": label, "case": case.case, "patient": case.patient, "site": case.site}
    more = {key: getattr(case, key) for key in ("annotated", "missing", "acquired", "sha256", "sha256_label", "fold")}
    return item | {key: value for key, value in more.items() if value is not None and value != []}
