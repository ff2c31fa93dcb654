"""What differs between a run that is there and what is asked for now; a longer training of the same is no other run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.safe_parse import read_config

__all__ = ["EPOCHS", "IGNORED", "UNTRAINED", "differences", "epochs_asked", "is_longer"]

EPOCHS = "max_epochs"
# where it is written and how it is called decide nothing of the result, and neither does what an hour's steps were
IGNORED = {"output_dir", "fresh", "bundle_root", "run", "initialize", "finalize", "arm", "cache_dir", "budget"}
UNTRAINED = ("evaluate", "infer")


def _deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that decides the result, in plain types as ``config.yaml`` keeps them."""
    return {key: _as_written(value) for key, value in config.items() if key not in IGNORED}


def _as_written(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_written(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_written(one) for one in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _kept(folder: str | Path) -> dict[str, Any] | None:
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        return None
    try:
        content = read_config(path)
    except InputError:
        return None
    return content if isinstance(content, dict) else None


def differences(folder: str | Path, config: Mapping[str, Any]) -> list[str] | None:
    """The root ids in which a config differs from that of the run in ``folder``; ``None`` where that is not known."""
    kept = _kept(folder)
    if kept is None:
        return None
    before, now = _deciding(kept), _deciding(config)
    return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))


def epochs_asked(folder: str | Path) -> int | None:
    """The epochs that the run in ``folder`` was asked for, where its config says a number."""
    value = (_kept(folder) or {}).get(EPOCHS)
    return value if isinstance(value, int) else None


def is_longer(folder: str | Path, config: Mapping[str, Any]) -> bool:
    """Whether a config asks for the training in ``folder``, and for more epochs of it.

    Args:
        folder: of the run.
        config: what is asked for, as the parser holds it.
    """
    before, now = epochs_asked(folder), config.get(EPOCHS)
    if config.get("workflow") in UNTRAINED or not isinstance(now, int) or before is None:
        return False
    return now > before and differences(folder, config) == [EPOCHS]
