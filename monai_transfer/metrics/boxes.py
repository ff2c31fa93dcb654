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
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.metrics.base import COUNTS, LENGTH, Metric, Rows, table_of

if TYPE_CHECKING:
    from monai_transfer.localization.boxes import Boxes

__all__ = ["BOX_METRICS", "SIZES", "localization_case", "localization_set"]

#: Lesions by equivalent diameter (of the ball or disc of equal size), mm: at least, less than.
SIZES: dict[str, tuple[float, float]] = {"small": (0, 10), "medium": (10, 20), "large": (20, math.inf)}


def localization_case(
    probabilities: Any, truth: Any, spacing: Sequence[float], *, iou: float = 0.1, unit: str = LENGTH, **how: Any
) -> tuple[dict[str, Any], Boxes, Boxes]:
    """The row of one case, its predicted boxes and its true ones.

    Args:
        probabilities: (C, H, W) or (C, H, W, D), channel 0 the background, in the truth's grid.
        truth: label map (H, W) or (H, W, D), or with a leading channel of 1.
        spacing: of a voxel, mm per axis (or 1 where it has no physical size).
        iou: from which on a box has found a lesion.
        unit: of lengths: ``mm``, or ``px`` where the image has no physical size.
        how: arguments of ``boxes_from_probabilities``; ``connectivity`` is the truth's, too.

    Raises:
        InputError: shapes differ, or a value is NaN.

    A lesion of 2 x 2 pixels is found, one pixel too wide: of the 6 mm2 that either box covers, 4 are in both:

    >>> truth = np.zeros((8, 8), dtype=int)
    >>> truth[2:4, 2:4] = 1
    >>> p = np.zeros((2, 8, 8))
    >>> p[1, 2:4, 2:5] = 0.9
    >>> row, boxes, lesions = localization_case(p, truth, (1.0, 1.0))
    >>> row["found"], row["false_positives"], round(row["box_iou"], 3)
    (1, 0.0, 0.667)
    """
    from monai_transfer.localization.boxes import boxes_from_labels, boxes_from_probabilities
    from monai_transfer.localization.matching import match_boxes, pointing_game

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
        f"lesion_{unit}": _text(_diameter(lesions.sizes, true.ndim), 1),
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

    Args:
        rows: of ``localization_case``, or as read back from ``cases.csv``.
        metric: the name of one.
        weights: (B, cases), how often each case counts in each of B draws.

    One of two lesions is found; in a draw of the first case alone, all are:

    >>> row = {"lesion_mm": "9", "lesion_scores": "0.8", "false_scores": "", "extra_scores": ""}
    >>> rows = [row, row | {"lesion_scores": "nan"}]
    >>> localization_set(rows, "sensitivity", np.array([[1, 1], [2, 0]])).tolist()
    [0.5, 1.0]
    """
    from monai_transfer.localization.froc import FP_RATES, Detections, average_precision, sensitivity_at

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
        sizes = _numbers(row["lesion_px"] if "lesion_px" in row else row["lesion_mm"])
        scores = _numbers(row["lesion_scores"])
        chosen = (sizes >= low) & (sizes < high)
        count[:] = (chosen & ~np.isnan(scores)).sum(), chosen.sum()
    hit, total = (w @ counts).T
    return np.where(total > 0, hit / np.where(total > 0, total, 1.0), np.nan)


def _of_set(name: str):
    return lambda rows, weights: {"": localization_set(rows, name, weights)}


def _sensitivity(rows: Rows, weights: np.ndarray) -> dict[str, np.ndarray]:
    """With all boxes, overall and by size; sizes without any lesion are left out."""
    found = {"": localization_set(rows, "sensitivity", weights)}
    for size in SIZES:
        if not np.isnan(localization_set(rows, f"sensitivity_{size}")[0]):
            found[size] = localization_set(rows, f"sensitivity_{size}", weights)
    return found


def _diameter(sizes: np.ndarray, dims: int) -> np.ndarray:
    return np.cbrt(6 * sizes / np.pi) if dims == 3 else 2 * np.sqrt(sizes / np.pi)


def _text(values: np.ndarray, digits: int = 4) -> str:
    """Numbers as one cell; a missed lesion is a dash."""
    return " ".join("-" if np.isnan(v) else f"{v:.{digits}f}" for v in values)


def _numbers(cell: Any) -> np.ndarray:
    return np.array([float("nan") if word == "-" else float(word) for word in str(cell or "").split()])


_SHARE: dict[str, Any] = {"better": 1, "low": 0.0, "high": 1.0}

BOX_METRICS = table_of(
    [
        Metric(
            "froc",
            "FROC score",
            "Share of the lesions that were found, averaged over operating points with 1/8 to 8 false alarms per scan: "
            "1 is perfect.",
            of_set=_of_set("froc"),
            resamples=1000,  # each resample goes through the curve by itself
            **_SHARE,
        ),
        Metric(
            "false_positives",
            "false alarms per scan",
            "Predicted boxes that hit no lesion, per scan: 0 is perfect.",
            better=-1,
            low=0.0,
            absent=COUNTS,
        ),
        Metric(
            "pointing_game",
            "pointing game",
            "Share of the scans with a lesion whose most suspicious point lies inside one.",
            **_SHARE,
        ),
        Metric(
            "box_iou",
            "box IoU",
            "How well the box around each lesion fits (common part over union): 1 is perfect, 0 means missed.",
            **_SHARE,
        ),
        Metric(
            "sensitivity",
            "sensitivity",
            "Share of the lesions that some predicted box found; of a size where one is named (small: below 10 mm, "
            "large: from 20 mm; pixels where the images have no physical size).",
            of_set=_sensitivity,
            resamples=1000,
            **_SHARE,
        ),
        Metric(
            "sensitivity_at_1",
            "sensitivity at 1 false alarm",
            "Share of the lesions that are found where on average one false alarm per scan is accepted.",
            of_set=_of_set("sensitivity_at_1"),
            resamples=1000,
            **_SHARE,
        ),
        Metric(
            "ap",
            "average precision",
            "How pure the list of predicted boxes is while it is read from the surest on until the lesions are found: "
            "1 is perfect.",
            of_set=_of_set("ap"),
            resamples=1000,
            **_SHARE,
        ),
    ]
)
"""Of a localization's cases."""
