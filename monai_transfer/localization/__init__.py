"""Lesion localization: boxes from masks and maps, matching with the truth, FROC and average precision."""

from .boxes import Boxes, boxes_from_labels, boxes_from_probabilities
from .matching import Match, match_boxes

__all__ = ["Boxes", "Match", "boxes_from_labels", "boxes_from_probabilities", "match_boxes"]
