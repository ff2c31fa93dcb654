"""How predictions are judged: one table of :class:`Metric` for each kind of rows, and the scores of one case."""

from __future__ import annotations

from monai_transfer.metrics.base import Metric, case_number, find_metric
from monai_transfer.metrics.boxes import BOX_METRICS, localization_case
from monai_transfer.metrics.classes import CLASS_METRICS, classification_case
from monai_transfer.metrics.findings import FINDING_METRICS, findings_case
from monai_transfer.metrics.masks import MASK_METRICS, MaskPair, foreground, segmentation_case
from monai_transfer.metrics.values import VALUE_METRICS, regression_case

__all__ = [
    "BOX_METRICS",
    "CLASS_METRICS",
    "FINDING_METRICS",
    "MASK_METRICS",
    "VALUE_METRICS",
    "MaskPair",
    "Metric",
    "case_number",
    "classification_case",
    "find_metric",
    "findings_case",
    "foreground",
    "localization_case",
    "regression_case",
    "segmentation_case",
]
