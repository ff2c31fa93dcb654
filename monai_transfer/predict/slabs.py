"""A segmentation in bounded memory: windows are gathered in a slab that moves along one axis, and labels come out.

The straightforward way holds every class at the network's resolution and again at the image's. Here the sum of the
weighted windows is kept for the rows that the present windows cover alone. Rows that no later window reaches are
divided by their weights, brought to the image's own grid class by class, and only the best class so far is kept: what
remains is one label per voxel. Windows and weights are those of MONAI's sliding window, so the labels are the same up
to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from monai.data import MetaTensor
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch import Tensor
from torch.nn import functional

from monai_transfer.errors import InputError
from monai_transfer.predict.geometry import AxisMap, grid_map

__all__ = ["ANSWERS", "NoSingleOutput", "SlabPlan", "Windows", "segment"]

ANSWERS = 2
"""Answers to one batch of windows that stand in memory at once: the network's last two maps."""

_PAIR = 2
"""Windows at once that a CPU is never brought below but by a limit: one alone falls into a slow kernel."""

_CHUNK = 16
"""Rows of the image that are interpolated at a time."""


class NoSingleOutput(Exception):
    """The network does not give one map of classes on the window's own grid."""


@dataclass(frozen=True)
class Windows:
    """How a network sees an image, as ``monai.inferers.SlidingWindowInferer`` has it.

    Attributes:
        size: voxels per axis of a window.
        batch: windows that go through the network at once.
        overlap: share of a window that the next one repeats, per axis.
        mode: ``gaussian`` or ``constant`` weights.
        sigma: of the Gaussian, as a share of the window.
        padding: how an image that is smaller than a window is filled up, with ``cval``.
        cval: value of that padding.
        answers: to one batch that stand in memory at once; more where several views of a window are averaged.
    """

    size: tuple[int, ...]
    batch: int = 1
    overlap: tuple[float, ...] = (0.25, 0.25, 0.25)
    mode: str = "constant"
    sigma: float = 0.125
    padding: str = "constant"
    cval: float = 0.0
    answers: int = ANSWERS


@dataclass(frozen=True)
class SlabPlan:
    """The memory of one image, in bytes, and what it depends on.

    Attributes:
        axis: of the network's grid, along which the slab moves.
        batch: windows at once.
        dtype: of the slab's sums.
        slab: of the sums.
        windows: of the network's answers.
        image: of the image and its labels.
        whole: what the straightforward way would take: all classes on the network's grid and on the image's.
    """

    axis: int
    batch: int
    dtype: torch.dtype
    slab: int
    windows: int
    image: int
    whole: int

    @property
    def total(self) -> int:
        """Bytes beside the network and its activations."""
        return self.slab + self.windows + self.image

    @classmethod
    def make(
        cls, shape: Sequence[int], image_shape: Sequence[int], classes: int, windows: Windows, limit: int | None = None
    ) -> SlabPlan:
        """Choose the axis, and under a ``limit`` (bytes) smaller batches and then half-precision sums.

        Args:
            shape: voxels per axis of the prepared image.
            image_shape: those of the image as it lies in its file.
            classes: channels of the network's output.
            windows: how the network sees it.
            limit: bytes; the mildest plan that keeps to it, or else the smallest.
        """
        size = [max(n, w) for n, w in zip(shape, windows.size, strict=True)]
        voxels, own = _product(size), _product(image_shape)
        axis = max(range(len(size)), key=lambda a: size[a] / windows.size[a])
        rows = windows.size[axis] * voxels // size[axis]
        row = voxels // size[axis]
        plan = None
        for dtype, share in ((torch.float32, 4), (torch.float16, 2)):
            batch = windows.batch
            one = windows.answers * 4 * classes * _product(windows.size)
            while batch > _PAIR and batch * one > classes * rows * share:
                batch = max(_PAIR, batch // 2)  # large windows: answers would take more than all the sums
            while True:
                answers = batch * one
                finishing = 4 * (2 * classes * row + 6 * _CHUNK * (own // max(image_shape)) + 6 * rows)
                plan = cls(
                    axis,
                    batch,
                    dtype,
                    slab=classes * rows * share + finishing,
                    windows=answers,
                    image=4 * voxels + own * (1 if classes <= 256 else 2),
                    whole=4 * classes * (voxels + 3 * own) + 4 * voxels,
                )
                if limit is None or plan.total <= limit:
                    return plan
                if batch == 1:
                    break
                batch = max(1, batch // 2)
        assert plan is not None
        return plan


def _product(values: Sequence[int]) -> int:
    result = 1
    for value in values:
        result *= int(value)
    return result


def segment(
    image: MetaTensor,
    network: Callable[[Tensor], Tensor],
    windows: Windows,
    *,
    classes: int,
    softmax: bool = False,
    nearest: bool = False,
    device: torch.device | str = "cpu",
    limit: int | None = None,
) -> Tensor:
    """Labels of an image, on the grid that it was read on.

    Args:
        image: prepared, C x spatial; its applied operations say how to come back.
        network: a batch of windows (B x C x window) to class scores (B x K x window).
        windows: how the network sees the image.
        classes: K.
        softmax: interpolate probabilities, not scores: where the bundle has its activation before the inverse.
        nearest: take the nearest voxel instead of interpolating.
        device: of the network; the sums lie there too, where they fit.
        limit: bytes that the sums, answers and labels may take.

    Returns:
        1 x spatial of the image as it was read; uint8, or int16 for more than 256 classes.

    Raises:
        NotSeparable: the way back is not axis by axis.
        NoSingleOutput: the network's answer is not one map of classes of the window's size.
        InputError: the answer holds NaN or infinite values.
    """
    back = grid_map(image, nearest)
    plan = SlabPlan.make(image.shape[1:], back.shape, classes, windows, limit)
    padded, pads = _pad(image.as_tensor(), windows)
    kind = torch.uint8 if classes <= 256 else torch.int16
    order = [plan.axis, *(a for a in range(len(back.axes)) if a != plan.axis)]
    maps = [_shift(back.axes[a], pads[a]) for a in order]
    labels = torch.zeros([back.shape[m.image_axis] for m in maps], dtype=kind)
    slab = _Slab(plan, classes, [padded.shape[1 + a] for a in order], windows, _sums_on(device, plan))
    for start, starts in _rows(padded.shape[1:], windows, plan.axis):
        slab.finish(start, maps, labels, softmax)  # no later window reaches the rows before
        for at in range(0, len(starts), plan.batch):
            part = starts[at : at + plan.batch]
            batch = torch.stack([padded[(slice(None), *_window(place, windows.size))] for place in part])
            answer = network(batch.to(device))
            if not isinstance(answer, Tensor) or answer.shape[2:] != batch.shape[2:] or answer.shape[1] != classes:
                raise NoSingleOutput
            if not bool(torch.isfinite(answer).all()):
                fault = "the network's output holds NaN or infinite values"
                raise InputError(fault, hint="the training diverged, or the image holds values that it never saw")
            for place, scores in zip(part, answer, strict=True):
                slab.add(scores.movedim(1 + plan.axis, 1), [place[a] for a in order])
            del answer
    slab.finish(padded.shape[1 + plan.axis], maps, labels, softmax)
    for dim, one in enumerate(maps):
        if bool(one.outside.any()):
            labels.index_fill_(dim, one.outside.nonzero()[:, 0], 0)
    positions = [one.image_axis for one in maps]
    return labels.permute([positions.index(axis) for axis in range(len(positions))])[None]


def _pad(image: Tensor, windows: Windows) -> tuple[Tensor, list[int]]:
    """Filled up to the size of a window, as MONAI does; and how much came before, per axis."""
    missing = [max(w - n, 0) for n, w in zip(image.shape[1:], windows.size, strict=True)]
    if not any(missing):
        return image, [0] * len(missing)
    pad = [n for m in reversed(missing) for n in (m // 2, m - m // 2)]
    options = {"value": windows.cval} if windows.padding == "constant" else {}
    return functional.pad(image[None], pad, mode=windows.padding, **options)[0], [m // 2 for m in missing]


def _shift(axis: AxisMap, by: int) -> AxisMap:
    return AxisMap(axis.image_axis, axis.low + by, axis.high + by, axis.share, axis.outside) if by else axis


def _window(start: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))


def _rows(shape: Sequence[int], windows: Windows, axis: int) -> Iterator[tuple[int, list[tuple[int, ...]]]]:
    """MONAI's windows, those that begin in the same row together, by row."""
    size = tuple(windows.size)
    interval = tuple(
        n if n == whole else max(1, int(n * (1 - o))) for n, whole, o in zip(size, shape, windows.overlap, strict=True)
    )
    groups: dict[int, list[tuple[int, ...]]] = {}
    for place in dense_patch_slices(tuple(shape), size, interval, return_slice=False):
        start = tuple(int(ends[0]) for ends in place)
        groups.setdefault(start[axis], []).append(start)
    yield from sorted(groups.items())


def _sums_on(device: torch.device | str, plan: SlabPlan) -> torch.device:
    device = torch.device(device)
    if device.type == "cuda" and 2 * plan.slab < torch.cuda.mem_get_info(device)[0]:
        return device
    return torch.device("cpu")


class _Slab:
    """The sums of weighted windows for the rows that are not finished, in a ring: row ``r`` lies at ``r % length``.

    All axes are ordered with the slab's own first.
    """

    def __init__(
        self, plan: SlabPlan, classes: int, shape: Sequence[int], windows: Windows, device: torch.device
    ) -> None:
        size = windows.size
        self.size = [size[plan.axis], *(n for a, n in enumerate(size) if a != plan.axis)]
        self.length = self.size[0]
        self.classes, self.device, self.rows = classes, device, shape[0]
        self.sums = torch.zeros([classes, self.length, *shape[1:]], dtype=plan.dtype, device=device)
        self.weights = torch.zeros([self.length, *shape[1:]], device=device)
        weight = compute_importance_map(tuple(size), mode=windows.mode, sigma_scale=windows.sigma, device=device)
        self.weight = torch.as_tensor(weight, dtype=torch.float32).movedim(plan.axis, 0)
        self.begin = 0  # rows before are finished
        self.last: Tensor | None = None  # the last finished row, K x 1 x rest: interpolation looks back on it
        self.done = 0  # rows of the image that have their labels, in the order of the network's rows

    def add(self, scores: Tensor, start: Sequence[int]) -> None:
        """Add one window's scores, K x window."""
        scores = scores.to(self.device, torch.float32)
        scores = scores.mul_(self.weight) if not scores.requires_grad else scores * self.weight
        first = start[0] % self.length
        rest = _window(start[1:], self.size[1:])
        ahead = self.length - first
        self.sums[(slice(None), slice(first, None), *rest)] += scores[:, :ahead]
        self.weights[(slice(first, None), *rest)] += self.weight[:ahead]
        if first:
            self.sums[(slice(None), slice(0, first), *rest)] += scores[:, ahead:]
            self.weights[(slice(0, first), *rest)] += self.weight[ahead:]

    def finish(self, end: int, maps: Sequence[AxisMap], labels: Tensor, softmax: bool) -> None:
        """Turn the rows before ``end`` into labels."""
        if end <= self.begin:
            return
        places = torch.arange(self.begin, end) % self.length
        for place in places.tolist():
            row = self.sums[:, place]
            row /= self.weights[place].to(row.dtype)
            if softmax:
                row.copy_(row.float().softmax(0))
        main, *others = maps
        reach = torch.argsort(main.high, stable=True)
        ready = reach[self.done : int(torch.searchsorted(main.high[reach].contiguous(), end))]
        for at in range(0, len(ready), _CHUNK):
            chunk = ready[at : at + _CHUNK]
            low, high, share = main.low[chunk], main.high[chunk], main.share[chunk]
            rows = torch.arange(int(low.min()), int(high.max()) + 1)
            part = AxisMap(main.image_axis, low - rows[0], high - rows[0], share, main.outside[chunk])
            labels[chunk] = self._best(rows, part, others, labels.dtype).cpu()
        self.done += len(ready)
        self.last = self.sums[:, places[-1:]].float()
        self.sums[:, places] = 0
        self.weights[places] = 0
        self.begin = end

    def _best(self, rows: Tensor, main: AxisMap, others: Sequence[AxisMap], kind: torch.dtype) -> Tensor:
        """The class of the greatest score in rows of the image."""
        look_back = self.last is not None and int(rows[0]) < self.begin
        places = (rows[1:] if look_back else rows) % self.length
        if main.exact and all(one.exact for one in others) and not look_back:
            best = self.sums[:, places].argmax(0) if self.sums.dtype == torch.float32 else None
            if best is not None:
                for dim, one in enumerate((main, *others)):
                    best = one.apply(best, dim)
                return best.to(kind)
        score = best = None
        for number in range(self.classes):
            values = self.sums[number, places].float()
            if look_back:
                assert self.last is not None
                values = torch.cat([self.last[number], values])
            for dim, one in enumerate((main, *others)):
                values = one.apply(values, dim)
            if score is None or best is None:
                score, best = values, torch.zeros(values.shape, dtype=kind, device=values.device)
            else:
                better = values > score
                torch.where(better, values, score, out=score)
                best.masked_fill_(better, number)
        assert best is not None
        return best
