"""The plan of dense tasks (an output for every voxel): spacing, patch, levels, network, batch, oversampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monai_transfer.bundle.fit import DataFit
from monai_transfer.bundle.planning.memory import needed
from monai_transfer.bundle.planning.networks import DENSE, choose_name
from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.bundle.planning.size import Size
from monai_transfer.bundle.planning.spacing import coarsened
from monai_transfer.bundle.planning.topology import Topology, fitted_patch, topology

__all__ = ["DensePlan", "plan_dense"]

_BATCH = {2: 8, 3: 4}
_RARE = 10.0


@dataclass
class DensePlan:
    """What was planned.

    Attributes:
        spacing: mm per axis (pixels of files without geometry), or ``None``: images stay as they are.
        patch: voxels per axis.
        network: its config, or the given one.
        batch_size: patches per step.
        crops: ``random``, ``foreground`` (every other patch about a voxel of it) or ``classes`` (each class as often).
    """

    spacing: list[float] | None
    patch: list[int]
    network: dict[str, Any]
    batch_size: int
    crops: str


def plan_dense(
    fit: DataFit,
    outputs: int,
    size: Size,
    reasons: Reasons,
    *,
    spacing: Sequence[float] | None = None,
    patch: Sequence[int] | None = None,
    patch_from: str = "as asked",
    network: dict[str, Any] | None = None,
    unit: int = 1,
    name: str | None = None,
    residual: bool = False,
    batch_size: int | None = None,
) -> DensePlan:
    """Plan for a fingerprint.

    Args:
        fit: what the images have in common.
        outputs: of the network.
        size: what the network may use.
        reasons: where the reasons go.
        spacing, patch, batch_size, name: what the user asked for; else planned. ``name``: a network of ``DENSE``.
        patch_from: whose patch it is, in words.
        residual: a DynUNet with residual blocks.
        network, unit: a source's network and what patches must be multiples of; else planned.
    """
    dims = fit.spatial_dims
    own = fit.spacing or [1.0] * dims
    voxels = math.prod(patch) if patch else size.voxels[dims]
    if spacing is None:
        found, why = coarsened(own, fit.shape, voxels, fit.smallest)
        spacing = reasons.add("spacing", found, why)
    else:
        reasons.add("spacing", list(spacing), "as asked, or the source's")
    shape = [max(1, round(n * old / new)) for n, old, new in zip(fit.shape, own, spacing, strict=True)]
    chosen, built, batch = _fit_memory(
        fit, outputs, size, reasons, shape, spacing, patch, patch_from, network, unit, name, residual, batch_size
    )
    kept = None if list(spacing) == own and fit.spacing is None else list(spacing)
    return DensePlan(kept, chosen, built, batch, _crops(fit, chosen, shape, reasons))


def _fit_memory(
    fit: DataFit,
    outputs: int,
    size: Size,
    reasons: Reasons,
    shape: Sequence[int],
    spacing: Sequence[float],
    patch: Sequence[int] | None,
    patch_from: str,
    network: dict[str, Any] | None,
    unit: int,
    name: str | None,
    residual: bool,
    batch_size: int | None,
) -> tuple[list[int], dict[str, Any], int]:
    """The largest patch and batch whose step stays within the size's memory, and the network for it."""
    dims, voxels = fit.spatial_dims, size.voxels[fit.spatial_dims]
    batch = batch_size or _BATCH[dims] * max(1, min(2, voxels // math.prod(shape)))  # more of small images
    while True:
        wanted = list(patch) if patch else fitted_patch(shape, spacing, voxels)
        levels = topology(wanted, spacing, size.levels)
        units = [unit] * dims if network is not None else levels.unit
        whole = wanted if patch else [max(u, math.ceil(n / u - 0.25) * u) for n, u in zip(wanted, units, strict=True)]
        kind, why = choose_name(name, levels, residual) if network is None else ("", "")
        more = {"residual": True} if residual else {}
        built = network if network is not None else DENSE[kind](levels, dims, fit.channels, outputs, size, **more)
        need = needed(built, batch, fit.channels, whole)
        if need is None or need <= size.memory or (batch <= 2 and (patch or math.prod(whole) <= 8 * math.prod(units))):
            break
        if batch > 2 and batch_size is None:
            batch //= 2
        elif patch:
            break
        else:
            voxels = int(voxels * 0.8)
    _explain(reasons, size, levels, patch_from if patch else "", whole, batch_size, batch, need, network, kind, why)
    return whole, built, batch


def _explain(
    reasons: Reasons,
    size: Size,
    levels: Topology,
    patch_from: str,
    whole: list[int],
    batch_size: int | None,
    batch: int,
    need: float | None,
    network: dict[str, Any] | None,
    kind: str,
    why: str,
) -> None:
    limit = f"size {size.name}: at most {size.voxels[len(whole)]} voxels"
    reasons.add("patch", whole, patch_from or f"{limit}, a cube in mm as far as the median image reaches")
    step = "" if need is None else f"; a step needs at least {need:.2g} GiB of {size.memory:g}"
    reasons.add("batch_size", batch, ("as asked" if batch_size else "as many as the size's memory holds") + step)
    if network is not None:
        reasons.add("network", network["_target_"].rsplit(".", 1)[-1], "the source's")
        return
    reasons.add("network", kind, why)
    least = [n // u for n, u in zip(whole, levels.unit, strict=True)]
    reasons.add(
        "strides",
        levels.strides[1:],
        f"an axis is halved while its voxels are finer than twice the finest and 4 are left; bottleneck {_by(least)}",
    )


def _by(values: Sequence[int]) -> str:
    return " x ".join(map(str, values))


def _crops(fit: DataFit, patch: Sequence[int], shape: Sequence[int], reasons: Reasons) -> str:
    """How patches are placed."""
    if all(p >= 0.8 * s for p, s in zip(patch, shape, strict=True)):
        return str(reasons.add("crops", "random", "a patch covers nearly the whole median image"))
    sizes = fit.sizes
    if len(sizes) > 1 and max(sizes.values()) >= _RARE * min(sizes.values()):
        rare = min(sizes, key=lambda key: sizes[key])
        why = f"{rare} fills less than a {_RARE:g}th of the largest class: patches about each class as often"
        return str(reasons.add("crops", "classes", why))
    return str(
        reasons.add("crops", "foreground", "every other patch about a voxel of foreground, as nnU-Net oversamples it")
    )
