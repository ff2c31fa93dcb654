"""Distillation (Learning without Forgetting): the network keeps answering like the source model while it learns.

    L = T^2 * KL(softmax(teacher / T) || softmax(student / T)),   mean over cases and voxels

Paper: Li and Hoiem, Learning without Forgetting, ECCV 2016, arXiv:1606.09282; Hinton, Vinyals and Dean, Distilling the
Knowledge in a Neural Network, arXiv:1503.02531; Cermelli et al., Modeling the Background for Incremental Learning in
Semantic Segmentation, CVPR 2020, arXiv:2002.00718 (``kept``)

The teacher is the network as the run starts with it, or any other network, larger or of another architecture, with the
same classes in the same order: transfer of structure into a smaller one. Has it other classes, then a ``head`` learns
beside the network's own to answer for it from the network's features; that is LwF's case, with the source's head. T = 2
as in LwF. Has the network further classes, which its source had not, then ``kept`` names the outputs that the source
knows: the two are compared over those, where a new class counts as the background that it was to the source, and only
where the label does not say what is there. Normalisation statistics: the teacher runs in eval mode on what it was
trained with; the student's forward pass is the trainer's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.copying import copy_network
from monai_transfer.networks.head import call_head
from monai_transfer.networks.output_forms import main_scores
from monai_transfer.networks.outputs import at_least_float32, log_probabilities
from monai_transfer.tasks.for_methods import CLASSES

__all__ = ["Distillation", "distillation_loss", "kept_classes_loss"]


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """T^2 * KL(teacher || student) of B x C x spatial logits, mean over cases and voxels; no gradient to ``teacher``.

    A single channel is a sigmoid's. 0 for identical logits.

    Args:
        student: logits, B x C x spatial; gradients flow here.
        teacher: logits of the same shape.
        temperature: T; logits are divided by it.

    Raises:
        InputError: the shapes differ.

    >>> import torch
    >>> from monai_transfer.methods.distillation import distillation_loss
    >>> logits = torch.tensor([[2.0, 0.0]])
    >>> distillation_loss(logits, logits).abs().item() < 1e-6, round(distillation_loss(-logits, logits).item(), 3)
    (True, 1.848)
    """
    if student.shape != teacher.shape:
        raise InputError(
            f"the student gives {tuple(student.shape)}, the teacher {tuple(teacher.shape)}",
            hint="both need the same classes; a student with others gets head=, a module that gives the source classes",
        )
    ours = log_probabilities(at_least_float32(student) / temperature)
    theirs = log_probabilities(at_least_float32(teacher.detach()) / temperature)
    return temperature**2 * (theirs.exp() * (theirs - ours)).sum(1).mean()


def kept_classes_loss(
    student: Tensor,
    teacher: Tensor,
    kept: Sequence[int],
    label: Tensor | None = None,
    temperature: float = 2.0,
    activation: str = "softmax",
) -> Tensor:
    """Distillation over the outputs that the teacher knows, of B x C x spatial logits; no gradient to ``teacher``.

    Args:
        student, teacher: logits of one shape; the teacher's of outputs that are not kept are not looked at.
        kept: the outputs that the teacher knows. With ``softmax``, where 0 is among them it is the background, and the
            student's other outputs count as that.
        label: targets like the logits: 1, 0, or -1 where nobody can tell. The mean is over the places where they do
            not tell of every kept output (``sigmoid``: over the places and outputs that are not known); ``None``, or
            class numbers in one channel: over all places.
        temperature: T.
        activation: ``softmax`` or ``sigmoid``.

    >>> import torch
    >>> from monai_transfer.methods.distillation import kept_classes_loss
    >>> teacher = torch.tensor([[2.0, 0.0, 9.0]])  # knows outputs 0 and 1
    >>> new = torch.tensor([[-9.0, 0.0, 2.0]])  # what was background is a new class to the student
    >>> round(kept_classes_loss(new, teacher, [0, 1]).item(), 4)
    0.0
    """
    ours, theirs = (at_least_float32(each) / temperature for each in (student, teacher.detach()))
    chosen = list(kept)
    unknown = None
    if label is not None and label.shape == student.shape:
        unknown = (label[:, chosen] < 0).to(ours.dtype)
    theirs = theirs[:, chosen]
    if activation == "sigmoid":
        ours, p = ours[:, chosen], theirs.sigmoid()
        each = p * (F.logsigmoid(theirs) - F.logsigmoid(ours)) + (1 - p) * (F.logsigmoid(-theirs) - F.logsigmoid(-ours))
    else:
        if 0 in chosen:
            merged = [0, *(n for n in range(ours.shape[1]) if n not in chosen)]
            background = ours[:, merged].logsumexp(1, keepdim=True)
            ours = torch.cat([background if n == 0 else ours[:, n : n + 1] for n in chosen], 1)
        else:
            ours = ours[:, chosen]
        p, q = theirs.log_softmax(1), ours.log_softmax(1)
        each = (p.exp() * (p - q)).sum(1, keepdim=True)
        unknown = None if unknown is None else unknown.amax(1, keepdim=True)
    if unknown is None:
        return temperature**2 * each.mean()
    return temperature**2 * (each * unknown).sum() / unknown.sum().clamp(min=1)


class Distillation(Method):
    """``distillation_loss`` between a frozen teacher and the network, on the trainer's own images.

    Args:
        teacher: the source model, with its weights; ``None`` is a copy of the network as the run starts.
        temperature: T; higher shows more of the teacher's small probabilities.
        weight: factor of the term.
        head: for a teacher with other classes: a module from the network's features (as ``Adapt`` pools them) to the
            teacher's outputs, such as the source's last layer; it learns, with an optimizer of its own.
        kept: of a network that has classes beside its source's, the outputs that the source knows; see
            ``kept_classes_loss``.
        activation: of the kept outputs, ``softmax`` or ``sigmoid`` (findings, which do not exclude each other).

    Raises:
        InputError: T is not positive, ``kept`` and ``head`` are both given, or (from ``setup``) the outputs do not fit
            each other.

    >>> import torch
    >>> from monai_transfer.methods.base import Fields
    >>> from monai_transfer.methods.distillation import Distillation
    >>> network, image = torch.nn.Linear(4, 2), torch.randn(8, 4)
    >>> method = Distillation()  # the teacher is the network as it comes in
    >>> method.setup(network, Fields(source_image=image, source_logits=network(image)))
    >>> abs(method(Fields(source_image=image, source_logits=network(image)), progress=0.5).item()) < 1e-6
    True
    """

    needs = frozenset({"source_image", "source_logits"})
    tasks = CLASSES
    norm_statistics = "teacher: frozen, eval mode; student: the trainer's own forward pass"

    def __init__(
        self,
        teacher: nn.Module | None = None,
        temperature: float = 2.0,
        weight: float = 1.0,
        head: nn.Module | None = None,
        kept: Sequence[int] | None = None,
        activation: str = "softmax",
    ) -> None:
        super().__init__()
        if activation not in ("softmax", "sigmoid"):
            raise InputError(
                f"activation {activation!r} is not softmax or sigmoid",
                hint="softmax where classes exclude each other, sigmoid where they do not",
            )
        if kept is not None and (head is not None or not kept):
            fault = "kept names no output" if not kept else "kept and head are both given"
            raise InputError(fault, hint="kept: the outputs that the source knows; head: for a teacher with others")
        self.kept, self.activation = None if kept is None else [int(n) for n in kept], activation
        if not temperature > 0:
            raise InputError(f"the temperature is positive, got {temperature}", hint="2 is usual")
        self.temperature, self.weight, self.head = temperature, weight, head
        self.teacher = None if teacher is None else teacher.requires_grad_(False).eval()
        if head is not None:
            self.needs = type(self).needs | {"source_features"}  # type: ignore[misc]
        if kept is not None:
            self.needs = type(self).needs | {"source_label"}  # type: ignore[misc]
        if activation == "sigmoid" and kept is not None:
            self.tasks = (*type(self).tasks, "regression")  # type: ignore[misc, assignment]

    def setup(self, network: nn.Module, batch: Fields) -> None:
        if self.teacher is None:
            self.teacher = copy_network(network, frozen=True)
        image = batch.source_image
        theirs = self._answer(self.teacher.to(image.device), image)
        try:
            ours = self._student(batch)
        except RuntimeError as error:
            if self.head is None:
                raise
            raise InputError(
                f"the head does not take the network's features of {tuple(batch.source_features.shape)}",
                hint="give one of their width, or let Adapt's `layer` name the module whose output enters it",
            ) from error
        if ours.shape != theirs.shape:
            raise InputError(
                f"the teacher gives {tuple(theirs.shape)}, the network {tuple(ours.shape)}",
                hint="give a head from the network's features to the teacher's classes" if self.head is None else None,
            )

    def train(self, mode: bool = True) -> Distillation:
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.teacher is not None, "setup() comes before forward()"
        theirs = self._answer(self.teacher, fields.source_image)
        if self.kept is not None:
            label = fields.source_label.to(theirs.device)
            ours = fields.source_logits
            return self.weight * kept_classes_loss(ours, theirs, self.kept, label, self.temperature, self.activation)
        return self.weight * distillation_loss(self._student(fields), theirs, self.temperature)

    def _student(self, fields: Fields) -> Tensor:
        if self.head is None:
            return fields.source_logits
        return call_head(self.head.to(fields.source_features.device), fields.source_features)

    @staticmethod
    @torch.no_grad()
    def _answer(teacher: nn.Module, image: Tensor) -> Tensor:
        return main_scores(teacher, image)
