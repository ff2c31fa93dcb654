"""The metrics of one test case, in the image's own grid and in millimetres.

What is missing and what is wrong are kept apart, for each class of a segmentation:

| truth | prediction | Dice | surface Dice | HD95 | false positive |
|---|---|---|---|---|---|
| absent | absent | missing (NaN) | missing | missing | 0 |
| absent | present | 0 | 0 | the image's diagonal | 1 |
| present | absent | 0 | 0 | the image's diagonal | 0 |
| present | present | measured | measured | measured | 0 |

So a false positive on empty truth lowers the mean instead of vanishing from it, and no value is ever infinite.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

from monai_transfer.arrays import as_array
from monai_transfer.errors import InputError
from monai_transfer.tasks import TASKS as TASKS_BY_NAME
from monai_transfer.tasks import manifest_tasks

__all__ = [
    "PRIMARY",
    "TASKS",
    "classification_case",
    "foreground",
    "higher_is_better",
    "regression_case",
    "segmentation_case",
]

#: The metric that a verdict is about, for each task, and whether higher is better.
PRIMARY: dict[str, tuple[str, bool]] = {
    name: (TASKS_BY_NAME[name].primary_metric, TASKS_BY_NAME[name].higher_is_better) for name in manifest_tasks()
}
TASKS = tuple(PRIMARY)

_LOWER = ("hd95", "log_loss", "mae", "rmse", "absolute_error", "squared_error", "false_positive")
_SMALLEST = 1e-7  # a probability of 0 for the true class would cost infinitely much: about the step of float32


def higher_is_better(metric: str) -> bool:
    """Whether a larger value of ``metric`` (also of one class, ``hd95_liver``) is the better one."""
    return not metric.startswith(_LOWER)


def foreground(labels: Mapping[Any, str]) -> dict[int, str]:
    """The classes that are measured: all but 0, the background; keys may be text, as in a manifest."""
    return {int(k): str(v) for k, v in sorted(labels.items(), key=lambda item: int(item[0])) if int(k) != 0}


def segmentation_case(
    prediction: Any,
    truth: Any,
    labels: Mapping[Any, str],
    spacing: Sequence[float],
    *,
    tolerance: float = 2.0,
) -> dict[str, float]:
    """Overlap, boundary distance and volume per foreground class, and their means over the classes.

    Args:
        prediction: label map (H, W) or (H, W, D), whole numbers, array or tensor; a leading channel of 1 is dropped.
        truth: label map of the same shape.
        labels: class names by label value; 0 is the background and is not measured.
        spacing: size of a voxel along each axis, mm.
        tolerance: how far apart two surfaces may lie and still agree in the surface Dice, mm. 2 mm is about a voxel
            of common clinical scans.

    Returns:
        ``dice_<name>``, ``surface_dice_<name>`` (0 to 1), ``hd95_<name>`` (95th percentile of the symmetric surface
        distance, mm), ``volume_true_ml_<name>``, ``volume_pred_ml_<name>`` (in 2D ``area_true_mm2_``,
        ``area_pred_mm2_``), ``false_positive_<name>`` (0 or 1) for each class, and the means over the classes that
        are not missing: ``dice``, ``surface_dice``, ``hd95``. Missing is NaN (see the module's table).

    Raises:
        InputError: shapes differ, a value is NaN, not whole or not among ``labels``, or the spacing is not positive.
    """
    step = np.asarray(spacing, dtype=float)
    if step.ndim != 1 or not np.all(np.isfinite(step)) or np.any(step <= 0):
        raise InputError(f"spacing {list(spacing)} is not a positive number of mm for each axis")
    predicted, true = (
        _label_map(prediction, "prediction", labels, len(step)),
        _label_map(truth, "truth", labels, len(step)),
    )
    if predicted.shape != true.shape:
        raise InputError(
            f"prediction has shape {predicted.shape}, truth has {true.shape}",
            hint="bring the prediction back into the image's original grid before measuring",
        )
    diagonal = float(np.linalg.norm(np.array(true.shape) * step))
    size, kind = (np.prod(step) / 1000.0, "volume_{}_ml_") if len(step) == 3 else (np.prod(step), "area_{}_mm2_")
    values: dict[str, float] = {}
    names = foreground(labels)
    for value, name in names.items():
        p, t = predicted == value, true == value
        dice, surface, distance = _compare_masks(p, t, step, tolerance, diagonal)
        values |= {f"dice_{name}": dice, f"surface_dice_{name}": surface, f"hd95_{name}": distance}
        values[kind.format("true") + name] = float(t.sum() * size)
        values[kind.format("pred") + name] = float(p.sum() * size)
        values[f"false_positive_{name}"] = float(p.any() and not t.any())
    means: dict[str, float] = {}
    for metric in ("dice", "surface_dice", "hd95"):
        present = [values[f"{metric}_{name}"] for name in names.values()]
        present = [v for v in present if not np.isnan(v)]
        means[metric] = float(np.mean(present)) if present else float("nan")
    return means | values


def classification_case(probabilities: Any, label: int | None, class_names: Sequence[str]) -> dict[str, Any]:
    """What a classifier said about one case.

    Args:
        probabilities: (C,) probabilities that sum to 1, array or tensor.
        label: index of the true class; ``None`` if it is unknown.
        class_names: C names.

    Returns:
        ``label`` and ``prediction`` (names; an unknown label is ""), ``p_<name>`` for each class, ``correct`` (0 or
        1) and ``log_loss`` (nats; at most 16.1, since probabilities are not taken below 1e-7). The last two are NaN
        for an unknown label.

    Raises:
        InputError: NaN, not a probability distribution, or the number of classes differs.
    """
    p = _array(probabilities, "prediction").astype(float).reshape(-1)
    if len(p) != len(class_names):
        raise InputError(f"prediction has {len(p)} classes, the task has {len(class_names)}: {', '.join(class_names)}")
    if p.min() < -1e-6 or abs(p.sum() - 1.0) > 1e-3:
        raise InputError(
            f"prediction is no distribution over classes: it sums to {p.sum():.4g}",
            hint="apply the softmax or sigmoid that the network's last layer lacks",
        )
    if label is not None and not 0 <= int(label) < len(class_names):
        raise InputError(f"label {label} is not one of the {len(class_names)} classes")
    known = label is not None
    row: dict[str, Any] = {"label": class_names[int(label)] if label is not None else ""}
    row["prediction"] = class_names[int(p.argmax())]
    row |= {f"p_{name}": float(value) for name, value in zip(class_names, p, strict=True)}
    row["correct"] = float(int(p.argmax()) == int(label)) if label is not None else float("nan")
    row["log_loss"] = float(-np.log(max(p[int(label)], _SMALLEST))) if known and label is not None else float("nan")
    return row


def regression_case(prediction: Any, truth: float | None) -> dict[str, float]:
    """A predicted quantity beside the true one: ``label``, ``prediction``, ``error`` (prediction - label),
    ``absolute_error`` and ``squared_error``, in the quantity's own unit; NaN where the truth is unknown (``None``).

    Raises:
        InputError: the prediction is NaN, infinite or not one number.
    """
    p = _array(prediction, "prediction").astype(float).reshape(-1)
    if p.size != 1:
        raise InputError(f"prediction has {p.size} values where one quantity is asked for")
    true = float("nan") if truth is None else float(_array(truth, "label", nan=True).reshape(-1)[0])
    error = float(p[0]) - true
    return {
        "label": true,
        "prediction": float(p[0]),
        "error": error,
        "absolute_error": abs(error),
        "squared_error": error**2,
    }


def _array(values: Any, what: str, nan: bool = False) -> np.ndarray:
    array = as_array(values)
    if not nan and array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        raise InputError(
            f"the {what} holds NaN or infinite values", hint="the network diverged: look at its training loss"
        )
    return array


def _label_map(values: Any, what: str, labels: Mapping[Any, str], dims: int) -> np.ndarray:
    array = _array(values, what)
    if array.ndim == dims + 1 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != dims:
        raise InputError(f"the {what} has {array.ndim} axes, the spacing has {dims}")
    found = np.unique(array)
    unknown = [v for v in found.tolist() if v not in {int(k) for k in labels} | {0}]
    if unknown:
        known = ", ".join(f"{k} {v}" for k, v in labels.items())
        raise InputError(f"the {what} holds the label {unknown[0]:g}, which is not among the classes ({known})")
    return array.astype(np.int64)


def _compare_masks(
    predicted: np.ndarray, true: np.ndarray, spacing: np.ndarray, tolerance: float, diagonal: float
) -> tuple[float, float, float]:
    """Dice, surface Dice and HD95 (mm) of two masks of one shape; missing and wrong as in the module's table."""
    if not predicted.any() and not true.any():
        return float("nan"), float("nan"), float("nan")
    if not predicted.any() or not true.any():
        return 0.0, 0.0, diagonal
    box = _bounding_box(predicted | true)  # distances never leave the union, and its box is far smaller than a scan
    p = torch.from_numpy(np.ascontiguousarray(predicted[box]))[None, None].float()
    t = torch.from_numpy(np.ascontiguousarray(true[box]))[None, None].float()
    step = spacing.tolist()
    dice = compute_dice(p, t, include_background=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy")  # MONAI warns of its own call
        surface = compute_surface_dice(p, t, class_thresholds=[tolerance], include_background=True, spacing=step)
        distance = compute_hausdorff_distance(p, t, include_background=True, percentile=95, spacing=step)
    return float(dice), float(surface), min(float(distance), diagonal)


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(box)
