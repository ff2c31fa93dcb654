"""DANN: a domain classifier behind a gradient reversal layer makes features that do not tell the domains apart.

    L = CE_source + 1/2 (BCE(d(R(f_s)), 0) + BCE(d(R(f_t)), 1)),   R: identity forward, -lambda(p) times the gradient
    lambda(p) = 2 / (1 + exp(-10 p)) - 1

Paper: Ganin and Lempitsky, Unsupervised Domain Adaptation by Backpropagation, ICML 2015, arXiv:1409.7495

p is the share of the run that is done (not a number of calls), so short runs reach the full weight and a resumed run
goes on where it stood. lambda scales only what reaches the network: the discriminator always learns at full strength.
The discriminator has no BatchNorm, which would let it read the domain off the batch statistics. Normalisation
statistics: two forward passes, so each domain is normalised by its own batch and both enter the running averages.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.adversarial import discriminator_accuracy, domain_discriminator, reverse_gradient
from monai_transfer.networks.schedules import dann_lambda

__all__ = ["Dann", "dann_lambda", "reverse_gradient"]


class Dann(Method):
    """Domain-adversarial term on pooled features.

    Args:
        hidden: width of the discriminator's two hidden layers.
        lr: learning rate of the discriminator's own Adam optimizer.
    """

    needs = frozenset({"source_features", "target_features"})

    def __init__(self, hidden: int = 64, lr: float = 1e-3) -> None:
        super().__init__()
        self.hidden, self.lr = hidden, lr
        self.discriminator: nn.Module | None = None
        self._accuracy = torch.tensor(float("nan"))

    def setup(self, network: nn.Module, batch: Fields) -> None:
        width = batch.source_features.flatten(1).shape[1]
        self.discriminator = domain_discriminator(width, self.hidden).to(batch.source_features.device)

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.discriminator is not None, "setup() comes before forward()"
        weight = dann_lambda(progress)
        source = self.discriminator(reverse_gradient(fields.source_features.flatten(1), weight)).float()
        target = self.discriminator(reverse_gradient(fields.target_features.flatten(1), weight)).float()
        self._accuracy = discriminator_accuracy(source, target)
        return 0.5 * (
            F.binary_cross_entropy_with_logits(source, torch.zeros_like(source))
            + F.binary_cross_entropy_with_logits(target, torch.ones_like(target))
        )

    def log(self) -> dict[str, Tensor]:
        """``discriminator_accuracy``: of the last batch, balanced; 0.5 is chance."""
        return {"discriminator_accuracy": self._accuracy}
