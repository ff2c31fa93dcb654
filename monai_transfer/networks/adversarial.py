"""Parts of domain-adversarial games: gradient reversal, domain discriminators, their accuracy."""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

__all__ = ["discriminator_accuracy", "domain_discriminator", "frozen_call", "patch_discriminator", "reverse_gradient"]


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: float | Tensor) -> Tensor:
        ctx.weight = weight.reshape(-1, *[1] * (x.ndim - 1)).to(x) if isinstance(weight, Tensor) else weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return -ctx.weight * gradient, None


def reverse_gradient(x: Tensor, weight: float | Tensor = 1.0) -> Tensor:
    """``x`` itself; its gradient comes back multiplied by ``-weight``, one number or one for each case.

    Args:
        x: any shape.
        weight: one number, or one for each case.

    The derivative of 3 x is 3; half of it comes back, with the other sign:

    >>> import torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> (3 * reverse_gradient(x, weight=0.5)).sum().backward()
    >>> x.grad.tolist()
    [-1.5, -1.5]
    """
    return _ReverseGradient.apply(x, weight)


def domain_discriminator(width: int, hidden: int, dims: int = 0) -> nn.Sequential:
    """A network of two hidden layers from features to domain logits.

    It has no BatchNorm, which would let it read the domain off the statistics of a one-domain batch.

    Args:
        width: number of features.
        hidden: width of the hidden layers.
        dims: 0: from N x width to N x 1; 2 or 3: from N x width x spatial to N x 1 x spatial, each place by itself.

    One logit for each case, or for each place of a feature map:

    >>> import torch
    >>> domain_discriminator(16, 8)(torch.zeros(4, 16)).shape
    torch.Size([4, 1])
    >>> domain_discriminator(16, 8, dims=2)(torch.zeros(4, 16, 5, 6)).shape
    torch.Size([4, 1, 5, 6])
    """

    def layer(inputs: int, outputs: int) -> nn.Module:
        return Conv[Conv.CONV, dims](inputs, outputs, 1) if dims else nn.Linear(inputs, outputs)

    return nn.Sequential(layer(width, hidden), nn.ReLU(), layer(hidden, hidden), nn.ReLU(), layer(hidden, 1))


def patch_discriminator(channels: int, size: tuple[int, ...], width: int = 64, levels: int = 5) -> nn.Sequential:
    """A convolutional discriminator (kernel 4, stride 2, LeakyReLU 0.2) from B x channels x size to a map of logits.

    An axis is halved while it has four voxels or more, up to ``levels`` times.

    Args:
        channels: of the image.
        size: voxels per axis.
        width: channels behind the first convolution.
        levels: at most so many halvings.

    >>> import torch
    >>> patch_discriminator(1, (32, 32), width=4, levels=2)(torch.zeros(2, 1, 32, 32)).shape  # a logit per patch
    torch.Size([2, 1, 8, 8])
    """
    conv, now = Conv[Conv.CONV, len(size)], list(size)
    layers: list[nn.Module] = []
    for level in range(levels):
        halved = [s >= 4 for s in now]
        if not any(halved):
            break
        kernel = [4 if h else 1 for h in halved]
        out = width * 2 ** min(level, 3)
        layers += [
            conv(channels, out, kernel, [2 if h else 1 for h in halved], [1 if h else 0 for h in halved]),
            nn.LeakyReLU(0.2),
        ]
        channels, now = out, [s // 2 if h else s for s, h in zip(now, halved, strict=True)]
    return nn.Sequential(*layers, conv(channels, 1, 1))


def frozen_call(module: nn.Module, *inputs: Tensor) -> Tensor:
    """``module(*inputs)`` with its parameters as constants: the gradient reaches the inputs alone.

    Args:
        module: whose parameters get no gradient.
        inputs: as the module takes them.

    >>> import torch
    >>> layer, x = nn.Linear(1, 1, bias=False), torch.ones(1, 1, requires_grad=True)
    >>> frozen_call(layer, x).sum().backward()
    >>> layer.weight.grad is None, bool(x.grad == layer.weight)
    (True, True)
    """
    constants = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return torch.func.functional_call(module, constants, inputs)


def discriminator_accuracy(source: Tensor, target: Tensor) -> Tensor:
    """Balanced accuracy of domain logits (source negative, target positive); 0.5 means indistinguishable.

    A scalar tensor: nothing waits for the device.

    Args:
        source: domain logits of source cases, any shape.
        target: of target cases.

    All source cases are recognised, and half of the target's:

    >>> import torch
    >>> float(discriminator_accuracy(torch.tensor([-2.0, -1.0]), torch.tensor([-1.0, 3.0])))
    0.75
    """
    source, target = source.detach(), target.detach()
    return ((source < 0).float().mean() + (target >= 0).float().mean()) / 2
