"""Deep CORAL: align the second-order statistics of source and target features.

    L = ||C_s - C_t||_F^2 / (4 d^2)

with C the covariance (divisor n - 1) of a batch's d-dimensional features.

Paper: Sun and Saenko, Deep CORAL: Correlation Alignment for Deep Domain Adaptation, ECCVW 2016, arXiv:1607.01719

The factor and the covariance follow the paper; some public libraries give a value four times larger plus a term of the
means. Statistics are those of the local batch: under DDP the term is per rank. Batches of two or three cases give a
covariance of rank one or two, so use eight or more where memory allows. Normalisation statistics: the target batch is
a second forward pass, so each domain is normalised by its own batch and both enter the running averages.
InstanceNorm removes most of what CORAL could align in pooled features: watch the logged raw term.
"""

from __future__ import annotations

from torch import Tensor

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method, rows_of

__all__ = ["Coral", "coral_loss"]


def covariance(features: Tensor) -> Tensor:
    """Covariance (F x F, divisor N - 1) of N x F features.

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
    source, target = (x if x.dtype.itemsize >= 4 else x.float() for x in (source, target))
    difference = covariance(source) - covariance(target)
    return difference.square().sum() / (4 * source.shape[1] ** 2)


class Coral(Method):
    """``coral_loss`` between pooled features of the two domains; unpooled, each place of a feature map is a row.

    >>> import torch
    >>> from monai_transfer.methods.base import Fields
    >>> from monai_transfer.methods.coral import Coral
    >>> a = torch.tensor([[-1.0], [0.0], [1.0]])
    >>> Coral()(Fields(source_features=a, target_features=3 * a), progress=0.5)  # (9 - 1)^2 / 4
    tensor(16.)
    """

    needs = frozenset({"source_features", "target_features"})

    def forward(self, fields: Fields, progress: float) -> Tensor:
        return coral_loss(rows_of(fields.source_features), rows_of(fields.target_features))
