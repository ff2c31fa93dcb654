"""What an arm of the user's own is, in a clause: by what its run's record and configuration say that it did."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_transfer.arm_names import arm_name
from monai_transfer.errors import InputError
from monai_transfer.safe_parse import read_config

if TYPE_CHECKING:
    from monai_transfer.report.run import Run

__all__ = ["describe_run"]


def describe_run(run: Run) -> str:
    """The clause; a method's own words where its arm brought some.

    Args:
        run: one of the arm's.
    """
    record = run.record
    if record.get("about"):
        return str(record["about"])
    if isinstance(record.get("auto"), dict):
        taken = arm_name(str(record["auto"].get("taken")))
        return f"chose among the ways by itself, before any test case was seen; with this seed: {taken}"
    workflow = record.get("workflow")
    if workflow == "evaluate":
        return "weights as they are, nothing is trained"
    fresh = str(record.get("pretrained") or "none").lower() == "none"
    start = "starts from random weights" if fresh else "starts from the source model"
    if workflow == "adapt":
        method = _name(record.get("method"))
        how = (
            f"adapted with target scans that have no labels, by {method}" if method else "adapted without target labels"
        )
    else:
        how = "trained on the labelled target cases"
        how += " and, in each batch as many, on the source's" if record.get("joint") else ""
        config = _config(run.folder)
        more = [_strategy(config.get("strategy")), _term(config.get("regulariser"))]
        if config.get("average") is not None:
            more.append("averaged with the source when training ends")
        if config.get("ema") is not None:
            more.append("a running average of the weights is handed on")
        how += "".join(f"; {words}" for words in more if words)
    return f"{start}, {how}"


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    try:
        content = read_config(path) if path.is_file() else {}
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}


def _name(path: Any) -> str:
    """``monai_transfer.methods.mean_teacher.MeanTeacher`` as ``mean teacher``; the class's words elsewhere."""
    last = str(path).rsplit(".", 1)[-1] if path else ""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", last).lower()


def _strategy(config: Any) -> str:
    name = _name(config.get("_target_")) if isinstance(config, dict) else ""
    return "" if name in ("", "full", "strategy") else f"strategy {name}"


def _term(config: Any) -> str:
    name = _name(config.get("_target_")) if isinstance(config, dict) else ""
    return f"held to the source by {name}" if name else ""
