"""Arguments that several commands share, and lists of numbers as they are typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monai_transfer.errors import InputError

__all__ = ["BundleFolder", "RunFolder", "number_list", "whole_number_list"]

BundleFolder = Annotated[Path, typer.Argument(help="Bundle folder. Using it runs its code.")]
RunFolder = Annotated[Path | None, typer.Option(help="The run whose best weights to use; default the bundle's.")]


def number_list(text: str | None, option: str) -> list[float] | None:
    """``1,1,3`` as numbers; ``None`` stays."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text!r} is not a list of numbers", hint=f"write it like {option} 1,1,3") from None


def whole_number_list(text: str | None, option: str) -> list[int] | None:
    """``64,64,32`` as whole numbers; ``None`` stays."""
    values = number_list(text, option)
    if values is not None and any(value != int(value) for value in values):
        raise InputError(f"{option} {text!r} is not a list of whole numbers", hint=f"write it like {option} 64,64,32")
    return None if values is None else [int(value) for value in values]
