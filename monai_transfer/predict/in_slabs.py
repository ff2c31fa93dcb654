"""A bundle's inference config, changed so that the labels come out of a moving slab: the same labels in less memory.

Changed are the sliding window and the steps from the class scores to the labels on the image's own grid (activation,
inverse, argmax). What follows them (components, saving) stays. A config that does something else there is left alone.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SlidingWindowInferer, SlidingWindowInfererAdapt
from monai.transforms import MapTransform
from monai.utils import fall_back_tuple
from torch import Tensor, nn

from monai_transfer.engine.memory import free_bytes
from monai_transfer.errors import InputError
from monai_transfer.predict.geometry import NotSeparable, grid_map
from monai_transfer.predict.slabs import ANSWERS, NoSingleOutput, SlabPlan, Windows, segment
from monai_transfer.testtime.flips import FlipInferer, Flips

__all__ = ["AsRead", "NotInSlabs", "SlabInferer", "put_in_slabs"]

logger = logging.getLogger("monai_transfer")
_GIB = 2**30
_FLIPS = f"{FlipInferer.__module__}.{FlipInferer.__name__}"
_AT_LEAST = 4
"""Windows at once on a CPU: one alone falls into a slow kernel, and the labels do not depend on it."""


class NotInSlabs(Exception):
    """This network or image has to go the bundle's own way."""


def put_in_slabs(parser: Any, classes: int | None, limit: int | None, bf16: bool = False) -> bool:
    """Change a parsed inference config; whether it could be.

    Args:
        parser: the config's parser, whose ``dataset`` is a ``ReadableItems``.
        classes: channels of the network's output, where the metadata say so.
        limit: bytes that may be taken.
        bf16: run the network in bfloat16.
    """
    config = parser.config
    inferer, post = config.get("inferer"), config.get("postprocessing")
    inferer, flips = _without_flips(inferer)
    if not classes or classes < 2 or not isinstance(inferer, dict) or not isinstance(post, dict):
        return False
    if _name(inferer) not in ("SlidingWindowInferer", "SlidingWindowInfererAdapt"):
        return False
    steps = post.get("transforms")
    found = _labelling(steps) if isinstance(steps, list) and _name(post) == "Compose" else None
    if found is None:
        return False
    first, last, softmax, nearest = found
    assert isinstance(steps, list)
    own = f"{__name__}."
    parser["inferer"] = {
        "_target_": own + SlabInferer.__name__,
        "inner": inferer,
        "dataset": "@dataset",
        "classes": classes,
        "softmax": softmax,
        "nearest": nearest,
        "limit": limit,
        "bf16": bf16,
        "flips": flips,
    }
    parser["postprocessing"] = {
        **post,
        "transforms": [*steps[:first], {"_target_": own + AsRead.__name__, "keys": "pred"}, *steps[last + 1 :]],
    }
    return True


def _without_flips(inferer: Any) -> tuple[Any, dict[str, Any] | None]:
    """The inferer inside a ``FlipInferer``, and what that one was given."""
    if not isinstance(inferer, dict) or inferer.get("_target_") != _FLIPS:
        return inferer, None
    return inferer.get("inferer"), {key: inferer[key] for key in ("axes", "pairs") if key in inferer}


def _name(step: Any) -> str:
    target = str(step.get("_target_", "")) if isinstance(step, dict) else ""
    if target.rpartition(".")[0] not in ("", "monai.transforms", "monai.inferers", "monai.inferers.inferer"):
        return ""
    return target.rpartition(".")[2]


def _labelling(steps: list[Any]) -> tuple[int, int, bool, bool] | None:
    """The first and last step of those from scores to labels, whether probabilities are interpolated, and how."""
    seen: dict[str, int] = {}
    for number, step in enumerate(steps):
        if not isinstance(step, dict) or "_disabled_" in step or step.get("keys") not in ("pred", ["pred"]):
            return None
        name = _name(step).removesuffix("D").removesuffix("Dict").removesuffix("d")
        options = {key for key, value in step.items() if value not in (None, False, [False])} - {"_target_", "keys"}
        if name == "Invert":
            if options - {"transform", "orig_keys", "to_tensor", "nearest_interp"} or step.get("orig_keys") != "image":
                return None
            if step.get("transform") != "@preprocessing":
                return None
        elif name == "AsDiscrete":
            if options != {"argmax"}:
                return None
        elif name == "Activations":
            if options != {"softmax"}:
                return None
        else:
            return None
        seen[name] = number
        if {"Invert", "AsDiscrete"} <= seen.keys():
            nearest = steps[seen["Invert"]].get("nearest_interp", True) is not False
            if seen["AsDiscrete"] < seen["Invert"] and not nearest:
                return None  # class numbers would be averaged
            before = "Activations" in seen and seen["Activations"] < seen["Invert"]
            return 0, number, before and not nearest, nearest
    return None


class AsRead(MapTransform):
    """Give labels the geometry and the name of the image as it was read."""

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """``image`` is a prepared one, whose metadata say how it was read."""
        content = dict(data)
        image = content["image"]
        for key in self.key_iterator(content):
            meta = dict(image.meta)
            affine = torch.as_tensor(meta.get("original_affine", image.affine), dtype=torch.float64)
            values = content[key]
            values = values.as_tensor() if isinstance(values, MetaTensor) else values
            meta["affine"] = affine
            content[key] = MetaTensor(values, meta=meta, applied_operations=[])
        return content


class SlabInferer(Inferer):
    """Stands where the bundle's sliding window stood; its output are labels on the grid of the image as it was read.

    Args:
        inner: the bundle's own sliding window.
        dataset: a ``ReadableItems``, which holds the image that is in work.
        classes, softmax, nearest: see ``segment``.
        limit: bytes that may be taken; by default four fifths of what is free.
        bf16: run the network in bfloat16.
        flips: what ``Flips`` takes: each window is then seen through its mirror images.
    """

    def __init__(
        self,
        inner: Inferer,
        dataset: Any,
        classes: int,
        softmax: bool = False,
        nearest: bool = False,
        limit: int | None = None,
        bf16: bool = False,
        flips: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.flips = Flips(**flips) if flips else None
        self.inner, self.dataset, self.classes = inner, dataset, classes
        self.softmax, self.nearest, self.limit, self.bf16 = softmax, nearest, limit, bf16

    def windows(self, shape: tuple[int, ...]) -> Windows:
        """The bundle's windows on an image of this shape.

        Raises:
            NotInSlabs: they have something that slabs do not.
        """
        inner = self.inner
        if type(inner) not in (SlidingWindowInferer, SlidingWindowInfererAdapt):
            raise NotInSlabs
        size = tuple(int(n) for n in fall_back_tuple(inner.roi_size, shape))
        if len(size) != len(shape) or getattr(inner, "with_coord", False):
            raise NotInSlabs
        overlap = inner.overlap if isinstance(inner.overlap, (list, tuple)) else [inner.overlap] * len(size)
        return Windows(
            size,
            int(inner.sw_batch_size),
            tuple(float(o) for o in overlap),
            str(getattr(inner.mode, "value", inner.mode)),
            inner.sigma_scale if isinstance(inner.sigma_scale, float) else 0.125,
            str(getattr(inner.padding_mode, "value", inner.padding_mode)),
            float(inner.cval),
            ANSWERS + (self.flips is not None),
        )

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Labels, 1 x 1 x spatial of the image as it was read."""
        image = self.dataset.sample["image"]
        windows = self.windows(tuple(image.shape[1:]))
        device = inputs.device
        if device.type == "cpu" and windows.batch < _AT_LEAST:
            windows = Windows(**{**windows.__dict__, "batch": _AT_LEAST})
        try:
            shape = grid_map(image, self.nearest).shape
            limit = self.limit or int(0.8 * free_bytes(torch.device("cpu")))
            plan = SlabPlan.make(image.shape[1:], shape, self.classes, windows, limit)
            advise(plan, self.classes, shape, limit, asked=self.limit is not None)
            with torch.inference_mode(), self._precision(device):
                labels = segment(
                    image,
                    _channels_last(network if self.flips is None else self.flips.wrap(network), len(windows.size)),
                    windows,
                    classes=self.classes,
                    softmax=self.softmax,
                    nearest=self.nearest,
                    device=device,
                    limit=limit,
                )
        except (NotSeparable, NoSingleOutput) as error:
            raise NotInSlabs from error
        return labels[None]

    def _precision(self, device: torch.device) -> Any:
        return torch.autocast(device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()


def advise(plan: SlabPlan, classes: int, shape: tuple[int, ...], limit: int, asked: bool) -> None:
    """Say what a large image will take, before it is begun.

    Raises:
        InputError: it does not fit, not even in the smallest parts.
    """
    size = " x ".join(map(str, shape))
    if plan.total > limit:
        raise InputError(
            f"{classes} classes of {size} need {plan.total / _GIB:.1f} GiB beside the network, in the smallest parts; "
            f"{'--max-memory allows' if asked else 'there are'} {limit / _GIB:.1f} GiB",
            hint="allow more, or use a bundle of coarser spacing or smaller windows",
        )
    if plan.whole > _GIB:
        rounding = ", sums in half precision" if plan.dtype == torch.float16 else ""
        logger.warning(
            "%d classes of %s: about %.1f GiB beside the network (%d windows at once%s); at once it were %.0f GiB",
            classes, size, plan.total / _GIB, plan.batch, rounding, plan.whole / _GIB,
        )  # fmt: skip


def _channels_last(network: nn.Module, dims: int) -> Callable[[Tensor], Any]:
    """The network with its weights and windows laid out with the channels last: the same numbers, sooner."""
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}.get(dims)
    if layout is None or not isinstance(network, nn.Module):
        return network
    network.to(memory_format=layout)  # type: ignore[call-overload]
    return lambda batch: network(batch.contiguous(memory_format=layout))
