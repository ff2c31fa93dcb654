"""The report's figures, as data URIs of SVG: forest plot, one dot per patient, training curves,
scores over the number of labels."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from monai_transfer.arm_names import arm_name
from monai_transfer.report.wording import signed, span

if TYPE_CHECKING:
    from monai_transfer.report.label_efficiency import LabelEfficiency
    from monai_transfer.report.run import Run
    from monai_transfer.report.transfer_report import TransferReport

__all__ = ["arm_colours", "curves", "dots", "forest", "label_curves"]

_KNOWN = {
    "scratch": "#8a94a6",
    "scratch_same": "#5c6675",
    "source": "#3f72af",
    "fine_tuned": "#1a936f",
    "adapted": "#e07a1f",
    "oracle": "#b8bec9",
}
_MORE = ("#8e5ea2", "#c0392b", "#16a3b8", "#8c6d31", "#d4679a", "#5b6abf")
_INK, _FAINT = "#24303f", "#d5dae1"
_BETTER, _WORSE, _UNCLEAR = "#1a936f", "#c0392b", "#7c8798"
_BASELINE = {"scratch": "from scratch", "scratch_same": "from scratch, same network", "source": "untouched source"}


def arm_colours(arms: Iterable[str]) -> dict[str, str]:
    """A colour for each arm, the same in all figures."""
    more = iter(_MORE * 20)
    return {arm: _KNOWN[arm] if arm in _KNOWN else next(more) for arm in arms}


def forest(report: TransferReport) -> str | None:
    """Paired differences with their intervals; right of zero is better. None where nothing was judged."""
    rows = [
        (f"{arm_name(arm)}\nagainst {_BASELINE[baseline]}", d)
        for arm, judged in report.judgements.items()
        for baseline, d in judged.differences.items()
    ]
    if report.baseline_difference is not None:
        rows.append((f"untouched source\nagainst {_BASELINE[report.best_scratch]}", report.baseline_difference))
    rows = [(text, d) for text, d in rows if math.isfinite(d.mean)]
    if not rows:
        return None
    figure, axes = _figure(7.6, 0.9 + 0.52 * len(rows))
    axes.axvline(0, color=_INK, linewidth=1)
    for y, (_, d) in enumerate(rows):
        colour = _BETTER if d.low > 0 else _WORSE if d.high < 0 else _UNCLEAR
        colour = colour if report.measure.better else _UNCLEAR
        if math.isfinite(d.low):
            axes.plot([d.low, d.high], [y, y], color=colour, linewidth=2.4, solid_capstyle="round")
        axes.plot(d.mean, y, "o", color=colour, markersize=7)
        text = f"{signed(d.mean)}  ({span(d.low, d.high, sign=True)})"
        axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9, color=_INK)
    axes.set_yticks(range(len(rows)), [text for text, _ in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.12)
    said = f"difference in {report.measure.heading}"
    axes.set_xlabel(f"← worse      {said}      better →" if report.measure.better else said, fontsize=9)
    axes.tick_params(axis="y", length=0)
    return _uri(figure)


def dots(report: TransferReport) -> str | None:
    """One dot per patient and arm (mean over seeds), a patient's dots joined; for a metric of the whole set one dot per
    training run. The bar is the arm's mean with its interval."""
    arms = {name: arm for name, arm in report.arms.items() if math.isfinite(arm.mean)}
    if not arms:
        return None
    by_patient = report.measure.of_set is None
    colours = arm_colours(report.arms)
    figure, axes = _figure(7.6, 3.4)
    rng = np.random.default_rng(0)
    at = np.arange(len(arms), dtype=float)
    aside = rng.uniform(-0.12, 0.12, report.n_patients)  # the same for all dots of a patient
    if by_patient:
        table = np.array([list(arm.per_patient.values()) for arm in arms.values()])
        axes.plot(at[:, None] + aside, table, color=_FAINT, linewidth=0.7, zorder=1)
    for i, (name, arm) in enumerate(arms.items()):
        values = list(arm.per_patient.values()) if by_patient else arm.per_seed
        x = i + (aside if by_patient else rng.uniform(-0.12, 0.12, len(values)))
        axes.scatter(x, values, s=16, color=colours[name], alpha=0.75, linewidths=0, zorder=2)
        axes.plot([i - 0.28, i + 0.28], [arm.mean] * 2, color=_INK, linewidth=2, zorder=3)
        if math.isfinite(arm.low):
            axes.plot([i, i], [arm.low, arm.high], color=_INK, linewidth=1.4, zorder=3)
    axes.set_xticks(at, [arm_name(name) for name in arms], fontsize=9)
    axes.set_xlim(-0.6, len(arms) - 0.4)
    axes.set_ylabel(report.measure.heading, fontsize=9)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color=_FAINT, linewidth=0.6)
    return _uri(figure)


def curves(report: TransferReport) -> str | None:
    """Losses and metrics over the epochs: a thin line per run, a bold one for the arm's mean. None if nothing was
    trained."""
    series: dict[str, dict[str, list[dict[int, float]]]] = {}
    for arm, seeds in report.runs.items():
        for run in seeds.values():
            for title, values in _series(run).items():
                series.setdefault(title, {}).setdefault(arm, []).append(values)
    panels = sorted(series, key=_panel_order)[:6]
    if not panels:
        return None
    colours = arm_colours(report.arms)
    columns = min(2, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(8.4, 2.5 * lines + 0.35), layout="constrained")
    FigureCanvasSVG(figure)
    grid = np.atleast_1d(figure.subplots(lines, columns, squeeze=False)).ravel()
    handles: dict[str, Any] = {}
    for axes, title in zip(grid, panels, strict=False):
        _style(axes)
        for arm, runs in series[title].items():
            for values in runs:
                axes.plot(list(values), list(values.values()), color=colours[arm], linewidth=0.7, alpha=0.35)
            epochs = sorted(set.intersection(*[set(values) for values in runs]))
            mean = [np.mean([values[e] for values in runs]) for e in epochs]
            (handles[arm],) = axes.plot(epochs, mean, color=colours[arm], linewidth=2, marker="o" * (len(epochs) < 2))
        if title.startswith("discriminator accuracy"):
            axes.axhline(0.5, color=_UNCLEAR, linewidth=1, linestyle="--")  # chance
        axes.set_title(title, fontsize=9.5, loc="left", color=_INK)
        axes.set_xlabel("epoch", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(color=_FAINT, linewidth=0.5)
    for axes in grid[len(panels) :]:
        axes.axis("off")
    names = [arm_name(arm) for arm in handles]
    figure.legend(list(handles.values()), names, loc="outside upper center", ncols=6, fontsize=9, frameon=False)
    return _uri(figure)


def label_curves(efficiency: LabelEfficiency) -> str:
    """Each arm's mean with its 95 % interval over the number of labelled cases; dashed: an arm that needs none."""
    figure, axes = _figure(8.4, 4.0)
    colours = arm_colours(efficiency.curves)
    counts = np.array(efficiency.counts, dtype=float)
    for i, (arm, curve) in enumerate(efficiency.curves.items()):
        beside = counts * 2 ** (0.05 * (i - (len(efficiency.curves) - 1) / 2))  # bars that lie beside one another
        if curve.without_labels:
            axes.plot(counts, curve.means, "--", color=colours[arm], linewidth=1.8, label=arm_name(arm))
            continue
        axes.plot(counts, curve.means, "o-", color=colours[arm], linewidth=2, markersize=5, label=arm_name(arm))
        if np.isfinite(curve.lows).all():
            axes.vlines(beside, curve.lows, curve.highs, color=colours[arm], linewidth=1.2, alpha=0.6)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in efficiency.counts], fontsize=9)
    axes.minorticks_off()
    axes.set_xlabel("labelled target cases", fontsize=9)
    axes.set_ylabel(", ".join(filter(None, (efficiency.metric.heading, efficiency.metric.direction))), fontsize=9)
    axes.grid(axis="y", color=_FAINT, linewidth=0.6)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    return _uri(figure)


def _series(run: Run) -> dict[str, dict[int, float]]:
    """Panel title -> epoch -> value, of everything that was logged but times and rates."""
    found: dict[str, dict[int, float]] = {}
    for row in run.curves:
        for name, text in row.items():
            if name in ("epoch", "split", "seconds", "lr") or not text:
                continue
            try:
                epoch, value = int(float(row["epoch"])), float(text)
            except (ValueError, OverflowError):  # an epoch of infinity
                continue
            words = name.removeprefix("val_").replace("_", " ")
            title = f"{words} ({row['split']})"
            if math.isfinite(value):
                found.setdefault(title, {})[epoch] = value
    return found


def _panel_order(title: str) -> tuple[int, str]:
    first = ("loss (training)", "supervised loss (training)", "discriminator accuracy (training)")
    return (first.index(title) if title in first else 3 if "(validation)" in title else 4, title)


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    _style(axes)
    return figure, axes


def _style(axes: Any) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    axes.tick_params(colors=_INK, labelsize=8.5, color=_FAINT)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)


def _uri(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()
