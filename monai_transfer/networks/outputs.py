"""Reading a network's raw outputs: probabilities, entropies and label indices, for one class channel or many.

Outputs are B x C (classification) or B x C x spatial (segmentation). A single channel is a sigmoid's: it is read as two
classes, background and foreground. Everything is computed in float32 or wider, so it is safe under autocast.
"""

from __future__ import annotations

import torch
from monai.losses import DiceLoss
from torch import Tensor
from torch.nn import functional as F

from monai_transfer.errors import InputError

__all__ = [
    "entropy",
    "label_indices",
    "log_probabilities",
    "mean_entropy",
    "pool_features",
    "probabilities",
    "supervised_loss",
    "at_least_float32",
    "each_alone",
]


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32 where it was narrower; float64 stays.

    Args:
        x: any shape.

    >>> import torch
    >>> at_least_float32(torch.ones(1, dtype=torch.float16)).dtype, at_least_float32(torch.ones(1).double()).dtype
    (torch.float32, torch.float64)
    """
    return x if x.dtype.itemsize >= 4 else x.float()


def log_probabilities(logits: Tensor) -> Tensor:
    """Log class probabilities, B x C x spatial; one channel becomes two (background, foreground).

    Args:
        logits: B x C x spatial.

    >>> import torch
    >>> log_probabilities(torch.zeros(1, 4)).exp().tolist(), log_probabilities(torch.zeros(1, 1)).exp().tolist()
    ([[0.25, 0.25, 0.25, 0.25]], [[0.5, 0.5]])
    """
    logits = at_least_float32(logits)
    if logits.shape[1] == 1:
        return torch.cat([F.logsigmoid(-logits), F.logsigmoid(logits)], dim=1)
    return F.log_softmax(logits, dim=1)


def probabilities(logits: Tensor) -> Tensor:
    """Class probabilities, B x C x spatial; one channel becomes two (background, foreground).

    Args:
        logits: B x C x spatial.

    Of one channel the background's probability comes first:

    >>> import torch
    >>> probabilities(torch.tensor([[0.0], [2.0]]))
    tensor([[0.5000, 0.5000],
            [0.1192, 0.8808]])
    """
    return log_probabilities(logits).exp()


def each_alone(logits: Tensor) -> Tensor:
    """Outputs that do not exclude each other, each as a case of its own: (B C) x 1 x spatial of B x C x spatial.

    One channel is read as two classes, so that every formula of class probabilities is then one of Bernoulli variables.
    The outputs of a case follow one another: those of output k are ``[k::C]``.

    Args:
        logits: B x C x spatial.

    >>> probabilities(each_alone(torch.zeros(1, 3))).tolist()  # absent and present, for each of three findings
    [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
    """
    return logits.flatten(0, 1).unsqueeze(1)


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of each case's or voxel's prediction in nats, B x spatial; between 0 and log C.

    Args:
        logits: B x C x spatial.

    0 for a confident prediction, log 2 = 0.6931 for two equal scores:

    >>> import torch
    >>> entropy(torch.tensor([[99.0, -99.0], [1.0, 1.0]]))
    tensor([-0.0000, 0.6931])
    """
    logs = log_probabilities(logits)
    return -(logs.exp() * logs).sum(1)


def mean_entropy(logits: Tensor, foreground: float | None = None) -> Tensor:
    """Mean entropy in nats over all cases or voxels.

    Args:
        logits: B x C x spatial; class 0 is the background.
        foreground: share of the predicted foreground in the mean, whatever its volume; ``None``: each voxel counts
            the same. Voxels are weighted by the (constant) probability of being foreground or background.

    Three sure voxels of background and an unsure one of the foreground, which is a quarter of the image:

    >>> import torch
    >>> logits = torch.tensor([[[9.0, 9.0, 9.0, 0.0], [-9.0, -9.0, -9.0, 0.1]]])
    >>> round(mean_entropy(logits).item(), 2), round(mean_entropy(logits, foreground=0.5).item(), 2)
    (0.17, 0.39)
    """
    uncertainty = entropy(logits)
    if foreground is None:
        return uncertainty.mean()
    background = log_probabilities(logits.detach())[:, 0].exp()
    return (1 - foreground) * _weighted_mean(uncertainty, background) + foreground * _weighted_mean(
        uncertainty, 1 - background
    )


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)


def label_indices(label: Tensor, logits: Tensor) -> Tensor:
    """Class indices (long, B x spatial) of a label given as indices, with a channel of one, or one-hot.

    Args:
        label: B x spatial, B x 1 x spatial, or one-hot, B x C x spatial.
        logits: B x C x spatial.

    Raises:
        InputError: the label's shape fits none of these.

    >>> import torch
    >>> label_indices(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2))  # one-hot
    tensor([1])
    """
    spatial = logits.shape[2:]
    if label.ndim == logits.ndim and label.shape[1] == 1:
        label = label[:, 0]
    elif label.ndim == logits.ndim and label.shape[1] == logits.shape[1]:
        label = label.argmax(1)
    if label.shape != (logits.shape[0], *spatial):
        raise InputError(
            f"a label of shape {tuple(label.shape)} does not fit outputs of {tuple(logits.shape)}",
            hint="give class indices, with a channel of one or none, or one-hot",
        )
    return label.long()


def supervised_loss(logits: Tensor, label: Tensor) -> Tensor:
    """The usual loss of a method's own network: cross-entropy, plus soft Dice where the output is spatial.

    Args:
        logits: B x C x spatial.
        label: as ``label_indices`` takes it.

    >>> import torch
    >>> sure = torch.tensor([[20.0, -20.0]])
    >>> [round(supervised_loss(sure, torch.tensor([label])).item(), 2) for label in (0, 1)]
    [0.0, 40.0]
    """
    label = label_indices(label, logits if logits.shape[1] > 1 else torch.cat([logits, logits], 1))
    logs = log_probabilities(logits)
    loss = F.nll_loss(logs, label)
    if logits.ndim > 2:
        loss = loss + DiceLoss(to_onehot_y=True, include_background=False)(logs.exp(), label.unsqueeze(1))
    return loss


def pool_features(features: Tensor, pool: str | None = "mean") -> Tensor:
    """Pool B x F x spatial features to B x F by ``"mean"`` or ``"max"`` over space; ``None`` leaves them.

    Args:
        features: B x F x spatial, or B x F, which stay as they are.
        pool: ``"mean"``, ``"max"`` or None.

    Raises:
        InputError: ``pool`` is something else.

    The mean of each channel's four places, and the greatest of them:

    >>> import torch
    >>> features = torch.arange(8.0).reshape(1, 2, 2, 2)
    >>> pool_features(features).tolist(), pool_features(features, "max").tolist()
    ([[1.5, 5.5]], [[3.0, 7.0]])
    """
    if pool is None or features.ndim == 2:
        return features
    flat = features.flatten(2)
    if pool == "mean":
        return flat.mean(-1)
    if pool == "max":
        return flat.amax(-1)
    raise InputError(f"pool must be 'mean', 'max' or None, not {pool!r}", hint="None leaves the features as they are")
