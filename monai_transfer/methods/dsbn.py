"""DSBN: each domain has batch-normalisation layers of its own, and the target learns from ever better pseudo-labels.

    y = argmax((1 - lambda) p_teacher + lambda p),   lambda(p) = 2 / (1 + exp(-10 p)) - 1 of the run's progress
    L = CE(y, p) on the target, through the target's norm layers;   the source goes through its own

Paper: Chang, You, Seo, Kwak and Han, Domain-Specific Batch Normalization for Unsupervised Domain Adaptation, CVPR 2019,
arXiv:1906.03950

This is the paper's second stage, self-training in both domains; its first stage, any method with separate norm layers,
is ``Adapt(method, ..., statistics="domain")``. The teacher (there the first stage's model) is the network as the run
starts, with the target batch's own statistics, so start from a network that has learnt on the source. Only answers of
``threshold`` confidence and more are labels (the paper takes all, ``threshold=0``). What comes out is the plain network
with the target's layers: nothing of this package is needed to run it. Normalisation statistics: domain-specific, with
scale and shift; a network without BatchNorm is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.copying import copy_network
from monai_transfer.networks.output_forms import main_scores
from monai_transfer.networks.outputs import log_probabilities, probabilities
from monai_transfer.networks.pseudo_labels import IGNORE, labelled_cross_entropy
from monai_transfer.networks.schedules import dann_lambda
from monai_transfer.tasks.for_methods import CLASSES

__all__ = ["Dsbn", "mixed_labels"]


@torch.no_grad()
def mixed_labels(teacher: Tensor, own: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """Labels (B x spatial) and their confidence from the logits of the teacher and of the network itself.

    The network's own share grows with ``progress`` as ``dann_lambda`` does.

    Args:
        teacher: logits, B x C x spatial.
        own: logits of the same shape.
        progress: of the run, 0 to 1.

    Returns:
        The labels, B x spatial, and the mixed probability of each.

    At the start the teacher alone decides, at the end the network itself:

    >>> import torch
    >>> teacher, own = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    >>> [mixed_labels(teacher, own, progress)[0].item() for progress in (0.0, 1.0)]
    [0, 1]
    """
    share = dann_lambda(progress)
    confidence, label = ((1 - share) * probabilities(teacher) + share * probabilities(own)).max(1)
    return label, confidence


class Dsbn(Method):
    """Self-training with norm layers for each domain.

    Args:
        weight: factor of the term.
        threshold: the confidence from which an answer is a label.

    >>> import torch
    >>> from monai_transfer.methods.dsbn import Dsbn
    >>> Dsbn.domain_norms, Dsbn().threshold  # BatchNorm layers of its own for each domain
    (True, 0.8)
    """

    needs = frozenset({"target_image", "target_logits"})
    tasks = CLASSES
    norm_statistics = "domain-specific, with scale and shift; the target's are kept"
    domain_norms = True
    caution = "on a learnt source its gradient is several times the task's; it hurt a segmentation"

    def __init__(self, weight: float = 1.0, threshold: float = 0.8) -> None:
        super().__init__()
        self.weight, self.threshold = weight, threshold
        self.teacher: nn.Module | None = None
        self._log: dict[str, Tensor] = {}

    def setup(self, network: nn.Module, batch: Fields) -> None:
        self.teacher = copy_network(network, frozen=True)
        for layer in self.teacher.modules():
            if isinstance(layer, _NormBase):  # without running statistics a layer uses the batch's, in eval mode too
                layer.track_running_stats = False
                layer.running_mean = layer.running_var = layer.num_batches_tracked = None

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.teacher is not None, "setup() comes before forward()"
        with torch.no_grad():
            taught = main_scores(self.teacher.eval(), fields.target_image)
        label, confidence = mixed_labels(taught, fields.target_logits.detach(), progress)
        chosen = confidence >= self.threshold
        self._log = {"selected": chosen.float().mean()}
        labels = label.masked_fill(~chosen, IGNORE)
        return self.weight * labelled_cross_entropy(log_probabilities(fields.target_logits), labels)

    def log(self) -> dict[str, Tensor]:
        """``selected``: share of the last batch's cases or voxels that had a label."""
        return dict(self._log)
