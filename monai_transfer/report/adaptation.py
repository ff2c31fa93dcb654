"""What adaptation did, for the report: both sites' features before and after, and whether the critic was beaten."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_transfer.arm_names import arm_name
from monai_transfer.safe_parse import read_json

if TYPE_CHECKING:
    from monai_transfer.report.run import Run
    from monai_transfer.report.transfer_report import TransferReport

__all__ = ["ALIGNMENT", "feature_alignment", "game_sentence", "game_sentences", "home_sentences"]

ALIGNMENT = {
    "proxy_a_distance": (
        "proxy A-distance",
        "0: a held-out classifier cannot tell the sites apart by their features; 2: it always can.",
    ),
    "domain_distance": ("distance of the sites", "Between their mean features, in units of the spread within a site."),
    "class_shift": (
        "class shift",
        "How far a class at one site lies from the same class at the other, as a share of how far different classes "
        "are apart. It grows when the classes fall together.",
    ),
}
_ACCURACY = "discriminator_accuracy"
_CHANCE, _WON = 0.6, 0.9


def feature_alignment(report: TransferReport) -> list[dict[str, Any]]:
    """For each arm with ``alignment.json``: its numbers as (name, meaning, before, after), means over the runs that
    have them, and one run's picture as a data URI (None without one)."""
    found = []
    for arm, seeds in report.runs.items():
        contents = {seed: content for seed, run in seeds.items() if (content := _content(run))}
        if not contents:
            continue
        rows = []
        for key, (name, meaning) in ALIGNMENT.items():
            before, after = (
                _mean([c.get(when, {}).get(key) for c in contents.values()]) for when in ("before", "after")
            )
            rows.append({"name": name, "meaning": meaning, "before": before, "after": after})
        seed = next(iter(contents))
        picture = seeds[seed].folder / "figures" / "domains.png"
        uri = None
        if picture.is_file():
            uri = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
        found.append({"arm": arm, "seed": seed, "runs": len(contents), "rows": rows, "uri": uri})
    return found


def game_sentences(report: TransferReport) -> list[str]:
    """One sentence for each arm that played against a discriminator."""
    sentences = []
    for arm, seeds in report.runs.items():
        played = [curve for run in seeds.values() if len(curve := _curve(run))]
        if played:
            length = min(map(len, played))
            sentences.append(f"{arm_name(arm)}: {game_sentence(np.mean([c[:length] for c in played], axis=0))}")
    return sentences


def home_sentences(report: TransferReport) -> list[str]:
    """Whose validation curve is the source's: an adaptation may not see target labels."""
    arms = [a for a, seeds in report.runs.items() if all(r.record.get("workflow") == "adapt" for r in seeds.values())]
    names = ", ".join(arm_name(arm) for arm in arms)
    said = f"{names}: validated on the source's cases, without target labels, so that curve is not of the target"
    return [said] if arms else []


def game_sentence(accuracy: np.ndarray) -> str:
    """Whether a min-max game was alive, from the discriminator's balanced accuracy in each epoch (0.5 is chance)."""
    end = float(np.mean(accuracy[-max(len(accuracy) // 4, 1) :]))
    top = float(np.max(accuracy))
    said = f"right in {100 * end:.0f} % at the end"
    if end >= _WON:
        return f"the discriminator won ({said}): the two sites' features can still be told apart, and were not aligned"
    if top <= _CHANCE:
        return (
            f"the discriminator never got beyond chance ({100 * top:.0f} % at best): there was no opponent, so the "
            "game taught little; it may need a larger learning rate, or the sites do not differ at this layer"
        )
    if end <= _CHANCE:
        return (
            f"the game was alive: the discriminator knew the sites ({100 * top:.0f} % at best) and lost them ({said})"
        )
    return f"the game was alive and undecided: the discriminator is {said}, where 50 % is chance"


def _content(run: Run) -> dict[str, Any] | None:
    path = run.folder / "alignment.json"
    try:
        content = read_json(path) if path.is_file() else None
    except (OSError, ValueError):
        return None  # a picture that is missing does not stop a report
    return content if isinstance(content, dict) else None


def _mean(values: list[Any]) -> float:
    known = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    return float(np.mean(known)) if known else math.nan


def _curve(run: Run) -> np.ndarray:
    cells = [row.get(_ACCURACY) for row in run.curves if row.get("split") == "training"]
    try:
        values = np.array([float(cell) for cell in cells if cell])
    except ValueError:
        return np.empty(0)
    return values[np.isfinite(values)]
