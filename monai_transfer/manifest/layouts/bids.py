"""BIDS: ``sub-01[/ses-1]/anat/sub-01[_ses-1]_T1w.nii.gz``, masks (``_dseg``, ``_mask``) under ``derivatives``.

The image is the suffix that most cases have, or the suffixes in ``options.channels`` as channels. A mask belongs to an
image when all its ``sub``, ``ses``, ``run`` and ``acq`` entities are the image's, and the words in its name, if any
(``sub-01_T2w_label-SC_seg``), are the image's suffix; ``options.exclude`` leaves other kinds of mask out.

Sites, splits (and, where asked for, labels) come from ``participants.tsv``; acquisition times of ``*_scans.tsv`` are
kept as days since the first scan only. Scanner fields of the JSON files beside the images (``Manufacturer``,
``MagneticFieldStrength``) are sites with ``options.site_from``, read by the inheritance principle: a file higher up
(``T1w.json``) holds for all below, a nearer one goes before it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path

from monai_transfer.errors import InputError, closest
from monai_transfer.manifest.channels import settle_missing, with_missing
from monai_transfer.manifest.layouts.base import FolderContents, Options, RawCase, count, is_image, list_files, stem
from monai_transfer.manifest.sidecars import sidecar_site
from monai_transfer.manifest.table import Table

__all__ = ["detect", "read"]

OPTIONS = ("channels", "exclude", "missing_channels", "site_from")

_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9]+)")
_MASKS = ("dseg", "mask", "seg", "roi")
_KEYS = ("sub", "ses", "acq", "run")


def detect(folder: Path) -> float:
    """0.95 where subject folders hold images that are named by their subject."""
    subjects = [path for path in folder.glob("sub-*") if path.is_dir()] if folder.is_dir() else []
    named = (is_image(path) and path.name.startswith(s.name + "_") for s in subjects[:5] for path in list_files(s))
    return 0.95 if any(named) else 0.0


def read(folder: Path, options: Options) -> FolderContents:
    """One case per subject, session, acquisition and run.

    Raises:
        InputError: a wanted suffix is not there, or two masks fit one image equally.
    """
    images: dict[tuple[str, ...], dict[str, Path]] = defaultdict(dict)
    masks: list[tuple[dict[str, str], Path]] = []
    for path in list_files(folder):
        name, _, suffix = stem(path).rpartition("_")
        entities = dict(_ENTITY.findall(name))
        if not is_image(path) or "sub" not in entities or any(fnmatch(path.name, p) for p in options.exclude):
            continue
        place = path.relative_to(folder).parts
        if suffix in _MASKS or entities.get("label"):
            masks.append((entities, path))
        elif place[0] not in ("derivatives", "sourcedata", "code"):
            images[tuple(entities.get(key, "") for key in _KEYS)][suffix] = path
    counts = Counter(suffix for files in images.values() for suffix in files)
    channels = list(options.channels) or [max(sorted(counts), key=lambda suffix: counts[suffix])] if counts else []
    for suffix in channels:
        if suffix not in counts:
            raise InputError(f"no image has the suffix {suffix!r}", path=folder, hint=closest(suffix, counts))
    found = FolderContents([], channel_names=dict(enumerate(channels)))
    others = [f"{suffix} ({count(n, 'image')})" for suffix, n in sorted(counts.items()) if suffix not in channels]
    if others:
        found.notes.append(f"image is {', '.join(channels)}; left out: {', '.join(others)} (see --channels)")
    taken: set[Path] = set()
    for key, files in sorted(images.items()):
        parts = {suffix: files[suffix] for suffix in channels if suffix in files}
        if not parts:
            continue
        entities = {name: value for name, value in zip(_KEYS, key, strict=True) if value}
        first_image = next(iter(parts.values()))
        mask = _mask(entities, masks, first_image, channels)
        if mask:
            taken.add(mask)
        name = "_".join(f"{name}-{value}" for name, value in entities.items())
        first = first_image.relative_to(folder)
        case = RawCase(
            list(parts.values()),
            key=name,
            place=(first.parent / stem(first)).as_posix(),
            label=mask,
            patient=f"sub-{key[0]}",
            aliases=[f"sub-{key[0]}", key[0]],
        )
        if options.site_from:
            case.site = sidecar_site(first_image, folder, options.site_from)
        found.cases.append(with_missing(case, parts, channels))
    found.cases = settle_missing(found.cases, channels, options.missing_channels, folder, found.notes)
    spare = [path.name for _, path in masks if path not in taken]
    if spare:
        found.notes.append(f"{count(len(spare), 'mask')} that fit no image, left out: {', '.join(spare[:3])}")
    if taken:
        found.texts["task"] = "segmentation"
    participants = folder / "participants.tsv"
    if participants.is_file() and "participant_id" in Table.read(participants).columns:
        found.table = (participants, "participant_id")
    _order(found, folder)
    return found


def _mask(
    entities: dict[str, str], masks: list[tuple[dict[str, str], Path]], image: Path, channels: Sequence[str]
) -> Path | None:
    fits = []
    for named, path in masks:
        words = [part for part in stem(path).split("_")[:-1] if "-" not in part]
        if not all(word in channels for word in words):
            continue
        shared = [key for key in _KEYS if key in named]
        # A mask in a template's space does not lie on the subject's own image.
        if "space" not in named and all(entities.get(key) == named[key] for key in shared):
            fits.append(((len(shared), stem(path).endswith("dseg"), named.get("desc") != "brain"), path))
    if not fits:
        return None
    most = max(n for n, _ in fits)
    best = [path for n, path in fits if n == most]
    if len(best) > 1:
        names = " and ".join(path.name for path in best[:2])
        raise InputError(f"{names} both fit it", path=image, hint="leave one kind of mask, with --exclude")
    return best[0]


def _order(found: FolderContents, folder: Path) -> None:
    """Days since the first scan of the set, where ``*_scans.tsv`` give acquisition times."""
    times: dict[str, datetime] = {}
    for path in sorted(folder.glob("sub-*/**/*_scans.tsv")):
        table = Table.read(path)
        if {"filename", "acq_time"} <= set(table.columns):
            for row in table.rows:
                try:
                    moment = datetime.fromisoformat(row["acq_time"].removesuffix("Z")).replace(tzinfo=None)
                except ValueError:
                    continue
                times[str(path.parent / row["filename"])] = moment
    if times:
        first = min(times.values())
        for case in found.cases:
            time = times.get(str(case.images[0]))
            case.acquired = float((time - first).days) if time else None
