"""The command ``monai-transfer manifest``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monai_transfer.errors import InputError
from monai_transfer.options import announce, require, require_name

if TYPE_CHECKING:
    from rich.table import Table

    from monai_transfer.manifest.model import Case, Manifest

__all__ = ["manifest"]

_DATASETS = sorted(path.stem for path in (Path(__file__).parent / "datasets").glob("*.json"))
_KNOWN = ", ".join(_DATASETS)
_COLUMN = "Its column, where its name is unusual."


def manifest(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folder(s) with the data, or an .npz file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .json file to write.")],
    dataset: Annotated[str | None, typer.Option(help="A known data set, of which DIR is a copy: " + _KNOWN)] = None,
    layout: Annotated[
        str,
        typer.Option(help="auto, bids, nnunet, msd, dicom, npz, folders (pairs, beside, classes), csv, images."),
    ] = "auto",
    task: Annotated[str | None, typer.Option(help="classification, segmentation, regression or localization.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the set.")] = None,
    site: Annotated[list[str] | None, typer.Option(help="Site of all cases; repeat it to give one per DIR.")] = None,
    site_from: Annotated[
        str | None,
        typer.Option(help="DICOM header tags that make up the site, e.g. Manufacturer,MagneticFieldStrength."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="CSV/TSV that gives patient, site, label, split or order by case.")
    ] = None,
    case_column: Annotated[str | None, typer.Option(help=_COLUMN)] = None,
    patient_column: Annotated[str | None, typer.Option(help=_COLUMN)] = None,
    site_column: Annotated[str | None, typer.Option(help=_COLUMN)] = None,
    label_column: Annotated[str | None, typer.Option(help=_COLUMN)] = None,
    split_column: Annotated[str | None, typer.Option(help=_COLUMN)] = None,
    path_column: Annotated[str | None, typer.Option(help="Column that names image files, where unusual.")] = None,
    patient_regex: Annotated[
        str | None, typer.Option(help="Its first group, in the path below DIR, is the patient: '^(.+?)_'.")
    ] = None,
    label_regex: Annotated[
        str | None, typer.Option(help="Its first group, in that path, is the class of images without another label.")
    ] = None,
    series_description: Annotated[
        str | None, typer.Option(help="Text in the description of the DICOM series to take.")
    ] = None,
    channels: Annotated[
        str | None, typer.Option(help="BIDS suffixes, or last words of file names, of the channels.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Pattern of file names to leave out; repeatable.")] = None,
    binarize: Annotated[
        bool, typer.Option("--binarize", help="Write masks of all that is not 0 and list these.")
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(help="Class names in order, normal,pneumonia; or by what is found, 0=normal or FOLDER=normal."),
    ] = None,
    fractions: Annotated[str, typer.Option(help="Shares of training, validation and test.")] = "0.6,0.15,0.25",
    folds: Annotated[int | None, typer.Option(help="Cross-validation folds for all cases outside test.")] = None,
    seed: Annotated[int, typer.Option(help="Of splits and folds.")] = 0,
    modality: Annotated[str | None, typer.Option(help="MR, CT, PET, X-ray ...")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the data.")] = None,
    reference: Annotated[str | None, typer.Option(help="What to cite.")] = None,
    description: Annotated[str | None, typer.Option(help="What the set is.")] = None,
    checksums: Annotated[bool, typer.Option(help="Write the SHA-256 of every file.")] = True,
) -> None:
    """Build a manifest from folders as hospitals have them, with patient-grouped, stratified splits."""
    require(*folders, table)
    if dataset:
        require_name(dataset, _DATASETS, "data set")
    options: dict[str, Any] = {
        "layout": layout,
        "task": task,
        "name": name,
        "site": site or None,
        "site_from": [tag.strip() for tag in site_from.split(",") if tag.strip()] if site_from else (),
        "table": table,
        "case_column": case_column,
        "patient_column": patient_column,
        "site_column": site_column,
        "label_column": label_column,
        "split_column": split_column,
        "path_column": path_column,
        "patient_regex": patient_regex,
        "series_description": series_description,
        "channels": [part.strip() for part in channels.split(",")] if channels else (),
        "exclude": exclude or (),
        "binarize": binarize,
        "labels": _names(labels) if labels else None,
        "fractions": tuple(_numbers(fractions)),
        "folds": folds,
        "seed": seed,
        "modality": modality,
        "licence": licence,
        "reference": reference,
        "description": description,
        "checksums": checksums,
        "progress": _progress,
        "label_regex": label_regex,
    }
    announce(f"manifest: reading {', '.join(map(str, folders))}")
    from inspect import signature

    from rich.console import Console

    from monai_transfer.manifest.build import build_manifest
    from monai_transfer.manifest.datasets import build_dataset

    if dataset:
        if len(folders) != 1:
            raise InputError("--dataset takes one DIR", hint="give the folder of the whole copy")
        defaults = {name: parameter.default for name, parameter in signature(build_manifest).parameters.items()}
        given = {key: value for key, value in options.items() if value != defaults[key]}
        made, notes = build_dataset(dataset, folders[0], output, **given)
    else:
        made, notes = build_manifest(folders, output, **options)
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 240)
    for note in notes:
        console.print(note, markup=False, highlight=False)
    console.print(counts(made))
    console.print(f"wrote {output}", markup=False, highlight=False)


def counts(manifest: Manifest) -> Table:
    """Cases and patients by split, site and class."""
    from rich.table import Table

    from monai_transfer.manifest.checks import SPLITS

    classes = manifest.task == "classification"
    table = Table(title=f"{manifest.name} ({manifest.task})", title_justify="left")
    for column in ("split", "site", "patients", "cases", "labelled"):
        table.add_column(column, justify="left" if column in ("split", "site") else "right")
    for class_name in manifest.class_names if classes else []:
        table.add_column(class_name, justify="right")
    for split in SPLITS:
        for site in manifest.sites:
            cases = manifest.cases(split, site=site)
            if cases:
                seen = _seen(manifest, cases)
                labelled = sum(case.label is not None for case in cases)
                patients = len({case.patient for case in cases})
                cells = [seen[name] for name in manifest.class_names] if classes else []
                table.add_row(split, site, *map(str, (patients, len(cases), labelled, *cells)))
    return table


def _seen(manifest: Manifest, cases: Sequence[Case]) -> Counter[str]:
    """Cases by class, or by finding that is present."""
    seen: Counter[str] = Counter()
    for case in cases:
        if isinstance(case.label, dict):
            seen.update(name for name, value in case.label.items() if value == 1)
        elif isinstance(case.label, int):
            seen[manifest.labels[str(case.label)]] += 1
    return seen


def _progress(items: Iterable, text: str) -> Iterator:
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(list(items), text, console=Console(stderr=True))
        return
    items = list(items)
    print(f"{text}: {len(items)}", file=sys.stderr)
    yield from items


def _names(text: str) -> list[str] | dict[str, str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if any("=" in part for part in parts):
        pairs = [part.partition("=") for part in parts]
        if not all(key and sign and value for key, sign, value in pairs):
            raise InputError(f"--labels {text!r} mixes two ways", hint="write normal,pneumonia or 0=normal,1=pneumonia")
        return {key.strip(): value.strip() for key, _, value in pairs}
    return parts


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--fractions {text!r} are no numbers", hint="write 0.6,0.15,0.25") from None
