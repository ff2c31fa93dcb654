"""What ``auto`` decided in the runs of a report, and what the test truth would have taken among the same arms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_transfer.arm_names import arm_name
from monai_transfer.report.run import Run
from monai_transfer.report.wording import number

__all__ = ["AutoDecision", "AutoRun", "find_decision"]

AUTO = "auto"
_NO_WAYS = ("oracle", AUTO)


@dataclass(frozen=True)
class AutoRun:
    """One run's decision: ``scores`` of the candidates on what was looked at, ``level`` of the untouched source there
    (0 guessing, 1 perfect), ``patients`` with labels, ``left_out`` with the reasons."""

    seed: int
    taken: str
    rule: str
    reason: str
    patients: int
    scores: dict[str, float]
    level: float | None
    left_out: dict[str, str]


@dataclass(frozen=True)
class AutoDecision:
    """All runs' decisions. ``best``: the arm of this report with the best mean on the test cases; ``regret``: how far
    ``auto`` is behind it (negative: ahead); None where no other arm is among the runs."""

    runs: list[AutoRun]
    best: str | None
    regret: float | None

    @property
    def sentence(self) -> str:
        """The same in words."""
        taken = Counter(run.taken for run in self.runs)
        every = len(self.runs)
        listed = ", ".join(arm_name(a) + (f" ({n} of {every} runs)" if every > 1 else "") for a, n in taken.items())
        alike = len({run.reason for run in self.runs}) == 1
        why = "" if alike else f"; with seed {self.runs[0].seed}"
        text = f"Auto took {listed}, before any test case was seen{why}: {self.runs[0].reason}."
        if self.best is None or self.regret is None:
            return text
        if self.regret <= 0:
            return f"{text} By the test cases, which must not be chosen by, no other arm here is better."
        return (
            f"{text} By the test cases, which must not be chosen by, {arm_name(self.best)} would have been best: "
            f"{number(self.regret)} ahead of it."
        )


def find_decision(
    arms: Mapping[str, Mapping[int, Run]], means: Mapping[str, float], sign: float
) -> AutoDecision | None:
    """The decision of the arm ``auto``; None where it is not among them, or its runs have no record of one.

    Args:
        arms: runs by arm and seed.
        means: every arm's mean on the test cases.
        sign: 1 where larger is better, else -1.
    """
    found = [
        _decision(seed, run.record["auto"])
        for seed, run in arms.get(AUTO, {}).items()
        if isinstance(run.record.get("auto"), dict)
    ]
    if not found:
        return None
    others = [arm for arm in arms if arm not in _NO_WAYS and math.isfinite(means[arm])]
    if not others or not math.isfinite(means[AUTO]):
        return AutoDecision(found, None, None)
    best = max(others, key=lambda arm: sign * means[arm])
    return AutoDecision(found, best, sign * (means[best] - means[AUTO]))


def _decision(seed: int, record: Mapping[str, Any]) -> AutoRun:
    scores = {str(arm): float(value) for arm, value in (record.get("scores") or {}).items() if value is not None}
    level = record.get("source_level")
    return AutoRun(
        seed,
        str(record.get("taken")),
        str(record.get("rule")),
        str(record.get("reason")),
        int(record.get("labelled_patients") or 0),
        scores,
        None if level is None else float(level),
        {str(arm): str(why) for arm, why in (record.get("left_out") or {}).items()},
    )
