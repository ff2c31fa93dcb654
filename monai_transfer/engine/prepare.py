"""From a freshly built network to the one that is trained: weights in, then the strategy, then the device.

One object, so that configs need no particular order of evaluation, and pretrained weights are loaded when the network
is made: a loading handler would overwrite a federated server's weights in every round.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_transfer.engine.activation_checkpointing import checkpoint_activations as recompute
from monai_transfer.engine.precision import channels_last as lay_out
from monai_transfer.errors import InputError
from monai_transfer.strategies.base import Strategy
from monai_transfer.weights import WeightReport, load_weights

__all__ = ["Prepared"]


class Prepared:
    """The network to train, its optimizer groups, and the report of what was loaded into it.

    Args:
        network: built by the config, fresh weights.
        pretrained: path of the weights or bundle to start from; ``None``, ``""`` or ``"none"`` trains from scratch.
        strategy: which parameters learn; default all.
        device: where it goes.
        target_classes: names of this network's classes, in order of its outputs.
        source_classes: names of the source's classes, where its file does not say them.
        min_coverage: share of the parameters that the source must fill.
        channels_last: lay the convolutions' weights out so; see ``engine.precision``.
        checkpoint_activations: less memory for more time; see ``engine.activation_checkpointing``.
    """

    def __init__(
        self,
        network: nn.Module,
        pretrained: str | Path | None = None,
        strategy: Strategy | None = None,
        device: str | torch.device = "cpu",
        target_classes: Sequence[str] | None = None,
        source_classes: Sequence[str] | None = None,
        min_coverage: float = 0.5,
        channels_last: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        self.strategy = strategy if strategy is not None else Strategy()
        self.report: WeightReport | None = None
        if pretrained is not None and str(pretrained).lower() not in ("", "none"):
            if not Path(pretrained).exists():
                raise InputError(
                    "the weights to start from are not there",
                    path=pretrained,
                    mend="run its pretrain first, or name others with --pretrained; --pretrained none is from scratch",
                )
            self.report = load_weights(
                network,
                pretrained,
                source_classes=source_classes,
                target_classes=target_classes,
                min_coverage=min_coverage,
            )
        network = self.strategy.apply(network)
        if checkpoint_activations:
            network = recompute(network)
        if channels_last:
            network = lay_out(network)
        self.network = network.to(device)

    def param_groups(self, network: nn.Module | None = None) -> list[dict[str, Any]]:
        """What any torch optimizer takes; ``network`` when it was wrapped since."""
        return self.strategy.param_groups(self.network if network is None else network)
