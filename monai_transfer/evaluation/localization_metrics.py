"""What was found in one case, and FROC and its relatives over a set of cases and over patients.

A case is a row of cases.csv; its lists of scores are text, so that whole-set metrics can be computed from the file:

| truth | prediction | found | false positives | box IoU, pointing game |
|---|---|---|---|---|
| no lesion | no box | 0 of 0 | 0 | missing (NaN) |
| no lesion | boxes | 0 of 0 | all | missing (NaN) |
| lesions | no box | 0 | 0 | 0; by the map's highest point |
| lesions | boxes | measured | measured | measured |

So a case without any lesion counts for false positives alone. Lesions are the connected components of the truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.localization.boxes import Boxes, boxes_from_labels, boxes_from_probabilities
from monai_transfer.localization.froc import FP_RATES, Detections, average_precision, sensitivity_at
from monai_transfer.localization.matching import match_boxes, pointing_game

__all__ = ["MEANS", "SETS", "SIZES", "localization_case", "localization_set", "set_metrics"]

#: Lesions by equivalent diameter (of the ball or disc of equal size), mm: at least, less than.
SIZES: dict[str, tuple[float, float]] = {"small": (0, 10), "medium": (10, 20), "large": (20, math.inf)}
#: Metrics that are a mean over cases, by the column of that name.
MEANS = ("false_positives", "pointing_game", "box_iou")
#: Metrics of the whole set.
SETS = ("froc", "sensitivity", "sensitivity_at_1", "ap", *(f"sensitivity_{name}" for name in SIZES))


def localization_case(
    probabilities: Any, truth: Any, spacing: Sequence[float], *, iou: float = 0.1, **how: Any
) -> tuple[dict[str, Any], Boxes, Boxes]:
    """The row of one case, its predicted boxes and its true ones.

    Args:
        probabilities: (C, H, W) or (C, H, W, D), channel 0 the background, in the truth's grid.
        truth: label map (H, W) or (H, W, D), or with a leading channel of 1.
        spacing: of a voxel, mm per axis.
        iou: from which on a box has found a lesion.
        how: arguments of ``boxes_from_probabilities``; ``connectivity`` is the truth's, too.

    Raises:
        InputError: shapes differ, or a value is NaN.
    """
    p, true = np.asarray(probabilities), np.asarray(truth)
    true = true[0] if true.ndim == len(spacing) + 1 and true.shape[0] == 1 else true
    if p.shape[1:] != true.shape:
        raise InputError(
            f"prediction has shape {p.shape[1:]}, truth has {true.shape}",
            hint="bring the prediction back into the image's original grid before measuring",
        )
    found = boxes_from_probabilities(p, spacing, **how)
    lesions = boxes_from_labels(true, spacing, connectivity=how.get("connectivity"))
    match = match_boxes(found, lesions, iou)
    heat = p[1:].max(axis=0) if len(p) > 1 else p[0]
    row = {
        "lesions": len(lesions),
        "boxes": len(found),
        "found": int((~np.isnan(match.lesion_scores)).sum()),
        "false_positives": float(len(match.false_scores)),
        "box_iou": float(match.lesion_ious.mean()) if len(lesions) else float("nan"),
        "pointing_game": pointing_game(heat, true),
        "lesion_mm": _text(_diameter(lesions.sizes, true.ndim), 1),
        "lesion_scores": _text(match.lesion_scores),
        "false_scores": _text(match.false_scores),
        "extra_scores": _text(match.extra_scores),
    }
    return row, found, lesions


def localization_set(rows: Sequence[Mapping[str, Any]], metric: str, weights: np.ndarray | None = None) -> np.ndarray:
    """A metric of the whole set, for each row of weights (B, cases) -> (B,); without weights (1,).

    ``froc``: mean sensitivity at 1/8 to 8 false positives per case; ``sensitivity_at_1``: at one; ``ap``: average
    precision; ``sensitivity``: found lesions per lesion with all boxes; ``sensitivity_small`` and so on: of the lesions
    of that size. NaN where there is no such lesion.
    """
    w = np.ones((1, len(rows))) if weights is None else np.asarray(weights, dtype=float)
    if metric in ("froc", "sensitivity_at_1", "ap"):
        columns = ("lesion_scores", "false_scores", "extra_scores")
        found = Detections(*([_numbers(row[name]) for row in rows] for name in columns))
        if metric == "ap":
            return average_precision(found, w)
        return sensitivity_at(found, FP_RATES if metric == "froc" else [1.0], w).mean(axis=1)
    low, high = SIZES.get(metric.removeprefix("sensitivity_"), (0, math.inf))
    counts = np.zeros((len(rows), 2))
    for count, row in zip(counts, rows, strict=True):
        sizes, scores = _numbers(row["lesion_mm"]), _numbers(row["lesion_scores"])
        chosen = (sizes >= low) & (sizes < high)
        count[:] = (chosen & ~np.isnan(scores)).sum(), chosen.sum()
    hit, total = (w @ counts).T
    return np.where(total > 0, hit / np.where(total > 0, total, 1.0), np.nan)


def set_metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics of :data:`SETS` that these cases have: sizes without any lesion are left out."""
    sizes = [f"sensitivity_{name}" for name in SIZES]
    return [m for m in SETS if m not in sizes or not np.isnan(localization_set(rows, m)[0])]


def _diameter(sizes: np.ndarray, dims: int) -> np.ndarray:
    return np.cbrt(6 * sizes / np.pi) if dims == 3 else 2 * np.sqrt(sizes / np.pi)


def _text(values: np.ndarray, digits: int = 4) -> str:
    """Numbers as one cell; a missed lesion is a dash."""
    return " ".join("-" if np.isnan(v) else f"{v:.{digits}f}" for v in values)


def _numbers(cell: Any) -> np.ndarray:
    return np.array([float("nan") if word == "-" else float(word) for word in str(cell or "").split()])
