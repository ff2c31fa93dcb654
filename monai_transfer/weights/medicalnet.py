"""The arguments with which MONAI's ResNet has the shape of the published MedicalNet weights.

Chen, Ma, Zheng, "Med3D: Transfer Learning for 3D Medical Image Analysis", arXiv:1904.00625 (weights: MIT licence).
"""

from __future__ import annotations

from typing import Any

from monai_transfer.errors import InputError

__all__ = ["resnet_flags"]

_SHORTCUTS = {10: "B", 18: "A", 34: "A", 50: "B", 101: "B", 152: "B", 200: "B"}


def resnet_flags(depth: int, *, feed_forward: bool = False) -> dict[str, Any]:
    """Keyword arguments for ``monai.networks.nets.resnet<depth>`` that fit the MedicalNet weights of that depth.

    ``resnet18(**resnet_flags(18))``. With MONAI's defaults (shortcut B with a bias) the weights of 18 and 34 layers
    leave every downsampling convolution fresh. MedicalNet's first convolution has ``conv1_t_stride=2``, which the
    weights do not show; MONAI's default is 1. Its dilation in the last two stages has no argument in MONAI.

    Args:
        depth: 10, 18, 34, 50, 101, 152 or 200.
        feed_forward: ``True`` for a classification head, which starts fresh (the weights have none).

    Raises:
        InputError: no weights of this depth were published.
    """
    if depth not in _SHORTCUTS:
        raise InputError(f"MedicalNet has no ResNet of depth {depth}", mend=f"choose one of {list(_SHORTCUTS)}")
    shortcut = _SHORTCUTS[depth]
    return {
        "spatial_dims": 3,
        "n_input_channels": 1,
        "shortcut_type": shortcut,
        "bias_downsample": shortcut == "A",  # no weights depend on it then; MONAI's own check asks for it
        "feed_forward": feed_forward,
    }
