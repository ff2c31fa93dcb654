"""``load_weights``: carry weights over into a network, tell what became of each tensor, or change nothing at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.weights.report import WeightReport
from monai_transfer.weights.source import Source
from monai_transfer.weights.transfer import Names, transfer_weights

__all__ = ["load_weights"]


def load_weights(
    network: nn.Module,
    source: str | PathLike[str] | Mapping[str, Any] | Source,
    *,
    source_classes: Names | None = None,
    target_classes: Names | None = None,
    min_coverage: float = 0.5,
    channels: str = "auto",
    source_channels: Names | None = None,
    target_channels: Names | None = None,
    inflate: str = "center",
    head: Sequence[str] | None = None,
    part: str | None = None,
    only: str | Sequence[str] | None = None,
    source_grid: Sequence[int] | None = None,
    target_grid: Sequence[int] | None = None,
    new_classes: str = "fresh",
    lora: str = "refuse",
    lora_scale: float | None = None,
) -> WeightReport:
    """Load weights into ``network`` in place, adapting what can be adapted: all or nothing, never in silence.

    Args:
        network: any module, also a part of one (``net.swinViT``) or one in ``DistributedDataParallel``.
        source: a checkpoint file, a MONAI bundle folder, a state dict, or a ``Source``.
        source_classes, target_classes: names of the outputs on either side, in order, as a list or as the
            ``{"0": "background", ...}`` of a manifest. Where both are known (a bundle tells its own), the rows of the
            head are mapped by name; new classes stay as the network initialised them. Without names, a head with
            another number of classes is skipped and stays fresh.
        min_coverage: share of the elements of ``network.parameters()`` that must be loaded or adapted.
        channels: for other input channels: ``auto``, ``name``, ``repeat``, ``average``, ``first``
            (``weights.channels.adapt_channels``). source_channels, target_channels: their names, in order; with names
            on both sides, equally many channels in another order find their places too.
        inflate: for 2D weights in a 3D network: ``center`` or ``mean`` (``weights.inflation.inflate``).
        head: names of the layers that give the class scores, where the last layer is not it.
        part: of a checkpoint that holds several networks, the one to take, by its key or prefix (``teacher``).
        only: load into these modules alone, by name, or into the ``encoder``; the rest stays fresh, and the coverage
            is that of these modules.
        source_grid, target_grid: patches per axis of a vision transformer's position embeddings on either side; where
            neither they nor the network (``UNETR`` does) tell them, grids are taken to be square or cubic.
        new_classes: how a class starts that the source has not: ``fresh``, or ``background``: as a copy of the first
            class, less likely by log(n + 1) for n new classes, so that the network at first answers as the source did
            (Cermelli et al., Modeling the Background, CVPR 2020, arXiv:2002.00718).
        lora: of a checkpoint with LoRA adapters, into a network without: ``refuse``: the weights beside adapters are
            left out, since without them they are others; ``merge``: the adapters' changes are added; ``drop``: the
            weights as they were before the adapters.
        lora_scale: their scale, alpha / rank, where the file does not say it (peft's does not).

    Returns:
        The report: loaded, adapted, skipped, missing, unused, and the coverage.

    Raises:
        CoverageError: less than ``min_coverage`` was found; the network is unchanged, to the bit.
        InputError: the source cannot be read, holds NaN or infinity, or several networks that fit equally well, or
            an argument is wrong.

    >>> import logging
    >>> from monai.networks.nets import DenseNet
    >>> from monai_transfer.weights.loading import load_weights
    >>> logging.disable(logging.INFO)
    >>> small = dict(init_features=8, growth_rate=4, block_config=(2,))
    >>> theirs, ours = DenseNet(2, 1, 3, **small), DenseNet(2, 1, 2, **small)
    >>> report = load_weights(
    ...     ours, theirs.state_dict(), source_classes=["normal", "pneumonia", "mass"], target_classes=["normal", "mass"]
    ... )
    >>> report.coverage, report.missing, report.adapted  # the head's rows were chosen by the classes' names
    (1.0, [], ['class_layers.out.weight', 'class_layers.out.bias'])
    """
    if not 0 <= min_coverage <= 1:
        raise InputError(f"min_coverage is a share from 0 to 1, not {min_coverage}", hint="such as min_coverage=0.5")
    if isinstance(source, Mapping):
        source = Source(source)
    elif isinstance(source, str | PathLike):
        source = Source.load(source)
    elif not isinstance(source, Source):
        fault = f"weights cannot come from a {type(source).__name__}"
        raise InputError(fault, hint="pass a path, a bundle folder, a state dict or a Source")
    return transfer_weights(
        network,
        source,
        source_classes=source_classes,
        target_classes=target_classes,
        min_coverage=min_coverage,
        channels=channels,
        source_channels=source_channels,
        target_channels=target_channels,
        inflate=inflate,
        head=head,
        part=part,
        only=only,
        source_grid=source_grid,
        target_grid=target_grid,
        new_classes=new_classes,
        lora=lora,
        lora_scale=lora_scale,
    )
