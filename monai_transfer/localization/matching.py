"""Which predicted box found which lesion, and whether the most suspicious point lies in one.

The highest score chooses first; it takes the free lesion of its class that it overlaps most, if their boxes' IoU
reaches ``iou``. A box that reaches only lesions already found is an *extra*: no false alarm for FROC (as in CAMELYON16
and LUNA16), but one for average precision (as in PASCAL VOC and COCO). All others are false. Where the truth holds no
lesion, every box is false, and nothing can be found or missed.

0.1 is the usual IoU in 3D (Jaeger et al., Retina U-Net, 2020, arXiv:1811.08661; Baumgartner et al., nnDetection, MICCAI
2021, arXiv:2106.00817): at equal displacement a volume's IoU falls faster than an area's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data.box_utils import box_iou

from monai_transfer.arrays import as_array
from monai_transfer.errors import InputError
from monai_transfer.localization.boxes import Boxes

__all__ = ["Match", "iou_matrix", "match_boxes", "pointing_game"]


class Match(NamedTuple):
    """The outcome for one image.

    Attributes:
        lesion_scores: (lesions,) score of the box that found each; NaN: missed.
        lesion_ious: (lesions,) IoU with that box; 0: missed.
        false_scores: scores of the boxes that hit nothing.
        extra_scores: scores of further boxes on lesions found already.

    >>> from monai_transfer.localization.boxes import boxes_from_labels
    >>> truth, prediction = np.zeros((9, 9)), np.zeros((9, 9))
    >>> truth[1:4, 1:4] = prediction[1:4, 2:5] = 1
    >>> prediction[7:9, 7:9] = 1
    >>> match = match_boxes(boxes_from_labels(prediction, [1, 1]), boxes_from_labels(truth, [1, 1]))
    >>> match.lesion_ious.tolist(), len(match.false_scores)  # 6 of 12 pixels in common; one box hits nothing
    ([0.5], 1)
    """

    lesion_scores: np.ndarray
    lesion_ious: np.ndarray
    false_scores: np.ndarray
    extra_scores: np.ndarray


def iou_matrix(boxes: Any, others: Any) -> np.ndarray:
    """Intersection over union of each box with each other, (N, M), by MONAI; also where there are none.

    Args:
        boxes: N x 2 d, lower corner, then upper, in voxels.
        others: M x 2 d.

    >>> from monai_transfer.localization.matching import iou_matrix
    >>> iou_matrix([[0, 0, 2, 2]], [[0, 0, 2, 2], [1, 0, 3, 2]]).round(3)
    array([[1.   , 0.333]])
    """
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    one, two = (torch.as_tensor(np.asarray(b), dtype=torch.float64) for b in (boxes, others))
    return np.asarray(box_iou(one, two))


def match_boxes(found: Boxes, truth: Boxes, iou: float = 0.1) -> Match:
    """Match the boxes of one image with its lesions.

    Args:
        found: predicted boxes.
        truth: boxes of the lesions.
        iou: from which on a box has found a lesion.

    Raises:
        InputError: ``iou`` is not above 0 and at most 1.

    A box that overlaps the lesion by a tenth of their union finds it; twice as strict, it does not:

    >>> from monai_transfer.localization.boxes import boxes_from_labels
    >>> truth, prediction = np.zeros((9, 9)), np.zeros((9, 9))
    >>> truth[0:4, 0:4] = prediction[2:6, 2:6] = 1
    >>> found, lesions = boxes_from_labels(prediction, [1, 1]), boxes_from_labels(truth, [1, 1])
    >>> [match_boxes(found, lesions, iou).lesion_scores.tolist() for iou in (0.1, 0.2)]
    [[1.0], [nan]]
    """
    if not 0 < iou <= 1:
        raise InputError(f"an IoU of {iou} is not above 0 and at most 1", hint="such as 0.1")
    overlap = iou_matrix(found.voxels, truth.voxels)
    overlap = np.where(found.labels[:, None] == truth.labels[None, :], overlap, 0.0)
    overlap = np.where(overlap >= iou - 1e-6, overlap, 0.0)  # MONAI's IoU has the digits of float32
    scores, ious = np.full(len(truth), np.nan), np.zeros(len(truth))
    wrong: list[float] = []
    extra: list[float] = []
    for row in np.argsort(-found.scores, kind="stable"):
        free = np.where(np.isnan(scores), overlap[row], 0.0)
        if free.any():
            best = int(free.argmax())
            scores[best], ious[best] = found.scores[row], free[best]
        else:
            (extra if overlap[row].any() else wrong).append(float(found.scores[row]))
    return Match(scores, ious, np.array(wrong), np.array(extra))


def pointing_game(heat: Any, truth: Any, margin: int = 0) -> float:
    """1 if the map's highest point lies in the truth, else 0; NaN where the truth is empty. Ties: the first in order.

    Paper: Zhang, Bargal, Lin, Brandt, Shen and Sclaroff, Top-Down Neural Attention by Excitation Backprop, IJCV 126,
    2018 (ECCV 2016), arXiv:1608.00507

    Args:
        heat: (H, W) or (H, W, D).
        truth: mask of the same shape.
        margin: how many voxels beside the truth still count, along any axis; the paper has 15 pixels.

    Raises:
        InputError: shapes differ, or a value is NaN.

    >>> import numpy as np
    >>> from monai_transfer.localization.matching import pointing_game
    >>> heat, truth = np.zeros((4, 4)), np.zeros((4, 4), bool)
    >>> heat[1, 2], truth[1, 1:3] = 1.0, True
    >>> pointing_game(heat, truth)
    1.0
    """
    array, mask = (as_array(v) for v in (heat, truth))
    if array.shape != mask.shape:
        raise InputError(
            f"the map has shape {array.shape}, the truth {mask.shape}", hint="bring the map back into the image's grid"
        )
    if np.isnan(array).any():
        raise InputError("the map holds NaN", hint="the network diverged: look at its training loss")
    if not mask.any():
        return float("nan")
    at = np.unravel_index(int(array.argmax()), array.shape)
    near = tuple(slice(max(0, int(i) - margin), int(i) + margin + 1) for i in at)
    return float((mask[near] != 0).any())
