"""Helpers that every builder uses: a component by its class, and the ids that all configs share."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr, quoted

__all__ = ["amp", "device", "image_keys", "in_bundle", "monai", "ours", "told"]


def monai(name: str, /, **arguments: Any) -> dict[str, Any]:
    """A component of MONAI: ``monai("transforms.Orientationd", keys=["image"], axcodes="RAS")``."""
    return {"_target_": f"monai.{name}", **arguments}


def ours(name: str, /, **arguments: Any) -> dict[str, Any]:
    """A component of this package."""
    return {"_target_": f"monai_transfer.{name}", **arguments}


def image_keys(s: BundleSpec) -> list[str]:
    """The keys of a training item that hold images."""
    return ["image", "label"] if s.dense else ["image"]


def told(s: BundleSpec) -> dict[str, str]:
    """The task, for methods, where a first batch need not tell that outputs do not exclude each other."""
    return {"task": s.task} if s.kind.independent else {}


def in_bundle(path: str) -> Any:
    """A file in the bundle, as an expression."""
    return expr(f"os.path.join(@bundle_root, {', '.join(map(quoted, path.split('/')))})")


def device() -> Any:
    """Where it runs; a string (``--device cpu``, MONAI Label's) does as well."""
    chosen = {"_target_": "torch.device", "device": expr("'cuda' if torch.cuda.is_available() else 'cpu'")}
    return note(chosen, "or a word: --device cpu")


def amp() -> Any:
    """Mixed precision by MONAI's engines, which know CUDA alone."""
    return note(expr("'cuda' in str(@device)"), "float16 where it is safe; CUDA alone")
