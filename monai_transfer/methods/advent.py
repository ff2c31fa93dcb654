"""MinEnt and AdvEnt for segmentation: target predictions become as certain, and as well formed, as source ones.

    I = -p log2 p / log2 C                          weighted self-information, voxel by voxel and class by class
    E = sum_c I_c                                   normalised entropy of a voxel, in [0, 1]
    MinEnt:  L = weight * mean E(x_t)
    AdvEnt:  L = weight * BCE(D(I(x_t)), source),   D learns BCE(D(I(x_s)), source) + BCE(D(I(x_t)), target)

Paper: Vu, Jain, Bucher, Cord and Perez, ADVENT: Adversarial Entropy Minimization for Domain Adaptation in Semantic
Segmentation, CVPR 2019, arXiv:1811.12833

Defaults are the paper's: weight 1e-3, discriminator with Adam(0.9, 0.99) at 1e-4. ``space="probabilities"`` lets the
discriminator see p itself: the output-space discriminator of Tsai et al., CVPR 2018, arXiv:1802.10349. The weight is
the paper's, relative to a mean cross-entropy; leave ``Adapt(weight=1.0)``. In 3D nearly all voxels are background, and
the mean entropy falls fastest by calling everything background, so entropies of predicted background and predicted
foreground are averaged separately and then mixed by ``foreground``; ``None`` gives the paper's plain mean. Entropy
minimisation also hardens wrong predictions: start from a network that has learnt on the source. The discriminator is
convolutional with as many halvings as the patch allows (five at most) and no BatchNorm. Normalisation statistics: the
target batch is a second forward pass, so each domain is normalised by its own batch and both enter the running
averages.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.adversarial import discriminator_accuracy, frozen_call, patch_discriminator
from monai_transfer.networks.outputs import log_probabilities, mean_entropy
from monai_transfer.tasks.for_methods import VOXEL_CLASSES, VOXEL_PRESENCES

__all__ = ["Advent", "entropy_loss", "patch_discriminator", "self_information"]


def self_information(logits: Tensor) -> Tensor:
    """Weighted self-information I = -p log2 p / log2 C of B x C x spatial logits; one channel counts as two classes.

    Args:
        logits: B x C x spatial; C = 1 is a sigmoid's.

    >>> import torch
    >>> from monai_transfer.methods.advent import self_information
    >>> self_information(torch.zeros(1, 2)).sum().item()  # the entropy of a coin in bits, over log2 of the two classes
    1.0
    """
    logs = log_probabilities(logits)
    return -(logs.exp() * logs) / math.log(logs.shape[1])


def entropy_loss(logits: Tensor, foreground: float | None = 0.5) -> Tensor:
    """Mean normalised entropy of B x C x spatial logits, in [0, 1].

    Args:
        logits: class 0 is the background.
        foreground: share of the predicted foreground in the mean, whatever its volume; ``None``: each voxel counts
            the same. Voxels are weighted by the (constant) probability of being foreground or background.

    >>> import torch
    >>> from monai_transfer.methods.advent import entropy_loss
    >>> unsure, sure = torch.zeros(1, 2, 4, 4), torch.tensor([20.0, -20.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    >>> round(entropy_loss(unsure).item(), 3), round(entropy_loss(sure).item(), 3)
    (1.0, 0.0)
    """
    return mean_entropy(logits, foreground) / math.log(max(logits.shape[1], 2))


class Advent(Method):
    """Entropy term for segmentation on the unlabelled target.

    Args:
        adversarial: align the maps with a discriminator (AdvEnt); ``False`` minimises the entropy itself (MinEnt).
        space: what the discriminator sees, ``"self_information"`` or ``"probabilities"``.
        weight: factor of the term.
        foreground: share of predicted foreground in MinEnt's mean, see above.
        width: channels of the discriminator's first layer.
        lr: learning rate of the discriminator.

    Raises:
        InputError: ``space`` is neither of the two.

    With the game left out it is plain minimisation of entropy, here of predictions that know nothing:

    >>> import torch
    >>> from monai_transfer.methods.base import Fields
    >>> from monai_transfer.methods.advent import Advent
    >>> logits = torch.zeros(1, 2, 4, 4)
    >>> Advent(adversarial=False, weight=1.0)(Fields(source_logits=logits, target_logits=logits), progress=0.5)
    tensor(1.)
    """

    needs = frozenset({"source_logits", "target_logits"})
    tasks = (*VOXEL_CLASSES, *VOXEL_PRESENCES)
    limits = {
        "multilabel": "it judges maps of predictions; dann judges features",
        "classification": "it judges maps of predictions; dann and cdan judge features",
        "regression": "it works on class probabilities",
    }
    caution = "at its paper's weight its gradient is about a thousandth of the task's on small networks: raise weight"
    lr: float

    def __init__(
        self,
        adversarial: bool = True,
        space: str = "self_information",
        weight: float = 1e-3,
        foreground: float | None = 0.5,
        width: int = 64,
        lr: float = 1e-4,
    ) -> None:
        super().__init__()
        if space not in ("self_information", "probabilities"):
            raise InputError(
                f"space must be 'self_information' or 'probabilities', not {space!r}",
                hint="self_information is AdvEnt's, probabilities that of Tsai et al.",
            )
        self.adversarial, self.space, self.weight, self.foreground = adversarial, space, weight, foreground
        self.width, self.lr = width, lr
        self.discriminator: nn.Module | None = None
        self._log: dict[str, Tensor] = {}

    def setup(self, network: nn.Module, batch: Fields) -> None:
        logits = batch.target_logits
        if self.adversarial:
            channels = self._maps(logits).shape[1]
            self.discriminator = patch_discriminator(channels, tuple(logits.shape[2:]), self.width).to(logits.device)

    def make_optimizer(self) -> torch.optim.Optimizer | None:
        return torch.optim.Adam(self.parameters(), lr=self.lr, betas=(0.9, 0.99)) if self.adversarial else None

    def _maps(self, logits: Tensor) -> Tensor:
        """What the discriminator sees; of outputs that do not exclude each other absent and present for each."""
        cases = self.as_cases(logits)
        maps = self_information(cases) if self.space == "self_information" else log_probabilities(cases).exp()
        return maps.reshape(len(logits), -1, *maps.shape[2:])

    def forward(self, fields: Fields, progress: float) -> Tensor:
        with torch.no_grad():
            self._log["target_entropy"] = entropy_loss(self.as_cases(fields.target_logits), self.foreground)
        if not self.adversarial:
            return self.weight * entropy_loss(self.as_cases(fields.target_logits), self.foreground)
        assert self.discriminator is not None, "setup() comes before forward()"
        judged = frozen_call(self.discriminator, self._maps(fields.target_logits)).float()
        return self.weight * F.binary_cross_entropy_with_logits(judged, torch.zeros_like(judged))

    def critic_step(self, fields: Fields) -> Tensor | None:
        """The discriminator's loss: source maps are 0, target maps 1."""
        if not self.adversarial:
            return None
        assert self.discriminator is not None, "setup() comes before critic_step()"
        source = self.discriminator(self._maps(fields.source_logits.detach())).float()
        target = self.discriminator(self._maps(fields.target_logits.detach())).float()
        self._log["discriminator_accuracy"] = discriminator_accuracy(source, target)
        return 0.5 * (
            F.binary_cross_entropy_with_logits(source, torch.zeros_like(source))
            + F.binary_cross_entropy_with_logits(target, torch.ones_like(target))
        )

    def log(self) -> dict[str, Tensor]:
        """``target_entropy`` (in [0, 1]) and, with a discriminator, ``discriminator_accuracy`` of its patches."""
        return dict(self._log)
