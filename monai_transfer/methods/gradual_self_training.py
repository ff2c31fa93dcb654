"""Gradual self-training: the target is learnt in stages along an order, from what is near the source to what is far.

    at stage k of K:  L = weight * mean CE(network(x), argmax teacher(x))   over the target cases of stage k,
    less the 10 % of which the teacher is least sure;   teacher: the network as it stood at the end of stage k - 1

Paper: Kumar, Ma and Liang, Understanding Self-Training for Gradual Domain Adaptation, ICML 2020, arXiv:2002.11361

The order is a number in [0, 1] for each target case under the key ``order`` of its batch (``data.order.with_order``
makes it from a column such as the acquisition day); stage k holds the cases of the k-th K-th of it, and takes the k-th
K-th of the run. Only a batch's cases of the present stage count, so take a batch several times as large as K. Start
from a network trained on the source; the trainer's own loss is dropped, as in the paper. Labels are hard, which the
paper shows to be essential, as is regularisation: use weight decay or dropout. **A wrong order is worse than none**:
compare with ``stages=1``, which is plain one-step self-training. Normalisation statistics: batches mix all stages;
running averages blend source and target, so GroupNorm or InstanceNorm suit better.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.copying import copy_network
from monai_transfer.networks.output_forms import main_scores
from monai_transfer.networks.outputs import log_probabilities, probabilities
from monai_transfer.networks.pseudo_labels import IGNORE, labelled_cross_entropy
from monai_transfer.tasks.for_methods import CLASSES

__all__ = ["GradualSelfTraining"]


class GradualSelfTraining(Method):
    """Self-training on hard labels of the previous stage's network.

    Args:
        stages: K, the number of steps along the order.
        drop: share of the least sure cases (voxels) of a batch that is left out.
        weight: factor of the term.

    Raises:
        InputError: ``stages`` is below 1, ``drop`` not in [0, 1), or target batches hold no ``order``.

    >>> from monai_transfer.methods.gradual_self_training import GradualSelfTraining
    >>> GradualSelfTraining(stages=4).needs >= {"target_order"}  # cases carry their place in time under ``order``
    True
    """

    needs = frozenset({"target_image", "target_logits", "target_order"})
    tasks = CLASSES
    supervised = False
    norm_statistics = "teacher: frozen; the network's running averages blend source and all stages"

    def __init__(self, stages: int = 5, drop: float = 0.1, weight: float = 1.0) -> None:
        super().__init__()
        if stages < 1 or not 0 <= drop < 1:
            raise InputError(
                f"stages must be at least 1 and drop in [0, 1), got {stages} and {drop}",
                hint="the defaults are stages=5 and drop=0.1",
            )
        self.stages, self.drop, self.weight = stages, drop, weight
        self.teacher: nn.Module | None = None
        self.stage: Tensor
        self.register_buffer("stage", torch.zeros((), dtype=torch.long))
        self._log: dict[str, Tensor] = {}

    def setup(self, network: nn.Module, batch: Fields) -> None:
        self.teacher = copy_network(network, frozen=True)

    def _stage_of(self, place: float) -> int:
        return min(int(place * self.stages), self.stages - 1)

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.teacher is not None, "setup() comes before forward()"
        if fields.get("target_order") is None:
            raise InputError("target batches hold no 'order'", hint="make it with monai_transfer.data.order.with_order")
        logits, order = fields.target_logits, fields.target_order
        stage = self._stage_of(progress)
        members = (order * self.stages).long().clamp(0, self.stages - 1) == stage
        if stage != int(self.stage) or not members.any():  # the teacher follows with the coming step
            return 0.0 * logits.sum()
        with torch.no_grad():
            taught = main_scores(self.teacher.eval(), fields.target_image[members])
            confidence, labels = probabilities(taught).max(1)
            count = max(round((1 - self.drop) * confidence.numel()), 1)
            kept = confidence >= confidence.flatten().topk(count).values[-1]
            self._log = {"stage": self.stage.float(), "selected": kept.float().mean()}
        labels = labels.masked_fill(~kept, IGNORE)
        return self.weight * labelled_cross_entropy(log_probabilities(logits[members]), labels)

    def after_step(self, network: nn.Module, progress: float) -> None:
        if self._stage_of(progress) != int(self.stage):
            self.stage.fill_(self._stage_of(progress))
            self.teacher = copy_network(network, frozen=True)

    def log(self) -> dict[str, Tensor]:
        """``stage`` (from 0) and ``selected``, the share of its cases (voxels) that had a label."""
        return dict(self._log)
