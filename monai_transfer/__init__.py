"""Transfer learning for medical imaging on MONAI."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from monai_transfer import _moved

__version__ = "0.2.0"
__all__ = [
    "Adapt",
    "AdaptLoss",
    "LightningAdapt",
    "Manifest",
    "MethodStep",
    "Source",
    "WeightReport",
    "compare_runs",
    "load_weights",
]

if TYPE_CHECKING:
    from monai_transfer.engine.adapt import Adapt
    from monai_transfer.engine.adapt_loss import AdaptLoss
    from monai_transfer.engine.lightning import LightningAdapt
    from monai_transfer.engine.method_step import MethodStep
    from monai_transfer.manifest import Manifest
    from monai_transfer.report.compare import compare_runs
    from monai_transfer.weights import Source, WeightReport, load_weights

_moved.install()

_HOMES = {
    "Adapt": "monai_transfer.engine.adapt",
    "AdaptLoss": "monai_transfer.engine.adapt_loss",
    "LightningAdapt": "monai_transfer.engine.lightning",
    "MethodStep": "monai_transfer.engine.method_step",
    "Manifest": "monai_transfer.manifest",
    "Source": "monai_transfer.weights",
    "WeightReport": "monai_transfer.weights",
    "compare_runs": "monai_transfer.report.compare",
    "load_weights": "monai_transfer.weights",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: importing torch and MONAI takes seconds."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
