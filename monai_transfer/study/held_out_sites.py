"""Which sites can be held out, and a manifest for each one that no test split of the user's covers.

A site with labelled test cases is tested on these. One without is divided anew, by patients: half of it is the test,
the rest is what arms that see the target may use; where no arm trains at the target, all of it is the test. The other
sites keep their splits, so that nothing of the held-out site is ever trained on by the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from monai_transfer.manifest.case import Case
from monai_transfer.manifest.model import Manifest
from monai_transfer.manifest.splits import assign_splits

__all__ = ["SHARES", "held_out_manifest", "can_be_held_out"]

SHARES = (0.4, 0.1, 0.5)
"""Training, validation and test of a held-out site without a test split."""


def can_be_held_out(manifest: Manifest, trains_there: bool) -> tuple[list[str], dict[str, str]]:
    """The sites that can be held out, and for each other one why it cannot.

    Args:
        manifest: all sites.
        trains_there: some arm learns from the held-out site's own training cases.
    """
    sites = [site for site in manifest.sites if site]
    held, reasons = [], {}
    for site in sites:
        others = [other for other in sites if other != site]
        patients = {case.patient for case in _labelled(manifest, site)}
        if not patients:
            reasons[site] = "none of its cases has a label"
        elif not manifest.cases("training", site=others, labelled=True):
            reasons[site] = "without it there is no labelled training case"
        elif trains_there and len(patients) < 2 and not manifest.cases("test", site=site, labelled=True):
            reasons[site] = "it has one patient, who cannot be trained on and tested"
        else:
            held.append(site)
    return held, reasons


def held_out_manifest(manifest: Manifest, site: str, trains_there: bool, path: Path) -> Path | None:
    """A manifest in which ``site`` has a test split, written to ``path``; ``None`` where it has one already.

    Args:
        manifest: all sites.
        site: the one to hold out.
        trains_there: see :func:`can_be_held_out`.
        path: where to write it.
    """
    if manifest.cases("test", site=site, labelled=True):
        return None
    cases = _labelled(manifest, site)
    parts = ["test"] * len(cases)
    if trains_there:
        parts = assign_splits([c.patient for c in cases], ["all"] * len(cases), fractions=SHARES, seed=0)
    lists: dict[str, list[Case]] = {}
    for split in ("training", "validation", "test", "unlabeled"):
        kept = [case for case in manifest.cases(split) if case.site != site or case.label is None]
        lists[split] = kept + [case for case, part in zip(cases, parts, strict=True) if part == split]
    taken = {case.patient for case, part in zip(cases, parts, strict=True) if part != "training"}
    # an unlabelled image of a patient who is tested must not train
    lists["training"] = [case for case in lists["training"] if case.label is not None or case.patient not in taken]
    lists["unlabeled"] = [case for case in lists["unlabeled"] if case.patient not in taken]
    divided = replace(manifest, **lists, root=None)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    return divided.save(path)


def _labelled(manifest: Manifest, site: str) -> Sequence[Case]:
    return [c for split in ("training", "validation", "test") for c in manifest.cases(split, site=site, labelled=True)]
