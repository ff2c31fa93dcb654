"""Choosing among arms without a target label, by a validator, and what the choice cost where labels can tell.

Each run's ``validators.json`` holds the scores; an arm's is the mean over its runs. An arm of which any run has
collapsed is chosen only if all have. The cost is printed beside the choice: it is known through the test labels alone,
so it must not be chosen by.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_transfer.arm_names import arm_name
from monai_transfer.errors import InputError
from monai_transfer.report.wording import number
from monai_transfer.safe_parse import read_json
from monai_transfer.selection.validators.metric import DEFAULT_SCORES, SCORES
from monai_transfer.selection.validators.oracle import oracle_gap

if TYPE_CHECKING:
    from monai_transfer.report.run import Run
    from monai_transfer.report.transfer_report import TransferReport

__all__ = ["Choice", "choose_arm"]


@dataclass
class Choice:
    """``chosen`` by ``by`` from ``scores`` (arm -> mean over runs, higher is better); ``collapsed``: arms with an
    alarm; ``left_out``: arms without scores; ``best``: what the test labels would have chosen of the same arms, ``gap``
    what the choice lost by it, ``rank_correlation`` Spearman's of score and metric (NaN if unknown)."""

    by: str
    chosen: str
    scores: dict[str, float]
    collapsed: list[str]
    left_out: list[str]
    best: str | None
    gap: float | None
    rank_correlation: float
    metric: str
    heading: str = ""

    @property
    def sentence(self) -> str:
        """The same in words."""
        others = ", ".join(f"{arm_name(a)} {number(v)}" for a, v in self.scores.items())
        text = f"Chosen without labels by {self.by.replace('_', ' ')}: {arm_name(self.chosen)} (scores: {others})."
        if self.by not in DEFAULT_SCORES:
            text += " This validator did worse than drawing blindly where it could be checked."
        if self.collapsed:
            text += f" Collapsed predictions: {', '.join(map(arm_name, self.collapsed))}."
        if self.best is None or self.gap is None:
            return text
        if self.best == self.chosen:
            return text + " The test labels would have chosen the same."
        return text + (
            f" The test labels would have chosen {arm_name(self.best)}: "
            f"the choice is {number(self.gap)} {self.heading or self.metric} behind it."
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rho = self.rank_correlation
        return {
            **{k: v for k, v in asdict(self).items() if k != "heading"},
            "rank_correlation": rho if math.isfinite(rho) else None,
        }


def choose_arm(report: TransferReport, by: str) -> Choice:
    """Choose among a report's arms without labels.

    Raises:
        InputError: an unknown validator, or fewer than two arms with scores.
    """
    if by not in SCORES:
        raise InputError(f"validator {by!r} is not one of {', '.join(SCORES)}", hint="such as --choose-by entropy")
    scores: dict[str, float] = {}
    collapsed = []
    for arm, seeds in report.runs.items():
        contents = [_content(run) for run in seeds.values()]
        values = [c["scores"].get(by) for c in contents if c is not None]
        if len(values) < len(seeds) or any(v is None for v in values):
            continue
        scores[arm] = float(np.mean([float(v) for v in values if v is not None]))
        if any(c is not None and c.get("alarm") for c in contents):
            collapsed.append(arm)
    left_out = [arm for arm in report.runs if arm not in scores]
    if len(scores) < 2:
        raise InputError(
            f"there is nothing to choose: {len(scores)} arm{'s' if len(scores) != 1 else ''} with validator scores",
            hint="compare two or more adapt arms whose runs hold validators.json",
        )
    names = list(scores)
    sound = [a for a in names if a not in collapsed] or names
    judged = [scores[a] if a in sound else -math.inf for a in names]
    chosen = names[int(np.argmax(judged))]
    sign = -1.0 if report.measure.better < 0 else 1.0
    truth = [sign * report.arms[a].mean for a in names]
    best, gap, rho = None, None, math.nan
    if np.isfinite(truth).all():
        found = oracle_gap([scores[a] for a in names], truth)
        best, rho = names[found.best], found.rank_correlation
        gap = float(truth[found.best] - truth[names.index(chosen)])
    return Choice(by, chosen, scores, collapsed, left_out, best, gap, rho, report.metric, report.measure.heading)


def _content(run: Run) -> dict[str, Any] | None:
    path = run.folder / "validators.json"
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        return content if isinstance(content["scores"], dict) else None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            "holds no validator scores", path=path, hint="run it again: adapt writes them as it ends"
        ) from error
