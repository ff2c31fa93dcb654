"""The command ``monai-transfer manifest``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monai_transfer.errors import InputError
from monai_transfer.manifest.option_texts import annotated_of, names_of, numbers_of, regions_of, values_of, words_of
from monai_transfer.options import announce, require, require_name

if TYPE_CHECKING:
    from rich.table import Table

    from monai_transfer.manifest.model import Case, Manifest

__all__ = ["manifest"]

_DATASETS = sorted(path.stem for path in (Path(__file__).parent / "datasets").glob("*.json"))
_KNOWN = ", ".join(_DATASETS)
_LAYOUTS = sorted(p.stem for p in (Path(__file__).parent / "layouts").glob("[a-z]*.py") if p.stem != "base")
_COLUMN = "Its column, where its name is unusual."


def _panel(title: str) -> Callable[..., Any]:
    """Options under one heading of the help."""
    return lambda text, *names: typer.Option(*names, help=text, rich_help_panel=title)


_reading, _who, _tables = _panel("Reading"), _panel("Sites and patients"), _panel("Tables")
_labels, _splits, _texts = _panel("Labels"), _panel("Splits"), _panel("Texts")


def manifest(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folder(s) with the data, or an .npz file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .json file to write.")],
    dataset: Annotated[str | None, typer.Option(help="A known data set, of which DIR is a copy: " + _KNOWN)] = None,
    layout: Annotated[str, _reading(f"auto, {', '.join(_LAYOUTS)}; folders: pairs, beside or classes.")] = "auto",
    exclude: Annotated[list[str] | None, _reading("Pattern of file names to leave out; repeatable.")] = None,
    channels: Annotated[
        str | None, _reading("BIDS suffixes, or last words of file names, of the channels: t1,flair.")
    ] = None,
    missing_channels: Annotated[
        str, _reading("Cases without every channel: refuse, leave-out, or zeros (kept, the channel declared missing).")
    ] = "refuse",
    mask_suffix: Annotated[str | None, _reading("What masks have behind their image's name: _tumour.")] = None,
    mask_ending: Annotated[str | None, _reading("Ending of masks where image and mask share a name: .png.")] = None,
    series_description: Annotated[str | None, _reading("Text in the description of the DICOM series to take.")] = None,
    nested: Annotated[
        str, _reading("A contour inside another of its structure (RTSTRUCT) is a hole, or filled: hole, fill.")
    ] = "hole",
    overlaps: Annotated[
        str, _reading("Where named structures overlap: order (one lies on top), or regions (each is an output).")
    ] = "order",
    site: Annotated[list[str] | None, _who("Site of all cases; repeat it to give one per DIR.")] = None,
    site_from: Annotated[
        str | None,
        _who("DICOM tags, or keys of BIDS JSON files, that make up the site: Manufacturer,MagneticFieldStrength."),
    ] = None,
    patient_regex: Annotated[
        str | None, _who("Its first group, in the path below DIR, is the patient: '^(.+?)_'.")
    ] = None,
    table: Annotated[Path | None, _tables("CSV/TSV that gives patient, site, label, split or order by case.")] = None,
    case_column: Annotated[str | None, _tables(_COLUMN)] = None,
    patient_column: Annotated[str | None, _tables(_COLUMN)] = None,
    site_column: Annotated[str | None, _tables(_COLUMN)] = None,
    label_column: Annotated[str | None, _tables(_COLUMN)] = None,
    split_column: Annotated[str | None, _tables(_COLUMN)] = None,
    path_column: Annotated[str | None, _tables("Column that names image files, where unusual.")] = None,
    findings: Annotated[
        str | None, _tables("Columns that are findings, where a case has several: Edema,Cardiomegaly.")
    ] = None,
    uncertain: Annotated[str, _tables("What -1 in them means: ignore, positive or negative.")] = "ignore",
    unmentioned: Annotated[str, _tables("What an empty cell in them means: ignore or negative.")] = "ignore",
    task: Annotated[str | None, _labels("classification, segmentation, regression or localization.")] = None,
    labels: Annotated[
        str | None,
        _labels("Class names in order, normal,pneumonia; or by what is found, 0=normal, FOLDER=normal or 1=a,4=a."),
    ] = None,
    label_regex: Annotated[
        str | None, _labels("Its first group, in the path below DIR, is the class of images without another label.")
    ] = None,
    binarize: Annotated[bool, _labels("Write masks of all that is not 0 and list these.", "--binarize")] = False,
    regions: Annotated[
        str | None, _labels("Outputs that may overlap, by mask value: whole=1+2+4,core=1+4; none leaves them out.")
    ] = None,
    ignore: Annotated[str | None, _labels("Mask values that are neither learned from nor scored: 255.")] = None,
    annotated: Annotated[
        list[str] | None, _labels("The classes that were looked for at a site: SITE=liver,spleen; repeatable.")
    ] = None,
    fractions: Annotated[str, _splits("Shares of training, validation and test.")] = "0.6,0.15,0.25",
    folds: Annotated[int | None, _splits("Cross-validation folds for all cases outside test.")] = None,
    seed: Annotated[int, _splits("Of splits and folds.")] = 0,
    name: Annotated[str | None, _texts("Name of the set.")] = None,
    modality: Annotated[str | None, _texts("MR, CT, PET, X-ray ...; where sites differ, each: 'CT; MR'.")] = None,
    licence: Annotated[str | None, _texts("Licence of the data.")] = None,
    reference: Annotated[str | None, _texts("What to cite.")] = None,
    description: Annotated[str | None, _texts("What the set is.")] = None,
    checksums: Annotated[bool, typer.Option(help="Write the SHA-256 of every file.")] = True,
) -> None:
    """Build a manifest from folders as hospitals have them, with patient-grouped, stratified splits."""
    require(*folders, table)
    if dataset:
        require_name(dataset, _DATASETS, "data set")
        if len(folders) != 1:
            raise InputError("--dataset takes one DIR", hint="give the folder of the whole copy")
    options: dict[str, Any] = {
        "layout": layout, "exclude": tuple(exclude or ()), "channels": words_of(channels),
        "missing_channels": missing_channels, "mask_suffix": mask_suffix, "mask_ending": mask_ending,
        "series_description": series_description, "nested": nested, "overlaps": overlaps, "path_column": path_column,
        "site": site or None, "site_from": words_of(site_from), "patient_regex": patient_regex,
        "table": table, "case_column": case_column, "patient_column": patient_column, "site_column": site_column,
        "label_column": label_column, "split_column": split_column,
        "findings": words_of(findings), "uncertain": uncertain, "unmentioned": unmentioned,
        "task": task, "labels": names_of(labels), "label_regex": label_regex, "binarize": binarize,
        "regions": regions_of(regions), "ignore": values_of(ignore), "annotated": annotated_of(annotated),
        "fractions": numbers_of(fractions), "folds": folds, "seed": seed,
        "name": name, "modality": modality, "licence": licence, "reference": reference, "description": description,
        "checksums": checksums,
    }  # fmt: skip
    announce(f"manifest: reading {', '.join(map(str, folders))}")
    from rich.console import Console

    from monai_transfer.manifest.build import build_manifest
    from monai_transfer.manifest.datasets import build_dataset
    from monai_transfer.manifest.options import BuildOptions

    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 240)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    if dataset:
        defaults = BuildOptions()
        given = {key: value for key, value in options.items() if value != getattr(defaults, key)}
        made, notes = build_dataset(dataset, folders[0], output, progress=_progress, say=say, **given)
    else:
        made, notes = build_manifest(folders, output, progress=_progress, say=say, **options)
    for note in notes:
        if ": read as " not in note:  # said before anything was written
            say(note)
    console.print(counts(made))
    say(f"wrote {output}")


def counts(manifest: Manifest) -> Table:
    """Cases and patients by split, site and class."""
    from rich.table import Table

    from monai_transfer.manifest.checks import SPLITS
    from monai_transfer.tasks import get_task

    classes = get_task(manifest.task).classes_of_cases
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
