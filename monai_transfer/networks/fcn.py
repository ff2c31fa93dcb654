"""FCN: a classification network turned into a segmenter by 1x1 score layers, upsampling and skip fusion, in 2D and 3D.

Paper: Long, Shelhamer and Darrell, Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, arXiv:1411.4038

As in the paper, score layers start at zero and upsampling is a transposed convolution that starts as bilinear
interpolation (trilinear in 3D); here it works on each class by itself, which keeps 3D kernels small. Instead of padding
the image by 100 pixels, pooling rounds up and the surplus is cut off at the far end: cell i of a level covers cells 2i
and 2i + 1 of the one below, so any input size works and nothing is shifted. MONAI has an ``FCN`` too; it is 2D on a
torchvision ResNet, hence the other name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv, Pool
from torch import Tensor, nn

from monai_transfer.errors import InputError

__all__ = ["Fcn", "bilinear_kernel"]


def bilinear_kernel(spatial_dims: int, factor: int) -> Tensor:
    """Kernel of a transposed convolution that upsamples by linear interpolation, (2 * factor)^spatial_dims.

    With stride ``factor`` and padding ``factor // 2`` (``factor`` even) a constant stays a constant inside.

    Args:
        spatial_dims: 1, 2 or 3.
        factor: of the upsampling.

    >>> from monai_transfer.networks.fcn import bilinear_kernel
    >>> bilinear_kernel(1, 2)
    tensor([0.2500, 0.7500, 0.7500, 0.2500])
    """
    centre = factor - 0.5
    line = 1 - (torch.arange(2 * factor) - centre).abs() / factor
    kernel = line
    for _ in range(spatial_dims - 1):
        kernel = kernel.unsqueeze(-1) * line
    return kernel


class Fcn(nn.Module):
    """FCN-32s, -16s or -8s over a small VGG-like encoder; with five stages ``stride`` 32, 16 or 8.

    Input B x in_channels x spatial of any size, output B x out_channels x the same spatial size (logits).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: number of classes.
        channels: width of each encoder stage; each stage halves the resolution at its end.
        convolutions: 3x3 convolutions per stage.
        neck_channels: width of the two convolutions after the encoder (the paper's fc6 and fc7).
        stride: upsampling in the last step; each halving from 2^stages on adds one skip fusion.
        norm: MONAI norm layer after each encoder convolution; ``None`` for none, as in VGG.
        dropout: in the neck.

    Raises:
        InputError: dimensions, channels or stride out of range.

    >>> import torch
    >>> from monai_transfer.networks.fcn import Fcn
    >>> Fcn(spatial_dims=2, in_channels=1, out_channels=3)(torch.zeros(1, 1, 64, 64)).shape
    torch.Size([1, 3, 64, 64])
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 2,
        channels: Sequence[int] = (16, 32, 64, 64, 64),
        convolutions: int = 2,
        neck_channels: int = 128,
        stride: int = 8,
        norm: str | tuple | None = "batch",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        stages = len(channels)
        if spatial_dims not in (2, 3):
            raise InputError(f"Fcn has 2 or 3 spatial dimensions, not {spatial_dims}", hint="give spatial_dims=2 or 3")
        if not channels or min(*channels, in_channels, out_channels, convolutions, neck_channels) < 1:
            raise InputError(
                "Fcn needs at least one stage, channel, class and convolution", hint="see the arguments of Fcn"
            )
        if stride not in [2**k for k in range(1, stages + 1)]:
            raise InputError(
                f"stride {stride} does not fit {stages} stages", hint=f"choose a power of two from 2 to {2**stages}"
            )
        skips = stages - int(math.log2(stride))
        conv, pool = Conv[Conv.CONV, spatial_dims], Pool[Pool.MAX, spatial_dims]
        self.stages = nn.ModuleList()
        for before, width in zip([in_channels, *channels], channels, strict=False):
            blocks: list[nn.Module] = [
                Convolution(spatial_dims, before if i == 0 else width, width, adn_ordering="NA", act="relu", norm=norm)
                for i in range(convolutions)
            ]
            self.stages.append(nn.Sequential(*blocks, pool(2, ceil_mode=True)))
        self.neck = nn.Sequential(
            conv(channels[-1], neck_channels, 3, padding=1), nn.ReLU(), nn.Dropout(dropout),
            conv(neck_channels, neck_channels, 1), nn.ReLU(), nn.Dropout(dropout),
        )  # fmt: skip
        self.score = conv(neck_channels, out_channels, 1)
        self.skip_scores = nn.ModuleList(conv(channels[-2 - i], out_channels, 1) for i in range(skips))
        self.ups = nn.ModuleList(_upsampling(spatial_dims, out_channels, 2) for _ in range(skips))
        self.last_up = _upsampling(spatial_dims, out_channels, stride)
        for layer in (self.score, *self.skip_scores):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        image = x
        levels: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        x = self.score(self.neck(x))
        for index, (up, score) in enumerate(zip(self.ups, self.skip_scores)):  # noqa: B905 (TorchScript has no strict)
            skip = levels[len(levels) - 2 - index]
            x = _cut(up(x), skip) + score(skip)
        return _cut(self.last_up(x), image)


def _upsampling(spatial_dims: int, channels: int, factor: int) -> nn.Module:
    layer = Conv[Conv.CONVTRANS, spatial_dims](
        channels, channels, 2 * factor, stride=factor, padding=factor // 2, groups=channels, bias=False
    )
    with torch.no_grad():
        layer.weight.copy_(bilinear_kernel(spatial_dims, factor).expand_as(layer.weight))
    return layer


def _cut(x: Tensor, like: Tensor) -> Tensor:
    """The first part of ``x``, as large as ``like``."""
    for axis in range(2, x.dim()):
        x = x.narrow(axis, 0, like.shape[axis])
    return x
