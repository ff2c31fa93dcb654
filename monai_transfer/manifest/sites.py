"""Which site a case comes from: the user's word, a table, the layout, or nothing known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from monai_transfer.errors import InputError
from monai_transfer.manifest.layouts.base import RawCase, count

__all__ = ["default_sites", "given_sites", "require"]


def given_sites(
    folders: Sequence[tuple[str, Sequence[RawCase]]], site: str | Sequence[str] | None, output: Path, notes: list[str]
) -> None:
    """Give every case its site, in place: what the user says (one, or one per folder), else what the layout says.

    Raises:
        InputError: neither one site nor one per folder.
    """
    given = [site] if isinstance(site, str) else list(site or [])
    if given and len(given) not in (1, len(folders)):
        raise InputError(
            f"{len(given)} sites were given for {len(folders)} folders", hint="give one, or one per folder"
        )
    given = given * len(folders) if len(given) == 1 else given
    for i, (folder, cases) in enumerate(folders):
        for case in cases:
            if given:
                case.site = given[i]
            elif case.site:
                case.site = _beside(case.site, output, notes)
            elif len(folders) > 1:
                case.site = _beside(folder, output, notes)


def require(cases: Sequence[RawCase], meaning: str) -> None:
    """Hold that every case has a ``meaning`` (``patient``, ``site``) after a table was joined.

    Raises:
        InputError: one has none.
    """
    missing = [case.key for case in cases if not getattr(case, meaning)]
    if missing:
        hint = f"fill the column, or give {'--site' if meaning == 'site' else '--patient-regex'}"
        raise InputError(
            f"the table gives no {meaning} for {count(len(missing), 'case')}, first {missing[0]}", hint=hint
        )


def default_sites(cases: Sequence[RawCase], output: Path, notes: list[str]) -> None:
    """Call the site of cases that have none ``unknown``, in place, and say so."""
    if any(not case.site for case in cases):
        default = _beside("unknown", output, notes)
        notes.append(f"no site was given: called {default!r}; name it with --site")
        for case in cases:
            case.site = case.site or default


def _beside(wanted: str, output: Path, notes: list[str]) -> str:
    """``wanted``, or ``site_<wanted>`` where a path of that name lies beside the output.

    MONAI's Decathlon loader would turn such a text into the path. For derived names only; a name that the user gave is
    refused on writing instead.
    """
    if not os.path.lexists(output.parent / wanted):
        return wanted
    note = f"site {wanted!r} written as 'site_{wanted}': a path of its name lies beside the manifest"
    if note not in notes:
        notes.append(note)
    return f"site_{wanted}"
