"""What a ranking of sources says: one row a source, in numbers and in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from monai_transfer.selection.learned_gap import GapRow
from monai_transfer.selection.measured_transfers import Forecast
from monai_transfer.selection.transferability import CAVEAT, PermutationNull

__all__ = ["RankedSource", "Ranking"]


@dataclass
class RankedSource:
    """One source.

    Attributes:
        source, licence: name, and the weights' licence where known.
        fault: why it cannot be used here; then everything else is empty.
        n_features: size of its features.
        scores: by name, the score beside its permutation null; higher is better.
        probe, probe_interval, probe_metric: the cross-validated linear probe.
        untrained_probe: the same for the architecture with random weights.
        gap: gap rows between the data the source was trained on (A) and the target (B); empty where it names none,
            ``None`` where it was not asked for.
        forecast: what fine-tuning brought over scratch in the measured transfers most like this one.
    """

    source: str
    licence: str | None = None
    fault: str | None = None
    n_features: int = 0
    scores: dict[str, PermutationNull] = field(default_factory=dict)
    probe: float | None = None
    probe_interval: tuple[float, float] | None = None
    probe_metric: str = ""
    untrained_probe: float | None = None
    gap: list[GapRow] | None = None
    forecast: Forecast | None = None


@dataclass
class Ranking:
    """Result of ``rank_sources``: the best first by linear probe, sources with a fault last."""

    target: str
    task: str
    cases: int
    patients: int
    rows: list[RankedSource]
    notes: list[str]
    caveat: str = CAVEAT

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"sources for {self.target} ({self.task}; {self.cases} labelled cases of {self.patients} patients):"]
        for place, row in enumerate(self.rows, 1):
            lines += _lines(place, row)
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes), f"caveat: {self.caveat}"])


def _lines(place: int, row: RankedSource) -> list[str]:
    if row.fault is not None:
        return [f" -  {row.source}: cannot be used here: {row.fault}"]
    assert row.probe_interval is not None
    low, high = row.probe_interval
    licence = f", licence {row.licence}" if row.licence else ""
    lines = [
        f"{place:2}. {row.source} ({row.n_features} features{licence})",
        f"      linear probe {row.probe_metric} {row.probe:.3f} [{low:.3f}, {high:.3f}]; the same network untrained "
        f"{row.untrained_probe:.3f}",
    ]
    for name, score in row.scores.items():
        sense = "beyond chance" if score.p_value <= 0.05 else "no better than random labels"
        null = f"null median {score.quantiles[0.5]:.4g}, 95 % {score.quantiles[0.95]:.4g}"
        lines.append(f"      {name} {score.score:.4g} ({null}, p = {score.p_value:.3f}: {sense})")
    if row.forecast is not None:
        lines.append(f"      on sets like it: {row.forecast}")
    learned = [one for one in row.gap or [] if one.name.startswith("proxy A-distance")]
    if learned:
        lines.append(f"      gap to its own data: {learned[0].sentence}")
    elif row.gap is not None:
        lines.append("      gap to its own data: not measured, the source names no data that is here")
    return lines
