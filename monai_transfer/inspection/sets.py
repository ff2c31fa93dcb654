"""What no single file can tell: repeated images, odd ones out, tiny splits, absent classes."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from monai_transfer.inspection.classes import check_classes
from monai_transfer.inspection.facts import ImageFacts, Inspected
from monai_transfer.inspection.finding import Finding
from monai_transfer.manifest.model import Case, Manifest

__all__ = ["check_set"]

TINY = 5
"""A split of fewer patients says little; it is worth a warning."""


def check_set(manifest: Manifest, inspected: Inspected) -> list[Finding]:
    """Findings about the set as a whole."""
    file = str(manifest.path) if manifest.path else None
    return [
        *_repeats(inspected),
        *_equal_names(inspected, file),
        *_odd_ones(manifest, inspected),
        *_splits(manifest, file),
        *check_classes(manifest, inspected, file),
    ]


def _repeats(inspected: Inspected) -> list[Finding]:
    """The same voxels in two cases: a leak where they stand in two splits or under two patients."""
    places: dict[str, list[tuple[str, Case, str]]] = defaultdict(list)
    for split, case, result in inspected:
        for facts in result.images:
            places[facts.content].append((split, case, facts.path))
    findings = []
    for found in places.values():
        split, case, path = found[0]
        for other_split, other, other_path in found[1:]:
            if other.case == case.case:
                fault = f"the same voxels as {path}, another channel of the same case"
                findings.append(Finding("warning", fault, "repeated-channel", other_path, other.case, other_split))
                continue
            leak = other_split != split and "unlabeled" not in (split, other_split)
            fault = f"the same voxels as {path} (case {case.case}, {split})"
            if leak:
                fault += ": the same image stands in two splits"
            hint = "keep one of them" + (", or give both the same patient" if other.patient != case.patient else "")
            severity = "error" if leak or other.patient != case.patient else "warning"
            findings.append(Finding(severity, fault, "repeated-image", other_path, other.case, other_split, hint))
    return findings


def _equal_names(inspected: Inspected, file: str | None) -> list[Finding]:
    """Files of several cases with one name: tools that name outputs by file would overwrite them."""
    names: dict[str, set[str]] = defaultdict(set)
    for _, case, _ in inspected:
        for image in case.images:
            names[Path(image).name].add(case.case)
    equal = {name: cases for name, cases in names.items() if len(cases) > 1}
    if not equal:
        return []
    name, cases = max(equal.items(), key=lambda item: (len(item[1]), item[0]))
    fault = f"{len(set().union(*equal.values()))} cases share file names, e.g. {name} in {', '.join(sorted(cases)[:3])}"
    hint = "our outputs are named by case; with other tools, keep each case's outputs in a folder of its own"
    return [Finding("warning", fault, "equal-names", file, hint=hint)]


def _odd_ones(manifest: Manifest, inspected: Inspected) -> list[Finding]:
    """Images whose dimensions, channels or voxel size are not those of the others."""
    entries = [(split, case, facts) for split, case, result in inspected for facts in result.images]
    if not entries:
        return []
    findings = []
    dims = Counter(len(_true_shape(facts)) for *_, facts in entries)
    channels = Counter(facts.channels for *_, facts in entries)
    usual_dims, usual = dims.most_common(1)[0][0], channels.most_common(1)[0][0]
    single = isinstance(entries[0][1].image, str)
    declared = len(manifest.channel_names) if single and manifest.channel_names else None
    spacings = [facts.spacing for *_, facts in entries if facts.spacing]
    middle = np.median([s for s in spacings if len(s) == len(spacings[0])], axis=0) if spacings else None
    for split, case, facts in entries:

        def add(
            severity: str, code: str, fault: str, hint: str, facts: ImageFacts = facts, c: Any = case, s: Any = split
        ) -> None:
            findings.append(Finding(severity, fault, code, facts.path, c.case, s, hint))

        if len(_true_shape(facts)) != usual_dims:
            shape = " x ".join(map(str, facts.shape))
            add(
                "error", "dimensions", f"{shape} is not {usual_dims}D as the other images are", "take it out of the set"
            )
        elif declared is not None and facts.channels != declared:
            fault = f"{facts.channels} channels where the manifest names {declared} (channel_names)"
            add("error", "channels", fault, "correct channel_names, or split or convert the file")
        elif declared is None and not single and facts.channels > 1:
            add("error", "channels", f"{facts.channels} channels in one of several channel files", "split it")
        elif declared is None and facts.channels != usual:
            fault = f"{facts.channels} channels where most images have {usual}"
            volume = facts.spacing is not None
            hint = "split the file or choose a frame" if volume else "SafeReader(mode='grey' or 'rgb') makes them equal"
            add("error" if volume else "warning", "channels", fault, hint)
        spacing = facts.spacing
        if middle is not None and spacing and len(spacing) == len(middle):
            ratio = float(np.max(np.maximum(np.array(spacing) / middle, middle / np.array(spacing))))
            if ratio > 5:
                sizes, usually = (" x ".join(f"{v:.3g}" for v in values) for values in (spacing, middle))
                add("warning", "spacing", f"voxels of {sizes} mm where {usually} mm is usual", "check its units")
    return findings


def _true_shape(facts: ImageFacts) -> list[int]:
    """Axes of more than one voxel, but at least two; a lone DICOM slice counts as 2D."""
    shape = list(facts.shape)
    return shape[:2] if len(shape) == 3 and shape[2] == 1 else shape


def _splits(manifest: Manifest, file: str | None) -> list[Finding]:
    findings = []
    for split in ("training", "validation", "test"):
        cases = manifest.cases(split)
        patients = len({case.patient for case in cases})
        if not cases:
            fault, hint = f"the split {split} is empty", "build the manifest with a share for it"
            if split == "test" and len(manifest.sites) > 1:
                hint += "; study --leave-one-site-out needs none"
            findings.append(Finding("warning", fault, "empty-split", file, hint=hint))
        elif patients < TINY:
            fault = f"the split {split} holds {patients} patient{'s' if patients > 1 else ''} ({len(cases)} cases)"
            hint = "numbers from so few are uncertain"
            findings.append(Finding("warning", fault, "tiny-split", file, split=split, hint=hint))
    return findings
