"""One manifest of several: the same task and classes, more sites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.manifest.case import Case
from monai_transfer.manifest.checks import SPLITS, validate
from monai_transfer.manifest.model import Manifest
from monai_transfer.manifest.texts import JOINED, joined_texts
from monai_transfer.tasks import get_task

__all__ = ["merge_manifests"]


def merge_manifests(
    manifests: Sequence[Manifest], *, name: str | None = None, folder: str | Path | None = None
) -> Manifest:
    """All cases of several manifests in one, each in the split that it had.

    Class numbers of a classification are mapped by name; a case name that stands in several manifests gets its site in
    front. The texts are the first manifest's; licences, references and modalities are listed together.

    Args:
        manifests: at least one.
        name: of the result; by default the names joined by ``+``.
        folder: where the result's paths start, by default the first manifest's folder.

    Raises:
        InputError: tasks or label names differ, or a patient stands in different splits of two manifests (build one
            manifest from both folders then, so that they are split together).

    Two sites that number their classes differently:

    >>> def site(name, labels):
    ...     items = [{"image": f"{name}.png", "label": 1, "case": name, "patient": name, "site": name}]
    ...     head = {"name": name, "task": "classification", "labels": labels}
    ...     return Manifest.from_dict(head | {"training": items}, Path())
    >>> merged = merge_manifests([site("a", {"0": "ill", "1": "well"}), site("b", {"0": "well", "1": "ill"})])
    >>> merged.class_names, [(case.site, case.label) for case in merged.training]
    (['ill', 'well'], [('a', 1), ('b', 0)])
    """
    if not manifests:
        raise InputError("no manifest to merge", hint="give at least one")
    first = manifests[0]
    for other in manifests[1:]:
        if other.task != first.task:
            fault = f"its task is {other.task}, and that of {first.name} is {first.task}"
            raise InputError(fault, path=other.path, hint="merge manifests of one task")
        if set(other.class_names) != set(first.class_names) or (
            get_task(first.task).label.is_path and other.label_mapping != first.label_mapping
        ):
            ours, theirs = ", ".join(first.class_names), ", ".join(other.class_names)
            hint = "build both with the same --labels"
            raise InputError(f"its labels are {theirs}, and those of {first.name} {ours}", path=other.path, hint=hint)
    uses = Counter(case.case.lower() for m in manifests for split in SPLITS for case in m.cases(split))

    annotated: dict[str, list[str]] = {}
    for manifest in manifests:
        for site, classes in manifest.annotated.items():
            annotated.setdefault(site, classes)

    def take(manifest: Manifest, case: Case) -> Case:
        changes: dict[str, Any] = {}
        if uses[case.case.lower()] > 1:
            changes["case"] = f"{case.site}_{case.case}"
        if isinstance(case.label, int) and get_task(first.task).label.is_class:
            changes["label"] = first.label_index(manifest.labels[str(case.label)])
        if manifest.annotated.get(case.site) != annotated.get(case.site) and case.annotated is None:
            changes["annotated"] = manifest.annotated_in(case) or manifest.label_mapping.outputs
        return replace(case, **changes)

    parts: dict[str, Any] = {split: [take(m, c) for m in manifests for c in m.cases(split)] for split in SPLITS}
    parts |= {key: joined_texts(getattr(manifest, key) for manifest in manifests) for key in JOINED}
    merged = replace(
        first,
        name=name or "+".join(m.name for m in manifests),
        root=None,
        folder=Path(folder) if folder is not None else first.folder,
        path=None,
        annotated=annotated,
        **parts,
    )
    validate(merged.to_dict())
    return merged
