"""Which classes a split or a site shows, held against what was looked for there."""

from __future__ import annotations

import json
from collections import defaultdict

from monai_transfer.inspection.facts import Inspected
from monai_transfer.inspection.finding import Finding
from monai_transfer.inspection.values import classes_of
from monai_transfer.manifest.model import Case, Manifest
from monai_transfer.tasks import get_task

__all__ = ["check_classes"]


def check_classes(manifest: Manifest, inspected: Inspected, file: str | None) -> list[Finding]:
    """Classes that a split with labels, or a site that was annotated for them, never shows.

    Of a split or site with a mask that could not be read, which is an error of its own, nothing is claimed.
    """
    if not get_task(manifest.task).needs_names:
        return []
    present = [(split, case, classes_of(manifest, case, r)) for split, case, r in inspected if case.label is not None]
    masks = get_task(manifest.task).label.is_path
    unread = [(split, case.site) for split, case, r in inspected if masks and case.label and not r.label_values]
    findings = []
    for split in ("training", "validation", "test"):
        if not manifest.cases(split) or any(where == split for where, _ in unread):
            continue
        seen = [classes for where, _, classes in present if where == split]
        if not seen:
            fault, hint = f"no case of the split {split} has a label", "build the manifest with labelled cases in it"
            findings.append(Finding("warning", fault, "no-labels", file, split=split, hint=hint))
            continue
        for name in _absent(manifest, seen):
            fault = f"the {_noun(manifest)} {name!r} never occurs in the split {split}"
            hint = "it can be neither learned nor measured there"
            findings.append(Finding("warning", fault, "absent-class", file, split=split, hint=hint))
    return findings + _sites(manifest, present, file, {site for _, site in unread})


def _noun(manifest: Manifest) -> str:
    return "region" if manifest.label_mapping.regions else "class"


def _absent(manifest: Manifest, seen: list[set[str]]) -> list[str]:
    """The outputs that no case shows; a class may lie in others everywhere, and then its region shows it."""
    mapping, shown = manifest.label_mapping, set().union(*seen)
    of = {value: name for name, values in mapping.classes.items() for value in values}
    if mapping.regions:
        return [name for name, values in mapping.regions.items() if shown.isdisjoint(of[value] for value in values)]
    return [name for name in mapping.names if name not in shown]


def _sites(
    manifest: Manifest, present: list[tuple[str, Case, set[str]]], file: str | None, unread: set[str | None]
) -> list[Finding]:
    """A class that never occurs at a site was perhaps not looked for there; one that does must have been."""
    findings = []
    mapping = manifest.label_mapping
    background = mapping.names[: int(mapping.has_background)]
    sites = sorted({case.site for _, case, _ in present} - unread)
    absent_at: dict[str, list[str]] = defaultdict(list)
    for site in sites:
        here = [(case, classes) for _, case, classes in present if case.site == site]
        for name in _absent(manifest, [classes for _, classes in here]):
            number = mapping.outputs.index(name)
            looked_for = [case for case, _ in here if mapping.annotated(manifest.annotated_in(case))[number]]
            if looked_for and name not in background:
                absent_at[name].append(site)
    for name, where in absent_at.items():
        for site in where if len(where) < len(sites) else []:  # absent everywhere: said of the splits
            n = sum(case.site == site for _, case, _ in present)
            fault = f"the {_noun(manifest)} {name!r} never occurs at the site {site} ({n} labelled cases)"
            others = [other for other in mapping.outputs if site not in absent_at.get(other, ())]
            others = [other for other in others if other not in background]
            hint = (
                f'if nobody looked for it there, declare "annotated": {json.dumps({site: others}, ensure_ascii=False)}'
            )
            findings.append(Finding("warning", fault, "absent-class-at-site", file, hint=hint))
    for split, case, classes in present:
        extra = sorted(classes - set(_told(manifest, case)) - set(background))
        if extra:
            fault = f"the label holds {', '.join(extra)}, which by annotated was not looked for in this case"
            hint = "add it to annotated, or take it out of the label"
            place = case.label if isinstance(case.label, str) else file
            findings.append(Finding("error", fault, "not-annotated", place, case.case, split, hint))
    return findings


def _told(manifest: Manifest, case: Case) -> list[str]:
    """The classes that were looked for in a case (a region that was stands for its classes)."""
    names, mapping = manifest.annotated_in(case), manifest.label_mapping
    if names is None:
        return mapping.names
    inside = {v for name in names for v in mapping.regions.get(name, ())}
    return [name for name, values in mapping.classes.items() if name in names or (values and set(values) <= inside)]
