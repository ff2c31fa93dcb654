"""What a task is given of one test case, and what it says of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from monai_transfer.metrics.base import LENGTH

__all__ = ["CaseInput", "CaseResult", "Maps"]


@dataclass(frozen=True)
class CaseInput:
    """One test case.

    Args:
        prediction, truth: as the evaluator's batch holds them, in the image's original grid; the truth may be unknown.
        labels: class names by value.
        affine: voxel index to world (RAS, mm), the label's where it has one; identity for plain pictures.
        spacing: of a voxel along each spatial axis of the label (empty where it is no image).
        unit: of lengths: ``mm``, or ``px`` where the image has no physical size.
        unknown: names of the classes that nobody looked for in this case.
        options: of the evaluation: ``activation, tolerance, boxes, iou, object_iou, kept``.
        source: what the untouched source predicts, in the form of ``prediction``; ``None`` where it was not asked.

    >>> from monai_transfer.tasks import get_task
    >>> case = CaseInput(np.array([2.5]), np.array([2.0]), {}, affine=np.eye(4), spacing=[])
    >>> get_task("regression").case(case).row["absolute_error"]
    0.5
    """

    prediction: Any
    truth: Any
    labels: Mapping[int, str]
    affine: np.ndarray
    spacing: list[float]
    unit: str = LENGTH
    unknown: Collection[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    source: Any = None


@dataclass(frozen=True)
class Maps:
    """Two label maps of one shape, to be drawn as contours over the image.

    >>> maps = Maps(truth=np.array([[0, 1]]), prediction=np.array([[1, 1]]))
    >>> int((maps.truth != maps.prediction).sum())  # pixels that differ
    1
    """

    truth: np.ndarray
    prediction: np.ndarray


@dataclass(frozen=True)
class CaseResult:
    """What was measured.

    Args:
        row: the case's cells in ``cases.csv``.
        picture: contours over the image, or words below it; None: no picture.
        boxes: what ``boxes.json`` holds of the case.

    >>> CaseResult({"label": 2.0, "prediction": 2.5}, picture="truth: 2   predicted: 2.5").row["prediction"]
    2.5
    """

    row: dict[str, Any]
    picture: Maps | str | None = None
    boxes: dict[str, Any] | None = None
