"""Names for cases and patients: safe as file names, and unique."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from monai_transfer.errors import InputError
from monai_transfer.manifest.layouts.base import RawCase, count

__all__ = ["label_by_name", "name_cases", "name_patients", "slug"]

_PATIENT = re.compile(r"^(patient|subject|sub|subj|pat|pt)[-_ ]?[a-z]{0,4}\d+$", re.IGNORECASE)


def slug(text: str) -> str:
    """``text`` with everything that is not safe in a file name replaced by ``_``."""
    safe = re.sub(r"[^A-Za-z0-9._+=@-]+", "_", text).strip("._-+=@") or "case"
    return safe if len(safe) <= 100 else f"{safe[:90]}_{hashlib.sha256(safe.encode()).hexdigest()[:8]}"


def name_cases(cases: Sequence[RawCase], folders: Sequence[str]) -> list[str]:
    """A case name for each: its key; where keys repeat, site and key; failing that its place, below its folder's name.

    ``folders`` holds the name of the folder that each case came from.
    """
    places = [slug(case.place.replace("/", "_")) for case in cases]
    ways = (
        [slug(case.key) for case in cases],
        [slug(f"{case.site}_{case.key}") for case in cases],
        places,
        [slug(f"{folder}_{place}") for folder, place in zip(folders, places, strict=True)],
    )
    for names in ways:
        if len({name.lower() for name in names}) == len(names):
            return names
    counts = Counter(name.lower() for name in ways[-1])
    full = [f"{folder}/{case.place}/{i}" for i, (folder, case) in enumerate(zip(folders, cases, strict=True))]
    tails = [hashlib.sha256(text.encode()).hexdigest()[:8] for text in full]
    return [f"{n}_{t}" if counts[n.lower()] > 1 else n for n, t in zip(ways[-1], tails, strict=True)]


def name_patients(
    cases: Sequence[RawCase], names: Sequence[str], folders: Sequence[int], regex: str | None, notes: list[str]
) -> None:
    """Give every case that has none a patient, in place: by ``regex`` on its place, by a folder that is called like one
    (``patient00001``, ``sub-07``), else the case's own name.

    A name that stands in several folders (once in each) is taken as one patient, seen there with several scanners: if
    that is wrong, less is split apart than could be; if the opposite were wrong, a patient would leak.

    Args:
        cases: the cases; names: their case names; folders: the number of the folder that each came from.
        regex: its first group is the patient.
        notes: receives what was assumed.

    Raises:
        InputError: the expression is none, has no group, or does not fit a case.
    """
    if regex is not None:
        for case, text in zip(
            cases, _matches(cases, [case.place for case in cases], regex, "--patient-regex"), strict=True
        ):
            case.patient = text
        return
    by_folder = 0
    for case in cases:
        part = next((part for part in case.place.split("/")[:-1] if _PATIENT.match(part)), None)
        if not case.patient and part:
            case.patient, by_folder = part, by_folder + 1
    if by_folder:
        notes.append(
            f"patients of {count(by_folder, 'case')} taken from folders called like one; --patient-regex decides"
        )
    within = Counter((folder, case.key) for folder, case in zip(folders, cases, strict=True))
    across = Counter(key for _, key in within)
    shared = {key for key, n in across.items() if n > 1 and all(within[f, key] <= 1 for f in set(folders))}
    same = {case.key for case in cases if not case.patient and case.key in shared}
    for case in cases:
        if not case.patient and case.key in shared:
            case.patient = case.key
    if same:
        notes.append(f"{count(len(same), 'name')} seen in several folders: each taken as one patient")
    own = 0
    for case, name in zip(cases, names, strict=True):
        if not case.patient:
            case.patient, own = name, own + 1
    if own:
        hint = "name patients with --patient-column or --patient-regex where some have several"
        notes.append(f"{count(own, 'case')} taken as one patient each: {hint}")


def label_by_name(cases: Sequence[RawCase], regex: str) -> None:
    """Give every case that has no label the class that ``regex`` finds in its place, in place.

    Raises:
        InputError: the expression is none, has no group, or does not fit a case.
    """
    bare = [case for case in cases if case.label is None]
    places = [case.place if case.origin is None else case.origin.with_suffix("").as_posix() for case in bare]
    for case, text in zip(bare, _matches(bare, places, regex, "--label-regex"), strict=True):
        case.label = int(text) if text.isdecimal() else text


def _matches(cases: Sequence[RawCase], places: Sequence[str], regex: str, option: str) -> list[str]:
    try:
        pattern = re.compile(regex)
    except re.error as error:
        hint = "mark what is meant by brackets: '^(.+?)_'"
        raise InputError(f"{option} {regex!r} is no regular expression ({error})", hint=hint) from None
    if pattern.groups < 1:
        raise InputError(f"{option} {regex!r} has no group", hint="mark what is meant by brackets: '^(.+?)_'")
    texts = []
    for case, place in zip(cases, places, strict=True):
        hit = pattern.search(place)
        if not hit or not hit.group(1):
            hint = "correct the expression; it is matched against the path below the folder, without suffix"
            raise InputError(f"{option} {regex!r} does not fit {case.place!r}", hint=hint)
        texts.append(hit.group(1))
    return texts
