"""Do these data suit that model? What a set is in numbers, and a comparison with what a bundle says of its training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from monai_transfer.bundle_reader import read_bundle
from monai_transfer.errors import InputError
from monai_transfer.inspection.case import QUANTILES
from monai_transfer.inspection.description import DataDescription, SourceDescription
from monai_transfer.inspection.facts import ImageFacts, Inspected
from monai_transfer.inspection.finding import Finding
from monai_transfer.inspection.run_statistics import run_statistics
from monai_transfer.inspection.values import class_counts
from monai_transfer.manifest.model import Case, Manifest
from monai_transfer.tasks import get_task
from monai_transfer.weights.hashes import changed_files

__all__ = ["compare_with_source", "describe_data", "describe_inspected", "read_source"]


def describe_data(manifest: Manifest, *, jobs: int = 2, max_memory: int | str | None = None) -> DataDescription:
    """What a set is, in numbers; its ``to_dict`` is a bundle's ``data_statistics``. Holds no identifiers.

    Args:
        manifest: the cases.
        jobs: number of processes; so many cases are in memory at once.
        max_memory: bytes (or ``"2GiB"``) that reading one image may take.

    Raises:
        InputError: no image of the set can be read.

    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> Image.linear_gradient("L").save(folder / "a.png")
    >>> item = {"image": "a.png", "label": 3.5, "case": "a", "patient": "a", "site": "x"}
    >>> manifest = Manifest.from_dict({"name": "set", "task": "regression", "training": [item]}, folder)
    >>> data = describe_data(manifest, jobs=1)
    >>> data.shape, data.spacing, data.intensity["mean"]  # a picture has no millimetres
    ([256, 256], None, 127.5)
    """
    from monai_transfer.inspection.check import inspect_manifest

    return describe_inspected(manifest, inspect_manifest(manifest, jobs=jobs, max_memory=max_memory))


def describe_inspected(manifest: Manifest, inspected: Inspected) -> DataDescription:
    """``describe_data`` of cases that were inspected already.

    Raises:
        InputError: no image could be read.
    """
    facts = [f for _, _, result in inspected for f in result.images]
    if not facts:
        raise InputError("no image can be read", path=manifest.path, hint="see the errors of `monai-transfer check`")
    rank = Counter(len(f.shape) for f in facts).most_common(1)[0][0]
    facts = [f for f in facts if len(f.shape) == rank]
    spacings = [_to_ras(f.spacing, f.orientation) for f in facts if f.spacing]
    shapes = [_to_ras(f.shape, f.orientation) for f in facts]
    flat = rank == 2 or all(f.shape[2:] == [1] for f in facts)
    modalities = Counter(f.modality for f in facts if f.modality)
    declared = manifest.modality
    modality = declared if isinstance(declared, str) else ", ".join(declared.values()) if declared else None
    if modality is None and modalities:
        modality = modalities.most_common(1)[0][0]
    quantiles = np.median([f.quantiles for f in facts], axis=0)
    intensity = {f"p{q:g}": round(float(v), 6) for q, v in zip(QUANTILES, quantiles, strict=True)}
    intensity |= {key: round(float(np.median([getattr(f, key) for f in facts])), 6) for key in ("mean", "std")}
    first = next(case for _, case, _ in inspected)
    channels = Counter(f.channels for f in facts).most_common(1)[0][0]
    orientations = Counter(f.orientation for f in facts if f.orientation)
    return DataDescription(
        task=manifest.task,
        modality=modality,
        dims=2 if flat else 3,
        channels=len(first.images) if len(first.images) > 1 else channels,
        channel_names=[manifest.channel_names[k] for k in sorted(manifest.channel_names, key=int)],
        labels=manifest.class_names,
        n_images=len(facts),
        n_patients=len({case.patient for _, case, _ in inspected}),
        shape=[int(v) for v in np.median(shapes, axis=0)],
        spacing=[round(float(v), 4) for v in np.median(spacings, axis=0)] if spacings else None,
        spacing_range=np.stack([np.min(spacings, 0), np.max(spacings, 0)], 1).tolist() if spacings else None,
        field_of_view=_field_of_view(facts),
        orientation=orientations.most_common(1)[0][0] if orientations else None,
        intensity=intensity,
        **_labels_of(manifest, inspected),
    )


def _field_of_view(facts: list[ImageFacts]) -> list[float] | None:
    extents: list[list[float]] = [
        _to_ras([n * s for n, s in zip(f.shape, f.spacing, strict=True)], f.orientation) for f in facts if f.spacing
    ]
    return [round(float(v), 1) for v in np.median(np.asarray(extents), axis=0)] if extents else None


def _labels_of(manifest: Manifest, inspected: Inspected) -> dict[str, Any]:
    """``prevalence`` and ``size`` of the labelled cases; empty where there is none."""
    label = get_task(manifest.task).label
    if label.is_class or label.is_number:
        if manifest.multi_label:
            return _findings_of(manifest, inspected)
        values = [case.label for _, case, _ in inspected if isinstance(case.label, (int, float))]
        if not values:
            return {}
        if label.is_class:
            shares = {name: values.count(int(n)) / len(values) for n, name in manifest.labels.items()}
            return {"prevalence": {name: round(share, 4) for name, share in shares.items()}}
        low, high = np.percentile(values, (5, 95))
        numbers = {"mean": np.mean(values), "std": np.std(values), "p5": low, "p95": high}
        return {"prevalence": {key: round(float(value), 4) for key, value in numbers.items()}}
    prevalence: dict[str, float] = {}
    size: dict[str, float] = {}
    for name in manifest.label_mapping.names[1:]:
        counts = [
            class_counts(manifest, result.label_values)
            for _, case, result in inspected
            if result.label_values and _looked_for(manifest, case, name)
        ]
        present = [count[name] / count.total() for count in counts if count[name]]
        if counts:
            prevalence[name] = round(len(present) / len(counts), 4)
            if present:
                size[name] = round(float(np.median(present)), 6)
    return {"prevalence": prevalence, "size": size} if prevalence else {}


def _looked_for(manifest: Manifest, case: Case, name: str) -> bool:
    told = manifest.annotated_in(case)
    return told is None or name in told


def _findings_of(manifest: Manifest, inspected: Inspected) -> dict[str, Any]:
    """By finding the share of the cases that have it, of those that can tell."""
    shares = {}
    for name in manifest.class_names:
        values = [case.label.get(name) for _, case, _ in inspected if isinstance(case.label, dict)]
        known = [value for value in values if value is not None]
        if known:
            shares[name] = round(sum(known) / len(known), 4)
    return {"prevalence": shares} if shares else {}


def _to_ras(values: list[Any], orientation: str | None) -> list[Any]:
    """Values per array axis in the order left-right, back-front, feet-head."""
    if orientation is None or len(orientation) != 3 or len(values) != 3 or "None" in orientation:
        return list(values)
    return [values[next(n for n, code in enumerate(orientation) if code in pair)] for pair in ("LR", "AP", "IS")]


def read_source(bundle: str | Path) -> SourceDescription:
    """What a bundle (or a run folder) says of the data it was trained on; no code of it runs.

    From ``configs/metadata.json`` (``network_data_format``, ``data_statistics``) and, where that is silent, from the
    transforms in its inference config (spacing, orientation, intensity window).

    Raises:
        InputError: no bundle there, or its metadata cannot be read.
    """
    bundle = Path(bundle)
    if not (bundle / "configs" / "metadata.json").is_file() and not (bundle / "run.json").is_file():
        hint = "name a MONAI bundle's folder (with configs/metadata.json), or a run folder"
        raise InputError("is no bundle with metadata", path=bundle, hint=hint)
    found = read_bundle(bundle)
    transfer = _mapping(found.metadata.get("transfer"))
    statistics = _mapping(found.metadata.get("data_statistics")) or _mapping(transfer.get("data_statistics"))
    if found.run is not None:  # its own site's, where the bundle was fitted to several; else nothing is known
        statistics = run_statistics(transfer, found.run.get("target_site")) or {}
    return SourceDescription(
        task=found.task,
        modality=statistics.get("modality") or found.modality,
        dims=found.dims,
        channels=found.in_channels,
        channel_names=found.channels or [],
        labels=found.labels or [],
        patch=found.patch,
        spacing=found.spacing,
        orientation=found.orientation,
        window=list(found.window) if found.window else None,
        statistics=statistics,
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def compare_with_source(data: DataDescription, bundle: str | Path) -> list[Finding]:
    """What of ``data`` (see ``describe_data``) will be resampled or rescaled for a bundle's model, or cannot work.

    ``error``: cannot work as it is. ``warning``: far from what the model saw. ``note``: handled by preprocessing.

    Args:
        data: of ``describe_data``.
        bundle: its folder.

    Raises:
        InputError: no bundle there, or its metadata cannot be read.

    A model of volumes cannot take pictures:

    >>> import json, tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "configs").mkdir()
    >>> image = {"format": "image", "modality": "MR", "num_channels": 1, "spatial_shape": [96, 96, 96]}
    >>> pred = {"channel_def": {"0": "background", "1": "liver"}}
    >>> metadata = {"network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}}}
    >>> _ = (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    >>> grey = {"p0.5": 0.0, "p99.5": 255.0, "mean": 80.0, "std": 60.0}
    >>> labels = ["background", "liver"]
    >>> pictures = DataDescription("segmentation", "MR", 2, 1, [], labels, 3, 3, [64, 64], *[None] * 4, grey)
    >>> [finding.fault for finding in compare_with_source(pictures, folder) if finding.severity == "error"]
    ['the model is 3D, the data are 2D']
    """
    source = read_source(bundle)
    try:
        findings = [
            *_compare_kind(data, source),
            *_compare_channels(data, source),
            *_compare_space(data, source),
            *_compare_intensity(data, source),
            *_compare_labels(data, source),
            *_compare_prevalence(data, source),
        ]
        if silent := _silent(source):
            fault = f"the bundle does not say its {', '.join(silent)}: not compared"
            findings.append(("note", "source-silent", fault, "ask its authors, or look at its training data"))
    except (TypeError, ValueError, AttributeError, KeyError) as error:  # values of another kind than they should be
        path = Path(bundle) / "configs" / "metadata.json"
        raise InputError(f"broken metadata ({error})", path=path, hint="see MONAI's bundle specification") from error
    changed = changed_files(bundle)
    if changed:
        weights = [line for line in changed if line.startswith("models/")]
        more = f", and {len(changed) - 3} more" if len(changed) > 3 else ""
        fault = f"is no more as it was released: {', '.join(changed[:3])}{more}"
        hint = "get it again from where it came, or ask who changed it"
        findings.append(("error" if weights else "warning", "source-changed", fault, hint))
    return [Finding(severity, fault, code, str(bundle), hint=hint) for severity, code, fault, hint in findings]


Remark = tuple[str, str, str, str | None]
"""Severity, code, fault, hint."""


def _silent(source: SourceDescription) -> list[str]:
    """What of the training data the bundle leaves unsaid."""
    statistics = source.statistics
    said = {
        "task": source.task,
        "dimensions": source.dims,
        "modality": _modality(source.modality),
        "channels": source.channels,
        "voxel size": source.spacing or statistics.get("spacing") or source.dims == 2,
        "orientation": source.orientation or statistics.get("orientation") or source.dims == 2,
        "intensities": source.window or statistics.get("intensity"),
        "field of view": statistics.get("field_of_view") or (source.dims == 2 and statistics.get("shape")),
        "classes": source.labels,
        "class frequencies": statistics.get("prevalence"),
    }
    return [what for what, known in said.items() if not known]


def _compare_kind(data: DataDescription, source: SourceDescription) -> Iterator[Remark]:
    if source.task and source.task != data.task:
        fault = f"the model is for {source.task}, the data are for {data.task}"
        yield "error", "source-task", fault, "take a model of the same task, or its encoder alone"
    if source.dims and source.dims != data.dims:
        fault = f"the model is {source.dims}D, the data are {data.dims}D"
        yield "error", "source-dims", fault, "weights can be inflated from 2D to 3D when a new bundle is made"
    ours, theirs = _modality(data.modality), _modality(source.modality)
    if ours and theirs and ours != theirs:
        fault = f"the model was trained on {source.modality}, the data are {data.modality}"
        yield "warning", "source-modality", fault, "expect a large gap; fine-tune or adapt, and compare with scratch"


def _modality(text: str | None) -> str | None:
    known = {"mri": "mr", "pt": "pet", "x-ray": "xray", "cr": "xray", "dx": "xray", "unknown": "", "n/a": ""}
    word = (text or "").strip().lower()
    return known.get(word, word) or None


def _compare_channels(data: DataDescription, source: SourceDescription) -> Iterator[Remark]:
    theirs, ours = [n.lower() for n in source.channel_names], [n.lower() for n in data.channel_names]
    if source.channels and source.channels != data.channels:
        fault = f"the model takes {source.channels} channels ({', '.join(theirs)}), the data have {data.channels}"
        yield "error", "source-channels", fault, "`monai-transfer new` adapts the first layer to the data's channels"
    elif ours and theirs and ours != theirs and sorted(ours) == sorted(theirs):
        fault = f"the channels are {', '.join(ours)}, the model takes them as {', '.join(theirs)}"
        yield "error", "source-channel-order", fault, "write the images of each case in the model's order"
    elif ours and theirs and ours != theirs and len(theirs) > 1:
        fault = f"the channels are named {', '.join(ours)}, the model's {', '.join(theirs)}"
        yield "warning", "source-channel-names", fault, "make sure that they mean the same"


def _compare_space(data: DataDescription, source: SourceDescription) -> Iterator[Remark]:
    target, ours = source.spacing or source.statistics.get("spacing"), data.spacing
    if source.orientation and data.orientation and source.orientation != data.orientation:
        fault = f"images are stored {data.orientation} and will be turned to {source.orientation}"
        yield "note", "source-orientation", fault, None
    if ours is None and target is not None and data.dims == 3:
        yield "warning", "source-spacing", "the data have no voxel size, the model expects one", None
    if not ours or not target or len(ours) != len(target):
        return
    # pixdim -1 in a Spacing transform means that the axis is left as it is
    pairs = [(o, t) for o, t in zip(ours, target, strict=True) if t and t > 0]
    ratio = max((max(o / t, t / o) for o, t in pairs), default=1.0)
    from_, to = (" x ".join(f"{v:g}" for v in values) for values in (ours, target))
    if ratio > 1.05:
        fault = f"voxels of {from_} mm will be resampled to {to} mm (factor {ratio:.2g})"
        severity = "warning" if ratio > 2.5 else "note"
        yield severity, "source-spacing", fault, "much detail is lost or invented" if severity == "warning" else None
    patch = source.patch
    if len(patch) == len(ours) and source.spacing:
        extent = [n * o for n, o in zip(data.shape, ours, strict=True)]
        need = [n * t for n, t in zip(patch, target, strict=True)]
        if any(e < 0.5 * n for e, n in zip(extent, need, strict=True)):
            sizes = (" x ".join(f"{v:.0f}" for v in values) for values in (extent, need))
            fault = "the field of view is {} mm, less than half of the model's patch of {} mm; the rest is padding"
            yield "warning", "source-extent", fault.format(*sizes), None
    seen, here = source.statistics.get("field_of_view"), data.field_of_view
    if seen and here and len(seen) == len(here):
        ratio = max(max(a / b, b / a) for a, b in zip(seen, here, strict=True))
        if ratio > 1.5:
            now, before = (" x ".join(f"{v:.0f}" for v in values) for values in (here, seen))
            fault = f"the field of view is {now} mm, in training it was {before} mm"
            hint = "another part of the body, or cropped otherwise? look at some images" if ratio > 2 else None
            yield "warning" if ratio > 2 else "note", "source-field-of-view", fault, hint


def _compare_intensity(data: DataDescription, source: SourceDescription) -> Iterator[Remark]:
    ours = data.intensity
    low, high = ours["p0.5"], ours["p99.5"]
    if source.window:
        a, b = source.window
        if b > a and (high - low) > 0:
            inside = max(0.0, min(high, b) - max(low, a)) / (high - low)
            # air and bone make CT's range wide: what counts is whether tissue, not the background, falls in the window
            tissue = [ours[name] for name in ("p5", "p25", "p50", "p75", "p95") if name in ours]
            tissue = [value for value in tissue if value > low + 0.02 * (high - low)]
            seen = inside >= 0.25 or any(a <= value <= b for value in tissue)
            fault = f"intensities {low:g} to {high:g} are scaled from the window {a:g} to {b:g}"
            if not seen or (high - low) < 0.05 * (b - a):
                text = "its images would be nearly constant or cut; change the window (is the unit the same, e.g. HU?)"
                yield "error", "source-window", fault, text
            else:
                yield "note", "source-window", fault, None
    theirs = source.statistics.get("intensity") or {}
    if "p0.5" in theirs and "p99.5" in theirs:
        span, their_span = high - low, float(theirs["p99.5"]) - float(theirs["p0.5"])
        if span > 0 and their_span > 0:
            ratio = max(span / their_span, their_span / span)
            offset = abs((high + low) - (float(theirs["p99.5"]) + float(theirs["p0.5"]))) / 2 / their_span
            if ratio > 1.5 or offset > 0.5:
                fault = (
                    f"intensities run from {low:g} to {high:g}, the model's training data from "
                    f"{theirs['p0.5']:g} to {theirs['p99.5']:g} (0.5 to 99.5 percentile)"
                )
                hint = None if source.window else "per-image normalisation will rescale them; a fixed window would not"
                yield ("warning" if ratio > 5 or offset > 2 else "note"), "source-intensity", fault, hint


def _compare_labels(data: DataDescription, source: SourceDescription) -> Iterator[Remark]:
    ours, theirs = [n.lower() for n in data.labels], [n.lower() for n in source.labels]
    if not ours or not theirs or ours == theirs:
        return
    shared = [n for n in ours if n in theirs and n != "background"]
    if sorted(ours) == sorted(theirs):
        fault = f"the classes are numbered otherwise: {', '.join(ours)}; the model's are {', '.join(theirs)}"
        yield "error", "source-label-order", fault, "classes are matched by name when a new bundle is made"
    elif not shared:
        fault = f"no class is known to the model: the data have {', '.join(ours)}, the model {', '.join(theirs)}"
        yield "error", "source-labels", fault, "fine-tune with a new head (`monai-transfer new`); rename equal classes"
    else:
        new, gone = [n for n in ours if n not in theirs], [n for n in theirs if n not in ours]
        parts = [f"new to the model: {', '.join(new)}"] * bool(new) + [f"not in the data: {', '.join(gone)}"] * bool(
            gone
        )
        hint = "heads are mapped by class name; new classes start untrained"
        yield "warning", "source-labels", f"classes differ ({'; '.join(parts)})", hint


def _compare_prevalence(data: DataDescription, source: SourceDescription) -> Iterator[Remark]:
    """How often a class is there, where both know the same ones; for a number, its range."""
    ours, theirs = data.prevalence or {}, source.statistics.get("prevalence") or {}
    if "p5" in ours and "p5" in theirs:
        low, high = theirs["p5"], theirs["p95"]
        if ours["p95"] > high + 0.25 * (high - low) or ours["p5"] < low - 0.25 * (high - low):
            fault = (
                f"the labels run from {ours['p5']:g} to {ours['p95']:g}, those in training from {low:g} to {high:g} "
                "(5 to 95 percentile)"
            )
            yield "warning", "source-prevalence", fault, "a model does not extrapolate; fine-tune on such cases"
        return
    known = {name.lower(): float(share) for name, share in theirs.items()}
    for name, share in ours.items():
        before = known.get(name.lower())
        if before is not None and abs(share - before) > 0.25:
            fault = f"{name} is in {share:.0%} of the labelled cases, in training it was in {before:.0%}"
            yield "warning", "source-prevalence", fault, "thresholds and probabilities will be off; check them"
