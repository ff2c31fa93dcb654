"""``TransferReport``: what a comparison found: plain dataclasses, a table for the terminal, a dictionary for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from monai_transfer.arm_names import arm_name
from monai_transfer.metrics.base import Metric
from monai_transfer.report.alignment import FIXED, SCRATCH
from monai_transfer.report.auto_decision import AutoDecision
from monai_transfer.report.lost_classes import LostClass
from monai_transfer.report.run import Run
from monai_transfer.report.wording import number, share, shares, signed, span
from monai_transfer.tasks import get_task

__all__ = ["BASELINES", "ArmResult", "Difference", "Judgement", "SiteResult", "TransferReport", "better_scratch"]

BASELINES = (*SCRATCH, FIXED)
"""What every other arm is compared with; an arm that helps has to be better than each of them that is there."""


def better_scratch(means: Mapping[str, float], better: float) -> str:
    """The arm from scratch with the better mean; ``scratch`` where there is but one, or none.

    >>> better_scratch({"scratch": 0.5, "scratch_same": 0.7, "source": 0.9}, better=1)
    'scratch_same'
    """
    known = [arm for arm in SCRATCH if arm in means]
    sign = -1.0 if better < 0 else 1.0
    return max(known, key=lambda arm: sign * means[arm], default=SCRATCH[0])


@dataclass
class Difference:
    """Arm minus baseline, signed so that positive is better, with the 95 % interval over seeds and patients."""

    mean: float
    low: float
    high: float
    standard_error: float
    degrees_of_freedom: float


@dataclass
class ArmResult:
    """One arm: mean over seeds and patients with its 95 % interval, each seed's mean, each patient's mean, the other
    metrics (means over seeds of the values over all cases), and its budget: labelled target cases that it learned
    from, labelled target cases that its best epoch was chosen on, optimizer steps (None: not recorded)."""

    name: str
    seeds: list[int]
    mean: float
    low: float
    high: float
    per_seed: list[float]
    per_patient: dict[str, float]
    metrics: dict[str, float]
    labelled: int | None
    chosen_on: int | None
    steps: int | None


@dataclass
class Judgement:
    """The verdict on one arm; ``differences`` by baseline. ``detectable``: the smallest true improvement that would
    have been called helped in 80 % of such studies. ``gap_recovered``: (arm - source) / (oracle - source);
    ``gap_interval``: its 95 % interval, infinite where the gap itself is too uncertain; None with other seeds.
    ``lost``: classes that the untouched source knew and the arm does not know any more. ``below``: baselines that its
    mean is below in every seed, and by how much."""

    arm: str
    word: str
    reason: str
    sentence: str
    differences: dict[str, Difference]
    detectable: float
    gap_recovered: float | None
    gap_interval: tuple[float, float] | None = None
    lost: list[LostClass] = field(default_factory=list)
    below: dict[str, float] = field(default_factory=dict)

    @property
    def has_lost(self) -> bool:
        """Whether a class is lost for sure, not only predicted no more where no case is marked with it."""
        return any(not one.unmarked for one in self.lost)


@dataclass
class SiteResult:
    """One site: arm means and the paired differences, for its own patients."""

    site: str
    n_patients: int
    means: dict[str, float]
    differences: dict[str, dict[str, Difference]]


@dataclass
class TransferReport:
    """What ``compare_runs`` found. ``report.verdicts`` in sentences, ``report.table()`` for rich, ``report.to_dict()``
    for JSON; ``monai_transfer.report.html.write_html(report, path)`` for the page.

    Attributes:
        task, metric: what was compared, and by which metric.
        higher_is_better: None where neither more nor less is better.
        n_patients, n_cases, seeds: what the comparison rests on.
        arms: means and intervals by arm.
        judgements: verdicts by arm; none of the baselines.
        baseline_difference: the untouched source against training from scratch, where both were run.
        sites: means of each site by itself.
        warnings: what narrows the conclusion.
        conclusion: one sentence.
        runs: the runs themselves, by arm and seed.
        unit_of_length: ``mm``, or ``px`` where the images have no physical size.
        centred_blob: what an ellipsoid in the middle of every image scores.
        alarms: what must be read first.
        chance: the value of guessing, where it is known.
        unbeaten: the controls that an arm without target labels is not shown to be better than.
        decision: of the arm ``auto``, where it is among them.

    Two seeds are too few for a verdict:

    >>> from pathlib import Path
    >>> from monai_transfer.report.compare import compare_runs
    >>> def run(arm, seed, dice):
    ...     record = {"task": "segmentation", "arm": arm, "seed": seed, "labels": {"0": "background", "1": "liver"}}
    ...     cases = [{"case": f"c{n}", "patient": f"p{n}", "site": "x", "dice": dice + 0.01 * n} for n in range(6)]
    ...     return Run(Path(f"{arm}-{seed}"), record, cases)
    >>> means = {"scratch": 0.6, "source": 0.5, "fine_tuned": 0.8}
    >>> report = compare_runs([run(arm, seed, mean) for arm, mean in means.items() for seed in (0, 1)])
    >>> report.judgements["fine_tuned"].word, round(report.to_dict()["arms"]["fine_tuned"]["mean"], 3)
    ('no verdict', 0.825)
    """

    task: str
    metric: str
    higher_is_better: bool | None
    n_patients: int
    n_cases: int
    seeds: list[int]
    arms: dict[str, ArmResult]
    judgements: dict[str, Judgement]
    baseline_difference: Difference | None
    sites: list[SiteResult]
    warnings: list[str]
    conclusion: str
    runs: dict[str, dict[int, Run]] = field(repr=False)
    unit_of_length: str = "mm"
    centred_blob: float | None = None
    alarms: list[str] = field(default_factory=list)
    chance: float | None = None
    unbeaten: dict[str, list[str]] = field(default_factory=dict)
    decision: AutoDecision | None = None

    @property
    def source_per_seed(self) -> bool:
        """Whether each seed started from a source of its own, so that intervals cover the luck of its training too."""
        runs = [run for arm, of_seed in self.runs.items() if arm not in SCRATCH for run in of_seed.values()]
        starts = {run.start for run in runs if run.start}
        return len(self.seeds) > 1 and len(starts) == len({run.seed for run in runs if run.start}) == len(self.seeds)

    @property
    def best_scratch(self) -> str:
        """The better of the arms from scratch, which the untouched source is compared with."""
        return better_scratch({arm: result.mean for arm, result in self.arms.items()}, self.measure.better)

    @property
    def measure(self) -> Metric:
        """The metric's description, in this set's unit of length."""
        return self.describe(self.metric)

    def describe(self, name: str) -> Metric:
        """The description of any metric of the report."""
        return get_task(self.task).metric(name, self.unit_of_length)

    @property
    def verdicts(self) -> list[str]:
        """One sentence per judged arm."""
        return [j.sentence for j in self.judgements.values()]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; a value that cannot be had is None."""
        content = {k: v for k, v in self.__dict__.items() if k not in ("runs", "arms", "judgements", "sites")}
        content["decision"] = asdict(self.decision) if self.decision else None
        content["unit"] = self.measure.unit
        content["baseline_difference"] = asdict(self.baseline_difference) if self.baseline_difference else None
        content["arms"] = {name: asdict(arm) for name, arm in self.arms.items()}
        content["judgements"] = {name: asdict(j) for name, j in self.judgements.items()}
        content["sites"] = [asdict(site) for site in self.sites]
        return _json_ready(content)

    def table(self) -> Table:
        """Arms with their intervals, paired differences and verdicts, for a terminal."""
        better = ", ".join(filter(None, (self.measure.heading, self.measure.direction)))
        title = f"{better}: {self.n_patients} patients, {len(self.seeds)} seed(s)"
        table = Table(title=title, title_justify="left")
        gaps = any(j.gap_recovered is not None for j in self.judgements.values())
        shown = [b for b in BASELINES if b in self.arms]
        headings = [
            "arm",
            "mean",
            "95 % interval",
            *(f"{'gain over' if self.measure.better else 'difference to'} {b}" for b in shown),
        ]
        for heading in [*headings, *(["gap recovered"] if gaps else []), "verdict"]:
            table.add_column(heading, justify="left" if heading in ("arm", "verdict") else "right")
        for name, arm in self.arms.items():
            judged = self.judgements.get(name)
            cells = [arm_name(name), number(arm.mean), span(arm.low, arm.high)]
            for baseline in shown:
                d = judged.differences.get(baseline) if judged else None
                if name == FIXED and baseline == self.best_scratch:
                    d = self.baseline_difference
                cells.append(f"{signed(d.mean)} ({span(d.low, d.high, sign=True)})" if d else "")
            if gaps:
                gap = judged.gap_recovered if judged else None
                reach = judged.gap_interval if judged else None
                cells.append("" if gap is None else share(gap) + (f" ({shares(*reach)})" if reach else ""))
            table.add_row(*cells, judged.word if judged else "")
        return table


def _json_ready(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _json_ready(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
