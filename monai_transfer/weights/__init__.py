"""Weights and where they came from: reading them, adapting them to a network, and reporting what became of each."""

from __future__ import annotations

from monai_transfer.weights.loading import load_weights
from monai_transfer.weights.report import WeightReport
from monai_transfer.weights.source import Source

__all__ = ["Source", "WeightReport", "load_weights"]
