"""The metrics of one segmented case, in the image's own grid and in millimetres.

What is missing and what is wrong are kept apart, for each class:

| truth | prediction | Dice | surface Dice | HD95, mean surface distance | false positive |
|---|---|---|---|---|---|
| absent | absent | missing (NaN) | missing | missing | 0 |
| absent | present | 0 | 0 | the image's diagonal | 1 |
| present | absent | 0 | 0 | the image's diagonal | 0 |
| present | present | measured | measured | measured | 0 |

So a false positive on empty truth lowers the mean instead of vanishing from it, and no value is ever infinite.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.metrics.base import COUNTS, LENGTH, Metric, table_of
from monai_transfer.metrics.objects import OBJECT_METRICS, count_objects
from monai_transfer.metrics.reading import finite_array

__all__ = ["MASK_METRICS", "MaskPair", "agreement_with_source", "foreground", "region_case", "segmentation_case"]


def foreground(labels: Mapping[Any, str]) -> dict[int, str]:
    """The classes that are measured: all but 0, the background; keys may be text, as in a manifest.

    Args:
        labels: names by value.

    >>> foreground({"2": "tumour", "0": "background", "1": "liver"})
    {1: 'liver', 2: 'tumour'}
    """
    return {int(k): str(v) for k, v in sorted(labels.items(), key=lambda item: int(item[0])) if int(k) != 0}


@dataclass(frozen=True)
class MaskPair:
    """One class of one case.

    Args:
        predicted, true: masks (H, W) or (H, W, D), booleans.
        spacing: size of a voxel along each axis, mm (1 where it has none).
        tolerance: how far apart two surfaces may lie and still agree, in the same unit.
        unit: of lengths, ``mm`` or ``px``.

    >>> square, shifted = np.zeros((20, 20), dtype=bool), np.zeros((20, 20), dtype=bool)
    >>> square[5:10, 5:10] = shifted[5:10, 6:11] = True
    >>> pair = MaskPair(shifted, square, spacing=np.array([0.5, 0.5]))
    >>> pair.sizes, pair.scale, float(pair.surface_distances[0].max())  # one pixel off: 0.5 mm
    ((25, 25), 0.25, 0.5)
    """

    predicted: np.ndarray
    true: np.ndarray
    spacing: np.ndarray
    tolerance: float = 2.0
    unit: str = LENGTH

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """Voxels that are predicted, and that are true."""
        return int(np.count_nonzero(self.predicted)), int(np.count_nonzero(self.true))

    @property
    def diagonal(self) -> float:
        """The image's diagonal: the worst distance there is."""
        return float(np.linalg.norm(np.array(self.true.shape) * self.spacing))

    @property
    def scale(self) -> float:
        """What one voxel fills: ml in 3D, mm2 in 2D, 1 where it has no physical size."""
        return float(np.prod(self.spacing)) / (1000.0 if len(self.spacing) == 3 and self.unit == LENGTH else 1.0)

    @cached_property
    def crop(self) -> tuple[np.ndarray, np.ndarray]:
        """Both masks within the box of their union, which is far smaller than a scan: distances never leave it."""
        box = _bounding_box(self.predicted | self.true)
        return self.predicted[box], self.true[box]

    @cached_property
    def surface_distances(self) -> tuple[np.ndarray, np.ndarray]:
        """From each voxel of the prediction's surface to the true surface, and the other way round."""
        import torch
        from monai.metrics.utils import get_edge_surface_distance

        p, t = (torch.from_numpy(np.ascontiguousarray(mask)) for mask in self.crop)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*always_return_as_numpy")  # MONAI warns of its own call
            _, (there, back), _ = get_edge_surface_distance(p, t, spacing=self.spacing.tolist(), symmetric=True)  # type: ignore[misc]
        return there.double().numpy(), back.double().numpy()


def segmentation_case(
    prediction: Any,
    truth: Any,
    labels: Mapping[Any, str],
    spacing: Sequence[float],
    *,
    tolerance: float | Mapping[str, float] = 2.0,
    unit: str = LENGTH,
    iou: float = 0.1,
    unknown: Collection[str] = (),
) -> dict[str, float]:
    """Overlap, boundary distance, volume and objects per foreground class, and means over the classes.

    Args:
        prediction: label map (H, W) or (H, W, D), whole numbers, array or tensor; a leading channel of 1 is dropped.
        truth: label map of the same shape; where it is -1 nothing is measured.
        labels: class names by label value; 0 is the background and is not measured.
        spacing: size of a voxel along each axis, mm.
        tolerance: how far apart two surfaces may lie and still agree in the surface Dice, mm; or by class name, then
            2 mm for the others. 2 mm is about a voxel of common clinical scans.
        unit: ``px`` where the image has no physical size; lengths are then in pixels, and so are areas.
        iou: from which on a predicted object has found a true one.
        unknown: classes that nobody looked for in this case: all about them is missing, but for their predicted size.

    Returns:
        ``<metric>_<class>`` for each metric of :data:`MASK_METRICS`, the means over the classes that are not missing of
        those that have one (``dice``, ``surface_dice``, ``hd95``, ``assd``), and the counts of objects. Missing is NaN
        (see the module's table).

    Raises:
        InputError: shapes differ, a value is NaN, not whole or not among ``labels``, or the spacing is not positive.

    >>> import numpy as np
    >>> truth = np.zeros((8, 8), int); truth[2:6, 2:6] = 1
    >>> row = segmentation_case(np.roll(truth, 1, axis=0), truth, {0: "background", 1: "cyst"}, (1.0, 1.0))
    >>> row["dice_cyst"], row["hd95_cyst"], row["area_true_mm2_cyst"]
    (0.75, 1.0, 16.0)
    """
    step = np.asarray(spacing, dtype=float)
    if step.ndim != 1 or not np.all(np.isfinite(step)) or np.any(step <= 0):
        raise InputError(
            f"spacing {list(spacing)} is not a positive number of mm for each axis", hint="such as (1.0, 1.0, 3.0)"
        )
    predicted, true = (
        _label_map(prediction, "prediction", labels, len(step)),
        _label_map(truth, "truth", {**labels, -1: "ignored"}, len(step)),
    )
    if predicted.shape != true.shape:
        raise InputError(
            f"prediction has shape {predicted.shape}, truth has {true.shape}",
            hint="bring the prediction back into the image's original grid before measuring",
        )
    predicted, true = (np.where(true < 0, 0, each) for each in (predicted, true))
    masks = {name: (predicted == value, true == value) for value, name in foreground(labels).items()}
    return _measure(masks, step, tolerance, unit, iou, unknown)


def region_case(
    prediction: Any,
    truth: Any,
    names: Sequence[str],
    spacing: Sequence[float],
    *,
    tolerance: float | Mapping[str, float] = 2.0,
    unit: str = LENGTH,
    iou: float = 0.1,
    unknown: Collection[str] = (),
) -> dict[str, float]:
    """As :func:`segmentation_case`, for regions that may overlap: a channel for each, and no background.

    Args:
        prediction: (C, H, W) or (C, H, W, D), 0 and 1.
        truth: the same shape, 1 and 0; where it is -1 nothing is measured.
        names: C names.
        spacing, tolerance, unit, iou, unknown: as there.

    Raises:
        InputError: shapes differ, a value is NaN, or the number of channels is not that of the names.

    The tumour's core is found, of the whole tumour one half; in 2D pixels of 1 mm:

    >>> import numpy as np
    >>> truth = np.zeros((2, 8, 8), int)
    >>> truth[0, 2:6, 2:6], truth[1, 3:5, 3:5] = 1, 1
    >>> found = truth.copy()
    >>> found[0, 4:6] = 0
    >>> row = region_case(found, truth, ["whole", "core"], [1.0, 1.0])
    >>> round(row["dice_whole"], 3), row["dice_core"]
    (0.667, 1.0)
    """
    predicted, true = finite_array(prediction, "prediction"), finite_array(truth, "truth")
    if predicted.shape != true.shape or len(true) != len(names) or true.ndim != len(spacing) + 1:
        raise InputError(
            f"prediction has shape {predicted.shape}, truth has {true.shape}, for the regions {', '.join(names)}",
            hint="bring the prediction back into the image's original grid, one channel for each region",
        )
    masks = {name: ((p > 0.5) & (t >= 0), t == 1) for name, p, t in zip(names, predicted, true, strict=True)}
    return _measure(masks, np.asarray(spacing, dtype=float), tolerance, unit, iou, unknown)


def agreement_with_source(
    prediction: Any, source: Any, labels: Mapping[Any, str], kept: Collection[str], unknown: Collection[str]
) -> dict[str, float]:
    """Dice of a prediction with the untouched source's, of classes that nobody looked for in this case.

    Args:
        prediction, source: label maps of one shape; ``source`` may be ``None``: it was not asked.
        labels: class names by label value.
        kept: classes that the source knows: each has a value, NaN where the truth can tell, or neither predicts it.
        unknown: classes that nobody looked for.

    >>> import numpy as np
    >>> agreement_with_source(np.array([2, 2, 0]), np.array([2, 0, 0]), {2: "liver"}, ["liver"], ["liver"])
    {'source_dice_liver': 0.6666666666666666}
    """
    values = dict.fromkeys(kept, math.nan)
    if source is not None:
        ours, theirs = (finite_array(each, "prediction").reshape(-1) for each in (prediction, source))
        for value, name in foreground(labels).items():
            if name in values and name in unknown:
                a, b = ours == value, theirs == value
                both = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
                values[name] = 2.0 * int(np.count_nonzero(a & b)) / both if both else math.nan
    return {f"source_dice_{name}": value for name, value in values.items()}


def _measure(
    masks: Mapping[str, tuple[np.ndarray, np.ndarray]],
    step: np.ndarray,
    tolerance: float | Mapping[str, float],
    unit: str,
    iou: float,
    unknown: Collection[str],
) -> dict[str, float]:
    """Every metric of each class, from its predicted and its true mask, and the means over the classes."""
    measured = {name: metric for name, metric in MASK_METRICS.items() if metric.of_masks and _fits(metric, step, unit)}
    values: dict[str, float] = {}
    for name, (p, t) in masks.items():
        within = tolerance.get(name, 2.0) if isinstance(tolerance, Mapping) else tolerance
        pair = MaskPair(p, t, step, within, unit)
        for metric in measured.values():
            hidden = name in unknown and not metric.of_prediction
            values[f"{metric.name}_{name}"] = math.nan if hidden else _value(metric, pair)
        counts: tuple[float, ...] = count_objects(*pair.crop, iou=iou) if any(pair.sizes) else (0, 0, 0)
        counts = (math.nan,) * 3 if name in unknown else counts
        for column, number in zip(("objects_true", "objects_predicted", "objects_found"), counts, strict=True):
            values[f"{column}_{name}"] = number
    means: dict[str, float] = {}
    for metric in measured.values():
        if metric.averaged:
            present = [values[f"{metric.name}_{name}"] for name in masks]
            present = [v for v in present if not math.isnan(v)]
            means[metric.name] = float(np.mean(present)) if present else math.nan
    return means | values


def _fits(metric: Metric, spacing: np.ndarray, unit: str) -> bool:
    """Volumes are of 3D images, areas of 2D ones, pixels of those without a physical size."""
    sizes = {"ml", "mm²", "voxels", "px²"}
    own = ("ml" if len(spacing) == 3 else "mm²") if unit == LENGTH else ("voxels" if len(spacing) == 3 else "px²")
    return metric.unit not in sizes or metric.unit == own


def _value(metric: Metric, pair: MaskPair) -> float:
    """Missing and wrong as in the module's table, else measured."""
    assert metric.of_masks is not None
    predicted, true = pair.sizes
    if metric.absent == COUNTS:
        return float(metric.of_masks(pair))
    if not predicted and not true:
        return math.nan
    if not predicted or not true:
        return metric.worst if math.isfinite(metric.worst) else pair.diagonal if metric.unit == LENGTH else math.nan
    return float(metric.of_masks(pair))


def _dice(pair: MaskPair) -> float:
    p, t = pair.crop
    return 2.0 * int(np.count_nonzero(p & t)) / sum(pair.sizes)


def _surface_dice(pair: MaskPair) -> float:
    distances = np.concatenate(pair.surface_distances)
    return float((distances <= pair.tolerance).mean())


def _hd95(pair: MaskPair) -> float:
    return min(max(float(np.percentile(d, 95)) for d in pair.surface_distances), pair.diagonal)


def _mean_distance(pair: MaskPair) -> float:
    return float(np.concatenate(pair.surface_distances).mean())


def _label_map(values: Any, what: str, labels: Mapping[Any, str], dims: int) -> np.ndarray:
    array = finite_array(values, what)
    if array.ndim == dims + 1 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != dims:
        raise InputError(
            f"the {what} has {array.ndim} axes, the spacing has {dims}",
            hint="take away the channel axis, or give one spacing for each axis",
        )
    found = np.unique(array)
    unknown = [v for v in found.tolist() if v not in {int(k) for k in labels} | {0}]
    if unknown:
        known = ", ".join(f"{k} {v}" for k, v in labels.items())
        raise InputError(
            f"the {what} holds the label {unknown[0]:g}, which is not among the classes ({known})",
            hint="correct the manifest's labels, or map the value (ignore, values)",
        )
    return array.astype(np.int64)


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(box)


def _sizes() -> list[Metric]:
    """True and predicted size, and their difference, in each unit that an image can have."""
    found = []
    kinds = (("volume", "ml", "ml"), ("area", "mm2", "mm²"), ("volume", "voxels", "voxels"), ("area", "px", "px²"))
    for word, suffix, unit in kinds:
        more: dict[str, Any] = {"unit": unit, "absent": COUNTS, "overview": False}
        found += [
            Metric(
                f"{word}_true_{suffix}",
                f"true {word}",
                f"The {word} of the true region.",
                better=0,
                low=0.0,
                of_masks=lambda pair: pair.sizes[1] * pair.scale,
                of_truth=True,
                comparable=False,
                **more,
            ),
            Metric(
                f"{word}_pred_{suffix}",
                f"predicted {word}",
                f"The {word} of the predicted region; neither more nor less is better in itself.",
                better=0,
                low=0.0,
                of_masks=lambda pair: pair.sizes[0] * pair.scale,
                of_prediction=True,
                **more,
            ),
            Metric(
                f"{word}_error_{suffix}",
                f"{word} error",
                f"How far the predicted {word} is from the true one, too much or too little: 0 is perfect.",
                better=-1,
                low=0.0,
                of_masks=lambda pair: abs(pair.sizes[0] - pair.sizes[1]) * pair.scale,
                **more,
            ),
        ]
    return found


_SHARE: dict[str, Any] = {"better": 1, "low": 0.0, "high": 1.0}

MASK_METRICS = table_of(
    [
        Metric(
            "dice",
            "Dice",
            "Overlap of the predicted and the true region: 1 is perfect, 0 is no overlap at all.",
            of_masks=_dice,
            averaged=True,
            **_SHARE,
        ),
        Metric(
            "surface_dice",
            "surface Dice",
            "Share of the two outlines that lie within a tolerance (2 mm, or 2 pixels where the images have no "
            "physical size, unless set otherwise) of each other: 1 is perfect.",
            of_masks=_surface_dice,
            averaged=True,
            **_SHARE,
        ),
        Metric(
            "hd95",
            "HD95",
            "How far the two outlines are apart at their worst places, the worst 5 % left out: 0 is perfect. A "
            "structure that was missed or invented counts as the whole image's diagonal.",
            better=-1,
            unit=LENGTH,
            low=0.0,
            of_masks=_hd95,
            averaged=True,
        ),
        Metric(
            "assd",
            "average surface distance",
            "How far the two outlines are apart on average, measured from both: 0 is perfect. A structure that was "
            "missed or invented counts as the whole image's diagonal.",
            better=-1,
            unit=LENGTH,
            low=0.0,
            of_masks=_mean_distance,
            averaged=True,
        ),
        *_sizes(),
        *OBJECT_METRICS,
        Metric(
            "false_positive",
            "false positives",
            "Share of cases in which a structure was predicted that is not there.",
            better=-1,
            low=0.0,
            high=1.0,
            absent=COUNTS,
            of_masks=lambda pair: float(pair.sizes[0] > 0 and pair.sizes[1] == 0),
        ),
        Metric(
            "source_dice",
            "Dice with the untouched source's prediction",
            "Overlap with what the untouched source predicts, in cases in which nobody looked for the class: it says "
            "how much of the source was kept, not what is right.",
            comparable=False,  # the source agrees with itself
            **_SHARE,
        ),
    ]
)
"""Of a segmentation's cases."""
