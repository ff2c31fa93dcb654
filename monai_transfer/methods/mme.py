"""MME: with a few labelled target cases, class prototypes move towards the target, and its features towards them.

    C(f) = W (f / ||f||) / T                                     prototypes W, temperature T
    L = CE(C(f), y) on the trainer's labelled batch - lambda * H(C(R(f_t))) on the unlabelled target
    R: identity forward, minus the gradient backward: the prototypes maximise the entropy H, the features minimise it

Paper: Saito, Kim, Sclaroff, Darrell and Saenko, Semi-supervised Domain Adaptation via Minimax Entropy, ICCV 2019,
arXiv:1904.06487

Made for labelled source cases with **a few labelled target cases among them** (three for each class in the paper: one
``adapt`` run with ``--n_labelled``), and as many of them in a batch as source cases; with one case for each class some
starts settle on the wrong side.
T = 0.05 and lambda = 0.1 are the paper's. There C is the network's classifier; here it is the method's own and stands
on the tapped features, and the network's own head learns beside it from the trainer's loss and is what predicts
afterwards, so any network of MONAI stays as it is. Tap the layer before the class head (the default). Features are
taken unpooled; for a classification they are averaged over space here, for a segmentation each place has its own
entropy. Normalisation statistics: two forward passes, so each domain is normalised by its own batch and both enter the
running averages.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.adversarial import reverse_gradient
from monai_transfer.networks.outputs import at_least_float32, entropy, label_indices, pool_features
from monai_transfer.tasks.for_methods import CLASSES

__all__ = ["Mme", "Prototypes"]


class Prototypes(nn.Module):
    """Scores by cosine: B x C x spatial from B x F x spatial features.

    Args:
        width: F.
        classes: C.
        temperature: the cosine is divided by it.

    >>> scores = Prototypes(width=8, classes=3, temperature=0.05)
    >>> scores(torch.randn(2, 8, 4, 4)).shape  # of each place and class
    torch.Size([2, 3, 4, 4])
    """

    def __init__(self, width: int, classes: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.weight = nn.Parameter(torch.empty(classes, width))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, features: Tensor) -> Tensor:
        """The prototypes' cosines with the features, over T; prototypes themselves are not normalised (the paper)."""
        directions = F.normalize(at_least_float32(features), dim=1)
        return torch.einsum("cf,bf...->bc...", self.weight, directions) / self.temperature


class Mme(Method):
    """Minimax entropy between prototypes and features.

    Args:
        weight: lambda, factor of the entropy.
        temperature: T of the prototypes.
        lr: learning rate of the prototypes.

    Raises:
        InputError: the temperature is not positive.

    >>> from monai_transfer.methods.mme import Mme
    >>> Mme().temperature, Mme.tasks  # a cosine classifier at the paper's temperature
    (0.05, ('classification', 'segmentation'))
    """

    needs = frozenset({"source_features", "target_features", "source_label", "source_logits"})
    tasks = CLASSES
    default_pool: ClassVar[str | None] = None

    def __init__(self, weight: float = 0.1, temperature: float = 0.05, lr: float = 1e-3) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"the temperature of MME is positive, got {temperature}", hint="0.05 is the paper's")
        self.weight, self.temperature, self.lr = weight, temperature, lr
        self.prototypes: Prototypes | None = None
        self._log: dict[str, Tensor] = {}

    def setup(self, network: nn.Module, batch: Fields) -> None:
        classes, features = max(batch.source_logits.shape[1], 2), batch.source_features
        if batch.source_logits.ndim > 2 and features.ndim == 2:
            raise InputError("MME for a segmentation needs unpooled features", hint="Adapt(..., pool=None)")
        self.prototypes = Prototypes(features.shape[1], classes, self.temperature).to(features.device)

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.prototypes is not None, "setup() comes before forward()"
        source, target = fields.source_features, fields.target_features
        logits = fields.source_logits
        spatial = logits.shape[2:]
        if not spatial:
            source, target = pool_features(source), pool_features(target)
        scores = self.prototypes(source)
        if scores.shape[2:] != spatial:
            scores = F.interpolate(scores, size=spatial, mode="bilinear" if len(spatial) == 2 else "trilinear")
        two = logits if logits.shape[1] > 1 else torch.cat([logits, logits], 1)
        supervised = F.cross_entropy(scores, label_indices(fields.source_label, two))
        uncertainty = entropy(self.prototypes(reverse_gradient(target))).mean()
        self._log = {"target_entropy": uncertainty.detach(), "prototype_supervised": supervised.detach()}
        return supervised - self.weight * uncertainty

    def log(self) -> dict[str, Tensor]:
        """``target_entropy`` (nats) and ``prototype_supervised`` loss of the last step."""
        return dict(self._log)
