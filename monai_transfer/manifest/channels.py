"""Cases that lack a channel: refused, left out, or kept with the channel declared missing.

A missing channel is declared by its number (``missing: [1]`` in the manifest) and its place in ``image`` holds another
file of the case, so that any loader reads as many files; :class:`monai_transfer.data.missing.ZeroMissingd` makes zeros
of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_transfer.errors import InputError
from monai_transfer.manifest.layouts.base import RawCase, count

__all__ = ["POLICIES", "channel_of", "settle_missing", "with_missing"]

POLICIES = ("refuse", "leave-out", "zeros")


def channel_of(name: str, channels: Sequence[str], *, any_case: bool = False) -> tuple[str, str] | None:
    """Case and channel of a file by its name without suffix, where that ends in a channel's name or is one.

    Args:
        name: ``P1_t1`` is the channel ``t1`` of ``P1``; ``t1`` that of the folder's only case, ``""``.
        channels: their names; of two that fit, the longer one.
        any_case: ``T1`` and ``t1`` are one.

    >>> channel_of("P1_t1ce", ["t1", "t1ce"]), channel_of("P1-T1", ["t1"]), channel_of("P1-T1", ["t1"], any_case=True)
    (('P1', 't1ce'), None, ('P1', 't1'))
    """
    flags = re.IGNORECASE if any_case else 0
    for channel in sorted(channels, key=len, reverse=True):
        match = re.fullmatch(rf"(?:(.*?)[_\-. ]+)?{re.escape(channel)}", name, flags)
        if match:
            return match[1] or "", channel
    return None


def with_missing(case: RawCase, parts: Mapping[str, Path], channels: Sequence[str]) -> RawCase:
    """The case with one file for every channel: a stand-in where ``parts`` has none, whose number is noted."""
    if not channels or not parts:
        return case
    first = next(iter(parts.values()))
    case.images = [parts.get(channel, first) for channel in channels]
    case.missing = [number for number, channel in enumerate(channels) if channel not in parts]
    return case


def settle_missing(
    cases: Sequence[RawCase], names: Sequence[str], policy: str, folder: Path, notes: list[str]
) -> list[RawCase]:
    """The cases to keep, of which some may lack a channel.

    Args:
        cases: all cases, with ``missing`` set.
        names: of the channels.
        policy: ``refuse``, ``leave-out`` or ``zeros``.
        folder: for the error.
        notes: receives what was done.

    Raises:
        InputError: a case lacks a channel and that is to be refused, or no such policy.
    """
    if policy not in POLICIES:
        raise InputError(f"--missing-channels {policy!r} is no policy", hint=f"one of {', '.join(POLICIES)}")
    lacking = [case for case in cases if case.missing]
    if not lacking:
        return list(cases)
    by_channel = {name: sum(number in case.missing for case in lacking) for number, name in enumerate(names)}
    shown = ", ".join(f"{name} in {n}" for name, n in by_channel.items() if n)
    what = f"{count(len(lacking), 'case')} without every channel (missing: {shown}), first {lacking[0].key}"
    if policy == "refuse":
        hint = "--missing-channels leave-out leaves them out, zeros keeps them with the channel declared missing"
        raise InputError(what, path=folder, hint=hint)
    notes.append(f"{what}: {'left out' if policy == 'leave-out' else 'kept, the channel declared missing'}")
    return [case for case in cases if not case.missing] if policy == "leave-out" else list(cases)
