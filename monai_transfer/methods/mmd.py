"""MMD: the distance of the two domains' feature means in a space of many Gaussian kernels; joint with predictions too.

    MMD^2 = mean k(s, s') + mean k(t, t') - 2 mean k(s, t),   k(x, y) = sum_u exp(-||x - y||^2 / (2 sigma_u^2))
    sigma_u^2 = 2^u * mean squared distance of the pairs in both batches together,   u = -3, -2, ..., 1

Paper: Long, Cao, Wang and Jordan, Learning Transferable Features with Deep Adaptation Networks, ICML 2015,
arXiv:1502.02791; joint: Long, Zhu, Wang and Jordan, Deep Transfer Learning with Joint Adaptation Networks, ICML 2017,
arXiv:1605.06636

With ``joint=True`` the kernel is the product of that of the features and a Gaussian of the class probabilities with
sigma 0.92, as in the authors' code, so that the joint distributions are compared. Kernels are summed with equal
weights, as in the authors' code (the first paper also learns the weights). The bandwidth is a constant for the
gradient; its mean runs over distinct pairs. ``Mmd`` leaves each case's pair with itself out: this estimate can be
negative. The biased one (``unbiased=False``: all pairs, never negative, exactly 0 for a batch with itself) has a
gradient of four to ten times the task's, and drowned it here; with the unbiased one at weight 0.1 the term acts. Some
public code takes unsquared distances for the bandwidth; ours follows the paper. A batch of two to four cases says next
to nothing about a distribution: use eight or more of each domain. Statistics are those of the local batch: under DDP
the term is per rank. Normalisation statistics: the target batch is a second forward pass, so each domain is normalised
by its own batch and both enter the running averages.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method, rows_of
from monai_transfer.networks.outputs import at_least_float32, probabilities
from monai_transfer.tasks.for_methods import CLASSES

__all__ = ["Mmd", "gaussian_kernels", "joint_mmd_loss", "mmd_loss"]

POWERS = (-3, -2, -1, 0, 1)
PREDICTION_SIGMA = 0.92
ROWS = 256
"""Places of unpooled feature maps that are compared, per domain: kernels grow with the square."""


def _squared_distances(x: Tensor) -> Tensor:
    # by differences: the expansion |x|^2 + |y|^2 - 2xy cancels, and its gradient is rough for near-equal points
    return (x.unsqueeze(0) - x.unsqueeze(1)).square().sum(-1)


def gaussian_kernels(features: Tensor, powers: Sequence[int] = POWERS, sigma: float | None = None) -> Tensor:
    """The sum of Gaussian kernels between all rows of N x F ``features``: N x N.

    Args:
        powers: u of each kernel's sigma_u^2 = 2^u * mean squared distance of distinct rows.
        sigma: one kernel of this fixed width instead.

    exp(-1/2) for rows that lie one ``sigma`` apart:

    >>> import torch
    >>> gaussian_kernels(torch.tensor([[0.0], [1.0]]), sigma=1.0)
    tensor([[1.0000, 0.6065],
            [0.6065, 1.0000]])
    """
    distances = _squared_distances(at_least_float32(features))
    if sigma is not None:
        return torch.exp(-distances / (2 * sigma**2))
    count = len(features)
    mean = distances.detach().sum() / (count * (count - 1))
    mean = mean.clamp_min(torch.finfo(distances.dtype).tiny * 1e6)  # all rows equal: every kernel is 1
    return torch.stack([torch.exp(-distances / (2 * 2.0**u * mean)) for u in powers]).sum(0)


def _mmd_of_kernel(kernel: Tensor, n: int, unbiased: bool) -> Tensor:
    m = len(kernel) - n
    within_source, within_target, between = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
    if unbiased:
        source = (within_source.sum() - within_source.diagonal().sum()) / (n * (n - 1))
        target = (within_target.sum() - within_target.diagonal().sum()) / (m * (m - 1))
    else:
        source, target = within_source.mean(), within_target.mean()
    return source + target - 2 * between.mean()


def _both(source: Tensor, target: Tensor) -> Tensor:
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        raise InputError(
            f"MMD needs N x F and M x F features, got {tuple(source.shape)} and {tuple(target.shape)}",
            hint="pool spatial features first",
        )
    if min(len(source), len(target)) < 2:
        raise InputError(
            f"MMD needs two cases of each domain in a batch, got {len(source)} and {len(target)}",
            hint="raise the batch size, and drop_last=True where a loader's last batch is smaller",
        )
    return torch.cat([source, target])


def mmd_loss(source: Tensor, target: Tensor, *, powers: Sequence[int] = POWERS, unbiased: bool = False) -> Tensor:
    """Squared multi-kernel MMD of source (N x F) and target (M x F) features; a scalar, 0 for identical batches.

    Args:
        source: N x F.
        target: M x F.
        powers: u of the kernels' widths, sigma_u^2 = 2^u * mean squared distance.
        unbiased: leave a row's kernel with itself out; the estimate can then be negative.

    Raises:
        InputError: a batch holds fewer than two rows, features are not two-dimensional, or their counts differ.

    >>> import torch
    >>> from monai_transfer.methods.mmd import mmd_loss
    >>> _ = torch.manual_seed(0)
    >>> a, b = torch.randn(64, 4), torch.randn(64, 4) + 2
    >>> mmd_loss(a, a).abs().item() < 1e-6, mmd_loss(a, b).item() > 0.3
    (True, True)
    """
    return _mmd_of_kernel(gaussian_kernels(_both(source, target), powers), len(source), unbiased)


def joint_mmd_loss(
    source: Tensor,
    target: Tensor,
    source_probabilities: Tensor,
    target_probabilities: Tensor,
    *,
    powers: Sequence[int] = POWERS,
    unbiased: bool = False,
) -> Tensor:
    """Squared MMD of the joint distribution of features (N x F, M x F) and class probabilities (N x C, M x C).

    Args:
        source: N x F.
        target: M x F.
        source_probabilities: N x C.
        target_probabilities: M x C.
        powers: as in ``mmd_loss``, of the features' kernels.
        unbiased: as in ``mmd_loss``.

    Raises:
        InputError: as ``mmd_loss``.

    Equal features with exchanged classes are apart in the joint distribution, which ``mmd_loss`` cannot see:

    >>> import torch
    >>> features, classes = torch.tensor([[0.0], [1.0]]), torch.eye(2)
    >>> float(joint_mmd_loss(features, features, classes, classes))
    0.0
    >>> float(joint_mmd_loss(features, features, classes, classes.flip(0))) > 0.5
    True
    """
    kernel = gaussian_kernels(_both(source, target), powers)
    kernel = kernel * gaussian_kernels(_both(source_probabilities, target_probabilities), sigma=PREDICTION_SIGMA)
    return _mmd_of_kernel(kernel, len(source), unbiased)


class Mmd(Method):
    """Multi-kernel MMD between pooled features of the two domains; unpooled, between places of the feature maps.

    Args:
        joint: compare features and predictions jointly (JAN). Outputs of a segmentation are averaged over space first.
            Not for regression, which has no class probabilities.
        powers: u of each kernel's width, see above.
        unbiased: leave each case's pair with itself out.
        weight: factor of the term.

    >>> import torch
    >>> from monai_transfer.methods.base import Fields
    >>> from monai_transfer.methods.mmd import Mmd
    >>> _ = torch.manual_seed(0)
    >>> here, shifted, logits = torch.randn(32, 4), torch.randn(32, 4) + 3, torch.zeros(32, 2)
    >>> def term(target):
    ...     fields = Fields(source_features=here, target_features=target, source_logits=logits, target_logits=logits)
    ...     return Mmd()(fields, progress=0.5).item()
    >>> term(shifted) > 10 * abs(term(torch.randn(32, 4)))
    True
    """

    needs = frozenset({"source_features", "target_features", "source_logits", "target_logits"})

    def __init__(
        self, joint: bool = False, powers: Sequence[int] = POWERS, unbiased: bool = True, weight: float = 0.1
    ) -> None:
        super().__init__()
        self.joint, self.powers, self.unbiased, self.weight = joint, tuple(powers), unbiased, weight
        if joint:
            self.tasks = CLASSES  # type: ignore[misc]

    def forward(self, fields: Fields, progress: float) -> Tensor:
        source, target = (rows_of(x, ROWS) for x in (fields.source_features, fields.target_features))
        if not self.joint:
            return self.weight * mmd_loss(source, target, powers=self.powers, unbiased=self.unbiased)
        source_answers, target_answers = (
            rows_of(_on_grid_of(fields[f"{domain}_features"], probabilities(fields[f"{domain}_logits"])), ROWS)
            for domain in ("source", "target")
        )
        loss = joint_mmd_loss(
            source, target, source_answers, target_answers, powers=self.powers, unbiased=self.unbiased
        )
        return self.weight * loss


def _on_grid_of(features: Tensor, answers: Tensor) -> Tensor:
    """Class probabilities averaged over space as the features are: entirely, or to the places of a feature map."""
    if features.ndim == 2:
        return answers.flatten(2).mean(-1) if answers.ndim > 2 else answers
    size = tuple(features.shape[2:])
    if answers.ndim == 2:
        return answers.reshape(*answers.shape, *[1] * len(size)).expand(*answers.shape, *size)
    return F.adaptive_avg_pool2d(answers, size) if len(size) == 2 else F.adaptive_avg_pool3d(answers, size)  # type: ignore[arg-type]
