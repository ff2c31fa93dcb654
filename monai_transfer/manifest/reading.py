"""The first step of building a manifest: each folder read as its layout, and said what it was taken for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

from monai_transfer.errors import InputError
from monai_transfer.manifest.layouts import choose_layout, layout_names, load_layout
from monai_transfer.manifest.layouts.base import FolderContents, Options, RawCase, count, stem
from monai_transfer.manifest.masks import is_picture_of_numbers
from monai_transfer.manifest.options import BuildOptions, LayoutOptions

__all__ = ["Folder", "read_folders"]

_EXAMPLES = 2
_HEEDED = ("channels", "mask_suffix", "mask_ending", "site_from", "series_description")
"""The options that only some layouts heed; another is not to be passed over in silence."""


@dataclass
class Folder:
    """A folder that was read: where, as which layout, and what it holds."""

    path: Path
    layout: str
    found: FolderContents

    @property
    def pseudonyms(self) -> bool:
        """Whether its cases and paths are called by pseudonyms."""
        return bool(getattr(load_layout(self.layout), "PSEUDONYMS", False))


def read_folders(paths: Sequence[Path], files: Path, options: BuildOptions, notes: list[str]) -> list[Folder]:
    """Read every folder; ``options.say`` is told at once what each was taken for, with two examples.

    Args:
        paths: folders, or files of layouts that take one.
        files: folder beside the output for files that have to be made.
        options: what the user says.
        notes: receives what was read, assumed and left out.

    Raises:
        InputError: a folder is not there, fits no layout, holds no case, or images that are masks; or an option goes
            with none of the layouts.
    """
    folders = []
    for number, path in enumerate(paths):
        # files that are made for one folder must not meet another's
        own = files / f"{number}_{path.stem}" if len(paths) > 1 else files
        folder = _read(path, own, options)
        line = f"{path}: read as {folder.layout} ({count(len(folder.found.cases), 'case')})"
        prefix = f"{path.name}: " if len(paths) > 1 else ""
        notes += [line, *(prefix + note for note in folder.found.notes)]
        options.say("; ".join([line + ", e.g. " * bool(folder.found.cases) + _examples(folder)]))
        folders.append(folder)
    _refuse_unheeded(folders, options)
    if options.exclude:
        _exclude(folders, options.exclude, notes)
    for folder in folders:
        _refuse_masks_as_images(folder)
    return folders


def _read(path: Path, files: Path, options: BuildOptions) -> Folder:
    if not path.exists():
        raise InputError("no such folder", path=path, hint="give the folder that holds the data")
    name, module = _choose(path, options)
    if path.is_file() and not getattr(module, "TAKES_FILE", False):
        raise InputError("is a file", path=path, hint="give the folder that holds the data")
    shared = {field.name: getattr(options, field.name) for field in fields(LayoutOptions)}
    told = Options(
        files=files,
        labels=options.labels,
        label_column=None if options.table else options.label_column,
        findings=() if options.table else options.findings,
        uncertain=options.uncertain,
        unmentioned=options.unmentioned,
        table=options.table,
        **shared,
    )
    found = module.read(path, told)
    if not found.cases:
        hint = f"say how it is laid out with --layout: {', '.join(layout_names())}"
        raise InputError("no case was found", path=path, hint=hint)
    return Folder(path if path.is_dir() else path.parent, name, found)


def _choose(path: Path, options: BuildOptions) -> tuple[str, ModuleType]:
    if options.layout in ("auto", "folders") and (options.mask_suffix or options.mask_ending) and path.is_dir():
        pairs = load_layout("pairs")  # what tells masks is given: beside their images, unless there are two folders
        return ("pairs", pairs) if pairs.detect(path) else ("beside", load_layout("beside"))
    return choose_layout(path, options.layout)


def _refuse_unheeded(folders: Sequence[Folder], options: BuildOptions) -> None:
    for name in _HEEDED:
        heeding = [one for one in layout_names() if name in getattr(load_layout(one), "OPTIONS", ())]
        # each folder of several takes what it can
        if getattr(options, name) and not any(folder.layout in heeding for folder in folders):
            option = f"--{name.replace('_', '-')}"
            hint = f"it goes with --layout {' or '.join(heeding)}"
            if name == "site_from":
                hint += "; use --site or --table"
            raise InputError(
                f"{option} says nothing to the layout {folders[0].layout}", path=folders[0].path, hint=hint
            )


def _exclude(folders: Sequence[Folder], patterns: Sequence[str], notes: list[str]) -> None:
    for folder in folders:
        cases = folder.found.cases
        kept = [c for c in cases if not any(fnmatch(path.name, p) for path in c.images for p in patterns)]
        if len(kept) < len(cases):
            notes.append(f"{count(len(cases) - len(kept), 'case')} left out by --exclude {' '.join(patterns)}")
        folder.found.cases = kept
        if not kept:
            raise InputError("no case is left", path=folder.path, hint="give narrower patterns with --exclude")


def _examples(folder: Folder) -> str:
    """Two cases as they were understood: image and label; of pseudonymous layouts the names that they were given."""
    labelled = [case for case in folder.found.cases if case.label is not None]
    chosen = (labelled or folder.found.cases)[:_EXAMPLES]
    other = [case for case in labelled if not isinstance(case.label, Path) and case.label != chosen[0].label]
    if other:  # of classes, not the same one twice
        chosen = [chosen[0], other[0]]
    return "; ".join(_example(case, folder) for case in chosen)


def _example(case: RawCase, folder: Folder) -> str:
    def name(path: Path) -> str:
        if folder.pseudonyms:
            return path.name if not path.is_relative_to(folder.path) else case.key
        return path.relative_to(folder.path).as_posix() if path.is_relative_to(folder.path) else path.name

    image = " + ".join(dict.fromkeys(map(name, case.images)))
    if isinstance(case.label, Path):
        mask = case.label.name if folder.pseudonyms else name(case.label)
        return f"{image} with the mask {mask}"
    if isinstance(case.label, dict):
        present = [finding for finding, value in case.label.items() if value == 1]
        return f"{image} with {', '.join(present) or 'no finding'}"
    return f"{image} without a label" if case.label is None else f"{image} is {case.label}"


def _refuse_masks_as_images(folder: Folder) -> None:
    """A set of images among which one kind (by its name's last word) holds few numbers holds masks that were missed."""
    if folder.pseudonyms:
        return
    kinds: dict[str, list[Path]] = {}
    for case in folder.found.cases:
        if len(case.images) == 1 and case.images[0].is_file():
            kinds.setdefault(_kind(case.images[0]), []).append(case.images[0])
    if len(kinds) < 2:
        return
    known = {stem(path) for paths in kinds.values() for path in paths}
    for kind, paths in sorted(kinds.items()):
        partners = [path for path in paths if stem(path) != stem(path).removesuffix(kind) in known]
        if len(kind) > 1 and partners and all(is_picture_of_numbers(path) for path in partners[:2]):
            first = partners[0]
            image = next(p for others in kinds.values() for p in others if stem(p) == stem(first).removesuffix(kind))
            if not is_picture_of_numbers(image):
                fault = f"holds few numbers, as a mask of {image.name} does, and was taken for an image"
                raise InputError(fault, path=first, hint=f"if it is a mask, say so: --mask-suffix {kind}")


def _kind(path: Path) -> str:
    """What a name ends in, from the last separator: ``_outline`` of ``a1_outline.png``; the whole of it without one."""
    name = stem(path)
    cut = max(name.rfind(mark) for mark in "_-. ")
    return name[cut:] if cut > 0 else ""
