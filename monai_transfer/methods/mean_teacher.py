"""Mean teacher: the network agrees with a moving average of itself on unlabelled target cases.

    L = weight * r(p) * mean c (softmax(student(strong view)) - softmax(teacher(image)))^2   over cases, voxels, classes
    c = 1 where max softmax(teacher(image)) > threshold, else 0
    teacher <- a * teacher + (1 - a) * student,   a = min(decay, 1 - 1 / step)
    r(p) = exp(-5 (1 - p / ramp)^2) up to p = ramp, then 1

Paper: Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv:1703.01780; across domains:
French, Mackiewicz and Fisher, Self-ensembling for visual domain adaptation, ICLR 2018, arXiv:1706.05208

p is the share of the run that is done; step counts real optimizer steps from 1, so the teacher starts as the student
and a resumed run goes on where it stood. Where an image has one class, the defaults are those with which TLlib runs
French et al.'s self-ensembling: decay 0.99, weight 3 of the squares' sum over classes (their mean's in French et al.'s
code, which fades with many classes), and in place of the ramp a threshold (0.8; French et al. 0.968), so that only sure
answers teach. Their class balance takes classes for equally frequent and is left out. With weight 1 of the mean, the
ramp and no threshold the term was a tenth of the task and stayed behind (``benchmarks/RESULTS.md``). Elsewhere,
voxel by voxel or finding by finding, they are decay 0.999, weight 1, ramp 0.3 and no threshold; for 3D segmentation
decay 0.99 and weight 0.1 are usual (Yu et al., MICCAI 2019). The student sees the batch's ``strong`` view
(``data.randomisation.StrongViewd`` makes one; photometric only, or the voxels no longer match). A batch without one
gives it the plain image, and then only dropout and the average itself make a difference. Agreement alone is reached by
a constant answer too, so the supervised loss must stay on.

``keep="teacher"`` validates, saves and exports the teacher, as in the paper, under the network's own names: then
``models/model.pt`` of a run holds the average. The student goes on learning, and resuming goes on with it.

Normalisation statistics: the teacher runs in eval mode on running averages. **All** buffers are copied from the student
at each step, whatever the norm layers are called; the student's strong target batch is a forward pass of its own, so
its running averages blend both domains.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, TeacherMethod
from monai_transfer.networks.moving_average import ema_update
from monai_transfer.networks.output_forms import main_scores
from monai_transfer.networks.outputs import probabilities
from monai_transfer.tasks.for_methods import CLASSES, PRESENCES

__all__ = ["MeanTeacher", "consistency_loss", "ema_update"]


DECAY, WEIGHT, RAMP, THRESHOLD = 0.999, 1.0, 0.3, 0.0
ONE_CLASS = {"decay": 0.99, "weight": 3.0, "ramp": 0.0, "threshold": 0.8}
"""Defaults where an image has one class; the weight is of the sum over classes."""


def consistency_loss(student: Tensor, teacher: Tensor, threshold: float = 0.0) -> Tensor:
    """Mean squared difference of the class probabilities of two B x C x spatial logits; no gradient to ``teacher``.

    Args:
        student: logits, B x C x spatial; gradients flow here.
        teacher: logits of the same shape.
        threshold: where the teacher's largest probability is not above it, a case or voxel counts as 0.

    >>> import torch
    >>> from monai_transfer.methods.mean_teacher import consistency_loss
    >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[20.0, -20.0]])
    >>> consistency_loss(student, teacher)  # (0.5 - 1)^2 for both classes
    tensor(0.2500)
    >>> consistency_loss(teacher, student, threshold=0.9)  # a coin teaches nothing
    tensor(0.)
    """
    taught = probabilities(teacher.detach())
    difference = (probabilities(student) - taught).square().mean(1)
    return (difference * (taught.amax(1) > threshold)).mean()


class MeanTeacher(TeacherMethod):
    """Consistency with a moving average of the network, its ``teacher``.

    Args:
        decay: largest a of the moving average; ``None``: 0.99 where an image has one class, else 0.999.
        weight: factor of the term; ``None``: 3 times the number of classes, else 1.
        ramp: share of the run after which the term has its full weight; ``None``: 0, else 0.3.
        keep: which of the two is the run's result, ``"student"`` or ``"teacher"``.
        threshold: the teacher's confidence above which it teaches, in [0, 1); ``None``: 0.8, else 0.

    Raises:
        InputError: ``keep`` is neither of the two, or the threshold is no share below 1.

    The teacher starts as the student, so on equal views they agree:

    >>> import torch
    >>> from monai_transfer.methods.base import Fields
    >>> from monai_transfer.methods.mean_teacher import MeanTeacher
    >>> network, image = torch.nn.Linear(4, 2), torch.randn(8, 4)
    >>> method = MeanTeacher()
    >>> method.setup(network, Fields())
    >>> method(Fields(target_image=image, target_strong_logits=network(image)), progress=1.0).item()
    0.0
    """

    tasks = (*CLASSES, *PRESENCES)
    norm_statistics = "teacher: the student's running averages, copied; student: separate batches, blended averages"

    def __init__(
        self,
        decay: float | None = None,
        weight: float | None = None,
        ramp: float | None = None,
        keep: str = "student",
        threshold: float | None = None,
    ) -> None:
        if threshold is not None and not 0 <= threshold < 1:
            raise InputError(f"the threshold is a share below 1, got {threshold}", hint="0.8, or 0 for none")
        given = {"decay": decay, "weight": weight, "ramp": ramp, "threshold": threshold}
        elsewhere = (DECAY if decay is None else decay, WEIGHT if weight is None else weight)
        super().__init__(*elsewhere, RAMP if ramp is None else ramp, keep)
        self.threshold = THRESHOLD if threshold is None else threshold
        self._open = [name for name, value in given.items() if value is None]

    def setup(self, network: nn.Module, batch: Fields) -> None:
        super().setup(network, batch)
        logits = batch.get("target_strong_logits")
        if self.exclusive and logits is not None and logits.ndim == 2:
            for name in self._open:
                setattr(self, name, ONE_CLASS[name] * (max(logits.shape[1], 2) if name == "weight" else 1))

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.teacher is not None, "setup() comes before forward()"
        with torch.no_grad():
            taught = self.as_cases(main_scores(self.teacher.eval(), fields.target_image))
            sure = (probabilities(taught).amax(1) > self.threshold).float().mean()
        weight = self.weight * self.ramp_factor(progress)
        loss = consistency_loss(self.as_cases(fields.target_strong_logits), taught, self.threshold)
        self._log = {"consistency": loss.detach(), "consistency_weight": weight, "selected": sure}
        return weight * loss

    def log(self) -> dict[str, Tensor | float]:
        """Of the last step: ``consistency``, unweighted; ``consistency_weight``; ``selected``, the sure share."""
        return dict(self._log)
