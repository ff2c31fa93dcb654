"""Loss: what a batch's supervised error is."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.intensities import scaled
from monai_transfer.bundle.configs.parts import ours
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr

__all__ = ["loss"]


def loss(s: BundleSpec) -> dict[str, Any]:
    """The supervised loss."""
    said = "the supervised loss"
    if scaled(s):
        said = "of scaled labels; torch.nn.L1Loss and torch.nn.HuberLoss (its delta beside) fit as well"
    loss = dict(s.loss)
    if s.class_weights and loss["_target_"] == "torch.nn.CrossEntropyLoss":
        loss["weight"] = expr(f"torch.tensor({[float(w) for w in s.class_weights]}, device=@device)")
        said = "the supervised loss; rare classes weigh more"
    if s.class_weights and loss["_target_"].endswith(".MaskedBCELoss"):
        loss = ours("losses.masked_bce.MaskedBCELoss", pos_weight=[float(w) for w in s.class_weights])
        said = "the supervised loss; a rare finding weighs more where it is present"
    return {"loss": note(loss, said)}
