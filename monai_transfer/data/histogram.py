"""Histogram matching: intensities of a case are mapped so that its quantiles become the target site's average ones.

    x' = T(S^-1(x)),   S: the case's own quantiles;  T: the mean over target training cases of theirs

Paper: Nyul, Udupa and Zhang, New variants of a method of MRI scale standardization, IEEE TMI 2000 (landmarks of a
training set; here many landmarks, so that whole histograms are matched)

Fit on **training cases only**: landmarks from test cases let the test set into the pipeline. The map never falls, so
the order of intensities is kept, and an inverted contrast (MR T1 to T2) cannot be matched. It makes different anatomy
alike too: a scan with a large lesion is pulled to the average scan. Fitted landmarks are plain numbers, for a config.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import LoadImage, MapTransform
from monai.utils import convert_to_dst_type

from monai_transfer.errors import InputError

__all__ = ["HistogramMatchToTargetd", "fit_landmarks", "match_to_landmarks"]


def _values(image: Any) -> np.ndarray:
    image = image.detach().cpu() if isinstance(image, torch.Tensor) else image
    return np.asarray(image.as_tensor() if hasattr(image, "as_tensor") else image, dtype=np.float64)


def _quantiles(values: np.ndarray, count: int) -> np.ndarray:
    return np.quantile(values, np.linspace(0, 1, count))


def fit_landmarks(
    images: Iterable[Any], count: int = 256, nonzero: bool = False, load: Callable[[Any], Any] | None = None
) -> list[float]:
    """Mean quantiles of a set of images: ``count`` values from the mean minimum to the mean maximum.

    Args:
        images: paths, arrays or tensors, or data list items (dictionaries with ``image``).
        count: number of landmarks.
        nonzero: leave voxels of value 0 out, as for skull-stripped scans.
        load: reads one item into an array; default: ``LoadImage``.

    Raises:
        InputError: there is no image, or one has no voxel to count.

    Least value, median and greatest, each the mean over both images:

    >>> import numpy as np
    >>> fit_landmarks([np.array([0.0, 1.0, 2.0]), np.array([0.0, 3.0, 4.0])], count=3)
    [0.0, 2.0, 3.0]
    """
    if count < 2:
        raise InputError(f"at least two landmarks are needed, not {count}", hint="such as count=11")
    rows = []
    for item in images:
        image = item if load is None else load(item)
        image = image["image"] if isinstance(image, Mapping) else image
        values = _values(image if hasattr(image, "ndim") else LoadImage(image_only=True)(image)).ravel()
        values = values[values != 0] if nonzero else values
        if not len(values) or not np.isfinite(values).all():
            raise InputError(
                "an image without finite voxels to count",
                path=str(item) if isinstance(item, str) else None,
                hint="run monai-transfer check",
            )
        rows.append(_quantiles(values, count))
    if not rows:
        raise InputError("histogram matching needs target images", hint="give the target site's training cases")
    return np.mean(rows, axis=0).tolist()


def match_to_landmarks(image: np.ndarray, landmarks: Sequence[float], nonzero: bool = False) -> np.ndarray:
    """``image`` with its quantiles mapped, piecewise linearly, onto ``landmarks``; same shape, float64.

    A constant image becomes the median landmark.

    Args:
        image: any shape.
        landmarks: of ``fit_landmarks``: intensities at evenly spaced quantiles, rising.
        nonzero: only voxels that are not 0 are counted and changed.

    Raises:
        InputError: the image holds values that are not finite: one of them would leave no histogram.

    >>> import numpy as np
    >>> from monai_transfer.data.histogram import fit_landmarks, match_to_landmarks
    >>> landmarks = fit_landmarks([np.arange(11.0)[None] * 10], count=11)  # the target runs from 0 to 100
    >>> match_to_landmarks(np.arange(11.0)[None], landmarks).round(1)
    array([[  0.,  10.,  20.,  30.,  40.,  50.,  60.,  70.,  80.,  90., 100.]])
    """
    if not np.isfinite(image).all():
        raise InputError("an image to match holds values that are not finite", hint="run monai-transfer check")
    chosen = image != 0 if nonzero else np.ones(image.shape, dtype=bool)
    result = image.astype(np.float64, copy=True)
    if not chosen.any():
        return result
    own, wanted = _quantiles(result[chosen], len(landmarks)), np.asarray(landmarks, dtype=np.float64)
    # equal quantiles (a plateau such as air): one place, with the mean of the landmarks that fall there
    places, first, counts = np.unique(own, return_index=True, return_counts=True)
    means = np.add.reduceat(wanted, first) / counts
    if len(places) == 1:
        means[:] = np.median(wanted)
    result[chosen] = np.interp(result[chosen], places, means)
    return result


class HistogramMatchToTargetd(MapTransform):
    """Histogram matching towards the target site.

    Args:
        keys: image keys; each channel is matched by itself.
        targets: the target's *training* cases, as in ``fit_landmarks``; read once, when the transform is made.
        landmarks: already fitted landmarks instead.
        count: number of landmarks.
        nonzero: leave voxels of value 0 as they are, here and in fitting.
        load: reads one target.

    Raises:
        InputError: neither targets nor landmarks are given, or the latter are no landmarks.

    >>> import torch
    >>> from monai_transfer.data.histogram import HistogramMatchToTargetd
    >>> transform = HistogramMatchToTargetd("image", landmarks=[0.0, 50.0, 100.0])
    >>> transform({"image": torch.linspace(0, 1, 5)[None]})["image"].round().flatten().tolist()
    [0.0, 25.0, 50.0, 75.0, 100.0]
    """

    def __init__(
        self,
        keys: KeysCollection,
        targets: Iterable[Any] | None = None,
        landmarks: Sequence[float] | None = None,
        count: int = 256,
        nonzero: bool = False,
        load: Callable[[Any], Any] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if landmarks is None:
            landmarks = fit_landmarks(targets if targets is not None else [], count, nonzero, load)
        self.landmarks, self.nonzero = [float(value) for value in landmarks], nonzero
        if len(self.landmarks) < 2 or not np.isfinite(self.landmarks).all() or (np.diff(self.landmarks) < 0).any():
            raise InputError(
                "landmarks are at least two finite numbers that never fall", hint="fit_landmarks finds them"
            )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            channels = [match_to_landmarks(channel, self.landmarks, self.nonzero) for channel in _values(result[key])]
            matched = torch.as_tensor(np.stack(channels)).float()
            result[key] = convert_to_dst_type(matched, result[key], dtype=matched.dtype)[0]
        return result
