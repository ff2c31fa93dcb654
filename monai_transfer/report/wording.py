"""The words of the report: names of arms, what they are, how numbers are written. Metrics bring their own words."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = [
    "ARM_ORDER",
    "CONTROLS",
    "arm_name",
    "arm_note",
    "capitalised",
    "listed",
    "number",
    "share",
    "shares",
    "signed",
    "span",
]

_ARMS = {
    "scratch": ("from scratch", "trained on the labelled target cases only, starting from random weights"),
    "scratch_same": (
        "the source's network from scratch",
        "trained on the labelled target cases only, with the source's network and preprocessing, from random weights",
    ),
    "source": ("untouched source", "the source model as it is, never trained on this target"),
    "fine_tuned": ("fine-tuned", "starts from the source model, trained further on the labelled target cases"),
    "adapted": ("adapted", "starts from the source model, adapted with target scans that have no labels"),
    "head_only": (
        "head only",
        "starts from the source model, only its last layer trained on the labelled target cases",
    ),
    "joint": (
        "joint training",
        "starts from the source model; every batch half source cases, half labelled target cases",
    ),
    "joint_averaged": (
        "joint, averaged with the source",
        "joint training, its weights then averaged with the source model's; BatchNorm statistics of target images",
    ),
    "averaged": (
        "averaged with the source",
        "fine-tuned on the labelled target cases, its weights then averaged with the source model's",
    ),
    "statistics": (
        "re-estimated statistics",
        "the untouched source, its BatchNorm statistics estimated anew on target images",
    ),
    "self_trained": ("self-trained", "starts from the source model, trained on its own confident predictions"),
    "randomised": ("randomised source", "the untouched source, had it been pretrained under randomised contrast"),
    "source_continued": (
        "source continued",
        "a control: trained as long as the adapted arm, without its adaptation term",
    ),
    "source_longer": (
        "source trained longer",
        "a control: the adapted arm's steps on the source's labelled cases alone, without a target image",
    ),
    "oracle": ("oracle", "trained with all of the target's labels: an upper mark, not something to reach"),
}
ARM_ORDER = (
    "scratch",
    "scratch_same",
    "source",
    "fine_tuned",
    "joint",
    "joint_averaged",
    "averaged",
    "head_only",
    "adapted",
    "auto",
)

CONTROLS = ("source_longer", "target_statistics", "intensity_randomisation", "inversion")
"""Arms that every method without target labels has to beat: its steps without it, or random intensities alone."""


def arm_name(arm: str) -> str:
    """An arm's name for people."""
    return _ARMS[arm][0] if arm in _ARMS else arm.replace("_", " ")


def arm_note(arm: str) -> str:
    """What an arm is, in one clause; empty for names of the user's own."""
    return _ARMS[arm][1] if arm in _ARMS else ""


def capitalised(text: str) -> str:
    """The text with its first letter large, the others as they are.

    >>> capitalised("fine-tuned by LoRA")
    'Fine-tuned by LoRA'
    """
    return text[:1].upper() + text[1:]


def listed(items: Sequence[str]) -> str:
    """Words one after the other, as a sentence has them.

    Args:
        items: one or more.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def number(value: float | None) -> str:
    """A value to three digits or so; a missing one is a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    return f"{value:.3f}" if size < 10 else f"{value:.1f}" if size < 1000 else f"{value:.0f}"


def signed(value: float | None) -> str:
    """A difference with its sign; one that rounds to nothing has none."""
    text = number(value)
    if text == "–" or not text.strip("-0."):
        return text.lstrip("-")
    return text.replace("-", "−") if text.startswith("-") else f"+{text}"


def span(low: float | None, high: float | None, sign: bool = False) -> str:
    """An interval, or a dash."""
    write = signed if sign else number
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "–"
    return f"{write(low)} to {write(high)}"


def share(value: float) -> str:
    """A share in whole per cent; infinity as such."""
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    return f"{100 * value:.0f} %".replace("-", "−")


def shares(low: float, high: float) -> str:
    """An interval of shares."""
    return f"{share(low)} to {share(high)}"
