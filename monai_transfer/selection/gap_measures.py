"""The measures of a domain gap that need no model: what each takes of a case, and how it is said in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from monai_transfer.manifest.model import Manifest
from monai_transfer.selection.describe import CaseDescription
from monai_transfer.tasks import get_task

__all__ = ["Measure", "measures"]

Kind = Literal["difference", "relative", "wasserstein"]


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name, unit: in words. The unit is that of the gap.
        kind: ``difference`` B - A of means; ``relative`` (geometric) mean of B over that of A, minus 1, in %;
            ``wasserstein`` mean distance of quantile functions, unsigned.
        of_case: a case's values (K); logarithms for ``relative``; NaN where unknown.
        value_unit: unit of the values themselves.
        scale: factor from values to the unit of the gap.

    >>> spacing = Measure("spacing", "%", "relative", lambda case: np.log(case.spacing), "mm")
    >>> a, b = np.log([1.0]), np.log([1.5])  # means over the patients of A and of B
    >>> round(spacing.shown(spacing.gap(a, b)), 1)  # B's voxels are larger by half
    50.0
    """

    name: str
    unit: str
    kind: Kind
    of_case: Callable[[CaseDescription], np.ndarray]
    value_unit: str = ""
    scale: float = 1.0

    @property
    def signed(self) -> bool:
        """Whether the gap has a direction."""
        return self.kind != "wasserstein"

    def gap(self, a: np.ndarray, b: np.ndarray) -> float:
        """The gap of two sets, from their patients' means; of logarithms for ``relative`` (see ``shown``)."""
        if self.kind == "wasserstein":
            return float(np.mean(np.abs(a - b))) * self.scale
        return float((b - a)[0]) * self.scale

    def shown(self, gap: float) -> float:
        """A gap in its ``unit``."""
        return 100 * float(np.expm1(np.clip(gap, -20, 20))) if self.kind == "relative" else float(gap)

    def sentence(
        self,
        a: np.ndarray,
        b: np.ndarray,
        gap: tuple[float, float, float],
        differs: bool,
        name_a: str,
        name_b: str,
    ) -> str:
        """The gap in plain words."""
        interval = f"{gap[0]:+.3g} {self.unit} [{gap[1]:.3g}, {gap[2]:.3g}]".replace("  ", " ")
        if self.kind == "wasserstein":
            if differs:
                return f"{self.name}: the histograms differ beyond chance by {interval}"
            return f"{self.name}: no difference seen beyond chance ({interval})"
        values = [float(np.exp(v[0])) if self.kind == "relative" else float(v[0]) * self.scale for v in (a, b)]
        unit = self.value_unit or self.unit
        shown = f"{_short_number(values[0])} {unit} in {name_a}, {_short_number(values[1])} {unit} in {name_b}"
        if differs:
            return f"{self.name} is {'higher' if gap[0] > 0 else 'lower'} in {name_b}: {shown} ({interval})"
        return f"{self.name}: no difference seen ({shown}; {interval})"


def measures(
    a: Sequence[CaseDescription], b: Sequence[CaseDescription], manifest_a: Manifest, manifest_b: Manifest
) -> list[Measure]:
    """The measures that make sense for these cases and tasks."""
    found = [
        Measure("intensity distribution", "% of the range", "wasserstein", lambda c: c.quantiles, scale=100),
        Measure("intensity scale", "%", "relative", lambda c: _log(c.scale), "raw units"),
        Measure("contrast", "% of the range", "difference", lambda c: np.array([c.contrast]), scale=100),
        Measure("noise", "% of the range", "difference", lambda c: np.array([c.noise]), scale=100),
    ]
    cases = [*a, *b]
    dims = max(len(case.shape) for case in cases)
    axes = ("left-right", "back-front", "feet-head") if dims == 3 else ("first axis", "second axis")
    in_mm = any(case.spacing for case in cases)
    for i, axis in enumerate(axes if in_mm else ()):
        found.append(Measure(f"spacing {axis}", "%", "relative", _spacing(i), "mm"))
    for i, axis in enumerate(axes):
        extent = _extent(i) if in_mm else _pixels(i)
        found.append(Measure(f"field of view {axis}", "%", "relative", extent, "mm" if in_mm else "pixels"))
    if len({case.channels for case in cases}) > 1:
        found.append(Measure("channels", "channels", "difference", lambda c: np.array([float(c.channels)])))
    share, span = "% of the cases", "% of the range"
    kinds = [get_task(manifest.task).label for manifest in (manifest_a, manifest_b)]
    if all(kind.is_class for kind in kinds):
        for name in sorted({str(case.target) for case in cases if case.target is not None}):
            found.append(Measure(f"prevalence of {name}", share, "difference", _is(name), scale=100))
    elif all(kind.is_number for kind in kinds):
        found.append(Measure("label", "units", "difference", _number))
    elif all(kind.is_path for kind in kinds):
        unit = "ml" if dims == 3 and all(case.spacing for case in cases) else "% of the image"
        for name in sorted({name for case in cases for name in case.sizes}):
            found.append(Measure(f"prevalence of {name}", share, "difference", _has(name), scale=100))
            found.append(Measure(f"size of {name}", "%", "relative", _size(name), unit))
            found.append(
                Measure(f"contrast of {name} to the rest", span, "difference", _label_contrast(name), scale=100)
            )
    return found


OfCase = Callable[[CaseDescription], np.ndarray]


def _log(value: float) -> np.ndarray:
    return np.array([np.log(value) if value > 0 else np.nan])


def _spacing(axis: int) -> OfCase:
    return lambda case: _log(case.spacing[axis] if case.spacing and axis < len(case.shape) else np.nan)


def _extent(axis: int) -> OfCase:
    return lambda case: _log(
        case.shape[axis] * case.spacing[axis] if case.spacing and axis < len(case.shape) else np.nan
    )


def _pixels(axis: int) -> OfCase:
    return lambda case: _log(case.shape[axis] if axis < len(case.shape) else np.nan)


def _is(name: str) -> OfCase:
    return lambda case: np.array([np.nan if case.target is None else float(str(case.target) == name)])


def _has(name: str) -> OfCase:
    return lambda case: np.array([float(case.sizes[name] > 0) if name in case.sizes else np.nan])


def _size(name: str) -> OfCase:
    return lambda case: _log(case.sizes.get(name, np.nan))


def _label_contrast(name: str) -> OfCase:
    return lambda case: np.array([case.label_contrast.get(name, np.nan)])


def _number(case: CaseDescription) -> np.ndarray:
    return np.array([case.target if isinstance(case.target, float) else np.nan])


def _short_number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
