"""Mean teacher: the network agrees with a moving average of itself on unlabelled target cases.

    L = weight * r(p) * mean (softmax(student(strong view)) - softmax(teacher(image)))^2   over cases, voxels, classes
    teacher <- a * teacher + (1 - a) * student,   a = min(decay, 1 - 1 / step)
    r(p) = exp(-5 (1 - p / ramp)^2) up to p = ramp, then 1

Paper: Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv:1703.01780; across domains:
French, Mackiewicz and Fisher, Self-ensembling for visual domain adaptation, ICLR 2018, arXiv:1706.05208

p is the share of the run that is done; step counts real optimizer steps from 1, so the teacher starts as the student
and a resumed run goes on where it stood. For 3D segmentation decay 0.99 and weight 0.1 are usual (Yu et al., MICCAI
2019). The student sees the batch's ``strong`` view (``data.randomisation.StrongViewd`` makes one; photometric only, or
the voxels no longer match). A batch without one gives it the plain image, and then only dropout and the average itself
make a difference. Agreement alone is reached by a constant answer too, so the supervised loss must stay on.

``keep="teacher"`` validates, saves and exports the teacher, as in the paper, under the network's own names: then
``models/model.pt`` of a run holds the average. The student goes on learning, and resuming goes on with it.

Normalisation statistics: the teacher runs in eval mode on running averages. **All** buffers are copied from the student
at each step, whatever the norm layers are called; the student's strong target batch is a forward pass of its own, so
its running averages blend both domains.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monai_transfer.methods.base import Fields, TeacherMethod
from monai_transfer.networks.moving_average import ema_update
from monai_transfer.networks.output_forms import main_scores
from monai_transfer.networks.outputs import probabilities
from monai_transfer.tasks.for_methods import CLASSES, PRESENCES

__all__ = ["MeanTeacher", "consistency_loss", "ema_update"]


def consistency_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the class probabilities of two B x C x spatial logits; no gradient to ``teacher``.

    Args:
        student: logits, B x C x spatial; gradients flow here.
        teacher: logits of the same shape.

    >>> import torch
    >>> from monai_transfer.methods.mean_teacher import consistency_loss
    >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[20.0, -20.0]])
    >>> consistency_loss(student, teacher)  # (0.5 - 1)^2 for both classes
    tensor(0.2500)
    """
    return (probabilities(student) - probabilities(teacher.detach())).square().mean()


class MeanTeacher(TeacherMethod):
    """Consistency with a moving average of the network, its ``teacher``.

    Args:
        decay: largest a of the moving average.
        weight: factor of the term.
        ramp: share of the run after which the term has its full weight.
        keep: which of the two is the run's result, ``"student"`` or ``"teacher"``.

    Raises:
        InputError: ``keep`` is neither of the two.

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

    def __init__(self, decay: float = 0.999, weight: float = 1.0, ramp: float = 0.3, keep: str = "student") -> None:
        super().__init__(decay, weight, ramp, keep)

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.teacher is not None, "setup() comes before forward()"
        with torch.no_grad():
            taught = main_scores(self.teacher.eval(), fields.target_image)
        weight = self.weight * self.ramp_factor(progress)
        loss = consistency_loss(self.as_cases(fields.target_strong_logits), self.as_cases(taught))
        self._log = {"consistency": loss.detach(), "consistency_weight": weight}
        return weight * loss

    def log(self) -> dict[str, Tensor | float]:
        """``consistency`` (unweighted) and ``consistency_weight`` of the last step."""
        return dict(self._log)
