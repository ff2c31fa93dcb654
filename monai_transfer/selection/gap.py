"""Domain gap: how far two sets of images are apart, measure by measure, each with an interval and a sentence.

Patients are the units: measurements are averaged over a patient's images, and intervals (95 %) come from resampling
patients, widened for small sets. Distances that cannot be negative are corrected for what chance alone gives (the mean
under exchange of patients between the sets), so 0 means "no more apart than two halves of one set".

Patients who stand in both sets cannot be on both sides of a comparison: each is put on one side at random, many times
over. A set against itself is thus compared half against half, and its gap is 0 within its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student
from tqdm import tqdm

from monai_transfer.errors import InputError
from monai_transfer.manifest.model import Case, Manifest
from monai_transfer.selection.describe import CaseDescription, describe_case
from monai_transfer.selection.drift import MIN_PATIENTS, Drift, drift
from monai_transfer.selection.gap_measures import Measure, measures
from monai_transfer.selection.learned_gap import GapRow, learned_rows
from monai_transfer.selection.two_samples import TwoSamples
from monai_transfer.tasks import get_task

__all__ = ["DomainGap", "GapRow", "chosen_cases", "domain_gap", "gap_over_time", "gap_to_the_rest"]

SPLITS = ("training", "validation", "unlabeled")
_REPLICATES = 400


@dataclass(frozen=True)
class DomainGap:
    """Result of ``domain_gap``.

    Attributes:
        name_a, name_b: the two sets, in words.
        patients_a, patients_b, shared_patients: their numbers.
        rows: one a measure.
        drifts: change over time within each site of each set, where ``acquired`` is known.
        notes: what the reader should know about how this was measured.
        cases_a, cases_b: the measured cases, for pictures.
    """

    name_a: str
    name_b: str
    patients_a: int
    patients_b: int
    shared_patients: int
    rows: tuple[GapRow, ...]
    drifts: tuple[Drift, ...]
    notes: tuple[str, ...]
    cases_a: tuple[CaseDescription, ...]
    cases_b: tuple[CaseDescription, ...]

    def __getitem__(self, name: str) -> GapRow:
        """The row of that name.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; no case or patient is named."""
        return {
            "a": self.name_a,
            "b": self.name_b,
            "patients_a": self.patients_a,
            "patients_b": self.patients_b,
            "shared_patients": self.shared_patients,
            "rows": [asdict(row) for row in self.rows],
            "drift": [asdict(one) for one in self.drifts],
            "notes": list(self.notes),
        }


def domain_gap(
    manifest_a: Manifest | str | Path,
    manifest_b: Manifest | str | Path,
    *,
    site_a: str | None = None,
    site_b: str | None = None,
    splits: Sequence[str] = SPLITS,
    source: Any = None,
    max_patients: int = 60,
    seed: int = 0,
    progress: bool = False,
    trust_source: bool = False,
) -> DomainGap:
    """Measure the gap between two manifests, or two sites of one.

    Args:
        manifest_a, manifest_b: manifests or paths of them.
        site_a, site_b: take only that site.
        splits: which cases are looked at; the test cases are not, unless a manifest has no others.
        source: a bundle folder, or a network (see ``source_features``), whose features give a second learned distance.
        max_patients: at most so many per set, chosen at random.
        seed: of every random choice.
        progress: show a progress bar on stderr.
        trust_source: run the source's own code where a part of it cannot be read without.

    Raises:
        InputError: a manifest or file cannot be read, or a set has fewer than two patients (four if the
            sets are the same).
    """
    sets = [_load(manifest, site, splits) for manifest, site in ((manifest_a, site_a), (manifest_b, site_b))]
    (full_a, cases_a, name_a), (full_b, cases_b, name_b) = sets
    same = full_a.path is not None and (full_a.path, site_a) == (full_b.path, site_b)
    if site_a and site_b and full_a.name == full_b.name:  # the sites alone tell the sides apart
        name_a, name_b = site_a, site_b
    total = max(len({case.patient for case in cases}) for cases in (cases_a, cases_b))
    keep = _chosen_patients(cases_a, cases_b, max_patients, np.random.default_rng(seed))
    cases_a, cases_b = ([case for case in cases if case.patient in keep] for cases in (cases_a, cases_b))
    looked_at = ((full_a, cases_a), (full_b, cases_b))
    unique = {(full.path, case.case): (case, full) for full, cases in looked_at for case in cases}
    done = {
        key: describe_case(case, full)
        for key, (case, full) in tqdm(unique.items(), "measuring", disable=not progress, leave=False)
    }
    a, b = ([done[full.path, case.case] for case in cases] for full, cases in looked_at)
    samples = TwoSamples([case.patient for case in a], [case.patient for case in b], seed=seed)
    whole = samples.shared == samples.patients_a == samples.patients_b
    if name_a == name_b and not whole:
        name_a, name_b = f"{name_a} (A)", f"{name_b} (B)"
    said_a, said_b = ("one half", "the other half") if whole else (name_a, name_b)
    notes = [f"at most {max_patients} patients of each set were looked at, chosen at random"] * (total > max_patients)
    notes += _remarks(samples, whole, full_a, full_b)
    rows = [_row(measure, samples, a, b, said_a, said_b) for measure in measures(a, b, full_a, full_b)]
    if len(a[0].features) == len(b[0].features):
        rows += learned_rows(
            "handcrafted features", np.stack([c.features for c in a]), np.stack([c.features for c in b]), samples, seed
        )
    if source is not None:
        from monai_transfer.selection.source_features import SourceNetwork  # brings torch

        network = SourceNetwork.load(source, trust_source=trust_source)
        if network.bundle is not None and network.bundle.note:
            notes.append(network.bundle.note)
        seen = {
            key: network.pooled(case.image)
            for key, (case, _) in tqdm(unique.items(), "features", disable=not progress, leave=False)
        }
        of_a, of_b = (np.stack([seen[full.path, case.case] for case in cases]) for full, cases in looked_at)
        rows += learned_rows(f"features of {network.name}", of_a, of_b, samples, seed)
    if len(rows) >= 10:
        notes.append(f"of {len(rows)} measures about {0.05 * len(rows):.0f} would be marked by chance alone")
    drifts = drift(list(done.values()), seed=seed) if same else [*drift(a, seed=seed), *drift(b, seed=seed)]
    return DomainGap(
        name_a, name_b, samples.patients_a, samples.patients_b, samples.shared,
        tuple(rows), tuple(drifts), tuple(notes), tuple(a), tuple(b),
    )  # fmt: skip


def _remarks(samples: TwoSamples, whole: bool, full_a: Manifest, full_b: Manifest) -> list[str]:
    """What the two sets have in common, and how they name their classes."""
    said = []
    if samples.shared:
        said.append(
            "both sets are the same patients: the set was compared with itself, half against half"
            if whole
            else f"{samples.shared} patients stand in both sets: each was put on one side at random, many times over"
        )
    classes = all(get_task(manifest.task).label.is_class for manifest in (full_a, full_b))
    if classes and set(full_a.class_names) != set(full_b.class_names):
        said.append(f"the sets name their classes differently: {full_a.class_names} and {full_b.class_names}")
    return said


def gap_to_the_rest(
    manifest: Manifest | str | Path, *, site: str | None = None, **settings: Any
) -> dict[str, DomainGap]:
    """The gap between each site and all the others together: which one is the odd one out.

    Args:
        manifest: of two or more sites.
        site: look at this one only.
        settings: ``splits``, ``source``, ``max_patients``, ``seed``, ``progress`` of :func:`domain_gap`.

    Returns:
        By site; without those that have one patient only, which the notes name.

    Raises:
        InputError: no such site, fewer than two, or none with two patients; else see ``domain_gap``.
    """
    full = manifest if isinstance(manifest, Manifest) else Manifest.load(manifest)
    if len(full.sites) < 2:
        fault = f"holds {len(full.sites)} site, and one against the rest needs two"
        raise InputError(fault, path=full.path, hint="name sites with `monai-transfer manifest --site` or --site-from")
    splits = settings.get("splits", SPLITS)
    patients = {one: {c.patient for split in splits for c in full.cases(split, site=one)} for one in full.sites}
    alone = [one for one in full.sites if len(patients[one]) < 2]
    if len(alone) == len(full.sites) and site is None:
        raise InputError("no site has two patients, and a gap needs them", path=full.path, hint="add patients")
    found = {}
    for one in [site] if site is not None else [one for one in full.sites if one not in alone]:
        others = [other for other in full.sites if other != one]
        here = replace(full.filter(one), name=one, path=None)  # two sets, though of one file
        rest = others[0] if len(others) == 1 else f"the {len(others)} other sites"
        found[one] = domain_gap(here, replace(full.filter(others), name=rest, path=None), **settings)
    if alone and site is None:
        last = list(found)[-1]
        said = f"not measured, since a gap needs two patients on each side: {', '.join(alone)}"
        found[last] = replace(found[last], notes=(*found[last].notes, said))
    return found


def gap_over_time(
    manifest: Manifest | str | Path,
    *,
    site: str | None = None,
    splits: Sequence[str] = SPLITS,
    source: Any = None,
    max_patients: int = 60,
    seed: int = 0,
    progress: bool = False,
    trust_source: bool = False,
) -> DomainGap:
    """The gap between the earlier and the later half of a site's patients (by ``acquired``), and its drift.

    The halves are parted at the middle of the patients, not where the change is seen, so the intervals stay honest.

    Args:
        manifest: a manifest whose cases carry ``acquired``.
        site: take only that site; needed where there are several, since their mixture may change over time.
        splits, source, max_patients, seed, progress, trust_source: see ``domain_gap``.

    Raises:
        InputError: several sites and none named, nothing is dated, or all of it at one time; else see ``domain_gap``.
    """
    full, cases, _ = _load(manifest, site, splits)
    sites = sorted({case.site for case in cases})
    if len(sites) > 1:
        fault = f"holds {len(sites)} sites ({', '.join(sites)}), whose mixture may change over time"
        raise InputError(fault, path=full.path, hint="name one with --site-a")
    dated = [case for case in cases if case.acquired is not None]
    first: dict[str, float] = {}
    for case in dated:
        assert case.acquired is not None
        first[case.patient] = min(case.acquired, first.get(case.patient, case.acquired))
    times = sorted(first.values())
    if len(set(times)) < 2:
        fault = "no case says when it was acquired" if not times else "all cases were acquired at one time"
        raise InputError(fault, path=full.path, hint="give `acquired`: days since the first scan, or an order")
    middle = times[len(times) // 2]
    border = middle if middle > times[0] else next(t for t in times if t > times[0])
    parts = [
        replace(
            full,
            name=f"earlier (acquired < {border:g})" if early else f"later (acquired >= {border:g})",
            training=[case for case in dated if (first[case.patient] < border) == early],
            **{split: [] for split in ("validation", "test", "unlabeled")},  # type: ignore[arg-type]
        )
        for early in (True, False)
    ]
    kept = {"source": source, "max_patients": max_patients, "seed": seed, "progress": progress}
    kept["trust_source"] = trust_source
    gap = domain_gap(*parts, splits=("training",), **kept)
    if len(dated) < len(cases):
        gap = replace(gap, notes=(*gap.notes, f"{len(cases) - len(dated)} cases without `acquired` were left out"))
    if not gap.drifts:
        note = f"drift over time needs {MIN_PATIENTS} patients, and there are {len(first)}"
        gap = replace(gap, notes=(*gap.notes, note))
    return gap


def chosen_cases(manifest: Manifest, splits: Sequence[str] = SPLITS, site: str | None = None) -> list[Case]:
    """The cases of ``splits``; of all splits where these are empty."""
    cases = [case for split in splits for case in manifest.cases(split, site=site)]
    return cases or [
        case for split in ("training", "validation", "unlabeled", "test") for case in manifest.cases(split, site=site)
    ]


def _load(given: Manifest | str | Path, site: str | None, splits: Sequence[str]) -> tuple[Manifest, list[Case], str]:
    manifest = given if isinstance(given, Manifest) else Manifest.load(given)
    cases = chosen_cases(manifest, splits, site)
    name = f"{manifest.name} {site}" if site else manifest.name
    if not cases:
        raise InputError("holds no case", path=manifest.path, hint="look at its splits and sites")
    return manifest, cases, name


def _chosen_patients(a: list[Case], b: list[Case], most: int, rng: np.random.Generator) -> set[str]:
    """At most ``most`` patients of each set; one choice for both, so that shared patients stay shared."""
    patients = [sorted({case.patient for case in cases}) for cases in (a, b)]
    order = {name: i for i, name in enumerate(rng.permutation(sorted(set(patients[0]) | set(patients[1]))))}
    return {name for names in patients for name in sorted(names, key=order.__getitem__)[:most]}


def _row(
    measure: Measure, samples: TwoSamples, a: list[CaseDescription], b: list[CaseDescription], name_a: str, name_b: str
) -> GapRow:
    """One measure's value and interval, over the patients that have it."""
    of_a = samples.means_a([measure.of_case(case) for case in a])
    of_b = samples.means_b([measure.of_case(case) for case in b])
    if not (np.isfinite(of_a).any() and np.isfinite(of_b).any()):
        return GapRow(measure.name, None, None, None, measure.unit, False, f"{measure.name}: not known on both sides")

    def statistic(rows_a: np.ndarray, rows_b: np.ndarray) -> float:
        return measure.gap(_mean(of_a[rows_a]), _mean(of_b[rows_b]))

    point = samples.value(statistic)
    replicates = samples.replicates(statistic, _REPLICATES)
    replicates = replicates[np.isfinite(replicates)]
    if measure.signed:
        low, high = np.quantile(replicates, (0.025, 0.975)) if len(replicates) else (np.nan, np.nan)
    else:
        pooled = np.vstack([of_a, of_b])
        point -= _chance(measure, pooled, samples)
        low, high = point - 1.96 * replicates.std(), point + 1.96 * replicates.std()
    wider = _small_sample(samples)
    low, high = point + wider * (min(low, point) - point), point + wider * (max(high, point) - point)
    value, low, high = (round(measure.shown(v), 6) + 0.0 for v in (point, low, high))
    differs = bool(low > 0 or high < 0)
    sentence = measure.sentence(_mean(of_a), _mean(of_b), (value, low, high), differs, name_a, name_b)
    return GapRow(measure.name, value, low, high, measure.unit, differs, sentence)


def _small_sample(samples: TwoSamples) -> float:
    """How much wider than the bootstrap's own an interval must be with few patients.

    Resampling n patients gives (n - 1) / n of their variance, and a normal's quantile where Student's is due.
    """
    n, both = samples.smaller_side, samples.smaller_side + samples.larger_side
    return float(np.sqrt(n / (n - 1)) * student.ppf(0.975, both - 2) / 1.96)


def _chance(measure: Measure, pooled: np.ndarray, samples: TwoSamples) -> float:
    """Mean of an unsigned measure when patients are exchanged between the sides at random."""
    rng = np.random.default_rng(samples.seed)
    n = samples.smaller_side
    values = []
    for _ in range(200):
        order = rng.permutation(len(pooled))
        values.append(measure.gap(_mean(pooled[order[:n]]), _mean(pooled[order[n : n + samples.larger_side]])))
    return float(np.nanmean(values))


def _mean(rows: np.ndarray) -> np.ndarray:
    """Mean over patients, leaving out what is unknown (NaN); NaN where nothing is known."""
    known = np.isfinite(rows)
    return np.where(known, rows, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
