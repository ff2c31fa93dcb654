"""Cases that lack a channel: left out, or trained with zeros in its place and dropout of channels."""

from __future__ import annotations

from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest

__all__ = ["POLICIES", "plan_missing_channels"]

POLICIES = ("auto", "leave-out", "zeros")
_DROPOUT = 0.25


def plan_missing_channels(
    data: Manifest, channels: int, policy: str, dropout: float | None, reasons: Reasons
) -> tuple[float, str]:
    """The probability of dropping a channel in training, and what becomes of cases that lack one, for ``DataLists``.

    Args:
        data: the manifest.
        channels: of an image.
        policy: ``leave-out``; ``zeros``; ``auto``: zeros where the manifest declares missing channels.
        dropout: as asked; ``None``: a quarter with zeros, else none.
        reasons: what ``new`` says.

    Raises:
        InputError: no such policy, a probability outside [0, 1), dropout of a single channel, or no case is left.
    """
    if policy not in POLICIES:
        raise InputError(f"--missing-channels {policy!r} is no policy", hint=f"one of {', '.join(POLICIES)}")
    if dropout is not None and not 0 <= dropout < 1:
        raise InputError(f"--channel-dropout is {dropout:g}", hint="give a probability from 0 to below 1")
    if channels < 2 and (dropout or policy == "zeros"):
        raise InputError(
            "the images have one channel, which cannot be left out",
            path=data.path,
            hint="leave out --missing-channels and --channel-dropout",
        )
    every = [case for split in ("training", "validation", "test", "unlabeled") for case in data.cases(split)]
    lacking = [case for case in every if case.missing]
    count = f"{len(lacking)} of {len(every)} cases lack a channel"
    if policy == "leave-out":
        if not data.complete().cases("training"):
            raise InputError(f"{count}, and no training case is left", path=data.path, hint="--missing-channels zeros")
        if lacking:
            reasons.add("missing_channels", "left out", f"{count}; as asked")
        lacking = []
    if dropout == 0 and lacking:
        hint = "leave --channel-dropout out, or pass --missing-channels leave-out"
        raise InputError(f"{count}, which a network learns to do without by dropout alone", path=data.path, hint=hint)
    share = dropout if dropout is not None else _DROPOUT if lacking or policy == "zeros" else 0.0
    if share:
        why = f"{count}: zeros in its place" if lacking else "as asked"
        reasons.add(
            "channel_dropout", share, f"{why}; training leaves channels out at random, predict takes such cases"
        )
    return share, policy if policy == "leave-out" else "zeros" if share else "refuse"
