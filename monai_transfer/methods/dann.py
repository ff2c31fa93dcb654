"""DANN: a domain classifier behind a gradient reversal layer makes features that do not tell the domains apart.

    L = CE_source + 1/2 (BCE(d(R(f_s)), 0) + BCE(d(R(f_t)), 1)),   R: identity forward, -lambda(p) times the gradient
    lambda(p) = 2 / (1 + exp(-10 p)) - 1

Paper: Ganin and Lempitsky, Unsupervised Domain Adaptation by Backpropagation, ICML 2015, arXiv:1409.7495; every place
of a feature map: Hoffman, Wang, Yu and Darrell, FCNs in the Wild, 2016, arXiv:1612.02649

p is the share of the run that is done (not a number of calls), so short runs reach the full weight and a resumed run
goes on where it stood. lambda scales only what reaches the network: the discriminator always learns at full strength.
Features are pooled, or with ``dense`` judged place by place, which is the feature-space game for a segmentation
(``advent`` has the one in the output space). With ``stages`` above 1, several target domains enter one after the other,
from near to far, each with its own lambda: a domain of place k of K at p = k / K (``schedules.domain_lambda``);
``data.order.with_order`` gives cases their place. The discriminator has no BatchNorm, which would let it read the
domain off the batch statistics. Normalisation statistics: two forward passes, so each domain is normalised by its own
batch and both enter the running averages.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.adversarial import discriminator_accuracy, domain_discriminator, reverse_gradient
from monai_transfer.networks.schedules import dann_lambda, domain_lambda

__all__ = ["Dann", "dann_lambda", "reverse_gradient"]


class Dann(Method):
    """Domain-adversarial term on features.

    Args:
        hidden: width of the discriminator's two hidden layers.
        lr: learning rate of the discriminator's own Adam optimizer.
        dense: judge every place of a feature map by itself (as ``Adapt(pool=None)`` does); else the pooled features.
        stages: K, how many target domains enter one after the other along ``order``; 1: all of them at once.

    Raises:
        InputError: ``stages`` is below 1, or a target batch has no ``order`` for its domains to enter by.

    An untrained discriminator knows nothing, so the term is near ln 2 = 0.69; ``MethodStep`` or ``Adapt`` train it:

    >>> import torch
    >>> from monai_transfer.methods.base import Fields
    >>> from monai_transfer.methods.dann import Dann
    >>> _ = torch.manual_seed(0)
    >>> fields = Fields(source_features=torch.randn(64, 4), target_features=torch.randn(64, 4))
    >>> method = Dann()
    >>> method.setup(torch.nn.Linear(4, 2), fields)
    >>> round(method(fields, progress=0.5).item(), 1)
    0.7
    """

    needs = frozenset({"source_features", "target_features"})

    def __init__(self, hidden: int = 64, lr: float = 1e-3, dense: bool = False, stages: int = 1) -> None:
        super().__init__()
        if stages < 1:
            raise InputError(
                f"domains enter in at least one stage, got {stages}", hint="stages=1 lets all of them in at once"
            )
        self.hidden, self.lr, self.stages = hidden, lr, stages
        if dense:
            self.default_pool = None  # type: ignore[misc]
        if stages > 1:
            self.needs = type(self).needs | {"target_order"}  # type: ignore[misc]
        self.discriminator: nn.Module | None = None
        self._accuracy = torch.tensor(float("nan"))

    def setup(self, network: nn.Module, batch: Fields) -> None:
        features = batch.source_features
        discriminator = domain_discriminator(features.shape[1], self.hidden, features.ndim - 2)
        self.discriminator = discriminator.to(features.device)

    def ramp_factor(self, progress: float) -> float:
        return dann_lambda(progress)

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.discriminator is not None, "setup() comes before forward()"
        source = self.discriminator(reverse_gradient(fields.source_features, dann_lambda(progress))).float()
        strength, entered = self._turn(fields, progress)
        target = self.discriminator(reverse_gradient(fields.target_features, strength)).float()
        if entered is not None:  # domains that wait for their turn count nowhere
            target = target[entered]
        loss = 0.5 * F.binary_cross_entropy_with_logits(source, torch.zeros_like(source))
        if len(target):
            self._accuracy = discriminator_accuracy(source, target)
            loss = loss + 0.5 * F.binary_cross_entropy_with_logits(target, torch.ones_like(target))
        return loss

    def _turn(self, fields: Fields, progress: float) -> tuple[float | Tensor, Tensor | None]:
        """The target's lambda, and which of its cases play at present; ``None``: all."""
        if self.stages == 1:
            return dann_lambda(progress), None
        if fields.get("target_order") is None:
            raise InputError("target batches hold no 'order'", hint="make it with monai_transfer.data.order.with_order")
        return domain_lambda(progress, fields.target_order, self.stages)

    def log(self) -> dict[str, Tensor]:
        """``discriminator_accuracy``: of the last batch, balanced; 0.5 is chance."""
        return {"discriminator_accuracy": self._accuracy}
