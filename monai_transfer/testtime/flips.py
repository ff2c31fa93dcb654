"""Flips at test: the mean of the network's outputs for an image and its mirror images, each mirrored back.

    y(x) = 1/|A| sum over a in A of  a^-1 f(a x),    A: all combinations of the flips of the given axes

Paper: Isensee et al., nnU-Net, Nature Methods 2021, arXiv:1809.10486 (mirroring as test-time augmentation)

Outputs are averaged as the network gives them (logits, or a regression's value), so what follows stays as it is. It
costs 2 to the number of axes forward passes. Mirror in no axis that training did not
(``data.augmentation.mirror_axes``): where classes are named by side, a mirror image has other names, unless ``pairs``
says which classes change places. Nothing is learnt and nothing kept from image to image.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.networks.output_forms import main_output
from monai_transfer.networks.outputs import at_least_float32
from monai_transfer.testtime.base import SourceFree

__all__ = ["FlipInferer", "Flips", "MirroredNetwork"]


class Flips(SourceFree):
    """Average over mirror images.

    Args:
        axes: spatial axes to mirror in: 0 is the first behind the channels; in volumes in RAS left and right.
        pairs: channels (classes) that change places when axis 0 is mirrored: ``[[1, 2]]`` for left and right kidney.

    Raises:
        InputError: an axis is not 0, 1 or 2.

    >>> network = nn.Conv2d(1, 2, 3, padding=1)
    >>> image = torch.rand(1, 1, 8, 8)
    >>> mean = Flips([0]).wrap(network)(image)
    >>> torch.allclose(mean, (network(image) + network(image.flip(2)).flip(2)) / 2)
    True
    """

    limits = {}
    norm_statistics = "the source's"
    experimental = False
    learns_nothing = True

    def __init__(self, axes: Sequence[int] = (0,), pairs: Sequence[Sequence[int]] = ()) -> None:
        self.axes = sorted({int(axis) for axis in axes})
        self.pairs = [(int(a), int(b)) for a, b in pairs]
        if any(axis not in (0, 1, 2) for axis in self.axes):
            raise InputError(f"no spatial axes {list(axes)}", hint="0, 1 and, for volumes, 2")

    def wrap(self, network: nn.Module) -> MirroredNetwork:
        """The network, seen through its mirror images; its weights are shared, not copied."""
        return MirroredNetwork(network, self)


class MirroredNetwork(nn.Module):
    """A network whose output is the mean over mirror images; made by ``Flips.wrap``.

    Args:
        network: gives B x C x spatial; shared, not copied.
        options: axes, and the channels that change places.

    >>> ramp = nn.Module()
    >>> ramp.forward = lambda x: x + torch.tensor([[0.0], [1.0]])  # larger below than above
    >>> MirroredNetwork(ramp, Flips(axes=[0]))(torch.zeros(1, 1, 2, 1)).flatten().tolist()
    [0.5, 0.5]
    """

    def __init__(self, network: nn.Module, options: Flips) -> None:
        super().__init__()
        self.network, self._options = network, options

    def forward(self, x: Tensor, *more: Any, **named: Any) -> Tensor:
        """Mean output for ``x``, B x C x spatial; float32 or wider."""
        return _mean(self.network, self._options, x, *more, **named)


class FlipInferer(Inferer):
    """Flips at test inside any inferer, for a config: each window is seen through its mirror images.

    Args:
        inferer: what decides how the network is called, e.g. a ``SlidingWindowInferer``; default ``SimpleInferer``.
        axes, pairs: as in ``Flips``; without axes everything passes through.

    >>> network = nn.Conv2d(1, 2, 3, padding=1)
    >>> FlipInferer(axes=[0, 1])(torch.rand(1, 1, 8, 8), network).shape
    torch.Size([1, 2, 8, 8])
    """

    def __init__(self, inferer: Any = None, axes: Sequence[int] = (), pairs: Sequence[Sequence[int]] = ()) -> None:
        super().__init__()
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.flips = Flips(axes, pairs)

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """The inner inferer's output, of the mean over mirror images."""
        if not self.flips.axes:
            return self.inferer(inputs, network, *args, **kwargs)

        def mirrored(x: Tensor, *more: Any, **named: Any) -> Tensor:
            return _mean(network, self.flips, x, *more, **named)

        return self.inferer(inputs, mirrored, *args, **kwargs)


def _mean(network: Any, options: Flips, x: Tensor, *more: Any, **named: Any) -> Tensor:
    if any(axis >= x.ndim - 2 for axis in options.axes):
        raise InputError(
            f"images of {x.ndim - 2} axes cannot be mirrored in {options.axes}", hint="name axes that the images have"
        )
    kept = network if isinstance(network, nn.Module) else None
    total: Any = None
    views = list(chain.from_iterable(combinations(options.axes, n) for n in range(len(options.axes) + 1)))
    for axes in views:
        dims = [axis + 2 for axis in axes]
        output = main_output(network(torch.flip(x, dims) if dims else x, *more, **named), x.ndim - 2, kept)
        output = at_least_float32(output)
        if dims and output.ndim == x.ndim:  # a map; a vector of class scores has no place to mirror
            output = torch.flip(output, dims)
        if 0 in axes and options.pairs:
            order = list(range(output.shape[1]))
            for first, second in options.pairs:
                order[first], order[second] = order[second], order[first]
            output = output[:, order]
        total = output if total is None else total + output
    return total / len(views)
