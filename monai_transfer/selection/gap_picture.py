"""The picture of a domain gap: histograms, measures with intervals, the cases in feature space, and time."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from monai_transfer.errors import InputError
from monai_transfer.files import atomic_path, write_text
from monai_transfer.selection.describe import LEVELS, CaseDescription
from monai_transfer.selection.gap import DomainGap

__all__ = ["draw_gap", "save_gap_picture"]

_COLOURS = ("#1b6ca8", "#d1495b")


def save_gap_picture(gap: DomainGap, path: str | Path) -> Path:
    """Write the picture as ``.png``, or with all sentences as one self-contained ``.html``.

    Raises:
        InputError: another suffix.
    """
    path = Path(path)
    if path.suffix not in (".png", ".html"):
        raise InputError("a picture of a gap is a .png or .html file", path=path, hint="give such a name")
    figure = draw_gap(gap)
    if path.suffix == ".png":
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110)
        return path
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    write_text(path, _page(gap, base64.b64encode(stream.getvalue()).decode()))
    return path


def draw_gap(gap: DomainGap) -> Any:
    """The picture as a matplotlib figure (made without the global state of pyplot)."""
    from matplotlib.figure import Figure

    drifts = gap.drifts[:4]
    heights = [4, *([2.2] if drifts else [])]
    figure = Figure(figsize=(13, sum(heights) + 0.6), layout="constrained")
    figure.suptitle(f"{gap.name_a} ({gap.patients_a} patients) and {gap.name_b} ({gap.patients_b} patients)")
    parts = np.atleast_1d(np.array(figure.subfigures(len(heights), 1, height_ratios=heights), dtype=object))
    left, middle, right = parts[0].subplots(1, 3, width_ratios=(1, 1.15, 1))
    _histograms(left, gap)
    _intervals(middle, gap)
    _cloud(right, gap)
    if drifts:
        for axes, one in zip(np.atleast_1d(parts[1].subplots(1, len(drifts), squeeze=False)[0]), drifts, strict=True):
            axes.plot(one.times, one.values, ".", color="#c0392b" if one.alarm else "#555555")
            if one.alarm:
                axes.axvline(one.since, color="#c0392b", linestyle="--")
            axes.set_title(
                f"{one.site}: {'ALARM' if one.alarm else 'no drift seen'} (p = {one.p_value:.2g})", fontsize=9
            )
            axes.set_xlabel("acquired", fontsize=8)
            axes.set_ylabel(one.measurement, fontsize=8)
            axes.tick_params(labelsize=7)
    return figure


def _histograms(axes: Any, gap: DomainGap) -> None:
    """Mean quantile functions as densities, with a band over cases."""
    centres = np.linspace(-0.1, 1.1, 60)
    for cases, name, colour in zip((gap.cases_a, gap.cases_b), (gap.name_a, gap.name_b), _COLOURS, strict=True):
        curves = np.stack([np.gradient(np.interp(centres, c.quantiles, LEVELS, 0, 1), centres) for c in cases])
        curves = np.sqrt(np.maximum(curves, 0))  # else the peak of the background hides the tissue
        axes.plot(centres, curves.mean(0), color=colour, label=name)
        axes.fill_between(centres, *np.quantile(curves, (0.1, 0.9), axis=0), color=colour, alpha=0.15, linewidth=0)
    axes.set_title("intensities, scaled (root of density)", fontsize=9)
    axes.set_yticks([])
    axes.legend(fontsize=7)


def _intervals(axes: Any, gap: DomainGap) -> None:
    """Each measure in units of its own interval's half-width, so that all fit one axis: beyond 1 it differs from 0."""
    rows = [row for row in gap.rows if row.value is not None]
    for i, row in enumerate(reversed(rows)):
        assert row.value is not None and row.low is not None and row.high is not None
        unit = max((row.high - row.low) / 2, abs(row.value) / 50, 1e-9)
        x, low, high = (float(np.arcsinh(v / unit)) for v in (row.value, row.low, row.high))
        colour = "#c0392b" if row.differs else "#888888"
        axes.plot([low, high], [i, i], color=colour)
        axes.plot([x], [i], "o", color=colour, markersize=4)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)], fontsize=7)
    axes.set_xticks([0], ["no gap"], fontsize=8)
    values = axes.twinx()
    values.set_ylim(axes.get_ylim())
    values.set_yticks(range(len(rows)), [f"{row.value:+.3g} {row.unit}".strip() for row in reversed(rows)], fontsize=7)
    axes.set_title("gap with 95 % interval, in widths of it (red: not 0)", fontsize=9)


def _cloud(axes: Any, gap: DomainGap) -> None:
    """Cases in the plane of the two main directions of the handcrafted features."""
    sets: list[tuple[CaseDescription, ...]] = [gap.cases_a, gap.cases_b]
    features = np.stack([case.features for cases in sets for case in cases])
    flat = PCA(2).fit_transform(StandardScaler().fit_transform(features)) if len(features) > 2 else features[:, :2]
    first = len(gap.cases_a)
    for points, colour, marker in zip((flat[:first], flat[first:]), _COLOURS, "ox", strict=True):
        axes.plot(points[:, 0], points[:, 1], marker, color=colour, markersize=4, alpha=0.7)
    axes.set_title("cases by handcrafted features", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def _page(gap: DomainGap, picture: str) -> str:
    def items(sentences: list[tuple[str, bool]]) -> str:
        return "".join(f"<li{' class=on' if on else ''}>{html.escape(text)}</li>" for text, on in sentences)

    title = html.escape(f"Gap between {gap.name_a} and {gap.name_b}")
    drifts = [(one.sentence, one.alarm) for one in gap.drifts]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>body{{font-family:sans-serif;"
        "max-width:75em;margin:2em auto;padding:0 1em}img{width:100%}.on{color:#c0392b;font-weight:bold}</style>"
        f"<h1>{title}</h1><p>{gap.patients_a} and {gap.patients_b} patients. Red: the 95 % interval excludes 0.</p>"
        f'<img alt="{title}" src="data:image/png;base64,{picture}">'
        f"<ul>{items([(row.sentence, row.differs) for row in gap.rows])}</ul>"
        + (f"<h2>Over time</h2><ul>{items(drifts)}</ul>" if drifts else "")
        + f"<p>{html.escape('; '.join(gap.notes))}</p></html>\n"
    )
