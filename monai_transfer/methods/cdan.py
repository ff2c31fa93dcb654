"""CDAN(+E): a domain classifier that sees features together with what the network predicts from them.

    h = vec(f outer g),  g = softmax(logits), a constant;   randomised: h = (R_f f) * (R_g g) / sqrt(d)
    L = 1/2 (sum_s w BCE(D(R(h_s)), 0) / sum_s w + sum_t w BCE(D(R(h_t)), 1) / sum_t w),   w = 1 + exp(-H(g)) with E

R: identity forward, -lambda(p) times the gradient backward, lambda(p) = 2 / (1 + exp(-10 p)) - 1

Paper: Long, Cao, Wang and Jordan, Conditional Adversarial Domain Adaptation, NeurIPS 2018, arXiv:1705.10667

p is the share of the run that is done. The entropy weights are normalised per domain, as in the authors' code (others
normalise over both, so that a confident source drowns the target). As there, the weight's own gradient reaches the
network through its entropy, reversed; some public code drops it. The random matrices are drawn once, are standard
normal and part of the checkpoint. The discriminator has no BatchNorm, which would read the domain off the batch
statistics. For a segmentation, f and g are each averaged over space: g then is the predicted class proportion, which
tells the discriminator where prevalence differs. Normalisation statistics: two forward passes, so each domain is
normalised by its own batch and both enter the running averages.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.adversarial import discriminator_accuracy, domain_discriminator, reverse_gradient
from monai_transfer.networks.outputs import at_least_float32, entropy, pool_features, probabilities
from monai_transfer.networks.schedules import dann_lambda
from monai_transfer.tasks.for_methods import CLASSES

__all__ = ["Cdan", "entropy_weights", "multilinear_map", "randomised_map"]


def multilinear_map(features: Tensor, probabilities: Tensor) -> Tensor:
    """vec(f outer g) of N x F features and N x C probabilities: N x (C F), class by class.

    Args:
        features: N x F.
        probabilities: N x C.

    >>> import torch
    >>> from monai_transfer.methods.cdan import multilinear_map
    >>> multilinear_map(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.25, 0.75]]))  # each feature under each class
    tensor([[0.2500, 0.5000, 0.7500, 1.5000]])
    """
    return torch.einsum("nc,nf->ncf", probabilities, features).flatten(1)


def randomised_map(features: Tensor, probabilities: Tensor, r_features: Tensor, r_classes: Tensor) -> Tensor:
    """(R_f f) * (R_g g) / sqrt(d), with ``r_features`` F x d and ``r_classes`` C x d: N x d.

    Args:
        features: N x F.
        probabilities: N x C.
        r_features: F x d, drawn once per run from N(0, 1).
        r_classes: C x d, likewise.

    Each of d = 4 entries is the sum of 3 features times the sum of the probabilities, 1, over sqrt(4):

    >>> import torch
    >>> features, probabilities = torch.ones(4, 3), torch.full((4, 2), 0.5)
    >>> randomised_map(features, probabilities, torch.ones(3, 4), torch.ones(2, 4)).tolist()[0]
    [1.5, 1.5, 1.5, 1.5]
    """
    return (features @ r_features) * (probabilities @ r_classes) / math.sqrt(r_features.shape[1])


def entropy_weights(entropies: Tensor) -> Tensor:
    """w = 1 + exp(-H) of one domain's N entropies (nats), normalised to a sum of 1 by a constant.

    Args:
        entropies: (N,), in nats.

    A sure prediction counts more than an unsure one; the weights sum to 1:

    >>> import torch
    >>> from monai_transfer.methods.cdan import entropy_weights
    >>> entropy_weights(torch.tensor([0.0, 0.6931]))
    tensor([0.5714, 0.4286])
    """
    weights = 1.0 + torch.exp(-entropies)
    return weights / weights.detach().sum()


class Cdan(Method):
    """Conditional domain-adversarial term.

    Args:
        entropy: weight cases by the certainty of their prediction (CDAN+E).
        randomised: use random projections instead of the full outer product; ``None``: when it has over 4096 entries.
        projection: d, the width of the random projections.
        hidden: width of the discriminator's two hidden layers.
        lr: learning rate of the discriminator's own Adam optimizer.

    >>> import torch
    >>> from monai_transfer.methods.base import Fields
    >>> from monai_transfer.methods.cdan import Cdan
    >>> _ = torch.manual_seed(0)
    >>> a, b, logits = torch.randn(64, 4), torch.randn(64, 4), torch.randn(64, 2)
    >>> fields = Fields(source_features=a, target_features=b, source_logits=logits, target_logits=logits)
    >>> method = Cdan()
    >>> method.setup(torch.nn.Linear(4, 2), fields)
    >>> round(method(fields, progress=0.5).item(), 1)  # near ln 2: its discriminator is untrained
    0.7
    """

    needs = frozenset({"source_features", "target_features", "source_logits", "target_logits"})
    tasks = CLASSES

    def __init__(
        self,
        entropy: bool = True,
        randomised: bool | None = None,
        projection: int = 1024,
        hidden: int = 64,
        lr: float = 1e-3,
    ) -> None:
        super().__init__()
        self.entropy, self.randomised, self.projection = entropy, randomised, projection
        self.hidden, self.lr = hidden, lr
        self.discriminator: nn.Module | None = None
        self.r_features: Tensor | None
        self.r_classes: Tensor | None
        self.register_buffer("r_features", None)
        self.register_buffer("r_classes", None)
        self._accuracy = torch.tensor(float("nan"))

    def setup(self, network: nn.Module, batch: Fields) -> None:
        features = pool_features(batch.source_features)
        classes, width = max(batch.source_logits.shape[1], 2), features.shape[1]
        randomised = self.randomised if self.randomised is not None else classes * width > 4096
        if randomised:
            self.r_features = torch.randn(width, self.projection, device=features.device)
            self.r_classes = torch.randn(classes, self.projection, device=features.device)
        width = self.projection if randomised else classes * width
        self.discriminator = domain_discriminator(width, self.hidden).to(features.device)

    def conditioned(self, features: Tensor, logits: Tensor) -> Tensor:
        """What the discriminator sees: h, N x (C F) or N x d. The predictions are constants."""
        features, predicted = at_least_float32(pool_features(features)), pool_features(probabilities(logits.detach()))
        if self.r_features is None or self.r_classes is None:
            return multilinear_map(features, predicted)
        return randomised_map(features, predicted, self.r_features, self.r_classes)

    def ramp_factor(self, progress: float) -> float:
        return dann_lambda(progress)

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.discriminator is not None, "setup() comes before forward()"
        strength, parts, outputs = dann_lambda(progress), [], []
        for domain, is_target in (("source", 0.0), ("target", 1.0)):
            features, logits = fields[f"{domain}_features"], fields[f"{domain}_logits"]
            seen = reverse_gradient(self.conditioned(features, logits), strength)
            output = self.discriminator(seen).float()[:, 0]
            loss = F.binary_cross_entropy_with_logits(output, torch.full_like(output, is_target), reduction="none")
            if self.entropy:
                uncertainty = entropy(logits)
                uncertainty = uncertainty.flatten(1).mean(1) if uncertainty.ndim > 1 else uncertainty
                parts.append((entropy_weights(reverse_gradient(uncertainty, strength)) * loss).sum())
            else:
                parts.append(loss.mean())
            outputs.append(output)
        self._accuracy = discriminator_accuracy(*outputs)
        return 0.5 * (parts[0] + parts[1])

    def log(self) -> dict[str, Tensor]:
        """``discriminator_accuracy``: of the last batch, balanced; 0.5: indistinguishable."""
        return {"discriminator_accuracy": self._accuracy}
