"""Networks of MONAI that no bundle of ours can train, by name: their outputs are no scores of an image alone."""

from __future__ import annotations

from pathlib import Path

from monai_transfer.errors import InputError

__all__ = ["refuse_unsuited"]

_PROMPTS = (
    "answers prompts (points, class vectors), and to an image alone it says nothing",
    "its image encoder is a source: --source with its weights file, whose encoder is found by its names",
)
_UNSUITED = {
    "vista3d": _PROMPTS,
    "vista3d132": _PROMPTS,
    "hovernet": (
        "gives a dictionary of outputs, not class scores",
        "wrap it in a class of your own that returns the one to learn from",
    ),
}


def refuse_unsuited(target: str, path: str | Path | None = None) -> None:
    """Refuse a network by its class or function, as a config names it.

    Args:
        target: a full path or a name.
        path: of the source, for the error.

    Raises:
        InputError: it is one of these, with what can be done.

    >>> refuse_unsuited("monai.networks.nets.UNet")
    >>> refuse_unsuited("monai.networks.nets.VISTA3D")
    Traceback (most recent call last):
        ...
    monai_transfer.errors.InputError: VISTA3D answers prompts (points, class vectors), ...
    """
    name = target.rpartition(".")[2]
    found = _UNSUITED.get(name.lower())
    if found is not None and ("." not in target or target.startswith("monai.")):
        raise InputError(f"{name} {found[0]}", path=path, hint=found[1])
