"""BraTS, all years: ``BraTS20_Training_001_flair.nii.gz``, ``BraTS-GLI-00005-100-t1n.nii.gz``, masks end in ``seg``.

The four contrasts are the channels (fewer with ``options.channels``). The masks' numbers have a gap until 2021 (1
necrotic core, 2 oedema, 4 enhancing tumour) and none since 2023 (3 enhancing tumour; 4, where it occurs, the resection
cavity); what is scored is their regions: whole tumour, tumour core and enhancing tumour.

Paper: Menze et al., The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS), IEEE TMI 2015
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from monai_transfer.errors import InputError, closest
from monai_transfer.manifest.channels import settle_missing, with_missing
from monai_transfer.manifest.layouts.base import FolderContents, Options, RawCase, count, is_image, list_files, stem
from monai_transfer.manifest.masks import mask_values

__all__ = ["detect", "read"]

OPTIONS = ("channels", "missing_channels")

_FILE = re.compile(r"^(BraTS.*?)[_-](flair|t1ce|t1c|t1n|t1|t2f|t2w|t2|seg)$", re.IGNORECASE)
_CHANNELS = (("t1", "t1ce", "t2", "flair"), ("t1n", "t1c", "t2w", "t2f"))
_SESSION = re.compile(r"^(BraTS-[A-Za-z]+-\d+)-\d{3}$")


def detect(folder: Path) -> float:
    """0.97 where a mask and a contrast are called as BraTS calls them."""
    words = {match[2].lower() for path in _files(folder)[:400] if (match := _FILE.match(stem(path)))}
    return 0.97 if "seg" in words and words & {"flair", "t2f"} else 0.0


def read(folder: Path, options: Options) -> FolderContents:
    """One case for each name (of one patient, where it ends in a session).

    Raises:
        InputError: no case, a contrast that is not there, or a case without one of them.
    """
    groups: dict[tuple[Path, str], dict[str, Path]] = defaultdict(dict)
    for path in _files(folder):
        if match := _FILE.match(stem(path)):
            groups[path.parent.relative_to(folder), match[1]][match[2].lower()] = path
    seen = {word for parts in groups.values() for word in parts} - {"seg"}
    default = max(_CHANNELS, key=lambda words: len(seen & set(words)))
    channels = [word.lower() for word in options.channels] or list(default)
    for word in channels:
        if word not in seen:
            raise InputError(f"no image is called {word!r}", path=folder, hint=closest(word, seen))
    found = FolderContents([], channel_names=dict(enumerate(channels)))
    for (below, name), files in sorted(groups.items()):
        parts = {word: files[word] for word in channels if word in files}
        if not parts:
            continue
        session = _SESSION.match(name)
        case = RawCase(list(parts.values()), name, (below / name).as_posix(), files.get("seg"))
        case.patient = session[1] if session else name
        found.cases.append(with_missing(case, parts, channels))
    found.cases = settle_missing(found.cases, channels, options.missing_channels, folder, found.notes)
    bare = sum(case.label is None for case in found.cases)
    if bare:
        found.notes.append(f"{count(bare, 'case')} without a mask: listed as unlabeled")
    _name(found, default is _CHANNELS[1])
    found.texts |= {"task": "segmentation", "modality": "MR"}
    return found


def _name(found: FolderContents, since_2023: bool) -> None:
    """Classes and regions; of numbers that differ between years, those that the first masks hold."""
    masks = [case.label for case in found.cases if isinstance(case.label, Path)]
    held = set().union(*map(mask_values, masks[:: max(1, len(masks) // 20)])) if masks else set()
    enhancing = 3 if since_2023 or (3 in held and 4 not in held) else 4
    found.labels = {0: "background", 1: "necrotic core", 2: "oedema", enhancing: "enhancing tumour"}
    if enhancing == 3 and 4 in held:
        found.labels[4] = "resection cavity"
    found.regions = {"whole tumour": [1, 2, enhancing], "tumour core": [1, enhancing], "enhancing": [enhancing]}
    if 4 in found.labels and enhancing == 3:
        found.regions["cavity"] = [4]
    found.notes.append(f"regions: {', '.join(found.regions)}, one output each (--regions none: the classes themselves)")


def _files(folder: Path) -> list[Path]:
    return [path for path in list_files(folder) if is_image(path)] if folder.is_dir() else []
