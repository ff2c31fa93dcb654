"""Tables in which a case has several findings: a column for each (CheXpert's), or one cell that lists them (NIH's)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monai_transfer.errors import InputError, closest
from monai_transfer.manifest.layouts.base import RawCase
from monai_transfer.manifest.table import USUAL, Table

__all__ = ["find_finding_columns", "row_findings", "split_lists"]

_MEANING = {"1": 1, "0": 0, "-1": -1, "": None, "true": 1, "false": 0, "yes": 1, "no": 0, "nan": None, "na": None}
_NONE = ("no finding", "no findings", "normal", "none")
_POLICY = {"ignore": None, "positive": 1, "negative": 0}


def find_finding_columns(table: Table, asked: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """The columns that are findings: those asked for, else all (two or more) that hold only 1, 0, -1 and nothing.

    Args:
        table: the table.
        asked: names that the user gave; empty: look for them.
        taken: columns of another meaning.

    Raises:
        InputError: a column that was asked for is not there.
    """
    if asked:
        for name in asked:
            if name not in table.columns:
                raise InputError(f"has no column {name!r}", path=table.path, hint=closest(name, table.columns))
        return list(asked)
    usual = {name for meaning, names in USUAL.items() if meaning != "label" for name in names}
    found = []
    for name in table.columns:
        cells = {_comparable(row[name]) for row in table.rows}
        if name not in taken and name.lower() not in usual and cells <= set(_MEANING) and cells & {"1", "true", "yes"}:
            found.append(name)
    return found if len(found) > 1 else []


def row_findings(
    row: Mapping[str, str], columns: Sequence[str], uncertain: str = "ignore", unmentioned: str = "ignore"
) -> dict[str, int | None] | None:
    """The findings in a row: 1, 0, or ``None`` where nothing is known; ``None`` where the whole row says nothing.

    A column like ``No Finding`` is no finding of its own: where it is 1, what is not mentioned is absent.

    Args:
        row: cells by column.
        columns: the finding columns.
        uncertain: what -1 means: ``ignore`` (unknown), ``positive`` or ``negative``.
        unmentioned: what an empty cell means: ``ignore`` or ``negative``.

    Raises:
        InputError: a cell is none of 1, 0, -1 and empty, or a policy is none.

    Example:
        >>> row_findings({"Edema": "1.0", "Mass": "-1", "Nodule": ""}, ["Edema", "Mass", "Nodule"])
        {'Edema': 1, 'Mass': None, 'Nodule': None}
    """
    for option, policy, known in (
        ("--uncertain", uncertain, tuple(_POLICY)),
        ("--unmentioned", unmentioned, ("ignore", "negative")),
    ):
        if policy not in known:
            raise InputError(f"{option} {policy!r} is no policy", hint=f"one of {', '.join(known)}")
    values: dict[str, int | None] = {}
    for name in columns:
        cell = _comparable(row[name])
        if cell not in _MEANING:
            hint = "a finding's column holds 1, 0, -1 (uncertain) or nothing; name the right ones with --findings"
            raise InputError(f"column {name!r} holds {row[name]!r}", hint=hint)
        values[name] = _MEANING[cell]
    clear = any(values[name] == 1 for name in columns if name.lower() in _NONE)
    kept = {name: value for name, value in values.items() if name.lower() not in _NONE}
    if not clear and all(value is None for value in kept.values()) and unmentioned == "ignore":
        return None
    empty = 0 if clear or unmentioned == "negative" else None
    return {name: empty if v is None else _POLICY[uncertain] if v == -1 else v for name, v in kept.items()}


def split_lists(cases: Sequence[RawCase]) -> bool:
    """Turn labels that list findings (``Edema|Mass``, ``No Finding``) into findings, in place; whether there were any.

    A finding that a case does not list is absent there.
    """
    texts = [case.label for case in cases if isinstance(case.label, str)]
    if not any("|" in text for text in texts):
        return False
    names = sorted({part.strip() for text in texts for part in text.split("|")} - {""})
    names = [name for name in names if name.lower() not in _NONE]
    for case in cases:
        if isinstance(case.label, str):
            listed = {part.strip() for part in case.label.split("|")}
            case.label = {name: int(name in listed) for name in names}
    return True


def _comparable(cell: str) -> str:
    text = cell.strip().lower()
    return text.removesuffix(".0") if text.removeprefix("-").replace(".", "", 1).isdigit() else text
