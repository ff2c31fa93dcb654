"""From folders as hospitals have them to a manifest: read the layout, join a table, name, number, split, write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.manifest.case import Case
from monai_transfer.manifest.checksums import sha256_image
from monai_transfer.manifest.classes import Names, number_classes, number_masks, regression_values, settle_task
from monai_transfer.manifest.layouts import choose_layout
from monai_transfer.manifest.layouts.base import Found, Options, RawCase, count
from monai_transfer.manifest.layouts.csv_table import find_table
from monai_transfer.manifest.masks import binarize as write_binary
from monai_transfer.manifest.model import Manifest
from monai_transfer.manifest.naming import name_cases, name_patients, site_name
from monai_transfer.manifest.paths import absolute
from monai_transfer.manifest.splits import assign_folds, assign_splits
from monai_transfer.manifest.table import Table, find_columns, join
from monai_transfer.manifest.table import case_column as _case_column

__all__ = ["build_manifest"]

Progress = Callable[[Iterable, str], Iterable]
"""Wraps a list to show how far its work is: ``progress(items, "Computing checksums")`` yields the items."""


@dataclass
class _Folder:
    path: Path
    layout: str
    found: Found


def build_manifest(
    folder: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    layout: str = "auto",
    task: str | None = None,
    name: str | None = None,
    site: str | Sequence[str] | None = None,
    site_from: Sequence[str] = (),
    table: str | Path | None = None,
    case_column: str | None = None,
    patient_column: str | None = None,
    site_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    path_column: str | None = None,
    patient_regex: str | None = None,
    series_description: str | None = None,
    binarize: bool = False,
    fractions: Sequence[float] = (0.6, 0.15, 0.25),
    folds: int | None = None,
    seed: int = 0,
    modality: str | None = None,
    licence: str | None = None,
    reference: str | None = None,
    description: str | None = None,
    labels: Names | None = None,
    checksums: bool = True,
    progress: Progress | None = None,
) -> tuple[Manifest, list[str]]:
    """Build a manifest from one or several folders and write it to ``output``.

    Splits are by patient and stratified by site and label. A split that a column gives is kept as it is; one that the
    layout gives is kept too, but a missing validation split is then made from training. Files that have to be made
    (unpacked images, binary masks) go to the folder ``<output without suffix>_files`` beside it.

    Args:
        folder: a folder (or an ``.npz`` file), or several that make up one set.
        output: the ``.json`` file to write.
        layout: ``auto``, or one of ``monai_transfer.manifest.layouts.LAYOUTS``, or ``folders``.
        task: where the labels do not show it.
        name, modality, licence, reference, description: texts of the manifest; by default what the layout tells.
        site: the site of all cases, or one for each folder.
        site_from: DICOM header keywords that make up the site.
        table: CSV or TSV file whose rows join patient, site, label, split and order (``acquired``) by case.
        case_column, patient_column, site_column, label_column, split_column, path_column: columns with unusual names.
        patient_regex: regular expression whose first group, in the path below the folder, is the patient.
        series_description: text that the chosen DICOM series' description holds.
        binarize: write masks of everything that is not 0, and list these.
        fractions: of training, validation and test.
        folds: number of cross-validation folds; all cases outside test become training and carry a ``fold``.
        seed: of the splits and folds.
        labels: class names, in order or by what was found: ``{"No_findings": "normal", ...}``, ``{0: "background"}``.
        checksums: write the SHA-256 of every file.
        progress: shows how far long work is.

    Returns:
        the manifest as read back, and notes: what was assumed and what was left out.

    Raises:
        InputError: the folder, a file, the table or an option does not fit.
    """
    output, progress = Path(output), progress or (lambda items, text: items)
    paths = [Path(absolute(f, Path.cwd())) for f in ([folder] if isinstance(folder, (str, Path)) else folder)]
    if output.suffix.lower() != ".json" or output.is_dir():
        raise InputError("is no name for a manifest", path=output, mend="give the name of a .json file to write")
    options = Options(
        files=Path(absolute(output, Path.cwd())).with_suffix("").with_name(f"{output.stem}_files"),
        path_column=path_column,
        label_column=None if table else label_column,
        series_description=series_description,
        site_from=tuple(site_from),
    )
    notes: list[str] = []
    folders = [_read(path, layout, options, notes, len(paths) > 1) for path in paths]
    if site_from and any(f.layout != "dicom" for f in folders):
        raise InputError("--site-from reads DICOM headers", mend="it goes with --layout dicom; use --site or --table")
    _given_sites(folders, site, output, notes)
    columns = {"case": case_column, "patient": patient_column, "site": site_column}
    columns |= {"label": label_column, "split": split_column, "path": path_column}
    cases = [case for f in folders for case in f.found.cases]
    joined = _join_tables(folders, table, columns, options, notes)
    _default_sites(cases, joined, output, notes)
    if "patient" in joined and patient_regex is None:
        _require(cases, "patient")
    founds = [f.found for f in folders]
    task = settle_task(founds, task)
    if binarize and task != "segmentation":
        raise InputError(f"--binarize is for masks, and the task is {task}", mend="leave it out")
    if task == "classification":
        names = number_classes(founds, labels, notes)
    elif task == "segmentation":
        names = number_masks(founds, labels, binarize, progress, notes)
    else:
        names = {}
        if task == "regression":
            regression_values(founds)
    case_names = name_cases(cases, [f.path.name for f in folders for _ in f.found.cases])
    name_patients(cases, case_names, patient_regex, notes)
    if binarize:
        _binarize(cases, case_names, options.files / "masks", progress, notes)
    sums = _checksums(cases, progress) if checksums else {}
    splits = _split(cases, task, fractions, seed, "split" in joined, sums, notes)
    fold_of = _folds(cases, splits, task, folds, seed)
    first: dict[str, str] = {}
    for found in founds:
        first |= {key: value for key, value in found.texts.items() if key not in first}
    channels = founds[0].channel_names if all(f.channel_names == founds[0].channel_names for f in founds) else {}
    built: dict[str, list[Case]] = {}
    for i, (case, case_name) in enumerate(zip(cases, case_names, strict=True)):
        images = [str(path) for path in case.images]
        hashes = [sums[path] for path in case.images] if sums else None
        item = Case(
            image=images if len(images) > 1 else images[0],
            label=str(case.label) if isinstance(case.label, Path) else case.label,
            case=case_name,
            patient=str(case.patient),
            site=str(case.site),
            acquired=case.acquired,
            sha256=hashes if hashes is None or len(hashes) > 1 else hashes[0],
            label_sha256=sums.get(case.label) if isinstance(case.label, Path) else None,
            fold=fold_of.get(i),
        )
        built.setdefault("training" if i in fold_of else splits[i], []).append(item)
    default = first.get("name", paths[0].stem) if len(paths) == 1 else "+".join(path.stem for path in paths)
    manifest = Manifest(
        name=name or default,
        task=task,
        labels={str(number): names[number] for number in sorted(names)},
        channel_names={str(number): channels[number] for number in sorted(channels)},
        description=description or first.get("description"),
        modality=modality or first.get("modality"),
        licence=licence or first.get("licence"),
        reference=reference or first.get("reference"),
        folder=Path(absolute(output.parent, Path.cwd())),
        **built,  # type: ignore[arg-type]
    )
    manifest.save(output)
    return Manifest.load(output), list(dict.fromkeys(notes))


def _read(path: Path, layout: str, options: Options, notes: list[str], several: bool) -> _Folder:
    if not path.exists():
        raise InputError("no such folder", path=path, mend="give the folder that holds the data")
    name, module = choose_layout(path, layout)
    if path.is_file() and name != "npz":
        raise InputError("is a file", path=path, mend="give the folder that holds the data")
    part = options
    if several:  # files that are made for one folder do not meet another's
        part = Options(**{**options.__dict__, "files": options.files / path.stem})
    found = module.read(path, part)
    if not found.cases:
        raise InputError("no case was found", path=path)
    notes.append(f"{path}: read as {name} ({count(len(found.cases), 'case')})")
    prefix = f"{path.name}: " if several else ""
    notes.extend(prefix + note for note in found.notes)
    return _Folder(path if path.is_dir() else path.parent, name, found)


def _given_sites(folders: Sequence[_Folder], site: str | Sequence[str] | None, output: Path, notes: list[str]) -> None:
    given = [site] if isinstance(site, str) else list(site or [])
    if given and len(given) not in (1, len(folders)):
        raise InputError(
            f"{len(given)} sites were given for {len(folders)} folders", mend="give one, or one per folder"
        )
    given = given * len(folders) if len(given) == 1 else given
    for i, folder in enumerate(folders):
        for case in folder.found.cases:
            if given:
                case.site = given[i]
            elif case.site:
                case.site = site_name(case.site, output, notes)
            elif len(folders) > 1:
                case.site = site_name(folder.path.name, output, notes)


def _join_tables(
    folders: Sequence[_Folder],
    table: str | Path | None,
    names: dict[str, str | None],
    options: Options,
    notes: list[str],
) -> set[str]:
    """Join the layouts' own tables, then the user's; returns the meanings that came from any."""
    joined: set[str] = set()
    own_names = dict.fromkeys(names) if table else names
    for folder in folders:
        own = find_table(folder.path, options) if folder.layout in ("classes", "csv") else None
        if own:  # its labels were read with the layout
            columns = find_columns(own[0], own_names, without=["label"])
            join(folder.found.cases, own[0], [folder.path], own[1], columns, notes)
            joined |= set(columns)
        elif not table:
            for meaning, column in names.items():
                if column:
                    raise InputError(f"--{meaning}-column {column!r} needs a table", mend="give it with --table FILE")
    if table:
        given = Table.read(table)
        columns = find_columns(given, names)
        cases = [case for folder in folders for case in folder.found.cases]
        join(cases, given, [f.path for f in folders], _case_column(given, names), columns, notes)
        notes.append(
            f"{given.path.name}: joined {', '.join(f'{m} (column {c})' for m, c in columns.items()) or 'nothing'}"
        )
        joined |= set(columns)
    return joined


def _require(cases: Sequence[RawCase], meaning: str) -> None:
    missing = [case.key for case in cases if not getattr(case, meaning)]
    if missing:
        mend = f"fill the column, or give {'--site' if meaning == 'site' else '--patient-regex'}"
        raise InputError(
            f"the table gives no {meaning} for {count(len(missing), 'case')}, first {missing[0]}", mend=mend
        )


def _default_sites(cases: Sequence[RawCase], joined: set[str], output: Path, notes: list[str]) -> None:
    if "site" in joined:
        _require(cases, "site")
    if any(not case.site for case in cases):
        default = site_name("unknown", output, notes)
        notes.append(f"no site was given: called {default!r}; name it with --site")
        for case in cases:
            case.site = case.site or default


def _binarize(
    cases: Sequence[RawCase], names: Sequence[str], folder: Path, progress: Progress, notes: list[str]
) -> None:
    pairs = [(case, name) for case, name in zip(cases, names, strict=True) if isinstance(case.label, Path)]
    for case, name in progress(pairs, "Writing binary masks"):
        lowered = case.label.name.lower()
        volume = next((s for s in (".nii.gz", ".nii", ".nrrd", ".mha") if lowered.endswith(s)), None)
        target = folder / f"{name}{volume or ('.mha' if lowered.endswith('.mhd') else '.png')}"
        write_binary(case.label, target)
        case.label = target
    notes.append(f"{count(len(pairs), 'binary mask')} written to {folder}")


def _checksums(cases: Sequence[RawCase], progress: Progress) -> dict[Path, str]:
    files = [*(path for case in cases for path in case.images)]
    files += [case.label for case in cases if isinstance(case.label, Path)]
    return {path: sha256_image(path) for path in progress(list(dict.fromkeys(files)), "Computing checksums")}


def _strata(cases: Sequence[RawCase], task: str) -> list[tuple[Any, ...]]:
    """Site and label of each case; values of a regression in four bins of equal number, masks as there or not."""
    if task == "regression":
        values = [case.label for case in cases if case.label is not None]
        edges = np.quantile(np.array(values, dtype=float), [0.25, 0.5, 0.75]) if values else np.zeros(0)
        bins = [None if c.label is None else int(np.searchsorted(edges, c.label)) for c in cases]  # type: ignore[arg-type]
        return [(case.site, b) for case, b in zip(cases, bins, strict=True)]
    if task == "classification":
        return [(case.site, case.label) for case in cases]
    return [(case.site, case.label is not None) for case in cases]


def _groups(cases: Sequence[RawCase], sums: dict[Path, str], notes: list[str]) -> list[str]:
    """What must stay together, by case: patients, joined where they share an image bit for bit."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    owner: dict[str, str] = {}
    shared = set()
    for case in cases:
        patient = str(case.patient)
        for path in case.images if sums else []:
            other = owner.setdefault(sums[path], patient)
            if find(other) != find(patient):
                shared.add(sums[path])
                parent[find(patient)] = find(other)
    if shared:
        notes.append(f"{count(len(shared), 'image')} stand bit for bit under several patients: kept in one split")
    return [find(str(case.patient)) for case in cases]


def _split(
    cases: Sequence[RawCase],
    task: str,
    fractions: Sequence[float],
    seed: int,
    from_table: bool,
    sums: dict[Path, str],
    notes: list[str],
) -> list[str]:
    given = [case.split for case in cases]
    labelled = {str(case.patient) for case in cases if case.label is not None}
    strata = _strata(cases, task)
    if any(given):
        # A given split is kept even where equal images stand in two; only patients bind.
        groups = [str(case.patient) for case in cases]
    else:
        groups = _groups(cases, sums, notes)
        labelled = {group for group, case in zip(groups, cases, strict=True) if str(case.patient) in labelled}
    known = {g for g, split in zip(groups, given, strict=True) if split}
    given = [
        split or (None if group in known or group in labelled else "unlabeled")
        for group, split in zip(groups, given, strict=True)
    ]
    splits = assign_splits(groups, strata, fractions=fractions, seed=seed, given=given)
    train, validation = fractions[0], fractions[1]
    layout_gave = known and not from_table and "training" in splits and "validation" not in splits and validation > 0
    if layout_gave:
        inside = [i for i, split in enumerate(splits) if split == "training" and cases[i].label is not None]
        whole = train + validation
        again = assign_splits(
            [groups[i] for i in inside],
            [strata[i] for i in inside],
            fractions=(train / whole, validation / whole, 0.0),
            seed=seed,
        )
        moved = {groups[i] for i, split in zip(inside, again, strict=True) if split == "validation"}
        splits = ["validation" if g in moved else s for g, s in zip(groups, splits, strict=True)]
        notes.append(f"the given splits hold no validation: {count(len(moved), 'patient')} taken for it from training")
    elif known:
        notes.append("the given splits were kept")
    return splits


def _folds(cases: Sequence[RawCase], splits: Sequence[str], task: str, folds: int | None, seed: int) -> dict[int, int]:
    """Case index -> fold, for all of training and validation, where folds were asked for."""
    if folds is None:
        return {}
    inside = [i for i, split in enumerate(splits) if split in ("training", "validation")]
    strata = _strata(cases, task)
    patients = [str(cases[i].patient) for i in inside]
    numbers = assign_folds(patients, [strata[i] for i in inside], folds=folds, seed=seed)
    return dict(zip(inside, numbers, strict=True))
