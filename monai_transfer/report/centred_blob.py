"""Arms that a centred ellipsoid beats are useless, and the report says so first. Studies measure it: ``BLOB``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai_transfer.content_kinds import refuse_odd_fields
from monai_transfer.report.run import Run
from monai_transfer.report.wording import capitalised, listed, number
from monai_transfer.safe_parse import read_json

__all__ = ["BLOB", "blob_of", "useless_sentence", "useless_summary"]

BLOB = "blob.json"
"""In a study's folder: ``{"metric": "dice", "value": ...}`` of ellipsoids in the middle of every test image."""


def blob_of(runs: Sequence[Run], metric: str) -> float | None:
    """The ellipsoid's score by a metric, where the study of these runs measured it (beside the runs, or one above)."""
    for folder in dict.fromkeys(
        parent for run in runs for parent in (Path(run.folder).parent, Path(run.folder).parent.parent)
    ):
        path = Path(folder) / BLOB
        if path.is_file():
            told = read_json(path)
            refuse_odd_fields(told, {"metric": str, "value": float}, path, "delete it; the study measures it again")
            if told.get("metric") == metric and told.get("value") is not None:
                return float(told["value"])
    return None


def useless_sentence(arm: str, mean: float, blob: float | None) -> str:
    """The first sentence about an arm that is not above it; empty for the others.

    >>> useless_sentence("fine-tuned", 0.3, 0.65)
    'Useless: fine-tuned (0.300) is not above an ellipsoid in the middle of every image (0.650). '
    >>> useless_sentence("fine-tuned", 0.7, 0.65)
    ''
    """
    if blob is None or not mean <= blob:
        return ""
    return f"Useless: {arm} ({number(mean)}) is not above an ellipsoid in the middle of every image ({number(blob)}). "


def useless_summary(names: Sequence[str], of: int, blob: float | None) -> str:
    """One sentence on all arms that are not above it; empty where there is none.

    Args:
        names: of these arms, as people read them.
        of: how many arms there are.
        blob: the ellipsoid's score.

    >>> useless_summary(["joint", "fine-tuned"], 2, 0.65)
    'Every arm is useless here: an ellipsoid in the middle of every image has 0.650, and none is above it.'
    >>> useless_summary(["from scratch"], 2, 0.65)
    'From scratch is useless here: an ellipsoid in the middle of every image has 0.650, and it is not above it.'
    """
    if blob is None or not names:
        return ""
    told = f"an ellipsoid in the middle of every image has {number(blob)}"
    if len(names) == of:
        return f"Every arm is useless here: {told}, and none is above it."
    if len(names) == 1:
        return f"{capitalised(names[0])} is useless here: {told}, and it is not above it."
    return f"{capitalised(listed(names))} are useless here: {told}, and none of them is above it."
