"""From a freshly built network to the one that is trained: weights in, then the strategy, then the device.

One object, so that configs need no particular order of evaluation, and pretrained weights are loaded when the network
is made: a loading handler would overwrite a federated server's weights in every round.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_transfer.engine.activation_checkpointing import checkpoint_activations as recompute
from monai_transfer.engine.precision import channels_last as lay_out
from monai_transfer.errors import InputError
from monai_transfer.networks.copying import copy_network
from monai_transfer.networks.output_forms import plain_in_evaluation
from monai_transfer.nnunet.network import with_folds
from monai_transfer.strategies.base import Strategy
from monai_transfer.weights import WeightReport, load_weights

__all__ = ["Prepared"]

logger = logging.getLogger(__name__)


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
        missing_later: weights that are not there are an error only when ``require`` is called, so that a bundle can be
            looked at (``check_properties``) before its ``pretrain`` has run.
        loading: further words of ``load_weights``: ``channels, source_channels, target_channels, inflate, head, part,
            only, new_classes``. In a config: ``prepared::loading: {only: encoder}``.
        reference: what ``load_weights`` needs to fill a copy of the network with the untouched source (``source``, its
            file, and further words): it becomes ``source``, which predicts what no case can tell. A file that is not
            there leaves ``source`` ``None``.
        folds: weights of several folds make it the mean of as many networks; for evaluation.

    Raises:
        InputError: the weights are not there, or no weights of such a network.

    >>> import torch
    >>> from monai_transfer.strategies import HeadOnly
    >>> network = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))
    >>> prepared = Prepared(network, strategy=HeadOnly())  # from scratch
    >>> sum(p.numel() for group in prepared.param_groups() for p in group["params"]), prepared.report
    (10, None)
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
        missing_later: bool = False,
        loading: Mapping[str, Any] | None = None,
        reference: Mapping[str, Any] | None = None,
        folds: bool = False,
    ) -> None:
        self.strategy = strategy if strategy is not None else Strategy()
        self.report: WeightReport | None = None
        self._missing: InputError | None = None
        self.source: nn.Module | None = None
        if reference is not None and Path(reference["source"]).exists():
            twin = with_folds(copy_network(network, frozen=True), reference["source"])
            load_weights(twin, **reference, target_classes=target_classes)
            self.source = plain_in_evaluation(twin).eval().to(device)
        start = None if pretrained is None or str(pretrained).lower() in ("", "none") else Path(pretrained)
        if start is not None and not start.exists():
            self._missing = InputError(
                "the weights to start from are not there",
                path=pretrained,
                hint="run its pretrain first, or name others with --pretrained; --pretrained none is from scratch",
            )
            if not missing_later:
                raise self._missing
            logger.warning("%s", self._missing)
        elif start is not None:
            network = with_folds(network, start) if folds else network
            self.report = load_weights(
                network,
                start,
                source_classes=source_classes,
                target_classes=target_classes,
                min_coverage=min_coverage,
                **(loading or {}),
            )
        network = self.strategy.apply(plain_in_evaluation(network))
        if checkpoint_activations:
            network = recompute(network)
        if channels_last:
            network = lay_out(network)
        self.network = network.to(device)

    def require(self) -> None:
        """Raise the ``InputError`` of weights that were not there; a config's ``run`` begins with it."""
        if self._missing is not None:
            raise self._missing

    def param_groups(self, network: nn.Module | None = None) -> list[dict[str, Any]]:
        """What any torch optimizer takes; ``network`` when it was wrapped since."""
        return self.strategy.param_groups(self.network if network is None else network)
