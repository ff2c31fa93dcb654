"""Contrastive learning: two augmented views of one scan come close to each other, and away from all other scans.

    L = mean_i -log( exp(s(z_i, z_i') / T) / sum_{k != i} exp(s(z_i, z_k) / T) ),    s: cosine, over all 2 B views

Paper: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, arXiv:2002.05709

``SimClr`` wraps any network: it runs as far as ``layer``, pools, and projects. Only what comes before that layer
learns; ``models/model.pt`` holds that part alone, under the network's own names, so that ``load_weights`` reports the
rest (the decoder, the projection) as missing instead of passing on what was never trained. Every other view of the
batch is a negative: the loss says little with few cases per step, and nothing with one. Views of one batch are
normalised together (BatchNorm), per rank under DDP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as across_ranks
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.networks.outputs import at_least_float32, pool_features
from monai_transfer.networks.tap import Tap, first_tensor

__all__ = ["NtXent", "SimClr"]


class SimClr(nn.Module):
    """A network's encoder with a projection on top, for ``TwoViewsd`` and ``NtXent``.

    Args:
        network: any network; it is trained in place.
        image_size: voxels per axis of one view.
        layer: the module whose output is the representation; ``None``: what enters the class head.
        in_channels: of a view.
        width: size of the projection.
        hidden: of its hidden layer; default the representation's size.

    Raises:
        InputError: no such layer, or the network does not run on such an image.

    >>> import torch
    >>> from monai.networks.nets import DenseNet
    >>> from monai_transfer.pretraining.contrastive import SimClr
    >>> network = DenseNet(2, 1, 2, init_features=8, growth_rate=4, block_config=(2,))
    >>> model = SimClr(network, image_size=[32, 32], width=16)
    >>> tuple(model(torch.rand(4, 2, 1, 32, 32)).shape)  # two views of four cases, as unit vectors
    (4, 2, 16)
    """

    def __init__(
        self,
        network: nn.Module,
        image_size: Sequence[int],
        layer: str | None = None,
        in_channels: int = 1,
        width: int = 64,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        tap = Tap(network, layer)  # finds the layer, or says which there are
        tap.remove()
        self.network, self.layer, self._output = network, tap.layer, layer is not None
        device = next(network.parameters()).device
        self.trained, size = self._trace(torch.zeros(1, in_channels, *image_size, device=device))
        # what the representation does not depend on must not wait for gradients (DDP), nor decay
        for name, parameter in network.named_parameters():
            if name not in self.trained:
                parameter.requires_grad_(False)
        hidden = hidden or size
        self.projection = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, width)).to(device)

    def encode(self, image: Tensor) -> Tensor:
        """The pooled representation B x F of images B x C x spatial; the network runs no further than its layer."""
        module = self.network.get_submodule(self.layer)
        hook = (
            module.register_forward_hook(lambda _m, _i, output: _stop(output))
            if self._output
            else module.register_forward_pre_hook(lambda _m, inputs: _stop(inputs[0]))
        )
        try:
            self.network(image)
        except _Reached as reached:
            return pool_features(reached.features)
        finally:
            hook.remove()
        raise InputError(f"layer {self.layer!r} is not used in the forward pass", hint="name another layer")

    def forward(self, views: Tensor) -> Tensor:
        """Projections B x 2 x ``width`` of the views B x 2 x C x spatial."""
        return self.projection(self.encode(views.flatten(0, 1))).unflatten(0, views.shape[:2])

    def _trace(self, image: Tensor) -> tuple[set[str], int]:
        """Names of all tensors of the network that take part in the representation, and its size."""
        called: set[nn.Module] = set()
        hooks = [module.register_forward_pre_hook(lambda m, _i: called.add(m)) for module in self.network.modules()]
        modes = {module: module.training for module in self.network.modules()}
        learn = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        try:
            self.network.eval()
            with torch.enable_grad():
                features = self.encode(image)
                used = torch.autograd.grad(features.sum(), list(learn.values()), allow_unused=True)
        finally:
            for hook in hooks:
                hook.remove()
            for module, training in modes.items():
                module.training = training
        idle = {name for name, gradient in zip(learn, used, strict=True) if gradient is None}
        names = {
            f"{prefix}.{name}" if prefix else name
            for prefix, module in self.network.named_modules()
            if module in called
            for name in (*module._parameters, *module._buffers)
        }
        return names - idle, features.shape[1]

    @staticmethod
    def transfer_export(network: SimClr) -> dict[str, Tensor]:
        """What ``models/model.pt`` holds: the trained part of the network, under its own names."""
        return {name: tensor for name, tensor in network.network.state_dict().items() if name in network.trained}


class NtXent(nn.Module):
    """The normalised, temperature-scaled cross-entropy of SimCLR, in float32 or wider.

    As ``monai.losses.ContrastiveLoss``, but by its logarithm, so that no temperature overflows (MONAI's gives NaN from
    0.011 down).

    Args:
        temperature: T.
        gather: under DDP, take the views of all ranks as negatives; the gradient is then that of one process with the
            joint batch. Without it each rank compares its own views, which is another, easier loss.

    Raises:
        ValueError: the temperature is not positive; or (from ``forward``) fewer than two cases in the (joint) batch.

    >>> import torch
    >>> from monai_transfer.pretraining.contrastive import NtXent
    >>> views = torch.eye(4).repeat_interleave(2, 0).view(4, 2, 4)  # both views of a case alike, cases apart
    >>> bool(NtXent(temperature=0.1)(views) < 0.01)
    True
    """

    def __init__(self, temperature: float = 0.5, gather: bool = True) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"the temperature is positive, got {temperature}")
        self.gather, self.temperature = gather, temperature

    def forward(self, pred: Tensor, target: Any = None) -> Tensor:
        """A scalar from the projections B x 2 x P; there is no target."""
        with torch.autocast(pred.device.type, enabled=False):
            pred = at_least_float32(first_tensor(pred))
            if self.gather and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
                pred = torch.cat(across_ranks.all_gather(pred.contiguous()))
            if len(pred) < 2:
                raise ValueError(
                    "contrastive learning needs at least two cases per batch: the others are the negatives"
                )
            views = F.normalize(torch.cat([pred[:, 0], pred[:, 1]]), dim=1)
            places = torch.arange(len(views), device=views.device)
            itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
            alike = (views @ views.T / self.temperature).masked_fill(itself, -torch.inf)
            return F.cross_entropy(alike, places.roll(len(pred)))


class _Reached(Exception):
    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


def _stop(value: Any) -> None:
    raise _Reached(first_tensor(value))
