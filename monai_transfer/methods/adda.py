"""ADDA: the target gets an encoder of its own, which starts as the source's and learns to pass for it.

    D:        min 1/2 (BCE(D(E_s(x_s)), 0) + BCE(D(E_t(x_t)), 1))       (the critic's step)
    encoder:  min lambda(p) BCE(D(E_t(x_t)), 0)                         (the term: inverted label)

Paper: Tzeng, Hoffman, Saenko and Darrell, Adversarial Discriminative Domain Adaptation, CVPR 2017, arXiv:1702.05464

E_t is the trainer's network, so start it from weights trained on the source; E_s is a frozen copy of it, made at the
start. The trainer's own loss is dropped (``supervised = False``), and what lies behind the tapped layer gets no
gradient: the classifier stays that of the source. Nothing but the discriminator ties E_t to the classes, so a long run
can swap them; keep it short, with a small learning rate (the authors' is 2e-4), and watch the validators. The
discriminator has two hidden layers of 500 and learns as the encoder does, by an optimizer of the same kind at the same
rate, as in the paper and in TLlib: with an Adam of its own at 1e-3 beside SGD three digit runs ended at 81.4, 71.7 and
70.3 % from sources of 72.6, 70.4 and 73.1. It is given time: the term grows with lambda(p) = 2 / (1 + exp(-10 p)) - 1
(DANN's ramp, not the paper's).

What the classifier sees must be what the discriminator sees. So leave ``layer`` at what enters the class head: from a
layer inside a U-Net the skips carry the rest past the discriminator, and nothing holds them. In a segmentation every
place is judged by itself, as in Hoffman, Wang, Yu and Darrell, FCNs in the Wild, 2016, arXiv:1612.02649.

In training E_s drops features out as E_t does (in eval mode it does not), as in TLlib's code: beside features without
dropout, D could tell the target by its noise. On digits that made no difference.

Normalisation statistics: E_s normalises by its running averages. E_t is the target's alone, so only the target's
batches count in its running averages (``Adapt(statistics="target")``, the default here), although the trainer passes
its source batch too.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from monai.networks.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.adversarial import discriminator_accuracy, domain_discriminator, frozen_call
from monai_transfer.networks.copying import copy_network
from monai_transfer.networks.outputs import pool_features
from monai_transfer.networks.schedules import dann_lambda
from monai_transfer.networks.tap import Tap

__all__ = ["Adda"]


class Adda(Method):
    """Adversarial term with an inverted label, against a frozen copy of the source network.

    The discriminator judges the places of a feature map one by one; ``Adapt(pool="max")`` pools it instead.

    Args:
        hidden: width of the discriminator's two hidden layers.
        places: of a feature map with more, so many per case are drawn in each step: two layers of 500 at every voxel
            would cost more than the network.
        lr: of an Adam (beta 0.5) of the discriminator's own; ``None``: it follows the network's optimizer.

    Raises:
        InputError: ``places`` is below 1.

    >>> from monai_transfer.methods.adda import Adda
    >>> sorted(Adda.needs), Adda.supervised  # the target encoder plays against a critic alone; no source loss
    (['source_image', 'target_features'], False)
    """

    needs = frozenset({"source_image", "target_features"})
    supervised = False
    norm_statistics = "source copy: frozen; the network's running averages are the target's alone"
    statistics = "target"
    default_pool: ClassVar[str | None] = None

    def __init__(self, hidden: int = 500, lr: float | None = None, places: int = 1024) -> None:
        super().__init__()
        if places < 1:
            raise InputError(
                f"ADDA's discriminator judges at least one place, got places={places}", hint="1024 is the default"
            )
        self.hidden, self.lr, self.places = hidden, lr, places
        self.follows_lr = lr is None
        self.source_network: nn.Module | None = None
        self.discriminator: nn.Module | None = None
        self._tap: Tap | None = None
        self._accuracy = torch.tensor(float("nan"))

    def setup(self, network: nn.Module, batch: Fields) -> None:
        self.source_network = copy_network(network, frozen=True)
        self._tap = Tap(self.source_network, self.layer)
        features = pool_features(batch.target_features, self.pool)
        discriminator = domain_discriminator(features.shape[1], self.hidden, features.ndim - 2)
        self.discriminator = discriminator.to(features.device)

    def make_optimizer(self) -> torch.optim.Optimizer:
        assert self.discriminator is not None
        return torch.optim.Adam(self.discriminator.parameters(), lr=self.lr or 1e-3, betas=(0.5, 0.999))

    @torch.no_grad()
    def source_features(self, image: Tensor) -> Tensor:
        """Features of the frozen source network, pooled as Adapt pools: B x F, or B x F x spatial."""
        assert self.source_network is not None and self._tap is not None, "setup() comes first"
        self.source_network.eval()
        for layer in self.source_network.modules():
            if isinstance(layer, (_DropoutNd, DropPath)):
                layer.train(self.training)
        self.source_network(image)
        return pool_features(self._tap.take(), self.pool)

    def _drawn(self, features: Tensor) -> Tensor:
        """B x F as it is; of B x F x spatial with more than ``places`` places, B x F x places x 1 (x 1)."""
        if features.ndim == 2 or features[0, 0].numel() <= self.places:
            return features
        rows = features.flatten(2)
        drawn = rows[:, :, torch.randint(rows.shape[2], (self.places,), device=rows.device)]
        return drawn.reshape(*drawn.shape, *[1] * (features.ndim - 3))

    def ramp_factor(self, progress: float) -> float:
        return dann_lambda(progress)

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.discriminator is not None, "setup() comes before forward()"
        judged = frozen_call(self.discriminator, self._drawn(pool_features(fields.target_features, self.pool))).float()
        return self.ramp_factor(progress) * F.binary_cross_entropy_with_logits(judged, torch.zeros_like(judged))

    def critic_step(self, fields: Fields) -> Tensor:
        """The discriminator's loss: features of the source copy are 0, target features 1."""
        assert self.discriminator is not None, "setup() comes before critic_step()"
        source = self.discriminator(self._drawn(self.source_features(fields.source_image))).float()
        target = self.discriminator(self._drawn(pool_features(fields.target_features.detach(), self.pool))).float()
        self._accuracy = discriminator_accuracy(source, target)
        return 0.5 * (
            F.binary_cross_entropy_with_logits(source, torch.zeros_like(source))
            + F.binary_cross_entropy_with_logits(target, torch.ones_like(target))
        )

    def log(self) -> dict[str, Tensor]:
        """``discriminator_accuracy``: of the last batch, balanced; 0.5: indistinguishable."""
        return {"discriminator_accuracy": self._accuracy}
