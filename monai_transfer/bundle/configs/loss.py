"""Loss: what a batch's supervised error is."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.intensities import scaled
from monai_transfer.bundle.spec import BundleSpec

__all__ = ["loss"]


def loss(s: BundleSpec) -> dict[str, Any]:
    """The supervised loss."""
    said = "the supervised loss"
    if scaled(s):
        said = "of scaled labels; torch.nn.L1Loss and torch.nn.HuberLoss (its delta beside) fit as well"
    return {"loss": note(s.loss, said)}
