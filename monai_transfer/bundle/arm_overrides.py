"""What the arms of a study, and the candidates of ``auto``, override in ``train``. Light: nothing is imported."""

from __future__ import annotations

from typing import Any

__all__ = ["ALONE", "AVERAGED", "FROM_RANDOM", "HEAD_ONLY", "TUNED"]

ALONE: dict[str, Any] = {"joint": False}
"""The target's cases alone."""

FROM_RANDOM: dict[str, Any] = {"pretrained": "none"}
"""From random weights."""

_AVERAGE: dict[str, Any] = {"average": "rule", "average_statistics": "rule"}
"""Averaged with the source when training ends. BatchNorm's statistics of an average belong to neither network: not
estimated anew, they cost up to .17 Dice; after a source that was trained under randomised contrast, anew costs .04
(``docs/fine_tuning.md``)."""

HEAD_ONLY: dict[str, Any] = {"_target_": "monai_transfer.strategies.head_only.HeadOnly"}
"""The strategy that trains the last layer alone."""

TUNED: dict[str, dict[str, Any]] = {
    "fine_tuned": ALONE,
    "joint": {"joint": True},
    "averaged": {**_AVERAGE, **ALONE},
    "joint_averaged": {"joint": True, **_AVERAGE},
}
"""Ways of going on from a source with all of its weights."""

AVERAGED = {"averaged": "fine_tuned", "joint_averaged": "joint"}
"""Arms that average another arm's weights with the source's when training ends: one training serves both."""
