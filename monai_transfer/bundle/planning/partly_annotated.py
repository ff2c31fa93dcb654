"""What ``new`` says of cases in which not every class was looked for."""

from __future__ import annotations

from collections import Counter, defaultdict

from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.manifest import Manifest
from monai_transfer.manifest.layouts.base import count

__all__ = ["tell_partly_annotated"]

_SITES = 4


def tell_partly_annotated(data: Manifest, reasons: Reasons) -> None:
    """Add a line that names the classes that were looked for at each site where labelled cases cannot tell of all.

    Args:
        data: the manifest; one that is annotated throughout adds nothing.
        reasons: what ``new`` says.

    >>> reasons = Reasons()
    >>> item = {"image": "a.png", "label": "a_mask.png", "case": "a", "patient": "a", "site": "north"}
    >>> content = {"name": "organs", "task": "segmentation", "annotated": {"north": ["liver"]}, "training": [item]}
    >>> labels = {"0": "background", "1": "liver", "2": "spleen"}
    >>> tell_partly_annotated(Manifest.from_dict({**content, "labels": labels}), reasons)
    >>> print(*reasons.lines())
    annotated north: liver (1 case): 1 of 1 labelled cases, the others not looked for there: neither learned nor scored
    """
    mapping = data.label_mapping
    cases = [case for split in ("training", "validation", "test") for case in data.cases(split, labelled=True)]
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for case in cases:
        told = data.annotated_in(case)
        if told is None:
            continue
        flags = mapping.annotated(told)
        if not all(flags):
            names = [name for name, known in zip(mapping.outputs, flags, strict=True) if known]
            found[str(case.site)][", ".join(names) or "none"] += 1
    if not found:
        return
    lines = [f"{site}: {names} ({count(n, 'case')})" for site, own in found.items() for names, n in own.items()]
    more = f"; and {len(lines) - _SITES} more" if len(lines) > _SITES else ""
    n = sum(sum(own.values()) for own in found.values())
    why = f"{n} of {len(cases)} labelled cases, the others not looked for there: neither learned nor scored"
    reasons.add("annotated", "; ".join(lines[:_SITES]) + more, why)
