"""The gap to the oracle: what a choice without labels cost, wherever labels exist to tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from monai_transfer.errors import InputError

__all__ = ["OracleGap", "oracle_gap"]


@dataclass(frozen=True)
class OracleGap:
    """``chosen``/``best``: index of the checkpoint that the validator/the labels choose; ``gap``: what the metric lost
    by it (>= 0); ``rank_correlation``: Spearman's rho of score and metric, NaN where one of them is constant.

    >>> OracleGap(chosen=2, best=4, gap=0.03, rank_correlation=0.8).gap  # what the choice cost
    0.03
    """

    chosen: int
    best: int
    gap: float
    rank_correlation: float

    def sentence(self) -> str:
        """The same in words."""
        if self.chosen == self.best:
            return "the validator chose the checkpoint that the labels would have chosen"
        return f"the validator's checkpoint is {self.gap:.3f} below the best one (known only through the labels)"


def oracle_gap(scores: Sequence[float], metric: Sequence[float]) -> OracleGap:
    """Compare validator scores of checkpoints with a labelled metric of the same ones; higher is better in both.

    Raises:
        InputError: different lengths, none at all, or NaN in the metric.

    >>> from monai_transfer.selection.validators.oracle import oracle_gap
    >>> gap = oracle_gap(scores=[0.1, 0.9, 0.5], metric=[0.6, 0.7, 0.8])
    >>> gap.chosen, gap.best, round(gap.gap, 3)
    (1, 2, 0.1)
    """
    given, truth = np.asarray(scores, dtype=float), np.asarray(metric, dtype=float)
    if given.shape != truth.shape or given.ndim != 1 or not len(given):
        raise InputError(
            f"{given.shape} scores do not go with {truth.shape} metrics", hint="give one metric for each score"
        )
    if not np.isfinite(truth).all():
        raise InputError("the labelled metric holds NaN", hint="leave out what was not measured")
    chosen = int(np.where(np.isnan(given), -np.inf, given).argmax())
    varied = len(given) > 1 and np.ptp(given) > 0 and np.ptp(truth) > 0
    rho = float(spearmanr(given, truth).statistic) if varied else float("nan")
    return OracleGap(chosen, int(truth.argmax()), float(truth.max() - truth[chosen]), rho)
