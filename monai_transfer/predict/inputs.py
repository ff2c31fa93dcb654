"""What ``predict`` is given, as items: files, folders, DICOM series, channels in several files, cases of a manifest."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monai_transfer.errors import InputError
from monai_transfer.manifest import Case, Manifest
from monai_transfer.manifest.channels import channel_of
from monai_transfer.manifest.dicom_headers import Series, gather, has_magic
from monai_transfer.manifest.layouts.base import count, mask_of
from monai_transfer.manifest.layouts.pairs import mask_folders

__all__ = ["SUFFIXES", "Item", "find_items"]

SUFFIXES = (".nii.gz", ".nii", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".mha", ".mhd", ".nrrd", ".dcm")
_CHANNEL = re.compile(r"^(.+)_(\d{4})$")


@dataclass
class Item:
    """One image to predict on.

    Attributes:
        image: file or series folder; a list where the channels are files of their own.
        name: of its outputs, as a path below the output folder without a suffix; unique among the items.
        shown: what it is called in messages.
        row: what it is called in tables; by default its name.
        dicom: the DICOM files that the image is made of.
        linked: the image must be a folder of links to ``dicom``, since other series lie beside them.
        missing: numbers of the channels that it lacks, in whose places another file of it stands.
        fault: why it cannot be predicted on, where that is known before reading.

    >>> Item(["scan_t1.nii.gz", "scan_t2.nii.gz"], "scan", "scan").images
    ['scan_t1.nii.gz', 'scan_t2.nii.gz']
    """

    image: str | list[str]
    name: str
    shown: str
    dicom: list[Path] = field(default_factory=list)
    row: str = ""
    linked: bool = False
    missing: list[int] = field(default_factory=list)
    fault: InputError | None = None

    @property
    def images(self) -> list[str]:
        """The paths as a list."""
        return [self.image] if isinstance(self.image, str) else list(self.image)


def find_items(
    inputs: Sequence[str | Path],
    *,
    channels: int = 1,
    names: Sequence[str] = (),
    leave_out: Path | None = None,
    series: str | None = None,
    split: str | None = None,
    may_lack: bool = False,
    notes: list[str] | None = None,
) -> list[Item]:
    """The images named, those below the folders named, and the cases of the manifests (``.json``) named.

    A folder of DICOM slices is one image for each series in it; segmentations, reports and scouts beside an image are
    passed over, as are masks beside their images (``CASE_seg``, ``labelsTr`` beside ``imagesTr``). With several
    ``channels``, files called ``CASE_0000, CASE_0001, ...`` (nnU-Net's way) are one image, and those that end in the
    channels' names (``CASE_t1, CASE_flair``).

    Args:
        inputs: files and folders.
        channels: how many the model takes.
        names: of the channels, in order; none where the model does not say.
        leave_out: a folder not to look into: predictions of an earlier call must not be predicted on.
        series: only the DICOM series of this number, or with this pattern in the description.
        split: only this split of manifests.
        may_lack: the model learned to do without a channel, so an image may lack some.
        notes: receives what was left out.

    Raises:
        InputError: an input does not exist or holds nothing to predict on, or two images would share an output's name.
    """
    paths: list[Path] = []
    folders: list[Path] = []
    cases: list[Case] = []
    masks: list[Path] = []
    for given in map(Path, inputs):
        if not given.exists():
            raise InputError(
                "no such file or folder", path=given, hint="look at its spelling, and whether its drive is mounted"
            )
        if given.suffix.lower() == ".json":
            cases += _cases(given, split)
        elif given.is_file():
            paths.append(given.resolve())
        else:
            images, with_dicom, beside = _below(given.resolve(), leave_out)
            masks += beside
            if not images and not with_dicom:
                raise InputError("holds no image", path=given, hint=f"it reads {', '.join(SUFFIXES)} and DICOM series")
            paths += images
            folders += with_dicom
    paths, folders = list(dict.fromkeys(paths)), list(dict.fromkeys(folders))
    common = Path(os.path.commonpath([path.parent for path in [*paths, *folders]] or [Path.cwd()]))
    if masks and notes is not None:
        notes.append(f"{count(len(masks), 'path')} left out as masks beside images, e.g. {masks[0]}")
    items = [
        *_files(paths, common, channels, names, may_lack),
        *(item for folder in folders for item in _series(folder, common, series)),
        *(_of_case(case, names, may_lack) for case in cases),
    ]
    if not items:
        if series is not None:
            raise InputError(
                f"no DICOM series is numbered or described {series!r}",
                path=inputs[0],
                hint="leave --series out to see which there are",
            )
        raise InputError("holds DICOM files, and no image among them", path=inputs[0], hint="name the images' folder")
    _refuse_collisions(items)
    return items


def _cases(path: Path, split: str | None) -> list[Case]:
    manifest = Manifest.load(path)
    splits = [split] if split else ["training", "validation", "test", "unlabeled"]
    cases = [case for name in splits for case in manifest.cases(name)]
    if not cases:
        raise InputError(f"the split {split} is empty", path=path, hint="leave --split out for all cases")
    return cases


def _of_case(case: Case, names: Sequence[str], may_lack: bool) -> Item:
    item = Item(case.image, case.case, f"case {case.case}", _dicom_files(case.image), missing=list(case.missing))
    if case.missing and not may_lack:
        item.fault = _lacks(_shown(case.missing, names), item.shown)
    return item


def _shown(numbers: Iterable[int], names: Sequence[str]) -> str:
    return ", ".join(f"{number} ({names[number]})" if number < len(names) else str(number) for number in numbers)


def _lacks(missing: str, shown: str) -> InputError:
    hint = "use a bundle that was trained with dropout of channels: new --missing-channels zeros"
    return InputError(f"lacks channel {missing}, and the model never did without one", path=shown, hint=hint)


def _below(folder: Path, leave_out: Path | None) -> tuple[list[Path], list[Path], list[Path]]:
    """Image files below a folder, the folders with DICOM files in them, and the masks that lie beside images."""
    images: list[Path] = []
    masks: list[Path] = []
    with_dicom: set[Path] = set()
    for place, below, names in os.walk(folder, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if leave_out is not None and Path(place).is_relative_to(leave_out):
            below.clear()
            continue
        of_masks = mask_folders(below)
        masks += [Path(place, name) for name in sorted(of_masks)]
        below[:] = [name for name in below if name not in of_masks]
        for path in (Path(place, name) for name in sorted(names) if not name.startswith(".")):
            if has_magic(path):
                with_dicom.add(path.parent)
            elif path.name.lower().endswith(SUFFIXES):
                images.append(path)
    # what ends in .dcm and is none lies in a series folder as a damaged slice, and is told there
    images = [path for path in images if path.suffix.lower() != ".dcm" or path.parent not in with_dicom]
    beside = _masks_beside(images)
    return [path for path in images if path not in beside], sorted(with_dicom), [*masks, *sorted(beside)]


def _masks_beside(images: Iterable[Path]) -> set[Path]:
    """The files that are masks by their names, with an image of their case in the same folder."""
    found: set[Path] = set()
    by_folder: dict[Path, dict[Path, str | None]] = defaultdict(dict)
    for path in images:
        by_folder[path.parent][path] = mask_of(_stem(path))
    for files in by_folder.values():
        others = [_stem(path) for path, case in files.items() if case is None]
        for path, case in files.items():
            if case is not None and any(
                not case or other == case or (other.startswith(case) and other[len(case)] in "_-. ") for other in others
            ):
                found.add(path)
    return found


def _stem(path: Path) -> str:
    ending = next((s for s in SUFFIXES if path.name.lower().endswith(s)), "")
    return path.name[: len(path.name) - len(ending)] or path.name


def _named(path: Path, common: Path, stem: str | None = None) -> str:
    return (path.parent.relative_to(common) / (stem or _stem(path))).as_posix()


def _files(paths: Sequence[Path], common: Path, channels: int, names: Sequence[str], may_lack: bool) -> list[Item]:
    """One item for each file, or for the files of one case together."""
    called = names if len(set(names)) == channels > 1 else ()
    words = {path: found for path in paths if (found := _by_word(path, called))}
    if len({(path.parent, stem) for path, (stem, _) in words.items()}) == len(words):
        words = {}  # no case has two files: that a name ends like a channel's says nothing
    of_case = words | {path: found for path in paths if (found := _numbered(path, channels))}
    groups: dict[tuple[Path, str], dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path, (stem, number) in of_case.items():
        groups[path.parent, stem][number].append(path)
    items = [_single(path, common) for path in paths if path not in of_case]
    return items + [
        _case(folder, stem, found, common, channels, called, may_lack) for (folder, stem), found in groups.items()
    ]


def _numbered(path: Path, channels: int) -> tuple[str, int] | None:
    match = _CHANNEL.match(_stem(path)) if channels > 1 else None
    return (match[1], int(match[2])) if match else None


def _by_word(path: Path, names: Sequence[str]) -> tuple[str, int] | None:
    found = channel_of(_stem(path), names, any_case=True)
    return (found[0], names.index(found[1])) if found else None


def _case(
    folder: Path,
    stem: str,
    found: dict[int, list[Path]],
    common: Path,
    channels: int,
    names: Sequence[str],
    may_lack: bool,
) -> Item:
    """The item of files that are one image's channels, by number."""
    files = [found[number][0] for number in sorted(found)]
    inside = folder.relative_to(common)
    name = inside / stem if stem or inside != Path() else Path(folder.name)
    item = Item([str(path) for path in files], name.as_posix(), str(folder / stem))
    lost = [number for number in range(channels) if number not in found]
    twice = next((number for number, same in found.items() if len(same) > 1), None)
    if twice is not None:
        both = " and ".join(path.name for path in found[twice][:2])
        fault = f"{both} are both its channel {_shown([twice], names)}"
        item.fault = InputError(fault, path=item.shown, hint="take one of them away")
    elif may_lack and lost and max(found) < channels:
        item.image = [str(found[number][0] if number in found else files[0]) for number in range(channels)]
        item.missing = lost
    elif sorted(found) != list(range(channels)):
        if _CHANNEL.match(_stem(files[0])) is None:
            item.fault = _lacks(_shown(lost, names), item.shown)
            return item
        here = ", ".join(f"_{number:04d}" for number in sorted(found))
        fault = f"has the channels {here}, and the model takes {channels} (_0000 to _{channels - 1:04d})"
        item.fault = InputError(fault, path=item.shown, hint="add the missing file, or take away what is too many")
    return item


def _series(folder: Path, common: Path, wanted: str | None) -> list[Item]:
    """The images of a folder with DICOM files in it."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    found, notes = gather(files)
    images = [one for one in found if not one.is_label]
    whole = Item(str(folder), _named(folder, common, folder.name), str(folder), files)
    # a file that cannot be read may be a lost slice: the reader is to refuse the whole folder
    if any("unreadable" in note for note in notes):
        return [] if wanted is not None else [whole]
    if not images:
        return []  # contours, segmentations and reports of a study whose images lie beside it
    if wanted is not None:
        images = [one for one in images if _matches(one, wanted)]
    else:
        images = [one for one in images if not one.is_localizer] or images
        if len(images) == 1 and len(found) == 1 and not any("without pixels" in note for note in notes):
            whole.dicom = images[0].files
            return [whole] if len(images[0].files) > 1 else [_single(images[0].files[0], common)]
    items = []
    for number, one in enumerate(images, 1):
        if len(one.files) == 1:
            items.append(_single(one.files[0], common))
            continue
        called = f"series_{one.header.get('SeriesNumber') or number}"
        if any(item.name.endswith(f"/{called}") for item in items):
            called = f"{called}_{number}"
        place = Path(_named(folder, common, folder.name))
        name = (place / called).as_posix() if len(images) > 1 else place.as_posix()
        items.append(Item(str(folder), name, f"{folder} ({called.replace('_', ' ', 1)})", one.files, linked=True))
    return items


def _single(path: Path, common: Path) -> Item:
    dicom = [path] if has_magic(path) else []
    return Item(str(path), _named(path, common), str(path), dicom, row=path.relative_to(common).as_posix())


def _matches(series: Series, wanted: str) -> bool:
    texts = (series.uid, str(series.header.get("SeriesNumber", "")))
    return wanted in texts or re.search(wanted, str(series.header.get("SeriesDescription", "")), re.I) is not None


def _dicom_files(image: str | list[str]) -> list[Path]:
    if not isinstance(image, str):
        return []
    path = Path(image)
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file() and has_magic(file))
    return [path] if path.is_file() and has_magic(path) else []


def _refuse_collisions(items: Sequence[Item]) -> None:
    """Two images whose names differ in the suffix (or in upper and lower case) alone would write the same file."""
    seen: dict[str, Item] = {}
    for item in items:
        other = seen.setdefault(item.name.casefold(), item)
        if other is not item:
            fault = f"would be written over by the prediction of {item.shown}"
            raise InputError(fault, path=other.shown, hint="rename one, or predict them into two folders")
