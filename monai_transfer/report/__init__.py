"""What transfer brought: per-case metrics, intervals, the verdict, one HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_transfer.report.compare import TransferReport, compare_runs
    from monai_transfer.report.run import Run

__all__ = ["Run", "TransferReport", "compare_runs"]


def __getattr__(name: str) -> Any:  # metrics and statistics lie on a lower floor: importing them imports no more
    if name == "Run":
        from monai_transfer.report.run import Run

        return Run
    if name in ("TransferReport", "compare_runs"):
        from monai_transfer.report import compare

        return getattr(compare, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
