"""From folders as hospitals have them to a manifest: read the layout, join a table, name, number, split, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError, replace_fields
from monai_transfer.manifest.case import Case
from monai_transfer.manifest.checksums import sha256_image
from monai_transfer.manifest.classes import settle_task
from monai_transfer.manifest.colour_masks import number_colours
from monai_transfer.manifest.label_settling import Labels, settle_labels
from monai_transfer.manifest.layouts.base import RawCase
from monai_transfer.manifest.mask_files import binarize_masks, flatten_masks
from monai_transfer.manifest.model import Manifest
from monai_transfer.manifest.naming import label_by_name, name_cases, name_patients
from monai_transfer.manifest.nrrd_segments import draw_segments
from monai_transfer.manifest.options import BuildOptions, Progress
from monai_transfer.manifest.partition import fold_cases, partition
from monai_transfer.manifest.paths import absolute
from monai_transfer.manifest.reading import Folder, read_folders
from monai_transfer.manifest.sites import default_sites, given_sites
from monai_transfer.manifest.tables import join_tables
from monai_transfer.manifest.texts import JOINED, joined_texts
from monai_transfer.tasks import Task, get_task

__all__ = ["build_manifest"]


def build_manifest(
    folder: str | Path | Sequence[str | Path],
    output: str | Path,
    options: BuildOptions | None = None,
    **changes: Any,
) -> tuple[Manifest, list[str]]:
    """Build a manifest from one or several folders and write it to ``output``.

    Splits are by patient and stratified by site and label. A split that a column gives is kept as it is; one that the
    layout gives is kept too, but a missing validation split is then made from training. Files that have to be made
    (unpacked images, drawn or changed masks) go to the folder ``<output without suffix>_files`` beside it.

    Args:
        folder: a folder (or an ``.npz`` file or manifest), or several that make up one set.
        output: the ``.json`` file to write.
        options: what may be said about reading, tables, labels, patients, splits and texts.
        changes: single fields of :class:`~monai_transfer.manifest.options.BuildOptions`, in place of those of
            ``options``: ``build_manifest(folder, output, site="north", labels=["background", "tumour"])``.

    Returns:
        the manifest as read back, and notes: what was assumed and what was left out.

    Raises:
        InputError: the folder, a file, the table or an option does not fit.

    Twelve pictures in a folder per class, the patient in each name:

    >>> import tempfile
    >>> from PIL import Image
    >>> root = Path(tempfile.mkdtemp())
    >>> for number in range(12):
    ...     folder = root / "photos" / ("benign", "malignant")[number % 2]
    ...     folder.mkdir(parents=True, exist_ok=True)
    ...     Image.new("L", (8, 8), number).save(folder / f"p{number}.png")
    >>> manifest, notes = build_manifest(root / "photos", root / "photos.json", site="north")
    >>> manifest.task, manifest.class_names, [len(manifest.cases(s)) for s in ("training", "validation", "test")]
    ('classification', ['benign', 'malignant'], [7, 2, 3])
    """
    options = replace_fields(options or BuildOptions(), changes, "build_manifest")
    output = Path(output)
    paths = [Path(absolute(f, Path.cwd())) for f in ([folder] if isinstance(folder, (str, Path)) else folder)]
    if output.suffix.lower() != ".json" or output.is_dir():
        raise InputError("is no name for a manifest", path=output, hint="give the name of a .json file to write")
    files = Path(absolute(output, Path.cwd())).with_suffix("").with_name(f"{output.stem}_files")
    notes: list[str] = []
    folders = read_folders(paths, files, options, notes)
    cases = [case for one in folders for case in one.found.cases]
    if options.label_regex:
        label_by_name(cases, options.label_regex)
    given_sites([(one.path.name, one.found.cases) for one in folders], options.site, output, notes)
    joined = join_tables(folders, options, notes)
    default_sites(cases, output, notes)
    task = get_task(settle_task([one.found for one in folders], options.task))
    names = name_cases(cases, [one.path.name for one in folders for _ in one.found.cases])
    labels = _label(folders, names, task, options, files / "masks", notes)
    numbers = [i for i, one in enumerate(folders) for _ in one.found.cases]
    name_patients(cases, names, numbers, options.patient_regex, notes)
    sums = _checksums(cases, options.progress) if options.checksums else {}
    splits: list[str] = list(partition(cases, task, options, "split" in joined, sums, notes))
    folds = fold_cases(cases, splits, task, options)
    listed = _list(cases, names, splits, folds, sums)
    manifest = _assemble(folders, paths, task, labels, listed, options, output)
    manifest.save(output)
    if not all(one.pseudonyms for one in folders):
        notes.append("cases and paths are called as your files and folders are: rename those that name people")
    return Manifest.load(output), list(dict.fromkeys(notes))


def _label(
    folders: Sequence[Folder], names: Sequence[str], task: Task, options: BuildOptions, files: Path, notes: list[str]
) -> Labels:
    """Masks drawn, flattened or made binary where that is needed, and one label mapping for all folders."""
    if options.binarize and not task.label.is_path:
        raise InputError(f"--binarize is for masks, and the task is {task.name}", hint="leave it out")
    if not task.label.is_path and (options.regions or options.ignore):
        raise InputError(f"--regions and --ignore are for masks, and the task is {task.name}", hint="leave them out")
    founds = [one.found for one in folders]
    rest = iter(names)
    by_folder = [[next(rest) for _ in found.cases] for found in founds]
    cases = [case for found in founds for case in found.cases]
    if task.label.is_path:
        notes += draw_segments(founds, by_folder, options.labels, files, options.overlaps)
        notes += flatten_masks(cases, names, files, options.progress)
        if not options.binarize:
            coloured = number_colours(cases, names, options.labels, files, options.progress, notes)
            options = options if coloured is None else replace(options, labels=coloured)
    labels = settle_labels(founds, by_folder, task, options, files, options.progress, notes)
    if options.binarize:
        notes += binarize_masks(cases, names, files, options.progress)
    return labels


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


def _list(
    cases: Sequence[RawCase],
    names: Sequence[str],
    splits: Sequence[str],
    folds: dict[int, int],
    sums: dict[Path, str],
) -> dict[str, list[Case]]:
    """The cases of each split as a manifest holds them."""
    listed: dict[str, list[Case]] = {}
    for i, (case, name) in enumerate(zip(cases, names, strict=True)):
        images = [str(path) for path in case.images]
        hashes = [sums[path] for path in case.images] if sums else None
        item = Case(
            image=images if len(images) > 1 else images[0],
            label=str(case.label) if isinstance(case.label, Path) else case.label,
            case=name,
            patient=str(case.patient),
            site=str(case.site),
            acquired=case.acquired,
            sha256=hashes if hashes is None or len(hashes) > 1 else hashes[0],
            sha256_label=sums.get(case.label) if isinstance(case.label, Path) else None,
            fold=folds.get(i),
            annotated=case.annotated,
            missing=list(case.missing),
        )
        listed.setdefault("training" if i in folds else splits[i], []).append(item)
    return listed


def _assemble(
    folders: Sequence[Folder],
    paths: Sequence[Path],
    task: Task,
    labels: Labels,
    listed: dict[str, list[Case]],
    options: BuildOptions,
    output: Path,
) -> Manifest:
    """The manifest, with texts and channel names from the user, else from the layouts."""
    founds = [one.found for one in folders]
    first: dict[str, str] = {}
    for found in founds:
        first |= {key: value for key, value in found.texts.items() if key not in first}
    joined: dict[str, Any] = {key: joined_texts(found.texts.get(key) for found in founds) for key in JOINED}
    joined |= {key: getattr(options, key) for key in JOINED if getattr(options, key)}
    same = all(found.channel_names == founds[0].channel_names for found in founds)
    channels = founds[0].channel_names if same else {}
    names = [path.name if path.is_dir() else path.stem for path in paths]  # CheXpert-v1.0-small has no suffix
    default = first.get("name", names[0]) if len(paths) == 1 else "+".join(names)
    return Manifest(
        name=options.name or default,
        task=task.name,
        channel_names={str(number): channels[number] for number in sorted(channels)},
        description=options.description or first.get("description"),
        **joined,
        folder=Path(absolute(output.parent, Path.cwd())),
        **labels.of_manifest(),
        **listed,  # type: ignore[arg-type]
    )
