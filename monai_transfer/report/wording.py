"""The words of the report: names of metrics and arms, what they mean to a clinician, how numbers are written."""

from __future__ import annotations

import math

from monai_transfer.evaluation.metrics import higher_is_better

__all__ = ["ARM_ORDER", "arm_name", "arm_note", "explain", "metric_name", "number", "share", "shares", "signed", "span"]

_METRICS = {
    "dice": ("Dice", "Overlap of the predicted and the true region: 1 is perfect, 0 is no overlap at all."),
    "surface_dice": (
        "surface Dice",
        "Share of the two outlines that lie within a tolerance (2 mm unless set otherwise) of each other: 1 is "
        "perfect.",
    ),
    "hd95": (
        "HD95 (mm)",
        "How far the two outlines are apart at their worst places, the worst 5 % left out: 0 mm is perfect. A "
        "structure that was missed or invented counts as the whole image's diagonal.",
    ),
    "auc": (
        "AUC",
        "Probability that a case with the finding gets a higher score than one without: 1 is perfect, 0.5 is chance. "
        "With more than two classes: each class against the rest, averaged.",
    ),
    "accuracy": ("accuracy", "Share of cases that got the right class."),
    "balanced_accuracy": (
        "balanced accuracy",
        "Share of each class's cases that were recognised, averaged over classes.",
    ),
    "precision": ("precision", "Of the cases called so, the share that really are; averaged over classes."),
    "recall": ("recall", "Of the cases that are so, the share that were called so; averaged over classes."),
    "f1": ("F1", "Balance of precision and recall (harmonic mean); averaged over classes."),
    "log_loss": ("log loss", "Penalty for confident mistakes: smaller is better, 0 is perfect."),
    "mae": ("mean absolute error", "Average distance from the true value, in its own unit: smaller is better."),
    "rmse": ("RMSE", "Like the mean absolute error, with large errors weighing more: smaller is better."),
    "r2": ("R²", "Share of the variation that is explained: 1 is perfect, 0 is no better than always naming the mean."),
    "froc": (
        "FROC score",
        "Share of the lesions that were found, averaged over operating points with 1/8 to 8 false alarms per scan: "
        "1 is perfect.",
    ),
    "ap": (
        "average precision",
        "How pure the list of predicted boxes is while it is read from the surest on until the lesions are found: 1 is "
        "perfect.",
    ),
    "sensitivity": ("sensitivity", "Share of the lesions that some predicted box found; of a size where one is named."),
    "sensitivity_at_1": (
        "sensitivity at 1 false alarm",
        "Share of the lesions that are found where on average one false alarm per scan is accepted.",
    ),
    "false_positives": ("false alarms per scan", "Predicted boxes that hit no lesion, per scan: 0 is perfect."),
    "box_iou": (
        "box IoU",
        "How well the box around each lesion fits (common part over union): 1 is perfect, 0 means missed.",
    ),
    "pointing_game": (
        "pointing game",
        "Share of the scans with a lesion whose most suspicious point lies inside one.",
    ),
    "false_positive": ("false positives", "Share of cases in which a structure was predicted that is not there."),
}
_ARMS = {
    "scratch": ("from scratch", "trained on the labelled target cases only, starting from random weights"),
    "source": ("untouched source", "the source model as it is, never trained on this target"),
    "fine_tuned": ("fine-tuned", "starts from the source model, trained further on the labelled target cases"),
    "adapted": ("adapted", "starts from the source model, adapted with target scans that have no labels"),
    "head_only": (
        "head only",
        "starts from the source model, only its last layer trained on the labelled target cases",
    ),
    "source_continued": (
        "source continued",
        "a control: trained as long as the adapted arm, without its adaptation term",
    ),
    "oracle": ("oracle", "trained with all of the target's labels: an upper mark, not something to reach"),
}
ARM_ORDER = ("scratch", "source", "fine_tuned", "head_only", "adapted")


def arm_name(arm: str) -> str:
    """An arm's name for people."""
    return _ARMS[arm][0] if arm in _ARMS else arm.replace("_", " ")


def arm_note(arm: str) -> str:
    """What an arm is, in one clause; empty for names of the user's own."""
    return _ARMS[arm][1] if arm in _ARMS else ""


def _base(metric: str) -> tuple[str, str]:
    """``dice_liver`` -> (dice, liver)."""
    for base in sorted(_METRICS, key=len, reverse=True):
        if metric == base or metric.startswith(base + "_"):
            return base, metric[len(base) + 1 :]
    return metric, ""


def metric_name(metric: str) -> str:
    """A metric's name for people: ``hd95_liver`` -> ``HD95 (mm), liver``."""
    base, part = _base(metric)
    name = _METRICS[base][0] if base in _METRICS else base.replace("_", " ")
    return f"{name}, {part}" if part else name


def explain(metric: str) -> str:
    """What a metric means, in plain words."""
    base, _ = _base(metric)
    if base in _METRICS:
        return _METRICS[base][1]
    return "Larger is better." if higher_is_better(metric) else "Smaller is better."


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
