"""From folders as hospitals have them to a manifest: read the layout, join a table, name, number, split, write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from monai_transfer.errors import InputError
from monai_transfer.manifest.case import Case
from monai_transfer.manifest.checksums import sha256_image
from monai_transfer.manifest.classes import Names, number_classes, number_masks, regression_values, settle_task
from monai_transfer.manifest.layouts import choose_layout
from monai_transfer.manifest.layouts.base import FolderContents, Options, RawCase, count
from monai_transfer.manifest.masks import binarize as write_binary
from monai_transfer.manifest.model import Manifest
from monai_transfer.manifest.naming import label_by_name, name_cases, name_patients
from monai_transfer.manifest.nrrd_segments import draw_segments
from monai_transfer.manifest.partition import fold_cases, partition
from monai_transfer.manifest.paths import absolute
from monai_transfer.manifest.sites import default_sites, given_sites, require
from monai_transfer.manifest.table import Table, find_columns, join
from monai_transfer.manifest.table import case_column as _case_column

__all__ = ["build_manifest"]

Progress = Callable[[Iterable, str], Iterable]
"""Wraps a list to show how far its work is: ``progress(items, "Computing checksums")`` yields the items."""


@dataclass
class _Folder:
    path: Path
    layout: str
    found: FolderContents


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
    label_regex: str | None = None,
    series_description: str | None = None,
    channels: Sequence[str] = (),
    exclude: Sequence[str] = (),
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
        label_regex: regular expression whose first group, in that path, is the class of images without another label.
        series_description: text that the chosen DICOM series' description holds.
        channels: BIDS suffixes, or last words of file names, that make up the image.
        exclude: patterns of file names (``*_4d*``) whose images are left out.
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
        raise InputError("is no name for a manifest", path=output, hint="give the name of a .json file to write")
    options = Options(
        files=Path(absolute(output, Path.cwd())).with_suffix("").with_name(f"{output.stem}_files"),
        path_column=path_column,
        label_column=None if table else label_column,
        series_description=series_description,
        site_from=tuple(site_from),
        channels=tuple(channels),
        labels=labels,
        exclude=tuple(exclude),
    )
    notes: list[str] = []
    folders = [_read(path, layout, options, notes, i if len(paths) > 1 else None) for i, path in enumerate(paths)]
    if site_from and any(f.layout != "dicom" for f in folders):
        raise InputError("--site-from reads DICOM headers", hint="it goes with --layout dicom; use --site or --table")
    if exclude:
        _exclude(folders, exclude, notes)
    if label_regex:
        label_by_name([case for f in folders for case in f.found.cases], label_regex)
    given_sites([(f.path.name, f.found.cases) for f in folders], site, output, notes)
    columns = {"case": case_column, "patient": patient_column, "site": site_column}
    columns |= {"label": label_column, "split": split_column, "path": path_column}
    cases = [case for f in folders for case in f.found.cases]
    joined = _join_tables(folders, table, columns, patient_regex is not None, notes)
    default_sites(cases, output, notes)
    founds = [f.found for f in folders]
    task = settle_task(founds, task)
    masks = task in ("segmentation", "localization")
    if binarize and not masks:
        raise InputError(f"--binarize is for masks, and the task is {task}", hint="leave it out")
    case_names = name_cases(cases, [f.path.name for f in folders for _ in f.found.cases])
    if task == "classification":
        names = number_classes(founds, labels, notes)
    elif masks:
        rest = iter(case_names)
        by_folder = [[next(rest) for _ in found.cases] for found in founds]
        notes.extend(draw_segments(founds, by_folder, labels, options.files / "masks"))
        names = number_masks(founds, labels, binarize, progress, notes)
    else:
        names = {}
        if task == "regression":
            regression_values(founds)
    numbers = [i for i, f in enumerate(folders) for _ in f.found.cases]
    name_patients(cases, case_names, numbers, patient_regex, notes)
    if binarize:
        _binarize(cases, case_names, options.files / "masks", progress, notes)
    sums = _checksums(cases, progress) if checksums else {}
    splits = partition(cases, task, fractions, seed, "split" in joined, sums, notes)
    fold_of = fold_cases(cases, splits, task, folds, seed)
    first: dict[str, str] = {}
    for found in founds:
        first |= {key: value for key, value in found.texts.items() if key not in first}
    same = all(found.channel_names == founds[0].channel_names for found in founds)
    channel_names = founds[0].channel_names if same else {}
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
            sha256_label=sums.get(case.label) if isinstance(case.label, Path) else None,
            fold=fold_of.get(i),
        )
        built.setdefault("training" if i in fold_of else splits[i], []).append(item)
    default = first.get("name", paths[0].stem) if len(paths) == 1 else "+".join(path.stem for path in paths)
    manifest = Manifest(
        name=name or default,
        task=task,
        labels={str(number): names[number] for number in sorted(names)},
        channel_names={str(number): channel_names[number] for number in sorted(channel_names)},
        description=description or first.get("description"),
        modality=modality or first.get("modality"),
        licence=licence or first.get("licence"),
        reference=reference or first.get("reference"),
        folder=Path(absolute(output.parent, Path.cwd())),
        **built,  # type: ignore[arg-type]
    )
    manifest.save(output)
    if any(folder.layout not in ("dicom", "npz", "manifest") for folder in folders):  # DICOM gets pseudonyms
        notes.append("cases and paths are called as your files and folders are: rename those that name people")
    return Manifest.load(output), list(dict.fromkeys(notes))


def _read(path: Path, layout: str, options: Options, notes: list[str], number: int | None) -> _Folder:
    if not path.exists():
        raise InputError("no such folder", path=path, hint="give the folder that holds the data")
    name, module = choose_layout(path, layout)
    if path.is_file() and name not in ("npz", "manifest"):
        raise InputError("is a file", path=path, hint="give the folder that holds the data")
    if number is not None:  # files that are made for one folder must not meet another's
        options = replace(options, files=options.files / f"{number}_{path.stem}")
    found = module.read(path, options)
    if not found.cases:
        raise InputError("no case was found", path=path)
    notes.append(f"{path}: read as {name} ({count(len(found.cases), 'case')})")
    prefix = f"{path.name}: " if number is not None else ""
    notes.extend(prefix + note for note in found.notes)
    return _Folder(path if path.is_dir() else path.parent, name, found)


def _exclude(folders: Sequence[_Folder], patterns: Sequence[str], notes: list[str]) -> None:
    for folder in folders:
        cases = folder.found.cases
        kept = [c for c in cases if not any(fnmatch(path.name, p) for path in c.images for p in patterns)]
        if len(kept) < len(cases):
            notes.append(f"{count(len(cases) - len(kept), 'case')} left out by --exclude {' '.join(patterns)}")
        folder.found.cases = kept
        if not kept:
            raise InputError("no case is left", path=folder.path, hint="give narrower patterns with --exclude")


def _join_tables(
    folders: Sequence[_Folder],
    table: str | Path | None,
    names: dict[str, str | None],
    has_regex: bool,
    notes: list[str],
) -> set[str]:
    """Join the layouts' own tables, then the user's; returns the meanings that came from any."""
    joined: set[str] = set()

    def take(given: Table, cases: Sequence[RawCase], column: str, columns: dict[str, str]) -> None:
        join(cases, given, [f.path for f in folders], column, columns, notes)
        for meaning in {"site", "patient"} & set(columns):
            if meaning == "site" or not has_regex:  # a hole here would be a patient or domain of its own
                require(cases, meaning)
        joined.update(columns)

    own_names = dict.fromkeys(names) if table else names
    for folder in folders:
        if folder.found.table:
            own = Table.read(folder.found.table[0])
            # Labels of classes and rows were read with the layout; those of BIDS participants only where asked for.
            asked = folder.layout == "bids" and own_names["label"]
            columns = find_columns(own, own_names, without=[] if asked else ["label"])
            take(own, folder.found.cases, folder.found.table[1], columns)
        elif not table:
            for meaning, column in names.items():
                if column:
                    raise InputError(f"--{meaning}-column {column!r} needs a table", hint="give it with --table FILE")
    if table:
        given = Table.read(table)
        # A table beside DICOM holds true patient ids; the pseudonyms stay unless a column is asked for.
        keep = any(folder.layout == "dicom" for folder in folders) and not names["patient"]
        columns = find_columns(given, names, without=["patient"] if keep else [])
        take(given, [case for f in folders for case in f.found.cases], _case_column(given, names), columns)
        shown = ", ".join(f"{meaning} (column {column})" for meaning, column in columns.items())
        notes.append(f"{given.path.name}: joined {shown or 'nothing'}")
    return joined


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
    sums = {}
    for path in progress(list(dict.fromkeys(files)), "Computing checksums"):
        try:
            sums[path] = sha256_image(path)
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", path=path, hint="restore or remove it") from None
    return sums
