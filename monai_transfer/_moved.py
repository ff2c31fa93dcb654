"""Old import paths, which work for one more version: a module that moved is found at its new place, with a warning.

Old bundles and run folders name classes by their full path, so a path in a config keeps working too.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["MOVED", "install"]

_EVALUATION = "domain_features domain_picture overlay patients recorder reconstruction summary unlabelled_scores"
_INSPECTION = "case check finding labels pool run_statistics sets suitability worker"

MOVED = {
    **{f"report.{name}": f"evaluation.{name}" for name in _EVALUATION.split()},
    **{f"manifest.inspection.{name}": f"inspection.{name}" for name in _INSPECTION.split()},
    "manifest.inspection": "inspection",
    "manifest.inspection.mends": "inspection.fixes",
    "manifest.check_command": "inspection.command",
    "report.metrics": "metrics",
    "report.localization_metrics": "metrics.boxes",
    "report.truth_table": "study.truth_table",
    "bundle.predict": "predict.images",
    "bundle.predict_inputs": "predict.inputs",
    "bundle.predict_items": "predict.items",
    "bundle.predict_seg": "predict.dicom_seg",
    "bundle.study": "study.run_arms",
    "bundle.trials": "study.method_arms",
    "bundle.pool": "study.pool",
    "bundle.leave_one_site_out": "study.leave_one_site_out",
    "methods.translation": "data.translation",
    "methods.mil": "networks.mil",
    "selection.sides": "selection.two_samples",
    "quiet": "library_logging",
}
"""Old module to new module, below this package; in force until version 0.3."""

_PACKAGE = __name__.rpartition(".")[0]


class _Alias(Loader):
    """Gives the module at its new place under the old name."""

    def __init__(self, new: str) -> None:
        self.new = new
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.new)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has been executed under its new name, which it keeps."""
        module.__spec__ = self._spec


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, old = fullname.partition(".")
        if package != _PACKAGE or old not in MOVED:
            return None
        new = f"{_PACKAGE}.{MOVED[old]}"
        warnings.warn(f"{fullname} is now {new}; the old path leaves with version 0.3", DeprecationWarning, 2)
        return ModuleSpec(fullname, _Alias(new), is_package=old == "manifest.inspection")


def install() -> None:
    """Let Python look up old paths, ahead of its own search (an old package's folder is the new one's); once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
