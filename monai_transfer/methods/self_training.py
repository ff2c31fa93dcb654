"""Self-training with a mean teacher: its sure answers on the plain image are labels of the strongly augmented view.

    q = softmax(teacher(x));   y = argmax_c q_c / tau_c where that is > 1, else none
    tau_c: the q_c that the surest ``portion`` of class c reaches, a moving average over batches
    L = weight * r(p) * mean of -log softmax(student(strong x))_y   over the cases (voxels) that have a label
    teacher <- a * teacher + (1 - a) * student,   a = min(decay, 1 - 1 / step)
    r(p) = exp(-5 (1 - p / ramp)^2) up to p = ramp, then 1

Paper: Hoyer, Dai and Van Gool, DAFormer, CVPR 2022, arXiv:2111.14887; the teacher: Tarvainen and Valpola, Mean teachers
are better role models, NeurIPS 2017, arXiv:1703.01780; thresholds by class: Zou, Yu, Vijaya Kumar and Wang, ECCV 2018,
arXiv:1810.07911

The default of ``adapt`` where outputs are masks. Beside DAFormer: thresholds are one per class, not one for all, since
a rare structure seldom reaches a common one; no image mixing. The student sees the batch's ``strong`` view
(``data.randomisation.StrongViewd``; intensities alone may change, or the voxels no longer match), the teacher the plain
image. Errors feed on themselves: start from a network that has learnt on the source, keep its loss on, and look at the
collapse alarm of ``evaluation.unlabelled_scores``. Both are kept: the run's result is the teacher, or by
``keep="student"`` the student; ``models/student.pt`` holds the latter.

Normalisation statistics: with ``Adapt(statistics="target")``, the default, they are estimated on the target's plain
images: the teacher's pass is normalised by its own batch and counts in its norm layers' running averages (the first
batch alone at first, then a momentum of 0.1), and the student takes them over after each step. Otherwise the teacher
runs on the student's averages: ``"both"`` blends, which is better where the source was trained under randomised
contrast (docs/fine_tuning.md), and ``"kept"`` leaves the source's. In training each of the student's
batches is normalised by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, TeacherMethod
from monai_transfer.networks.output_forms import main_scores
from monai_transfer.networks.outputs import log_probabilities, probabilities
from monai_transfer.networks.pseudo_labels import IGNORE, labelled_cross_entropy, sure_labels, unset_thresholds
from monai_transfer.tasks.for_methods import CLASSES, PRESENCES

__all__ = ["SelfTraining"]

_MOMENTUM = 0.1  # of the running averages, torch's default


class SelfTraining(TeacherMethod):
    """Cross-entropy of the student's strong view against a mean teacher's class-balanced labels.

    Args:
        portion: share of each class that is selected, the surest first, in (0, 1].
        weight: factor of the term.
        decay: largest a of the teacher's moving average.
        momentum: of the moving average of the thresholds.
        ramp: share of the run after which the term has its full weight.
        keep: which of the two is the run's result, ``"teacher"`` or ``"student"``.

    Raises:
        InputError: ``keep`` is neither of the two, or the portion is no share.

    Of each class the surer half teaches:

    >>> import torch
    >>> from monai_transfer.methods.base import Fields
    >>> from monai_transfer.methods.self_training import SelfTraining
    >>> network = torch.nn.Identity()
    >>> image = torch.tensor([[9.0, 0.0], [1.0, 0.0], [0.0, 9.0], [0.0, 1.0]])
    >>> fields, method = Fields(target_image=image, target_strong_logits=torch.zeros(4, 2)), SelfTraining()
    >>> method.setup(network, fields)
    >>> round(method(fields, progress=1.0).item(), 4), method.log()["selected"].item()  # ln 2, a coin's cross-entropy
    (0.6931, 0.5)
    """

    tasks = (*CLASSES, *PRESENCES)
    norm_statistics = "both networks: the target's plain images, which the teacher's pass counts; or as asked"
    statistics = "target"
    counted = "target"

    def __init__(
        self,
        portion: float = 0.5,
        weight: float = 1.0,
        decay: float = 0.99,
        momentum: float = 0.9,
        ramp: float = 0.3,
        keep: str = "teacher",
    ) -> None:
        super().__init__(decay, weight, ramp, keep)
        if not 0 < portion <= 1:
            raise InputError(f"the portion of a class is a share in (0, 1], not {portion}", hint="0.5 is the default")
        self.portion, self.momentum = portion, momentum
        self.thresholds: Tensor
        self.register_buffer("thresholds", torch.empty(0))

    def setup(self, network: nn.Module, batch: Fields) -> None:
        super().setup(network, batch)
        self.thresholds = unset_thresholds(batch.target_strong_logits, self.exclusive)

    def forward(self, fields: Fields, progress: float) -> Tensor:
        taught = self._answers(fields.target_image)
        logs = log_probabilities(self.as_cases(fields.target_strong_logits))
        labels = sure_labels(self.thresholds, taught, self.portion, self.momentum)
        weight, loss = self.weight * self.ramp_factor(progress), labelled_cross_entropy(logs, labels)
        selected = (labels != IGNORE).float().mean()
        self._log = {"selected": selected, "self_training": loss.detach(), "self_training_weight": weight}
        return weight * loss

    @torch.no_grad()
    def _answers(self, image: Tensor) -> Tensor:
        """The teacher's probabilities on plain images, whose statistics it counts."""
        assert self.teacher is not None, "setup() comes before forward()"
        self.teacher.eval()
        for layer in _statistic_layers(self.teacher) if self.counted == "target" else ():
            layer.train()
            layer.momentum = max(_MOMENTUM, 1.0 / (int(self.step) + 1))  # the first batch takes the source's place
        taught = probabilities(self.as_cases(main_scores(self.teacher, image)))
        self.teacher.eval()
        return taught

    def after_step(self, network: nn.Module, progress: float) -> None:
        assert self.teacher is not None, "setup() comes before after_step()"
        if self.counted != "target":
            super().after_step(network, progress)
            return
        layers = list(zip(_statistic_layers(self.teacher), _statistic_layers(network), strict=True))
        counted = [{name: buffer.clone() for name, buffer in ours.named_buffers()} for ours, _ in layers]
        super().after_step(network, progress)
        for buffers, pair in zip(counted, layers, strict=True):
            for layer in pair:
                for name, buffer in layer.named_buffers():
                    buffer.data.copy_(buffers[name])

    def log(self) -> dict[str, Tensor | float]:
        """``selected``: share of the last batch's cases or voxels that had a label; the term, and its weight."""
        return dict(self._log)


def _statistic_layers(network: nn.Module) -> list[_NormBase]:
    """The norm layers that keep running averages: BatchNorm, and InstanceNorm that tracks."""
    return [m for m in network.modules() if isinstance(m, _NormBase) and m.running_mean is not None]
