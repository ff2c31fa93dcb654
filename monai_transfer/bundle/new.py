"""``monai-transfer new``: a bundle fitted to the user's manifest and source, that runs without editing a config."""

from __future__ import annotations

import pydoc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from monai_transfer.bundle.chosen_network import SIZES, bottleneck, choose_network, levels, taken_patch
from monai_transfer.bundle.components import component
from monai_transfer.bundle.fit import fit_data
from monai_transfer.bundle.fitted_pipeline import (
    cover,
    fit_grid,
    fit_patch,
    label_scale,
    normalisation,
    one_per_axis,
    resampled_shape,
)
from monai_transfer.bundle.given_source import fit_weights, open_source, source_network, source_spacing
from monai_transfer.bundle.nnunet_source import kept_pipeline, nnunet_model, nnunet_source, source_network_config
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.bundle.write import write_bundle
from monai_transfer.config_text import expr, quoted
from monai_transfer.engine.capabilities import refuse_unfit
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest
from monai_transfer.methods.base import Method
from monai_transfer.tasks import task_of

__all__ = ["new_bundle"]

PRETRAINED = "runs/pretrain-0/models/model.pt"
"""Where a bundle without a source finds its weights, once its ``pretrain`` has run."""


def new_bundle(
    folder: str | Path,
    manifest: str | Path,
    *,
    source: str | Path = "none",
    source_site: str | None = None,
    target_site: str | None = None,
    n_labelled: int | None = None,
    strategy: str = "full",
    method: str = "dann",
    spacing: Sequence[float] | None = None,
    patch: Sequence[int] | None = None,
    size: str | None = None,
    force: bool = False,
    **numbers: Any,
) -> BundleSpec:
    """Write a bundle into ``folder`` for ``manifest`` and ``source``; returns its spec.

    With a source its network is taken over (its class head and input channels fitted to the data, by name where names
    are known), its weights are copied to ``models/source.pt``, and what loading did is in ``models/source.json``.
    Without one, a network is chosen by task and ``size``, and ``pretrain`` comes first.

    Args:
        folder: the new bundle.
        manifest: the manifest's file.
        source: a bundle folder, a run folder, an nnU-Net results folder (whose preprocessing and tiles are kept), or
            ``"none"``.
        source_site, target_site: sites of the manifest; with two sites and one given, the other is taken.
        n_labelled: labelled target cases; default all.
        strategy, method: a name in ``monai_transfer.strategies`` / ``.methods``, or a full ``_target_`` path. A method
            that looks at no target image becomes fine-tuning's ``regulariser``; adaptation then has ``dann``.
        spacing: mm per axis; default the source's or the data's median, coarser for a 3D regression whose volumes would
            not fit whole.
        patch: voxels per axis; default fitted to the data and ``size``.
        size: ``small``, ``medium`` or ``large``; default small without a GPU, else medium.
        force: overwrite the configs of an existing bundle.
        numbers: further ``BundleSpec`` fields, e.g. ``epochs``, ``batch_size``.

    Raises:
        InputError: the folder holds a bundle already, or manifest, source, sites or options do not fit together.
    """
    folder, path = Path(folder), Path(manifest)
    if (folder / "configs").exists() and not force:
        raise InputError("holds a bundle already", path=folder, hint="name another folder, or pass --force")
    data = Manifest.load(path)
    source_site, target_site = _sites(data, source_site, target_site)
    chosen = component("methods", method)
    kind: Any = pydoc.locate(chosen["_target_"])
    task, mapping = task_of(data), data.label_mapping
    refuse_unfit(kind, task.name)
    tuning = issubclass(kind, Method) and not any(need.startswith("target_") for need in kind.needs)
    pooled = tuning or getattr(kind, "default_pool", "mean") is not None  # what adaptation's method looks at
    size = size or ("medium" if torch.cuda.is_available() else "small")
    if size not in SIZES:
        raise InputError(f"no network size {size!r}", hint=f"one of {', '.join(SIZES)}")
    fit = fit_data(data, [source_site, target_site])
    # boxes are made of any foreground, so a localization may name its lesions alone
    encoded = task.saved_as != "boxes" and not (mapping.is_identity and not mapping.multi_label)
    labels = task.output_names(dict(enumerate(mapping.outputs)) if encoded else data.labels)
    dense = task.dense
    channels = list(data.channel_names.values()) or [f"channel {i}" for i in range(fit.channels)]
    if len(channels) != fit.channels:
        raise InputError(f"names {len(channels)} channels, but its images hold {fit.channels}", path=path)
    asked = one_per_axis(spacing, fit.spatial_dims, "--spacing") if spacing else None
    model = nnunet_model(source)
    kept = None
    given = nnunet_source(model) if model is not None else open_source(source)
    given_patch = [int(v) for v in one_per_axis(patch, fit.spatial_dims, "--patch")] if patch else None
    if model is not None:
        if task.name != "segmentation":
            raise InputError(f"an nnU-Net model segments, and the task is {task.name}", path=source)
        network = source_network_config(model, len(labels), fit)
        kept = kept_pipeline(replace(model, spacing=list[float | None](asked)) if asked else model, channels)
        given_patch, asked = given_patch or model.patch, asked or [float(mm or 1) for mm in model.spacing]
    elif given is not None:
        network = source_network(given, len(labels) or 1, fit)
    else:
        network = choose_network(task.name, fit, labels, size)
    grid = asked or source_spacing(given, fit.spatial_dims)
    # the number of a volume may be one of millimetres: resizing unlike fields of view to one grid would falsify it
    whole = task.label.is_number and fit.spatial_dims == 3 and fit.spacing is not None
    if not whole:
        grid = grid or fit.spacing
        shape = resampled_shape(fit, grid)
        patch = given_patch or fit_patch(shape, task.name, size, levels(network), fit)
    elif grid:
        shape = patch = given_patch or cover(fit, grid)
    else:
        grid, patch = fit_grid(fit, size, given_patch)
        shape = patch
    if not dense:
        patch = taken_patch(network, fit.channels, patch, fixed=given_patch is not None)
    regression = label_scale(data, source_site, target_site)
    spec = BundleSpec(
        name=folder.resolve().name,
        task=task.name,
        spatial_dims=fit.spatial_dims,
        labels=labels,
        channel_names=channels,
        network=network,
        patch=patch,
        spacing=None if fit.raster or (task.has_classes and not dense and fit.spatial_dims == 2) else grid,
        oriented=not fit.raster and fit.spatial_dims == 3 and kept is None,
        resize=not dense and not whole,
        crop=whole,
        grey=fit.raster,
        normalise=[] if kept is not None else normalisation(data, fit),
        kept=kept,
        flips=[0, 1] if fit.raster and dense else [0],
        rotation_axes=["x", "y", "z"] if fit.spatial_dims == 3 else ["x"],
        balanced_crops=dense and any(p < 0.8 * s for p, s in zip(patch, shape, strict=True)),
        source_site=source_site,
        target_site=target_site,
        n_labelled=n_labelled,
        dataset_dir=str(path.resolve().parent),
        manifest=expr(f"os.path.join(@dataset_dir, {quoted(path.name)})"),
        strategy=component("strategies", strategy),
        method=component("methods", "dann") if tuning else chosen,
        regulariser=chosen if tuning else None,
        suffix=fit.suffix or ".nii.gz",
        modality=data.modality if isinstance(data.modality, str) else "",
        description=data.description or "",
        data_note=f"the manifest {path.name} and its images; or --dataset_dir DIR --manifest FILE",
        data_source=data.reference or "the user's own manifest",
        data_statistics=fit.statistics(source if given is not None else None),
        layer=bottleneck(network) if pooled else None,  # class heads stand on the last
        mapping=mapping.to_dict() if encoded else None,
        label_mean=regression[0],
        label_std=regression[1],
        **{"batch_size": (4 if fit.spatial_dims == 3 else 8) if dense else 16, **numbers},
    )
    if given is not None:
        fit_weights(given, spec, folder)
    else:
        spec.start = spec.weights = PRETRAINED
    write_bundle(spec, folder)
    return spec


def _sites(data: Manifest, source: str | None, target: str | None) -> tuple[str | None, str | None]:
    sites = data.sites
    for name in (source, target):
        if name is not None and name not in sites:
            raise InputError(f"no site {name!r}", path=data.path, hint=f"its sites are {', '.join(sites)}")
    if len(sites) == 2:
        if source is None and target is not None:
            source = next(site for site in sites if site != target)
        if target is None and source is not None:
            target = next(site for site in sites if site != source)
    if len(sites) > 1 and target is None:
        raise InputError(
            f"holds {len(sites)} sites ({', '.join(sites)})",
            path=data.path,
            hint="pass --target-site, and --source-site",
        )
    return source, target
