"""AdaBN: the norm layers' running statistics are estimated anew on the target; nothing is learnt.

    mean, var <- average over the target's batches of the batch mean and variance (momentum = None)

Paper: Li, Wang, Shi, Liu and Hou, Revisiting Batch Normalization For Practical Domain Adaptation, ICLR Workshops 2017,
arXiv:1603.04779

Needs no source case and no label: it is the first thing to try where a network has BatchNorm. Scale and shift stay as
they are. Each batch counts the same, and the variance is the mean of the batches' own, so take the batch size of
training, shuffle, and do not leave a tiny last batch. The target's class shares must resemble the source's: a batch of
cases of one class only shifts its features onto the others. Layers that see one case at a time (InstanceNorm unless it
tracks statistics, GroupNorm, LayerNorm) keep none; a network with only those is refused. Dropout stays off. A batch
with a value that is not finite is refused, and the network left as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.instancenorm import _InstanceNorm

from monai_transfer.errors import InputError
from monai_transfer.testtime.base import SourceFree, images, statistic_norms

__all__ = ["Adabn"]


class Adabn(SourceFree):
    """Re-estimates running statistics.

    Args:
        key: where the image stands in a batch.
        passes: how often the loader is run through; one is enough without random augmentation.

    >>> import torch
    >>> from monai_transfer.testtime.adabn import Adabn
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    >>> target = [{"image": torch.randn(4, 1, 8, 8) * 3 + 5} for _ in range(3)]
    >>> _ = Adabn().fit(network, target)
    >>> out = network.eval()(torch.cat([batch["image"] for batch in target]))
    >>> bool(out.mean((0, 2, 3)).abs().max() < 0.1)  # normalised by the target's own statistics
    True
    """

    experimental = False  # docs/truth_table.md: hippocampus, and both embedded sets
    norm_statistics = "re-estimated on the target alone, cumulative average"

    def __init__(self, key: str = "image", passes: int = 1) -> None:
        self.key, self.passes = key, passes

    @torch.no_grad()
    def fit(self, network: nn.Module, unlabelled_loader: Iterable[Any]) -> nn.Module:
        """Estimate the statistics of ``network`` in place; returned in eval mode.

        Raises:
            InputError: the network has no running statistics, they are held fixed by a hook, the loader is empty, or
                an image makes statistics that are not finite.
        """
        layers = statistic_norms(network)
        device = next(iter(network.buffers())).device
        network.eval()
        momenta = [layer.momentum for layer in layers]
        kept = [{k: v.clone() for k, v in layer.state_dict().items()} for layer in layers]
        try:
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # the cumulative average
                layer.train()
            count = 0
            for _ in range(self.passes):
                for image in images(unlabelled_loader, self.key, device):
                    count += 1
                    for layer in layers:
                        if isinstance(layer, _InstanceNorm):  # it counts no batches, and takes None for 0
                            layer.momentum = 1 / count
                    network(image)
                    # a hook that keeps frozen layers in eval would silently leave the reset statistics
                    if not all(layer.training for layer in layers):
                        raise InputError(
                            "norm layers are frozen in eval mode by a hook", hint="adapt a freshly loaded network"
                        )
            if not all(torch.isfinite(x).all() for layer in layers for x in layer.buffers()):
                raise InputError(
                    "the target's statistics are not finite", hint="look for NaN in its images: monai-transfer check"
                )
        except BaseException:  # leave the network as it was
            for layer, state in zip(layers, kept, strict=True):
                layer.load_state_dict(state)
            raise
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
            network.eval()
        return network
