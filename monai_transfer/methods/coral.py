"""Deep CORAL: align the second-order statistics of source and target features.

    L = ||C_s - C_t||_F^2 / (4 d^2) + ||m_s - m_t||^2 / d

with C the covariance (divisor n - 1) and m the mean of a batch's d-dimensional features, each divided by the spread of
both batches together (a constant for the gradient). ``standardise=False``: the paper's, the first part alone, of the
features as they are.

Paper: Sun and Saenko, Deep CORAL: Correlation Alignment for Deep Domain Adaptation, ECCVW 2016, arXiv:1607.01719

``coral_loss`` is the paper's; some public libraries give a value four times larger plus a term of the means. The
paper's form depends on the features' scale: at weight 1 its gradient was a hundredth of the task's in classification
and a ten-thousandth in segmentation, so that nothing happened. Standardised it acts at weight 1, whatever the network.
Statistics are those of the local batch: under DDP the term is per rank. Batches of two or three cases give a covariance
of rank one or two, so use eight or more where memory allows. Normalisation statistics: the target batch is a second
forward pass, so each domain is normalised by its own batch and both enter the running averages. InstanceNorm removes
most of what CORAL could align in pooled features: watch the logged raw term.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method, rows_of
from monai_transfer.networks.outputs import at_least_float32

__all__ = ["Coral", "coral_loss"]


def covariance(features: Tensor) -> Tensor:
    """Covariance (F x F, divisor N - 1) of N x F features.

    Args:
        features: N x F, N at least 2.

    Raises:
        InputError: fewer than two rows, or not two-dimensional.

    >>> import torch
    >>> from monai_transfer.methods.coral import covariance
    >>> covariance(torch.tensor([[0.0, 0.0], [2.0, 4.0]]))  # two cases, two features that rise together
    tensor([[2., 4.],
            [4., 8.]])
    """
    if features.ndim != 2 or features.shape[0] < 2:
        raise InputError(
            f"a covariance needs N x F features with N >= 2, got {tuple(features.shape)}",
            hint="raise the batch size, and drop_last=True where a loader's last batch is smaller",
        )
    centred = features - features.mean(0, keepdim=True)
    return centred.T @ centred / (features.shape[0] - 1)


def coral_loss(source: Tensor, target: Tensor) -> Tensor:
    """CORAL distance of source (N x F) and target (M x F) features; a scalar, 0 for identical batches.

    Args:
        source: N x F.
        target: M x F.

    Raises:
        InputError: a batch holds fewer than two rows, or the feature counts differ.

    The covariances are 1 and 9, so the distance is (9 - 1)^2 / 4:

    >>> import torch
    >>> from monai_transfer.methods.coral import coral_loss
    >>> a = torch.tensor([[-1.0], [0.0], [1.0]])
    >>> coral_loss(a, a), coral_loss(a, 3 * a)
    (tensor(0.), tensor(16.))
    """
    if source.shape[-1] != target.shape[-1]:
        raise InputError(
            f"source has {source.shape[-1]} features and target {target.shape[-1]}",
            hint="tap the same layer in both domains",
        )
    # float32 under autocast: squares of half-precision covariances overflow
    source, target = at_least_float32(source), at_least_float32(target)
    difference = covariance(source) - covariance(target)
    return difference.square().sum() / (4 * source.shape[1] ** 2)


class Coral(Method):
    """CORAL between pooled features of the two domains; unpooled, each place of a feature map is a row.

    Args:
        standardise: divide by the spread and add the means; ``False``: ``coral_loss`` of the features as they are,
            which wants ``Adapt(weight=100)`` or so.

    >>> import torch
    >>> from monai_transfer.methods.base import Fields
    >>> from monai_transfer.methods.coral import Coral
    >>> a = torch.tensor([[-1.0], [0.0], [1.0]])
    >>> fields = Fields(source_features=a, target_features=3 * a)  # variances 1 and 9, of both together 4
    >>> Coral()(fields, progress=0.5), Coral(standardise=False)(fields, progress=0.5)  # (9/4 - 1/4)^2 / 4; as is
    (tensor(1.), tensor(16.))
    """

    needs = frozenset({"source_features", "target_features"})

    def __init__(self, standardise: bool = True) -> None:
        super().__init__()
        self.standardise = standardise

    def forward(self, fields: Fields, progress: float) -> Tensor:
        source, target = rows_of(fields.source_features), rows_of(fields.target_features)
        if not self.standardise:
            return coral_loss(source, target)
        source, target = at_least_float32(source), at_least_float32(target)
        spread = torch.cat([source, target]).detach().std(0)
        spread = spread.clamp_min(torch.finfo(spread.dtype).eps * spread.max().clamp_min(1e-20))  # dead features
        source, target = source / spread, target / spread
        return coral_loss(source, target) + (source.mean(0) - target.mean(0)).square().mean()
