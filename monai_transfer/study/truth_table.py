"""The truth table: what each method brought on one set, beside what the same steps bring without it, as Markdown.

A row is *helped* when it is better than the untouched source **and** than its controls, by the statistics of
``report.statistics``: a gain that plain training, or the target's BatchNorm statistics alone, bring as well is not the
method's. What was not run says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monai_transfer.arm_names import arm_name
from monai_transfer.errors import InputError
from monai_transfer.files import write_text
from monai_transfer.metrics.base import Metric
from monai_transfer.report.alignment import FIXED, ORACLE, group_runs, tabulate
from monai_transfer.report.run import Run
from monai_transfer.report.statistics import (
    HELPED,
    MIN_SEEDS,
    NO_VERDICT,
    CrossedDifference,
    crossed_difference,
    gap_recovered,
    verdict,
)
from monai_transfer.report.wording import number, share, shares, signed, span

__all__ = ["Row", "at_home", "markdown", "measure", "write_section"]

Runs = Mapping[str, Mapping[int, Run]]
_STATISTICS = "target_statistics"
_WITHOUT = {
    _STATISTICS: "the same steps with the target's BatchNorm statistics and without the method",
    "source_longer": "the same steps of plain source training",
    "fine_tuned": "plain fine-tuning",
    "scratch": "training from scratch",
}


@dataclass
class Row:
    """One line of the table; None where a value cannot be had.

    Attributes:
        name, group: of the arm.
        mean: of the metric over seeds and patients, with its 95 % interval.
        gain: over the untouched source, positive is better.
        against: gain over each control.
        recovered: share of the gap to the oracle, low, high.
        word: the verdict.
        notes: what a reader has to know.
        home: mean of the metric on the source's own test cases, and its gain there over the untouched source: the
            price of adapting. None where it was not measured.
    """

    name: str
    group: str
    mean: CrossedDifference | None = None
    gain: CrossedDifference | None = None
    against: dict[str, CrossedDifference] = field(default_factory=dict)
    recovered: tuple[float, float, float] | None = None
    word: str = "not run"
    notes: list[str] = field(default_factory=list)
    home: tuple[CrossedDifference, CrossedDifference | None] | None = None


def measure(
    name: str,
    group: str,
    runs: Runs,
    controls: Sequence[str] = (),
    *,
    failures: Mapping[int, str] | None = None,
    remarks: Sequence[str] = (),
    metric: str | None = None,
    compare_with: str | None = None,
    homes: Runs | None = None,
) -> Row:
    """The row of one arm from the finished runs.

    Args:
        name, group: of the arm.
        runs: arm -> seed -> run, of all arms.
        controls: arms that it has to beat, beside the untouched source; those without a run are left out, and named.
        failures: seed -> reason.
        remarks: to begin the notes with.
        metric: default: the task's own.
        compare_with: an arm whose result is only mentioned where this one does not pass it.
        homes: as ``runs``, of the same networks on the source's own test cases.

    Raises:
        InputError: runs that cannot be compared.
    """
    row = Row(name, group, notes=[r for r in remarks if r])
    for reason in dict.fromkeys((failures or {}).values()):
        seeds = [str(seed) for seed, text in (failures or {}).items() if text == reason]
        row.notes.append(f"failed (seed {', '.join(seeds)}): {reason}")
    own = runs.get(name, {})
    if not own:
        row.word = "failed" if failures else "not run"
        return row
    used = [c for c in controls if runs.get(c)]
    row.notes += [f"{arm_name(c)} was not run to compare with" for c in controls if c not in used]
    first = next(iter(own.values()))
    task, measure = first.task, first.metric(metric or first.kind.primary_metric)
    sign = -1.0 if measure.better < 0 else 1.0
    row.home = at_home(name, homes or {}, measure, task)

    def tables(*others: str) -> dict:
        """Values of this arm and others, for the seeds that all of them have."""
        trained = [name, *(o for o in others if o != FIXED)]
        seeds = set.intersection(*(set(runs[a]) for a in trained))
        if not seeds:
            return {}
        chosen = [runs[a][s] for a in trained for s in sorted(seeds)]
        if FIXED in others:
            chosen += list(runs[FIXED].values())[:1]
        return tabulate(group_runs(chosen), measure, task).values

    few = "too few patients, or of too few of each class, to measure it patient by patient"
    if name == FIXED:
        values, row.word = tables()[name], group
        row.mean = crossed_difference(values) if values.size else None
        row.notes += [] if values.size else [few]
        return row
    has_source = bool(runs.get(FIXED))
    whole = tables(*used, *([FIXED] if has_source else []))
    if not whole or not whole[name].size:
        row.word = NO_VERDICT
        row.notes.append(few if whole else "no seed in common with its controls")
        return row
    row.mean = crossed_difference(whole[name])
    differences = {b: sign * (whole[name] - whole[b]) for b in ([FIXED] if has_source else []) + used}
    found = {b: crossed_difference(d) for b, d in differences.items()}
    row.gain, row.against = found.get(FIXED), {b: c for b, c in found.items() if b != FIXED}
    if has_source and runs.get(ORACLE) and name != ORACLE:
        values = tables(FIXED, ORACLE)
        if values and values[name].size and sign * (values[ORACLE].mean() - values[FIXED].mean()) <= 0:
            row.notes.append("no gap: the oracle is not better than the untouched source")
        elif values and values[name].size:
            row.recovered = gap_recovered(values[name], values[FIXED], values[ORACLE])
    row.word = group if group in ("reference", "control") else verdict(differences).word if differences else NO_VERDICT
    if (count := len(whole[name])) < MIN_SEEDS:
        row.notes.append(f"{count} seed{'s' if count > 1 else ''} only")
    row.notes += _sources_of_gain(row)
    if compare_with and compare_with != name and runs.get(compare_with) and row.word == HELPED:
        other = tables(compare_with)
        c = crossed_difference(sign * (other[name] - other[compare_with])) if other else None
        if c is not None and not c.low > 0:
            row.notes.append(f"not shown to be better than {arm_name(compare_with)} alone ({_gain(c)})")
    return row


def at_home(
    name: str, homes: Runs, metric: Metric, task: str
) -> tuple[CrossedDifference, CrossedDifference | None] | None:
    """An arm's mean on the source's own test cases, and its gain there over the untouched source.

    None where it was not evaluated there; the second is None of the source itself, or without it.
    """
    own = homes.get(name, {})
    if not own:
        return None
    source = homes.get(FIXED, {}) if name != FIXED else {}
    chosen = [*own.values(), *list(source.values())[:1]]
    values = tabulate(group_runs(chosen), metric, task).values
    if not values[name].size:
        return None
    sign = -1.0 if metric.better < 0 else 1.0
    gain = crossed_difference(sign * (values[name] - values[FIXED])) if source else None
    return crossed_difference(values[name]), gain


def _sources_of_gain(row: Row) -> list[str]:
    """Where a gain over the source is not the method's own."""
    if row.gain is None or not row.gain.low > 0:
        return []
    return [
        f"its gain over the source is not more than that of {_WITHOUT.get(control, arm_name(control))}"
        for control, c in row.against.items()
        if not c.low > 0
    ]


def _gain(c: CrossedDifference | None) -> str:
    return "" if c is None else f"{signed(c.mean)} ({span(c.low, c.high, sign=True)})"


def _home(row: Row) -> str:
    if row.home is None:
        return ""
    mean, gain = row.home
    return f"{number(mean.mean)}{'' if gain is None else f', {_gain(gain)}'}"


def markdown(rows: Sequence[Row], metric: Metric) -> str:
    """The rows as a Markdown table, group by group as they come."""
    measure_name = metric.heading
    better = " (smaller is better)" if metric.better < 0 else ""
    homes = any(row.home is not None for row in rows)
    lines = [
        f"| method | kind | {measure_name}{better} | gain over the untouched source | gain over its control "
        f"| gap recovered |{' at home, and gain over the source there |' if homes else ''} verdict | note |",
        f"|---|---|---|---|---|---|---|---|{'---|' if homes else ''}",
    ]
    for row in rows:
        reach = () if row.mean is None else metric.clip(row.mean.low, row.mean.high)
        mean = "" if row.mean is None else f"{number(row.mean.mean)} ({span(*reach)})"
        first = next(iter(row.against), None)
        recovered = ""
        if row.recovered is not None and math.isfinite(row.recovered[0]):
            recovered = f"{share(row.recovered[0])} ({shares(*row.recovered[1:])})"
        cells = [
            row.name if row.group != "reference" else arm_name(row.name), row.group, mean, _gain(row.gain),
            _gain(row.against[first]) if first else "", recovered, *([_home(row)] if homes else []), row.word,
            "; ".join(row.notes),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def write_section(path: str | Path, name: str, text: str) -> None:
    """Put ``text`` between the markers of section ``name`` in a Markdown file; a new section goes to its end.

    Raises:
        InputError: the markers are there once only, or in the wrong order.
    """
    path = Path(path)
    opening, closing = f"<!-- truth table: {name} -->", f"<!-- end of truth table: {name} -->"
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    if opening not in before and closing not in before:
        whole = f"{before.rstrip()}\n\n{opening}\n{text.strip()}\n{closing}\n".lstrip()
    else:
        head, found, rest = before.partition(opening)
        _, ended, tail = rest.partition(closing)
        if not found or not ended:
            raise InputError(f"the markers of section {name!r} do not pair", path=path, hint="mend them by hand")
        whole = f"{head}{opening}\n{text.strip()}\n{closing}{tail}"
    write_text(path, whole)
