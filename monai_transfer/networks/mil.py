"""Attention MIL: one label per case, learnt from its slices or patches; the attention says which of them decided.

    z = sum_k a_k h_k,   a = softmax_k(w^T tanh(V h_k) * sigmoid(U h_k))     (without the sigmoid: ``gated=False``)
    h_k: the embedding (L = 500) of instance k;  V, U: D = 128;  the case's logits are linear in z

Paper: Ilse, Tomczak and Welling, Attention-based Deep Multiple Instance Learning, ICML 2018, arXiv:1802.04712

This is a network, not a term: give it to a trainer in place of a classifier, with cross-entropy as its loss. Only case
labels are needed, and ``lesion_map`` shows where a lesion is. Attention tells what decided, not what is abnormal: for a
healthy case it must lie somewhere too, so read it only where the prediction is positive. Instances without any contrast
(padding, air) get none. ``backbone`` may carry transferred weights; DANN, CORAL and the like tap ``embedding`` or, by
default, the bag's z. Normalisation statistics: the default backbone has GroupNorm, which keeps none; BatchNorm in a
backbone mixes the instances of all cases in a batch.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.networks.head import find_stem
from monai_transfer.networks.outputs import pool_features

__all__ = ["Attention", "Mil"]


class Attention(nn.Module):
    """Attention weights over instances.

    Args:
        width: L, size of an instance's embedding.
        hidden: D.
        gated: multiply by the sigmoid gate.

    >>> present = torch.tensor([[True, True, True], [True, True, False]])
    >>> weights = Attention(width=16, hidden=4)(torch.randn(2, 3, 16), present).detach()
    >>> [round(float(w), 3) for w in weights.sum(1)], float(weights[1, 2])  # an absent instance has none
    ([1.0, 1.0], 0.0)
    """

    def __init__(self, width: int = 500, hidden: int = 128, gated: bool = True) -> None:
        super().__init__()
        self.v = nn.Linear(width, hidden)
        self.u = nn.Linear(width, hidden) if gated else None
        self.w = nn.Linear(hidden, 1)

    def forward(self, h: Tensor, present: Tensor | None = None) -> Tensor:
        """B x N weights that sum to 1 for B x N x L embeddings; 0 where ``present`` (B x N) is false."""
        hidden = torch.tanh(self.v(h))
        if self.u is not None:
            hidden = hidden * torch.sigmoid(self.u(h))
        scores = self.w(hidden).squeeze(-1).float()
        if present is not None:
            present = present | ~present.any(1, keepdim=True)  # a case without any: all count
            scores = scores.masked_fill(~present, float("-inf"))
        return scores.softmax(1)


class Mil(nn.Module):
    """A classifier of bags of instances.

    Args:
        spatial_dims: of one instance: 2 for the slices of a volume, 2 or 3 for patches of an image or volume.
        in_channels: of an instance.
        num_classes: outputs.
        instances: ``"slices"``: the input is a volume B x C x H x W x D and its slices along the last axis are the
            instances; ``"patches"``: the input is B x C x spatial and each place of the backbone's feature map is one;
            ``"bag"``: the input is B x N x C x spatial.
        backbone: from instances to N x F features, or N x F x spatial maps (needed for patches); default: a small
            convolutional network.
        features: F; default: what the backbone gives for a small blank image.
        embedding: L.
        hidden: D.
        gated: multiply by the sigmoid gate.

    Raises:
        InputError: ``instances`` is none of the three; the backbone's width was not found and is not given, or is not
            what it gives (then from ``forward``); or the input's shape does not fit.

    >>> volumes = torch.rand(2, 1, 32, 32, 6)  # two volumes of six slices
    >>> network = Mil(num_classes=2, instances="slices")
    >>> network(volumes).shape, network.attention_weights(volumes).shape
    (torch.Size([2, 2]), torch.Size([2, 6]))
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    dims: ClassVar[tuple[int, ...]] = (2, 3)
    norm_statistics: ClassVar[str] = "those of the backbone; the default one keeps none"
    experimental: ClassVar[bool] = False

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        num_classes: int = 2,
        instances: str = "slices",
        backbone: nn.Module | None = None,
        features: int | None = None,
        embedding: int = 500,
        hidden: int = 128,
        gated: bool = True,
    ) -> None:
        super().__init__()
        if instances not in ("slices", "patches", "bag"):
            raise InputError(
                f"instances must be 'slices', 'patches' or 'bag', not {instances!r}",
                hint="slices of a volume, patches of a feature map, or a bag of images",
            )
        if spatial_dims not in (2, 3):
            raise InputError(
                f"instances have 2 or 3 spatial dimensions, not {spatial_dims}", hint="give spatial_dims=2 or 3"
            )
        self.spatial_dims, self.instances = spatial_dims, instances
        self.backbone = backbone if backbone is not None else _small_backbone(spatial_dims, in_channels)
        width = features or _width(self.backbone, spatial_dims, in_channels)
        self.embedding = nn.Sequential(nn.Linear(width, embedding), nn.ReLU())
        self.attention = Attention(embedding, hidden, gated)
        self.head = nn.Linear(embedding, num_classes)

    def _instances(self, x: Tensor) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """Embeddings B x N x L, which instances are present (B x N), and the shape that N unfolds to."""
        if self.instances == "patches":
            maps = self._checked(self.backbone(x))
            if maps.ndim != self.spatial_dims + 2:
                raise InputError(
                    f"patches need a backbone that gives feature maps, not {tuple(maps.shape)}",
                    hint="give a backbone without pooling, such as the `features` of a DenseNet",
                )
            return self.embedding(maps.flatten(2).transpose(1, 2)), None, tuple(maps.shape[2:])
        if x.ndim != self.spatial_dims + 3:
            raise InputError(
                f"{self.instances} of {self.spatial_dims}D instances do not fit {tuple(x.shape)}",
                hint="see the shapes that Mil takes in its docstring",
            )
        bags = x.movedim(-1, 1) if self.instances == "slices" else x
        flat = bags.flatten(2)
        present = flat.amax(2) > flat.amin(2)
        features = pool_features(self._checked(self.backbone(bags.flatten(0, 1))))
        return self.embedding(features.unflatten(0, bags.shape[:2])), present, (bags.shape[1],)

    def _checked(self, features: Tensor) -> Tensor:
        width = self.embedding[0].in_features
        if features.shape[1] != width:
            raise InputError(
                f"the backbone gives {features.shape[1]} features, and Mil was made for {width}",
                hint=f"features={features.shape[1]}",
            )
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the cases, B x classes."""
        h, present, _ = self._instances(x)
        weights = self.attention(h, present)
        return self.head(torch.einsum("bn,bnl->bl", weights.to(h.dtype), h))

    @torch.no_grad()
    def attention_weights(self, x: Tensor) -> Tensor:
        """Weights of the instances: B x N, or B x the feature map's spatial axes for patches; each case sums to 1."""
        h, present, shape = self._instances(x)
        return self.attention(h, present).unflatten(1, shape)

    @torch.no_grad()
    def evidence(self, x: Tensor, class_index: int) -> Tensor:
        """What each instance adds to a class's logit over the mean of the others', shaped as ``attention_weights``.

        The logits are linear in z, so that the sum over instances is that difference, but for the head's bias.
        """
        h, present, shape = self._instances(x)
        others = self.head.weight.sum(0).sub(self.head.weight[class_index]) / max(1, len(self.head.weight) - 1)
        return (self.attention(h, present) * (h @ (self.head.weight[class_index] - others))).unflatten(1, shape)

    @torch.no_grad()
    def lesion_map(self, x: Tensor, class_index: int | None = None) -> Tensor:
        """A map at the image's own resolution: B x 1 x spatial, scaled to a maximum of 1 for each case.

        Slices give a map that is constant within each slice.

        Args:
            x: as in ``forward``.
            class_index: show the positive ``evidence`` for this class, which points better than attention, since that
                knows no class; ``None`` shows the attention.

        Raises:
            InputError: for ``instances="bag"``, whose instances have no place in an image.
        """
        if self.instances == "bag":
            raise InputError("instances of a bag have no place in an image", hint="read attention_weights")
        weights = self.attention_weights(x) if class_index is None else self.evidence(x, class_index).clamp_min(0)
        weights = weights.unsqueeze(1)
        if self.instances == "slices":
            weights = weights[:, :, None, None].expand(-1, -1, *x.shape[2:4], -1)
        else:
            mode = "bilinear" if self.spatial_dims == 2 else "trilinear"
            weights = F.interpolate(weights, size=x.shape[2:], mode=mode, align_corners=False)
        return weights / weights.flatten(1).amax(1).view(-1, *[1] * (weights.ndim - 1)).clamp_min(1e-12)


def _small_backbone(dims: int, channels: int) -> nn.Sequential:
    blocks, norm = [], ("group", {"num_groups": 4})
    for width in (16, 32, 64):
        blocks.append(Convolution(dims, channels, width, strides=2, kernel_size=3, norm=norm, act="relu"))
        channels = width
    return nn.Sequential(*blocks)


@torch.no_grad()
def _width(backbone: nn.Module, dims: int, channels: int) -> int:
    """Features that a backbone gives, by passing a blank image: its last layer does not tell (dense blocks)."""
    stem = find_stem(backbone)
    channels = getattr(backbone.get_submodule(stem[0]), "in_channels", channels) if stem else channels
    like = next(iter(backbone.parameters()), torch.zeros(()))
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        for edge in (32, 64, 128):  # some halve an image five times
            try:
                output = backbone(torch.zeros(1, channels, *[edge] * dims, dtype=like.dtype, device=like.device))
            except (RuntimeError, ValueError, TypeError):
                continue
            if isinstance(output, Tensor) and output.ndim in (2, dims + 2):
                return output.shape[1]
    finally:
        for module, mode in modes:
            module.training = mode
    last = list(backbone.modules())[-1]
    if isinstance(last, nn.Linear):  # made for one size of image
        return last.out_features
    raise InputError(
        f"the number of features that {type(backbone).__name__} gives was not found by passing it a blank image",
        hint="give a backbone from B x C x spatial to one tensor, B x F or B x F x spatial, and name F: features=F",
    )
