"""The words of the report: how lists and numbers are written. Metrics and arms bring their own words."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = [
    "CONTROLS",
    "capitalised",
    "listed",
    "number",
    "share",
    "shares",
    "signed",
    "span",
]

CONTROLS = ("source_longer", "target_statistics", "intensity_randomisation", "inversion")
"""Arms that every method without target labels has to beat: its steps without it, or random intensities alone."""


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
