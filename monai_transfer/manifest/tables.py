"""The step that joins tables: a layout's own, then the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from monai_transfer.errors import InputError
from monai_transfer.manifest.finding_columns import find_finding_columns, row_findings
from monai_transfer.manifest.layouts.base import RawCase
from monai_transfer.manifest.options import BuildOptions
from monai_transfer.manifest.reading import Folder
from monai_transfer.manifest.sites import require
from monai_transfer.manifest.table import Table, case_column, find_columns, join
from monai_transfer.tasks import may_have
from monai_transfer.tasks.multilabel import FINDINGS

__all__ = ["join_tables"]


def join_tables(folders: Sequence[Folder], options: BuildOptions, notes: list[str]) -> set[str]:
    """Join the layouts' own tables, then the user's, in place; returns the meanings that came from any.

    Raises:
        InputError: a column is asked for that no table has, a table fits no case, or leaves a site or patient open.
    """
    names = {meaning: getattr(options, f"{meaning}_column") for meaning in ("case", "patient", "site", "label")}
    names |= {"split": options.split_column, "path": options.path_column}
    joined: set[str] = set()
    paths = [folder.path for folder in folders]

    def take(
        table: Table,
        cases: Sequence[RawCase],
        column: str,
        columns: dict[str, str],
        findings: Callable[[dict[str, str]], dict[str, int | None] | None] | None = None,
    ) -> None:
        join(cases, table, paths, column, columns, notes, findings)
        for meaning in {"site", "patient"} & set(columns):
            if meaning == "site" or not options.patient_regex:  # a hole would be a patient or domain of its own
                require(cases, meaning)
        joined.update(columns)

    own_names = dict.fromkeys(names) if options.table else names
    for folder in folders:
        if folder.found.table:
            own = folder.found.rows or Table.read(folder.found.table[0])
            # Labels of classes and rows were read with the layout; those of others only where asked for.
            asked = folder.layout not in ("classes", "csv") and own_names["label"]
            columns = find_columns(own, own_names, without=[] if asked else ["label"])
            take(own, folder.found.cases, folder.found.table[1], columns)
        elif not options.table:
            for meaning, column in names.items():
                if column:
                    raise InputError(f"--{meaning}-column {column!r} needs a table", hint="give it with --table FILE")
            if options.findings:
                raise InputError("--findings needs a table", hint="give it with --table FILE")
    if options.table:
        _join_given(Path(options.table), folders, names, options, take, notes)
    return joined


def _join_given(
    path: Path,
    folders: Sequence[Folder],
    names: dict[str, str | None],
    options: BuildOptions,
    take: Callable[..., None],
    notes: list[str],
) -> None:
    given = Table.read(path)
    # A table beside DICOM holds true patient ids; the pseudonyms stay unless a column is asked for.
    keep = any(folder.layout == "dicom" for folder in folders) and not names["patient"]
    columns = find_columns(given, names, without=["patient"] if keep else [])
    cases = [case for folder in folders for case in folder.found.cases]
    case = case_column(given, names)
    several: list[str] = []
    unlabelled = not any(one.label is not None for one in cases)
    possible = options.task is None or may_have(options.task, FINDINGS)
    if options.findings or ("label" not in columns and unlabelled and possible):
        several = find_finding_columns(given, options.findings, [case, *columns.values()])
    findings = None
    if several:
        columns.pop("label", None)

        def findings(row: dict[str, str]) -> dict[str, int | None] | None:
            return row_findings(row, several, options.uncertain, options.unmentioned)

    own = {Path(folder.found.table[0]).resolve() for folder in folders if folder.found.table}
    if not columns and not several and path.resolve() not in own:
        hint = "name its columns by --label-column, --site-column, --patient-column, --split-column or --findings"
        fault = f"none of its columns ({', '.join(list(given.columns)[:8])}) says anything about these cases"
        raise InputError(fault, path=path, hint=hint)
    take(given, cases, case, columns, findings)
    shown = ", ".join(f"{meaning} (column {column})" for meaning, column in columns.items())
    if several:
        shown += f"{', ' * bool(shown)}{len(several)} findings ({', '.join(several[:6])}{', ...' * (len(several) > 6)})"
    notes.append(f"{given.path.name}: joined {shown or 'nothing'}")
