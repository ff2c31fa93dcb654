"""MCD: two classifiers disagree on the target as much as they can, and the features move to where they cannot.

    d(p1, p2) = mean |p1 - p2|                                over cases (voxels) and classes
    heads:     min  CE(p1_s) + CE(p2_s) - weight * d(p1_t, p2_t)      (the critic's step, on constant features)
    features:  min  CE(p1_s) + CE(p2_s) + weight * d(p1_t, p2_t)      (the term, with constant heads)

Paper: Saito, Watanabe, Ushiku and Harada, Maximum Classifier Discrepancy for Unsupervised Domain Adaptation, CVPR 2018,
arXiv:1712.02560

The two heads are the method's own and stand on the tapped features; the network's own head learns from the trainer's
loss and is what predicts afterwards. The paper alternates three steps: all on the source; heads against the
discrepancy; features n times for it (n = 2 to 4; 4 in the authors' code). Here the features' first step also holds the
first of the three, and ``repeats`` - 1 on the discrepancy alone follow, on the same target batch; each costs a forward
and a backward pass. The default is 1: nothing holds the features to the source in the further steps, and with Adam at
1e-3 two half circles turned by 30 degrees end at 0.88 to 0.92 accuracy with 1, at 0.78 to 0.88 with 4. Tap the layer
right before the class head (the default), where the network's own head profits. The classes should be present in
similar shares in both domains' batches. Features are taken unpooled; for a classification they are averaged over space
here, for a segmentation the heads are 1x1 convolutions. Normalisation statistics: two forward passes, so each domain is
normalised by its own batch and both enter the running averages.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.adversarial import frozen_call
from monai_transfer.networks.outputs import label_indices, log_probabilities, pool_features, probabilities
from monai_transfer.tasks.for_methods import CLASSES

__all__ = ["Mcd", "discrepancy"]


def discrepancy(first: Tensor, second: Tensor) -> Tensor:
    """Mean absolute difference of the class probabilities of two B x C x spatial logits; 0 for equal ones.

    Args:
        first: logits of the first head, B x C x spatial.
        second: of the second, of the same shape.

    >>> import torch
    >>> from monai_transfer.methods.mcd import discrepancy
    >>> sure, opposite = torch.tensor([[9.0, -9.0]]), torch.tensor([[-9.0, 9.0]])
    >>> round(discrepancy(sure, sure).item(), 3), round(discrepancy(sure, opposite).item(), 3)  # equal; apart
    (0.0, 1.0)
    """
    return (probabilities(first) - probabilities(second)).abs().mean()


class Mcd(Method):
    """Maximum classifier discrepancy on tapped features.

    Args:
        hidden: width of each head's hidden layer.
        weight: factor of the discrepancy beside the heads' cross-entropies.
        lr: learning rate of the heads.
        repeats: n, steps of the features for each step of the heads.

    Raises:
        InputError: ``repeats`` is below 1.

    >>> from monai_transfer.methods.mcd import Mcd
    >>> sorted(Mcd.needs)  # two further heads are made in ``setup``; the features learn to make them agree
    ['source_features', 'source_label', 'source_logits', 'target_features']
    """

    needs = frozenset({"source_features", "target_features", "source_label", "source_logits"})
    tasks = CLASSES
    default_pool: ClassVar[str | None] = None
    caution = "two further heads' source losses are part of it, several times the task; it hurt a segmentation"

    def __init__(self, hidden: int = 64, weight: float = 1.0, lr: float = 1e-3, repeats: int = 1) -> None:
        super().__init__()
        if repeats < 1:
            raise InputError(
                f"the features of MCD make at least one step, got {repeats}",
                hint="repeats=1 is the default, 4 the authors' code's",
            )
        self.hidden, self.weight, self.lr, self.repeats = hidden, weight, lr, repeats
        self.heads: nn.ModuleList | None = None
        self._log: dict[str, Tensor] = {}

    def setup(self, network: nn.Module, batch: Fields) -> None:
        classes, width = max(batch.source_logits.shape[1], 2), batch.source_features.shape[1]
        dims = batch.source_logits.ndim - 2
        self._pooled = dims == 0
        if dims and batch.source_features.ndim == 2:
            raise InputError("MCD for a segmentation needs unpooled features", hint="Adapt(..., pool=None)")

        def layer(inputs: int, outputs: int) -> nn.Module:
            return Conv[Conv.CONV, dims](inputs, outputs, 1) if dims else nn.Linear(inputs, outputs)

        self.heads = nn.ModuleList(
            nn.Sequential(layer(width, self.hidden), nn.ReLU(), layer(self.hidden, classes)) for _ in range(2)
        ).to(batch.source_features.device)

    def _losses(self, fields: Fields, constant_heads: bool) -> tuple[Tensor, Tensor]:
        """The heads' summed cross-entropy on the source, and their discrepancy on the target."""
        assert self.heads is not None, "setup() comes before forward()"
        spatial = fields.source_logits.shape[2:]
        source, target = fields.source_features, fields.target_features
        if not spatial:
            source, target = pool_features(source), pool_features(target)
        supervised, outputs = torch.zeros((), device=source.device), []
        for head in self.heads:
            on_source = frozen_call(head, source) if constant_heads else head(source)
            if on_source.shape[2:] != spatial:
                on_source = F.interpolate(
                    on_source, size=spatial, mode="bilinear" if len(spatial) == 2 else "trilinear"
                )
            labels = label_indices(fields.source_label, fields.source_logits)
            supervised = supervised + F.nll_loss(log_probabilities(on_source), labels)
            outputs.append(frozen_call(head, target) if constant_heads else head(target))
        return supervised, discrepancy(*outputs)

    def again(self, fields: Fields, progress: float) -> Tensor:
        assert self.heads is not None, "setup() comes before again()"
        features = fields.target_features
        if self._pooled:
            features = pool_features(features)
        return self.weight * discrepancy(*(frozen_call(head, features) for head in self.heads))

    def forward(self, fields: Fields, progress: float) -> Tensor:
        supervised, distance = self._losses(fields, constant_heads=True)
        self._log = {"discrepancy": distance.detach()}
        return supervised + self.weight * distance

    def critic_step(self, fields: Fields) -> Tensor:
        """The heads' loss: right on the source, as different as possible on the target."""
        supervised, distance = self._losses(fields, constant_heads=False)
        return supervised - self.weight * distance

    def log(self) -> dict[str, Tensor]:
        """``discrepancy`` of the two heads on the last target batch, after their step."""
        return dict(self._log)
