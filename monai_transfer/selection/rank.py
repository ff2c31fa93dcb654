"""Ranking sources for a target: scores beside their nulls, a linear probe as the yardstick, and the measured gap.

Segmentation has no label per image, so its rows are regions: the mean features of each class in each case, whose
labels are exchanged within cases for the null. Regression labels are cut into thirds for the scores that want classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from monai_transfer.errors import InputError
from monai_transfer.manifest.labelled import select_labelled
from monai_transfer.manifest.model import Case, Manifest
from monai_transfer.selection.gap import domain_gap
from monai_transfer.selection.learned_gap import GapRow
from monai_transfer.selection.measured_transfers import forecast_gain
from monai_transfer.selection.ranking import RankedSource, Ranking
from monai_transfer.selection.source_features import ImageOutputs, SourceNetwork
from monai_transfer.selection.transferability import (
    LinearProbe,
    ccfv,
    gbc,
    h_score,
    leep,
    linear_probe,
    logme,
    nce,
    permutation_null,
    transrate,
)
from monai_transfer.tasks import get_task

__all__ = ["RankedSource", "Ranking", "rank_sources"]

_PROBE_VOXELS = 4000
_CCFV_CASES, _CCFV_PERMUTATIONS = 20, 50  # its null costs an optimal assignment per pair of cases and permutation


def rank_sources(
    manifest: Manifest | str | Path,
    sources: Sequence[Any],
    *,
    site: str | None = None,
    n_labelled: int | None = None,
    preprocessing: Any = None,
    permutations: int = 200,
    voxels: int = 32,
    max_cases: int = 100,
    gap: bool = True,
    seed: int = 0,
    progress: bool = False,
    trust_source: bool = False,
) -> Ranking:
    """Rank sources by what their frozen features know of the target's labelled training cases.

    Args:
        manifest: the target.
        sources: bundle folders, ``Source`` objects of bundles, networks or ``SourceNetwork``.
        site: use only this site of the target.
        n_labelled: use only so many labelled cases (nested choice by seed, as in training).
        preprocessing: for sources that bring none: takes ``{"image": path}``, gives a C x spatial tensor under it.
        permutations: of each null.
        voxels: per class and case, for CC-FV and the linear probe of segmentation.
        max_cases: at most so many, chosen at random.
        gap: also measure the domain gap to the data that a source bundle names.
        progress: show a progress bar on stderr.
        trust_source: run the sources' own code where a part of them cannot be read without.

    Raises:
        InputError: the manifest cannot be read, or has too few labelled cases, or no source is given.
    """
    target = manifest if isinstance(manifest, Manifest) else Manifest.load(manifest)
    if not sources:
        raise InputError("no source to rank", hint="name bundle folders with --sources")
    label = get_task(target.task).label
    if not (label.is_number or get_task(target.task).needs_names):
        hint = "rank for a segmentation of the same lesions, whose classes have names"
        raise InputError(f"sources cannot be ranked for {target.task}", path=target.path, hint=hint)
    cases = target.cases("training", site=site, labelled=True)
    if n_labelled is not None:
        cases = select_labelled(cases, n_labelled, seed, target.task)
    notes: list[str] = []
    if len(cases) > max_cases:
        notes.append(f"{max_cases} of {len(cases)} labelled training cases were used, chosen at random")
        chosen = np.sort(np.random.default_rng(seed).choice(len(cases), max_cases, replace=False))
        cases = [cases[i] for i in chosen]
    patients = {case.patient for case in cases}
    if len(patients) < 4:
        fault = f"has labelled training cases of {len(patients)} patients, and a ranking needs at least four"
        raise InputError(fault, path=target.path, hint="label more cases")
    rows = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for source in sources:
            name = type(source).__name__ if isinstance(source, nn.Module) else Path(str(source)).resolve().name
            try:
                network = SourceNetwork.load(source, preprocessing=preprocessing, trust_source=trust_source)
                name = network.name
                notes += [network.bundle.note] if network.bundle is not None and network.bundle.note else []
                row = _measure(network, target, cases, permutations, voxels, seed, progress)
                if gap:
                    row.gap = _gap(network, target, site, seed)
            except InputError as error:
                row = RankedSource(name, fault=str(error))
            rows.append(row)
    notes += sorted({str(one.message) for one in caught if "H-score" in str(one.message)})
    rows.sort(key=lambda row: -np.inf if row.probe is None else row.probe, reverse=True)
    notes += _not_told_apart([row for row in rows if row.probe is not None])
    name = f"{target.name} {site}" if site else target.name
    return Ranking(name, target.task, len(cases), len(patients), rows, notes)


def _not_told_apart(usable: list[RankedSource]) -> list[str]:
    """Which sources the probe does not separate from the first; said of all where nothing separates any."""
    if len(usable) < 2:
        return []
    first = usable[0]
    assert first.probe_interval is not None
    low = first.probe_interval[0]
    near = [row.source for row in usable[1:] if row.probe is not None and row.probe >= low]
    notes = []
    if near:
        everyone = len(near) == len(usable) - 1
        names = f"{', '.join([first.source, *near[:-1]])} and {near[-1]}"
        notes.append(
            f"{names} cannot be told apart with these cases"
            + ("; nothing here says which source to take: train with each (monai-transfer study)" if everyone else "")
        )
    for name in first.scores:
        ordered = [row for row in usable if name in row.scores]
        if len(ordered) > 1 and all(row.scores[name].p_value > 0.05 for row in ordered):
            notes.append(f"{name} is no better than with random labels for any source: its order means nothing")
    return notes


def _measure(
    network: SourceNetwork,
    target: Manifest,
    cases: list[Case],
    permutations: int,
    voxels: int,
    seed: int,
    progress: bool,
) -> RankedSource:
    outputs = _outputs(network, target, cases, voxels, seed, progress)
    table = _Rows(target, cases, outputs)
    row = RankedSource(network.name, network.licence, n_features=table.features.shape[1])
    # one common scale: scores that see the scale of features must not rank networks by it
    features = table.features / max(float(table.features.std()), 1e-12)
    null: dict[str, Any] = {
        "n": permutations,
        "seed": seed,
        "groups": table.groups,
        "within": get_task(target.task).dense,
    }
    suffix = " (thirds)" if get_task(target.task).label.is_number else ""
    row.scores["LogME"] = permutation_null(logme, features, table.labels, **null)
    row.scores["H-score" + suffix] = permutation_null(h_score, features, table.classes, **null)
    row.scores["GBC" + suffix] = permutation_null(gbc, features, table.classes, **null)
    row.scores["TransRate" + suffix] = permutation_null(
        transrate, features, table.classes, unit_variance=True, centre_classes=True, **null
    )
    if table.outputs is not None:
        row.scores["LEEP" + suffix] = permutation_null(leep, table.outputs, table.classes, **null)
        row.scores["NCE" + suffix] = permutation_null(nce, table.outputs, table.classes, **null)
    if get_task(target.task).dense:
        few = outputs[:_CCFV_CASES]
        names = np.repeat([case.case for case in cases[: len(few)]], [len(one.voxels) for one in few])
        row.scores["CC-FV"] = permutation_null(
            ccfv,
            np.concatenate([one.voxels for one in few]),
            np.concatenate([one.voxel_classes for one in few]),
            n=min(permutations, _CCFV_PERMUTATIONS),
            seed=seed,
            groups=names,
            within=True,
            voxels=voxels,
        )
    probe = _probe(target, cases, outputs, seed)
    row.probe, row.probe_interval, row.probe_metric = probe.value, probe.interval, probe.metric
    row.untrained_probe = _probe(
        target, cases, _outputs(network.untrained(seed), target, cases, voxels, seed, progress), seed
    ).value
    row.forecast = forecast_gain(target.task, row.probe, row.untrained_probe)
    return row


def _probe(target: Manifest, cases: list[Case], outputs: list[ImageOutputs], seed: int) -> LinearProbe:
    """The linear probe of images, or of single voxels in segmentation (regions are too easily told apart)."""
    if not get_task(target.task).dense:
        table = _Rows(target, cases, outputs)
        return linear_probe(table.features, table.labels, table.patients, seed=seed)
    features = np.concatenate([one.voxels for one in outputs])
    classes = np.concatenate([one.voxel_classes for one in outputs])
    patients = np.repeat([case.patient for case in cases], [len(one.voxels) for one in outputs])
    if len(features) > _PROBE_VOXELS:
        few = np.sort(np.random.default_rng(seed).choice(len(features), _PROBE_VOXELS, replace=False))
        features, classes, patients = features[few], classes[few], patients[few]
    probe = linear_probe(features, classes, patients, seed=seed)
    return replace(probe, metric=f"{probe.metric} of voxels")


def _outputs(
    network: SourceNetwork, target: Manifest, cases: list[Case], voxels: int, seed: int, progress: bool
) -> list[ImageOutputs]:
    classes = sorted(int(number) for number in target.labels) if get_task(target.task).dense else []
    return [
        network.outputs(case.image, case.label if classes else None, classes, voxels=voxels, seed=seed)  # type: ignore[arg-type]
        for case in tqdm(cases, network.name, disable=not progress, leave=False)
    ]


class _Rows:
    """Features, labels, classes, source outputs, groups of the null and patients: one entry per case or region."""

    def __init__(self, target: Manifest, cases: list[Case], outputs: list[ImageOutputs]) -> None:
        patients = np.array([case.patient for case in cases])
        probabilities: list[Any]
        if get_task(target.task).dense:
            found = [(i, c, *one.regions[c]) for i, one in enumerate(outputs) for c in sorted(one.regions)]
            self.features = np.stack([mean for _, _, mean, _ in found])
            probabilities = [scores for *_, scores in found]
            self.labels = self.classes = np.array([c for _, c, _, _ in found])
            self.groups = np.array([cases[i].case for i, *_ in found])
            self.patients = np.array([patients[i] for i, *_ in found])
        else:
            self.features = np.stack([one.pooled for one in outputs])
            probabilities = [one.outputs for one in outputs]
            self.patients = self.groups = patients
            if get_task(target.task).label.is_number:
                self.labels = np.array([float(case.label) for case in cases])  # type: ignore[arg-type]
                self.classes = np.searchsorted(np.quantile(self.labels, (1 / 3, 2 / 3)), self.labels)
            else:
                self.labels = self.classes = np.array([int(case.label) for case in cases])  # type: ignore[arg-type]
        self.outputs = np.stack(probabilities) if all(one is not None for one in probabilities) else None


def _gap(network: SourceNetwork, target: Manifest, site: str | None, seed: int) -> list[GapRow]:
    data = network.bundle.training_data() if network.bundle else None
    if data is None:
        return []
    path, source_site = data
    origin = Manifest.load(path)
    if source_site is not None and source_site not in origin.sites:
        source_site = None
    rows = domain_gap(origin, target, site_a=source_site, site_b=site, max_patients=30, seed=seed).rows
    return list(rows)
