"""FROC, sensitivity at a rate of false positives, and average precision over a set of images.

    sens(t) = found lesions with score >= t / lesions,   fp(t) = false boxes with score >= t / images
    FROC score: mean of sens over fp = 1/8, 1/4, 1/2, 1, 2, 4, 8 per image, linear between the points of the curve
    AP: area under precision over recall, precision replaced by the best one at any higher recall

Paper: Setio et al., LUNA16 challenge, Medical Image Analysis 42, 2017, arXiv:1612.08012 (the rates); Everingham et al.,
The PASCAL VOC challenge: a retrospective, IJCV 111, 2015 (AP)

``monai.metrics.compute_froc_curve_data`` leaves out its lowest threshold, which is right where some lesion was missed
(its score is 0 there) and loses the last point of the curve where none was: with every lesion found it gives less than
1. Otherwise the scores agree (tested). Images without any lesion count for the rate of false positives alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["FP_RATES", "Detections", "average_precision", "froc_curve", "sensitivity_at"]

FP_RATES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)


class Detections:
    """The outcomes of many images, ready for weighting (a bootstrap draws images or patients several times).

    Args:
        lesion_scores, false_scores, extra_scores: one array for each image, as in ``Match``.

    Two images with a lesion each: one found at score 0.9, one missed, and a false box at 0.4:

    >>> found = Detections([[0.9], [float("nan")]], [[], [0.4]])
    >>> false_positives, sensitivity = froc_curve(found)
    >>> float(false_positives.max()), float(sensitivity.max())  # per image, and of the lesions
    (0.5, 0.5)
    """

    def __init__(
        self, lesion_scores: Sequence[Any], false_scores: Sequence[Any], extra_scores: Sequence[Any] | None = None
    ) -> None:
        self.n = len(lesion_scores)
        lesions = [np.asarray(s, dtype=float).reshape(-1) for s in lesion_scores]
        self.lesions = np.array([len(s) for s in lesions], dtype=float)
        extra = extra_scores if extra_scores is not None else [()] * self.n
        kinds = ([s[~np.isnan(s)] for s in lesions], false_scores, extra)
        scores, image, kind = [], [], []
        for number, groups in enumerate(kinds):
            for index, values in enumerate(groups):
                scores += list(values)
                image += [index] * len(values)
                kind += [number] * len(values)
        values = np.asarray(scores, dtype=float)
        order = np.argsort(-values, kind="stable")
        self.scores = values[order]
        self.image, self.kind = (np.asarray(v, dtype=int)[order] for v in (image, kind))
        # equal scores pass a threshold together: the curve has a point only after the last of them
        self.ends = (
            np.flatnonzero(np.append(np.diff(self.scores) != 0, True)) if len(values) else np.zeros(0, dtype=int)
        )

    def counts(self, weights: np.ndarray, *kinds: int) -> np.ndarray:
        """Weighted boxes of these kinds (0 found a lesion, 1 false, 2 extra) with at least each score, (B, points)."""
        chosen = weights[:, self.image] * np.isin(self.kind, kinds)
        return np.cumsum(chosen, axis=1)[:, self.ends]


def froc_curve(found: Detections, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """False positives per image and sensitivity, each (B, 1 + points), from the highest threshold down.

    It starts at (0, 0); the sensitivity is NaN where the weighted images hold no lesion at all.

    Args:
        found: the outcomes.
        weights: (B, images) how often each image counts; default once.

    >>> found = Detections([[0.9], [0.3]], [[], [0.4]])  # two scans, a lesion each; a false box at 0.4
    >>> false, sensitivity = froc_curve(found)
    >>> false[0].tolist(), sensitivity[0].tolist()
    ([0.0, 0.0, 0.5, 0.5], [0.0, 0.5, 0.5, 1.0])
    """
    w = np.ones((1, found.n)) if weights is None else np.asarray(weights, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        false = found.counts(w, 1) / w.sum(axis=1, keepdims=True)
        sensitivity = found.counts(w, 0) / (w @ found.lesions)[:, None]
        start = np.where(w @ found.lesions > 0, 0.0, np.nan)[:, None]
    return np.hstack([np.zeros((len(w), 1)), false]), np.hstack([start, sensitivity])


def sensitivity_at(
    found: Detections, rates: Sequence[float] = FP_RATES, weights: np.ndarray | None = None
) -> np.ndarray:
    """Sensitivity at each rate of false positives per image, (B, rates); their mean is the FROC score.

    Beyond the curve's end the last sensitivity holds: no lower threshold was offered.

    Two scans, a lesion each: one is found at score 0.9; the other only below the score of a false box.

    Args:
        found: the outcomes.
        rates: false positives per image.
        weights: (B, images) how often each image counts; default once.

    >>> found = Detections([[0.9], [0.3]], [[], [0.4]])
    >>> sensitivity_at(found, [0.25, 0.5]).tolist()
    [[0.5, 1.0]]
    """
    false, sensitivity = froc_curve(found, weights)
    # where several points share a rate, the last and highest one counts, as in numpy's interpolation from the right
    return np.stack([np.interp(rates, x, y) for x, y in zip(false, sensitivity, strict=True)])


def average_precision(found: Detections, weights: np.ndarray | None = None) -> np.ndarray:
    """Average precision, (B,); extra boxes count as false. NaN without any lesion, 0 without any box.

    Args:
        found: the outcomes.
        weights: (B, images) how often each image counts; default once.

    One of two lesions is found before any false box:

    >>> average_precision(Detections([[0.9], [float("nan")]], [[], [0.4]])).tolist()
    [0.5]
    """
    w = np.ones((1, found.n)) if weights is None else np.asarray(weights, dtype=float)
    hits, wrong = found.counts(w, 0), found.counts(w, 1, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = (w @ found.lesions)[:, None]
        recall = hits / total
        precision = np.where(hits + wrong > 0, hits / (hits + wrong), 0.0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    area = (np.diff(recall, axis=1, prepend=0.0) * envelope).sum(axis=1)
    return np.where(total[:, 0] > 0, area, np.nan)
