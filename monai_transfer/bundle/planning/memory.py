"""Batch and patch within a memory limit: an estimate by a dry run, larger batches first given up, then voxels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from monai_transfer.component_table import build_config
from monai_transfer.engine.memory import memory_need

__all__ = ["needed"]

logger = logging.getLogger("monai_transfer")


def needed(network: dict[str, Any], batch: int, channels: int, patch: Sequence[int]) -> float | None:
    """GiB that a training step needs at least; ``None`` where a dry run of this network is not possible."""
    try:
        built = build_config(network)
        return memory_need(built, (batch, channels, *patch)).total() / 2**30
    except Exception as error:  # whatever a network raises on tensors without values
        logger.debug("no memory estimate for %s (%s)", network.get("_target_"), error)
        return None
