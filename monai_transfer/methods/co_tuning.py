"""Co-Tuning: the source's class head is fine-tuned along, with the source classes that each target class looks like.

    L = lambda * CE(softmax(h_s(f(x))), p(y_s | y_t))

with h_s the source's head on the network's features f(x), and p(y_s | y_t) the mean of the source model's predictions
over the training cases of target class y_t (the paper's direct approach).

Paper: You, Kou, Long and Wang, Co-Tuning for Transfer Learning, NeurIPS 2020

It pays where labels are few: on birds with 15 % of the labels 57.6 against 51.2 of plain fine-tuning, with all of them
82.5 against 81.8. lambda = 2.3 is the paper's.

What it needs: the source's class head, as a module from features to source classes. By default it is a copy of the
network's own head as the run starts, which is right only when that came with the source's weights (give the source's
last layer otherwise: ``weights`` drops it when the class counts differ). The relationship is learned at the beginning
of the run, from what the source model (a frozen copy, in eval mode) says to each training case with its label; or it
is given, from ``category_relationship`` on the whole training set. Normalisation statistics: the copy runs in eval
mode; the network's forward pass is the trainer's own.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.copying import copy_network
from monai_transfer.networks.head import call_head, find_features, find_head
from monai_transfer.networks.outputs import (
    at_least_float32,
    label_indices,
    log_probabilities,
    pool_features,
    probabilities,
)
from monai_transfer.tasks.for_methods import IMAGE_CLASSES

__all__ = ["CoTuning", "category_relationship", "co_tuning_loss"]


def category_relationship(predictions: Tensor, labels: Tensor, classes: int | None = None) -> Tensor:
    """p(y_s | y_t): mean of the source model's class probabilities (N x C_s) over the cases of each target class.

    Args:
        predictions: probabilities, rows sum to one.
        labels: N target classes.
        classes: their number C_t; by default as many as occur.

    Returns:
        C_t x C_s; rows sum to one, those of classes without a case are zero.

    Cases of the target's class 0 look to the source model like its class 1, those of class 1 like either:

    >>> import torch
    >>> predictions = torch.tensor([[0.1, 0.9], [0.3, 0.7], [0.5, 0.5]])
    >>> category_relationship(predictions, torch.tensor([0, 0, 1]))
    tensor([[0.2000, 0.8000],
            [0.5000, 0.5000]])
    """
    classes = int(labels.max()) + 1 if classes is None else classes
    predictions = at_least_float32(predictions)
    member = F.one_hot(labels.long(), classes).to(predictions.dtype)
    return member.T @ predictions / member.sum(0).clamp(min=1).unsqueeze(1)


def co_tuning_loss(source_logits: Tensor, labels: Tensor, relationship: Tensor) -> Tensor:
    """Cross entropy of the source head's logits (B x C_s) with the relationship's rows of the labels (B); a scalar.

    Args:
        source_logits: B x C_s, of the source's classes.
        labels: (B,), classes of the target.
        relationship: C_t x C_s; each row is p(source class | target class).

    >>> import torch
    >>> from monai_transfer.methods.co_tuning import co_tuning_loss
    >>> relationship = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # each target class looks like one source class
    >>> sure = torch.tensor([[20.0, -20.0]])
    >>> round(co_tuning_loss(sure, torch.tensor([0]), relationship).item(), 3)
    -0.0
    """
    targets = relationship[labels]
    return -(targets * log_probabilities(source_logits)).sum(1).mean()


class CoTuning(Method):
    """lambda * ``co_tuning_loss``; the source head learns with an optimizer of its own.

    Args:
        weight: lambda.
        source_head: module from B x F features to B x C_s source logits; see above for the default. It takes what
            enters the network's own class head (another layer's output only where the relationship is given).
        relationship: p(y_s | y_t), C_t x C_s, where it is known; otherwise it is learned.
        learn: share of the run in which it is learned; one epoch at least should fit in.
        lr: of the source head's Adam optimizer.

    Raises:
        InputError: a value is out of range, or (from ``setup``) the head does not fit the features.

    >>> from monai_transfer.methods.co_tuning import CoTuning
    >>> CoTuning().weight, sorted(CoTuning.needs)  # lambda of the paper; the source's own head is tuned along
    (2.3, ['source_features', 'source_image', 'source_label', 'source_logits'])
    """

    needs = frozenset({"source_image", "source_features", "source_label", "source_logits"})
    tasks = IMAGE_CLASSES
    limits = {
        "segmentation": "it learns which source classes a case's one target class looks like",
        "regression": "it learns which source classes a target class looks like",
    }
    norm_statistics = "source model: frozen copy, eval mode; network: the trainer's own forward pass"
    lr: float

    def __init__(
        self,
        weight: float = 2.3,
        source_head: nn.Module | None = None,
        relationship: Any = None,
        learn: float = 0.25,
        lr: float = 1e-3,
    ) -> None:
        super().__init__()
        if weight < 0 or not 0 < learn <= 1:
            raise InputError(
                f"Co-Tuning needs weight >= 0 and learn in (0, 1], got {weight} and {learn}",
                hint="the paper's weight is 2.3; half of the labelled cases is learn=0.5",
            )
        self.weight, self.learn, self.lr = weight, learn, lr
        self.source_head = source_head
        self.source_model: nn.Module | None = None
        self._given = None if relationship is None else torch.as_tensor(relationship, dtype=torch.float32)
        self.sums: Tensor
        self.counts: Tensor

    def setup(self, network: nn.Module, batch: Fields) -> None:
        heads = find_head(network)
        if self.source_head is None:
            if len(heads) != 1:
                raise InputError(f"{type(network).__name__} has no single class head", hint="give source_head")
            self.source_head = copy.deepcopy(network.get_submodule(heads[0])).requires_grad_(True)
        features, classes = batch.source_features, max(batch.source_logits.shape[1], 2)
        self.source_head.to(features.device)
        try:
            width = max(call_head(self.source_head, features).shape[1], 2)
        except RuntimeError as error:
            raise InputError(
                f"the source head does not take the network's features of {tuple(features.shape)}",
                hint="let Adapt's `layer` name the module whose output enters it",
            ) from error
        if self._given is None:
            self.source_model = copy_network(network, frozen=True)
            self._tapped = find_features(network) or ""
            # the head that predicts stays as it is, the one that learns goes on from there
            self.first_head = copy.deepcopy(self.source_head).requires_grad_(False)
            self.register_buffer("sums", features.new_zeros(classes, width, dtype=torch.float32))
            self.register_buffer("counts", features.new_zeros(classes, dtype=torch.float32))
        elif self._given.shape != (classes, width):
            raise InputError(
                f"the relationship is {tuple(self._given.shape)}, for {classes} target and {width} source classes",
                hint="give target classes x source classes, or leave it out to have it learnt",
            )
        else:
            self.register_buffer("sums", self._given.to(features.device))
            self.register_buffer("counts", features.new_ones(classes, dtype=torch.float32))

    def train(self, mode: bool = True) -> CoTuning:
        super().train(mode)
        if self.source_model is not None:
            self.source_model.eval()
            self.first_head.eval()  # its own dropout would blur the relationship
        return self

    def make_optimizer(self) -> torch.optim.Optimizer:
        assert self.source_head is not None
        return torch.optim.Adam(self.source_head.parameters(), lr=self.lr)

    @property
    def relationship(self) -> Tensor:
        """p(y_s | y_t) as far as it is known, C_t x C_s."""
        return self.sums / self.counts.clamp(min=1).unsqueeze(1)

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.source_head is not None, "setup() comes before forward()"
        labels = label_indices(fields.source_label, fields.source_logits)
        if self.source_model is not None and progress < self.learn:
            self._learn(fields.source_image, labels)
        scores = call_head(self.source_head, fields.source_features)
        return self.weight * co_tuning_loss(scores, labels, self.relationship)

    @torch.no_grad()
    def _learn(self, image: Tensor, labels: Tensor) -> None:
        assert self.source_model is not None
        seen: list[Tensor] = []
        layer = self.source_model.get_submodule(self._tapped)
        handle = layer.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
        try:
            self.source_model(image)
        finally:
            handle.remove()
        said = probabilities(call_head(self.first_head, pool_features(seen[-1])))
        member = F.one_hot(labels, len(self.counts)).float()
        sums, counts = member.T @ said.float(), member.sum(0)
        if dist.is_available() and dist.is_initialized():  # one relationship for all ranks
            dist.all_reduce(sums)
            dist.all_reduce(counts)
        self.sums += sums
        self.counts += counts
