"""The budget of a study: found once, kept in its folder, the same for every arm and after every interruption."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_transfer.bundle.planning.budget import in_short
from monai_transfer.bundle.timed_budget import budget_overrides
from monai_transfer.files import write_json
from monai_transfer.safe_parse import read_mapping

__all__ = ["study_budget"]


def study_budget(
    bundle: str | Path, out: str | Path, budget: str, overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """What all arms are given, and the words for it; pretraining keeps its own epochs.

    A time is turned into epochs by timed steps of ``train``, once: the study's folder keeps it as ``budget.json``.

    Args:
        bundle, overrides: as for ``run_study``.
        out: the study's folder.
        budget: see ``bundle.planning.budget.asked_for``.

    Raises:
        InputError: see ``bundle.timed_budget.budget_overrides``.
    """
    path = Path(out) / "budget.json"
    before = read_mapping(path) if path.is_file() else {}
    found, known = budget_overrides(bundle, "train", budget, overrides, before=before)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, known)
    return {"max_epochs": found["max_epochs"]}, in_short(known)
