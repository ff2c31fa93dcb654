"""ADDA: the target gets an encoder of its own, which starts as the source's and learns to pass for it.

    D:        min 1/2 (BCE(D(E_s(x_s)), 0) + BCE(D(E_t(x_t)), 1))       (the critic's step)
    encoder:  min BCE(D(E_t(x_t)), 0)                                   (the term: inverted label)

Paper: Tzeng, Hoffman, Saenko and Darrell, Adversarial Discriminative Domain Adaptation, CVPR 2017, arXiv:1702.05464

E_t is the trainer's network, so start it from weights trained on the source; E_s is a frozen copy of it, made at the
start. The trainer's own loss is dropped (``supervised = False``), and what lies behind the tapped layer gets no
gradient: the classifier stays that of the source. Nothing but the discriminator ties E_t to the classes, so a long run
can swap them; keep it short, with a small learning rate, and watch the validators. Defaults are the authors': two
hidden layers of 500, Adam at 2e-4 with beta 0.5. Normalisation statistics: E_s runs in eval mode. The trainer also
passes its source batch through the network in training mode, so running averages blend both domains; re-estimate them
on the target afterwards (``testtime.adabn``) where the network has BatchNorm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.methods.base import Fields, Method, pool_features
from monai_transfer.networks.adversarial import discriminator_accuracy, domain_discriminator, frozen_call
from monai_transfer.networks.copying import copy_network
from monai_transfer.networks.tap import Tap

__all__ = ["Adda"]


class Adda(Method):
    """Adversarial term with an inverted label, against a frozen copy of the source network.

    With ``Adapt(pool=None)`` the discriminator judges every place of a feature map.

    Args:
        hidden: width of the discriminator's two hidden layers.
        lr: learning rate of the discriminator.
    """

    needs = frozenset({"source_image", "target_features"})
    supervised = False
    norm_statistics = "source copy: frozen; the network's running averages blend both domains"

    def __init__(self, hidden: int = 500, lr: float = 2e-4) -> None:
        super().__init__()
        self.hidden, self.lr = hidden, lr
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
        return torch.optim.Adam(self.discriminator.parameters(), lr=self.lr, betas=(0.5, 0.999))

    @torch.no_grad()
    def source_features(self, image: Tensor) -> Tensor:
        """Features of the frozen source network, pooled as Adapt pools: B x F, or B x F x spatial."""
        assert self.source_network is not None and self._tap is not None, "setup() comes first"
        self.source_network.eval()(image)
        return pool_features(self._tap.take(), self.pool)

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.discriminator is not None, "setup() comes before forward()"
        judged = frozen_call(self.discriminator, pool_features(fields.target_features, self.pool)).float()
        return F.binary_cross_entropy_with_logits(judged, torch.zeros_like(judged))

    def critic_step(self, fields: Fields) -> Tensor:
        """The discriminator's loss: features of the source copy are 0, target features 1."""
        assert self.discriminator is not None, "setup() comes before critic_step()"
        source = self.discriminator(self.source_features(fields.source_image)).float()
        target = self.discriminator(pool_features(fields.target_features.detach(), self.pool)).float()
        self._accuracy = discriminator_accuracy(source, target)
        return 0.5 * (
            F.binary_cross_entropy_with_logits(source, torch.zeros_like(source))
            + F.binary_cross_entropy_with_logits(target, torch.ones_like(target))
        )

    def log(self) -> dict[str, Tensor]:
        """``discriminator_accuracy``: of the last batch, balanced; 0.5: indistinguishable."""
        return {"discriminator_accuracy": self._accuracy}
