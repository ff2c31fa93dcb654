"""Key metrics of validation that MONAI lacks: those that leave out what is unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric

from monai_transfer.arrays import as_array
from monai_transfer.losses.known_dice_ce import class_targets
from monai_transfer.metrics.classes import binary_auc

__all__ = ["FindingAuc", "FindingAucMetric", "KnownDice", "KnownDiceMetric"]


class FindingAucMetric(CumulativeIterationMetric):
    """Mean AUC over the findings that have known cases of both kinds; NaN where there is none.

    ``y_pred`` and ``y`` are B x F; in ``y`` 1 is present, 0 absent, anything else unknown.

    >>> metric = FindingAucMetric()
    >>> _ = metric(torch.tensor([[0.9, 0.1], [0.2, 0.7]]), torch.tensor([[1.0, -1.0], [0.0, 1.0]]))
    >>> metric.aggregate().item()
    1.0
    """

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **_: Any) -> Any:
        return y_pred, y

    def aggregate(self, *_: Any, **__: Any) -> torch.Tensor:
        """The mean AUC of everything seen, over all processes."""
        p, y = (as_array(buffer).astype(float) for buffer in self.get_buffer())
        areas = []
        for finding in range(y.shape[1]):
            known = (y[:, finding] == 0) | (y[:, finding] == 1)
            positive = y[known, finding] == 1
            if positive.any() and not positive.all():
                areas.append(float(binary_auc(p[known, finding], positive, np.ones((1, int(known.sum()))))[0]))
        return torch.tensor(float(np.mean(areas)) if areas else float("nan"))


class FindingAuc(IgniteMetricHandler):
    """:class:`FindingAucMetric` as an ignite metric, for ``key_val_metric``.

    Args:
        output_transform: picks ``(pred, label)`` from ``engine.state.output``, as MONAI's handlers do.

    In an ignite engine that gives ``(pred, label)``; -1 is not known and has no part:

    >>> from ignite.engine import Engine
    >>> engine = Engine(lambda engine, batch: batch)
    >>> FindingAuc().attach(engine, "val_auc")
    >>> pred, label = torch.tensor([[0.9], [0.2], [0.5], [0.1]]), torch.tensor([[1.0], [0.0], [1.0], [-1.0]])
    >>> engine.run([(pred, label)]).metrics["val_auc"]
    1.0
    """

    def __init__(self, output_transform: Callable[[Any], Any] = lambda x: x) -> None:
        super().__init__(metric_fn=FindingAucMetric(), output_transform=output_transform, save_details=False)


class KnownDiceMetric(CumulativeIterationMetric):
    """Mean Dice over cases and foreground classes where the label is known: as MONAI's ``MeanDice`` elsewhere.

    ``y_pred`` is one-hot, B x C x spatial. ``y`` holds class numbers, B x 1 x spatial, -1 where ignored; or targets,
    B x C x spatial, of 1, 0 and -1. A class without a true voxel in a case, or that nobody looked for, has no value.

    Args:
        include_background: the first channel counts, too, as with regions.

    >>> metric = KnownDiceMetric()
    >>> _ = metric(torch.tensor([[[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]]), torch.tensor([[[1, 0, -1]]]))
    >>> round(metric.aggregate().item(), 3)
    0.667
    """

    def __init__(self, include_background: bool = False) -> None:
        super().__init__()
        self.first = 0 if include_background else 1

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **_: Any) -> torch.Tensor:
        assert y is not None
        given = torch.as_tensor(y)
        target = given if given.shape == y_pred.shape else class_targets(given, y_pred.shape[1])
        target = target[:, self.first :].flatten(2)
        known, p = target >= 0, torch.as_tensor(y_pred)[:, self.first :].flatten(2) > 0.5
        true = target == 1
        both = (p & true).sum(2).double()
        sizes = (p & known).sum(2) + true.sum(2)
        return torch.where(true.any(2), 2 * both / sizes.clamp(min=1), torch.nan)

    def aggregate(self, *_: Any, **__: Any) -> torch.Tensor:
        """The mean over cases of each case's mean over classes, over all processes."""
        values = torch.as_tensor(self.get_buffer())
        return values.nanmean(1).nanmean()


class KnownDice(IgniteMetricHandler):
    """:class:`KnownDiceMetric` as an ignite metric, for ``key_val_metric``.

    Args:
        include_background: as there.
        output_transform: picks ``(pred, label)`` from ``engine.state.output``, as MONAI's handlers do.

    >>> import torch
    >>> from monai_transfer.metrics.validation import KnownDice
    >>> metric = KnownDice()
    >>> pred, label = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)
    >>> pred[:, 1, :2], label[:, :, :2] = 1.0, 1.0
    >>> pred[:, 0, 2:] = 1.0
    >>> label[:, :, 3] = -1  # ignored
    >>> metric.update((pred, label))
    >>> round(float(metric.compute()), 3)
    1.0
    """

    def __init__(self, include_background: bool = False, output_transform: Callable[[Any], Any] = lambda x: x) -> None:
        super().__init__(
            metric_fn=KnownDiceMetric(include_background), output_transform=output_transform, save_details=False
        )
