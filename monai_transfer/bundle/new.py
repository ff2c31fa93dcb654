"""``monai-transfer new``: a bundle fitted to the user's manifest and source, that runs without editing a config."""

from __future__ import annotations

import logging
import pydoc
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from monai_transfer.bundle.bare_checkpoint import bare_checkpoint
from monai_transfer.bundle.chosen_network import bottleneck, image_size, levels, taken_patch
from monai_transfer.bundle.components import AUTO, component, default_method
from monai_transfer.bundle.fit import DataFit, fit_data
from monai_transfer.bundle.fitted_pipeline import cover, fit_grid, fit_whole, label_scale, one_per_axis, resampled_shape
from monai_transfer.bundle.given_source import (
    described_source,
    fit_weights,
    needs_scripts,
    open_source,
    source_input_sizes,
    source_network,
    source_spacing,
    take_scripts,
    trust_in,
)
from monai_transfer.bundle.kept_bundle import check_parity, kept_from_bundle, patch_of
from monai_transfer.bundle.kept_pipeline import KeptPipeline
from monai_transfer.bundle.nnunet_export import ORIGINAL
from monai_transfer.bundle.nnunet_source import (
    kept_pipeline,
    nnunet_folds,
    nnunet_model,
    nnunet_source,
    own_validation,
    source_network_config,
)
from monai_transfer.bundle.planning.balance import plan_balance
from monai_transfer.bundle.planning.budget import plan_budget, selects_epoch
from monai_transfer.bundle.planning.colour import COLOURS, picture_mode, refuse_deep_colours
from monai_transfer.bundle.planning.dense import plan_dense
from monai_transfer.bundle.planning.intensities import by_channel, channel_modalities, normalisation
from monai_transfer.bundle.planning.kept_classes import KeptClasses, plan_kept_classes
from monai_transfer.bundle.planning.missing_channels import plan_missing_channels
from monai_transfer.bundle.planning.networks import densenet
from monai_transfer.bundle.planning.partly_annotated import tell_partly_annotated
from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.bundle.planning.size import Size, get_size
from monai_transfer.bundle.source_head import head_facts, head_of
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.bundle.write import write_bundle
from monai_transfer.bundle_reader import read_bundle
from monai_transfer.bundle_reader.running import own_scripts
from monai_transfer.bundle_reader.trust import Trust, decide, scripts_folder
from monai_transfer.config_text import expr, quoted
from monai_transfer.data.augmentation.mirroring import mirror_axes
from monai_transfer.engine.capabilities import refuse_unfit
from monai_transfer.errors import InputError, replace_fields
from monai_transfer.files import atomic_folder, write_json
from monai_transfer.manifest import Manifest
from monai_transfer.manifest.laterality import mirror_pairs
from monai_transfer.methods.base import Method
from monai_transfer.networks.input_sizes import InputSizes
from monai_transfer.nnunet.original import Original, original_of
from monai_transfer.selection.augmentation_choice import source_augmentation, target_augmentation
from monai_transfer.tasks import Task, task_of
from monai_transfer.weights import Source
from monai_transfer.weights.families import find_family

__all__ = ["NewOptions", "new_bundle"]

logger = logging.getLogger(__name__)

PRETRAINED = "runs/pretrain-0/models/model.pt"
"""Where a bundle without a source finds its weights, once its ``pretrain`` has run."""


@dataclass(frozen=True)
class NewOptions:
    """What a user may say; all else is planned.

    Attributes:
        source: a bundle folder, a run folder, an nnU-Net results folder (whose preprocessing and tiles are kept), a
            checkpoint file, or ``"none"``.
        source_head: what a source's outputs are where it does not say it: ``softmax``, ``sigmoid`` or ``regression``.
        source_site, target_site: sites of the manifest; with two sites and one given, the other is taken.
        n_labelled: labelled target cases; default all.
        strategy, method: a name in ``monai_transfer.strategies`` / ``.methods``, or a full ``_target_`` path. A method
            that looks at no target image becomes fine-tuning's ``regulariser``; adaptation then has the task's default.
            ``method="auto"``: that default (``components.default_method``).
        spacing: mm per axis (pictures: pixels of the file per pixel).
        patch: voxels per axis.
        resize: pixels per axis that every picture is brought to first.
        size: ``small``, ``medium`` or ``large``; default small without a GPU, else medium.
        network: ``UNet`` or ``DynUNet`` for a segmentation without a source; for a checkpoint file whose names do not
            tell it, a class of ``monai.networks.nets`` or a full path.
        network_args: keyword arguments of that class; dimensions, channels and outputs are the data's.
        residual: ``DynUNet`` with residual blocks (more parameters and time per step).
        preprocessing: ``source``: orientation, spacing, intensities and inferer are the source's, as far as they can
            be read; ``data``: all is fitted to the data.
        channels: ``grey`` or ``rgb`` for pictures; default as the source or the pictures are.
        budget: ``quick``, ``standard``, ``full`` or a number of steps.
        epochs, pretrain_epochs, steps_per_epoch, batch_size: in place of the planned numbers.
        val_interval: epochs between validations.
        keep_classes: classes that the source knows and the manifest does not annotate stay outputs of the network, and
            fine-tuning holds them to the source's answers; ``None``: in segmentations and among findings, unless they
            are many.
        swap_sides: for classes that are each other's mirror image: flip from left to right, and let them change places.
        balance: of classes and findings that are unlike in number: ``weights``, ``sampling``, ``none``, or ``auto``.
        missing_channels: cases that lack a channel: ``leave-out``, ``zeros``, or ``auto``: zeros where there are any.
        channel_dropout: the probability with which training leaves out each channel.
        flip: mirror images where classes named by side do not forbid it.
        trust_source: where the source cannot be read without it, run its own code: its expressions are evaluated, once,
            and a network class of its ``scripts/`` goes with the new bundle. The decision is remembered, and its hash
            stands in ``models/source.json`` and in each ``run.json``.
        augment: a preset of ``data.augmentation`` for all training; ``"auto"``: ``standard`` for the target's cases,
            and for the source's what ``selection.augmentation_choice`` says of both sites' images.

    >>> options = NewOptions(target_site="B", n_labelled=5, budget="standard")
    >>> options.augment, options.epochs  # what is not said is planned
    ('auto', None)
    """

    source: str | Path = "none"
    source_head: str | None = None
    source_site: str | None = None
    target_site: str | None = None
    n_labelled: int | None = None
    strategy: str = "full"
    method: str = AUTO
    spacing: Sequence[float] | None = None
    patch: Sequence[int] | None = None
    resize: Sequence[int] | None = None
    size: str | None = None
    network: str | None = None
    network_args: Mapping[str, Any] | None = None
    residual: bool = False
    preprocessing: str = "source"
    channels: str | None = None
    budget: str | int = "quick"
    epochs: int | None = None
    pretrain_epochs: int | None = None
    steps_per_epoch: int | None = None
    batch_size: int | None = None
    val_interval: int = 2
    augment: str = "auto"
    flip: bool = True
    trust_source: bool = False
    keep_classes: bool | None = None
    swap_sides: bool = False
    balance: str = "auto"
    missing_channels: str = "auto"
    channel_dropout: float | None = None


def new_bundle(
    folder: str | Path, manifest: str | Path, options: NewOptions | None = None, *, force: bool = False, **given: Any
) -> BundleSpec:
    """Write a bundle into ``folder`` for ``manifest`` and a source; returns its spec, with a reason for every number.

    With a source its network is taken over (its class head and input channels fitted to the data, by name where names
    are known), its weights are copied to ``models/source.pt``, and what loading did is in ``models/source.json``.
    Without one, a network is planned by task and ``size``, and ``pretrain`` comes first.

    Args:
        folder: the new bundle.
        manifest: the manifest's file.
        options: what is wanted.
        force: overwrite the configs of an existing bundle.
        given: fields of ``NewOptions`` by name, in place of those of ``options``.

    Raises:
        InputError: an option is unknown, the folder holds a bundle already, or manifest, source, sites or options do
            not fit together.
    """
    wanted = replace_fields(options or NewOptions(), given, "new_bundle")
    if wanted.preprocessing not in ("source", "data"):
        raise InputError(f"no preprocessing {wanted.preprocessing!r}", hint="source or data")
    folder, path = Path(folder), Path(manifest)
    if (folder / "configs").exists() and not force:
        raise InputError("holds a bundle already", path=folder, hint="name another folder, or pass --force")
    data = Manifest.load(path)
    sites = _sites(data, wanted.source_site, wanted.target_site)
    _components(wanted, task_of(data), data, sites, Reasons())  # a wrong name is told before images are read
    data = data.complete() if wanted.missing_channels == "leave-out" else data
    said = Reasons()
    kept = _kept_classes(wanted, data, task_of(data), sites, said)
    data = data.with_classes(kept.added)
    fit = fit_data(data, sites)
    spec, start = _planned(wanted, data, path, folder.resolve().name, sites, fit, kept)
    spec.recipe = said.to_dict() | spec.recipe
    scripts = start.trust if start.trust is not None and needs_scripts(spec.network) else None
    # a new folder appears when it is whole; one that is there may hold runs and weights, and gets file by file
    with nullcontext(folder) if folder.exists() else atomic_folder(folder) as place:
        if scripts is not None:
            take_scripts(scripts, place)
        if start.source is not None:
            with own_scripts(place) if scripts is not None else nullcontext():
                fit_weights(start.source, spec, place, start.facts, start.folds)
            _keep_original(start.original, place)
            if spec.kind.judged:
                alone = replace(wanted, source="none", network=None, network_args=None, trust_source=False)
                spec.scratch, _ = _planned(alone, data, path, spec.name, sites, fit, kept)
        else:
            spec.start = spec.weights = PRETRAINED
        write_bundle(spec, place)
    if start.trust is not None:
        decide(folder, trust_source=True)  # its own code is what was trusted just now
    return spec


def _keep_original(original: Original | None, folder: Path) -> None:
    """What ``export --to nnunet`` needs of an nnU-Net model; of a bundle that stood here before, nothing."""
    if original is not None:
        write_json(folder / ORIGINAL, original.to_dict())
    else:
        (folder / ORIGINAL).unlink(missing_ok=True)


def _planned(
    wanted: NewOptions,
    data: Manifest,
    path: Path,
    name: str,
    sites: tuple[str | None, str | None],
    fit: DataFit,
    kept: KeptClasses,
) -> tuple[BundleSpec, _Start]:
    """The spec, with a reason for every number, and what the source brings."""
    task, mapping, reasons = task_of(data), data.label_mapping, Reasons()
    learning, pooled = _components(wanted, task, data, sites, reasons)
    size = get_size(wanted.size or ("medium" if torch.cuda.is_available() else "small"))
    picture = _picture(wanted, data, fit, sites, reasons)
    if picture == "rgb" and fit.high > 255:
        refuse_deep_colours(data.cases("training", site=sites[1]) or data.cases("training"))
    fit = replace(fit, channels=3) if picture == "rgb" else fit
    labels, encoded, partly = _outputs(task, data, reasons)
    channels = _channels(data, fit, path, picture)
    dropout, missing = plan_missing_channels(
        Manifest.load(path), len(channels), wanted.missing_channels, wanted.channel_dropout, reasons
    )
    start = _start(wanted, data, task, fit, max(1, len(labels)), channels)
    if learning["regulariser"] is None and start.source is not None:
        learning["regulariser"] = kept.distillation(list(labels.values()), task.activation or "softmax")
    theirs = own_scripts(scripts_folder(start.trust.folder)) if start.trust is not None else nullcontext()
    with theirs:  # a network of the source's own class is made to look at it
        pipeline = _pipeline(wanted, task, fit, max(1, len(labels)), size, start, reasons)
    network = pipeline["network"]
    asked = {key: getattr(wanted, key) for key in ("epochs", "pretrain_epochs", "steps_per_epoch")}
    budget = plan_budget(wanted.budget, reasons, **asked)
    balance = plan_balance(data, task, sites, [labels[key] for key in sorted(labels)], wanted.balance, reasons)
    mean, std = label_scale(data, *sites)
    oriented = not fit.raster and fit.spatial_dims == 3 and (start.kept is None or start.oriented)
    if wanted.swap_sides:
        _check_sides(wanted, task, mapping.names if encoded else list(labels.values()), oriented or fit.raster, path)
    spec = BundleSpec(
        name=name,
        task=task.name,
        spatial_dims=fit.spatial_dims,
        labels=labels,
        channel_names=channels,
        oriented=oriented,
        picture=picture,
        deep_grey=picture == "rgb" and fit.high > 255,
        min_coverage=0.01 if start.partial else 0.5,
        normalise=_normalise(data, fit, start, reasons),
        kept=start.kept,
        mapping=mapping.to_dict() if encoded else None,
        partly_annotated=encoded and partly,
        surface_tolerance=dict(data.surface_tolerance),
        channel_dropout=dropout,
        missing_channels=missing,
        added_classes=list(kept.added),
        kept_classes=list(kept.kept),
        flips=_mirror(wanted, fit, labels, fit.raster and task.dense, reasons),
        swap_sides=wanted.swap_sides,
        **_augmentation(data, sites, wanted.augment, reasons),
        rotation_axes=["x", "y", "z"] if fit.spatial_dims == 3 else ["x"],
        source_site=sites[0],
        target_site=sites[1],
        n_labelled=wanted.n_labelled,
        dataset_dir=str(path.resolve().parent),
        manifest=expr(f"os.path.join(@dataset_dir, {quoted(path.name)})"),
        suffix=fit.suffix or ".nii.gz",
        modality=data.modality if isinstance(data.modality, str) else "",
        description=data.description or "",
        data_note=f"the manifest {path.name} and its images; or --dataset_dir DIR --manifest FILE",
        data_source=data.reference or "the user's own manifest",
        data_statistics=fit.statistics(wanted.source if start.source is not None else None),
        layer=bottleneck(network) if pooled else None,  # class heads stand on the last
        label_mean=mean,
        label_std=std,
        epochs=budget.epochs,
        pretrain_epochs=budget.pretrain_epochs,
        steps_per_epoch=budget.steps_per_epoch,
        warm_up=budget.warm_up,
        val_interval=wanted.val_interval,
        class_weights=balance.weights,
        balanced_draws=balance.sampling,
        **_selection(data, sites, wanted.n_labelled, reasons),
        **learning,
        **pipeline,
        trusted=start.trust.record() if start.trust is not None else {},
    )
    spec.recipe = reasons.to_dict()
    return spec, start


def _outputs(task: Task, data: Manifest, reasons: Reasons) -> tuple[dict[int, str], bool, bool]:
    """Names of the network's outputs, whether labels are encoded for them, and whether some cases cannot tell."""
    mapping = data.label_mapping
    # boxes are made of any foreground, so a localization may name its lesions alone
    partly = task.dense and data.partly_annotated
    encoded = task.saved_as != "boxes" and (not mapping.is_identity or mapping.overlapping or partly)
    if encoded and data.partly_annotated:
        tell_partly_annotated(data, reasons)
    return task.output_names(dict(enumerate(mapping.outputs)) if encoded else data.labels), encoded, partly


def _mirror(wanted: NewOptions, fit: DataFit, labels: dict[int, str], texture: bool, reasons: Reasons) -> list[int]:
    """The axes that images are mirrored in."""
    if wanted.swap_sides:
        why = "classes are named by side: training flips from left to right and lets them change places"
        return list(reasons.add("mirror", [], why))
    if not wanted.flip:
        return list(reasons.add("mirror", [], "no mirroring, as asked"))
    axes = mirror_axes(fit.spatial_dims, labels.values(), texture=texture)
    why = "pictures without an upright: every axis" if texture else "from left to right"
    return reasons.add("mirror", axes, why if axes else "classes are named by side: a mirror image has other names")


def _check_sides(wanted: NewOptions, task: Task, classes: list[str], known: bool, path: Path) -> None:
    """Hold that ``--swap-sides`` can be meant.

    Raises:
        InputError: the task has no masks, an axis is not known to be left and right, or classes have no partner.
    """
    if not wanted.flip:
        raise InputError("--swap-sides and --no-flip contradict each other", hint="pass one of them")
    if not task.dense or task.saved_as != "mask":
        raise InputError(f"--swap-sides is for masks, and the task is {task.name}", path=path, hint="leave it out")
    if not known:
        hint = "leave it out; images that a source does not bring to RAS may lie in any direction"
        raise InputError("--swap-sides needs to know which axis is left and right", path=path, hint=hint)
    if not mirror_pairs(classes):
        raise InputError("no class is named by side", path=path, hint="leave --swap-sides out: images are flipped")


def _kept_classes(
    wanted: NewOptions, data: Manifest, task: Task, sites: tuple[str | None, str | None], reasons: Reasons
) -> KeptClasses:
    """The source's classes that the new bundle keeps."""
    model = nnunet_model(wanted.source)
    source = None if model is not None else open_source(wanted.source)
    names: list[str]
    activation: str | None
    if model is not None:
        names, activation = list(model.labels), model.activation
    elif source is not None:
        names, activation = source.classes or [], head_of(described_source(source))[0]
    else:
        if wanted.keep_classes:
            raise InputError("--keep-classes without --source", hint="name the source whose classes are to be kept")
        return KeptClasses()
    return plan_kept_classes(
        data, task, sites[1], names, wanted.source_head or activation, wanted.keep_classes, reasons
    )


def _augmentation(
    data: Manifest, sites: tuple[str | None, str | None], augment: str, reasons: Reasons
) -> dict[str, Any]:
    """The presets of both sides, and whether fine-tuning sees both."""
    choice = source_augmentation(data, *sites, augment)
    source, target = sites
    joint = None not in sites and source != target and bool(data.cases("training", site=source, labelled=True))
    tuned = target_augmentation(data.task, augment)
    together = (
        "labelled cases of the source are at hand: half of each batch" if joint else "no other site's labels at hand"
    )
    return {
        "augment": reasons.add("augment", tuned.preset, tuned.reason),
        "augment_source": reasons.add(
            "augment_source", choice.preset, choice.reason.removeprefix(f"{choice.preset}: ")
        ),
        "joint": reasons.add("joint", joint, together),
    }


def _components(
    wanted: NewOptions, task: Task, data: Manifest, sites: tuple[str | None, str | None], reasons: Reasons
) -> tuple[dict[str, Any], bool]:
    """Strategy, method and regulariser, and whether adaptation looks at pooled features."""
    source, target = sites
    others = [site for site in ([source] if source is not None else data.sites) if site != target]
    at_hand = target is not None and any(data.cases("training", site=site, labelled=True) for site in others)
    default, why = default_method(task, len(data.labels), source_images=at_hand)
    chosen = component("methods", default if wanted.method == AUTO else wanted.method)
    kind: Any = pydoc.locate(chosen["_target_"])
    refuse_unfit(kind, task.name)
    tuning = (
        isinstance(kind, type)
        and issubclass(kind, Method)
        and not any(need.startswith("target_") for need in kind.needs)
    )
    if wanted.method == AUTO or tuning:
        reasons.add("adapt", default, why)
    found = {
        "strategy": component("strategies", wanted.strategy),
        "method": component("methods", default) if tuning else chosen,
        "regulariser": chosen if tuning else None,
    }
    return found, tuning or getattr(kind, "default_pool", "mean") is not None


def _picture(
    wanted: NewOptions, data: Manifest, fit: DataFit, sites: tuple[str | None, str | None], reasons: Reasons
) -> str | None:
    """How rasters are read; ``None`` for other images."""
    if not fit.raster:
        if wanted.channels is not None:
            raise InputError("--channels is for pictures, and these images are none", hint="leave it out")
        return None
    cases = {str(site): data.cases("training", site=site) for site in dict.fromkeys(sites)}
    if any(len(case.images) > 1 for found in cases.values() for case in found):
        return str(reasons.add("channels", "grey", "several files make one image"))
    paths = {site: [case.images[0] for case in found] for site, found in cases.items() if found}
    return picture_mode(paths, wanted.channels, _source_channels(wanted.source), reasons)


def _source_channels(source: str | Path) -> int | None:
    """What the first layer of a source bundle or run takes, where it says so."""
    folder = Path(source)
    if folder.is_file():
        family = find_family(Source.load(folder).state_dict)
        return family.channels if family is not None else None
    if not ((folder / "configs").is_dir() or (folder / "config.yaml").is_file()):
        return None
    return read_bundle(folder).in_channels


def _channels(data: Manifest, fit: DataFit, path: Path, picture: str | None) -> list[str]:
    if picture == "rgb":
        return list(COLOURS)
    channels = list(data.channel_names.values()) or [f"channel {i}" for i in range(fit.channels)]
    if len(channels) != fit.channels:
        raise InputError(
            f"names {len(channels)} channels, but its images hold {fit.channels}",
            path=path,
            hint="name one channel for each that the images hold",
        )
    return channels


@dataclass(frozen=True)
class _Start:
    """What a source brings: its weights, network, pipeline, grid; nothing where there is none."""

    source: Source | None = None
    network: dict[str, Any] | None = None
    kept: KeptPipeline | None = None
    spacing: list[float] | None = None
    patch: list[int] | None = None
    oriented: bool = False
    normalise: list[dict[str, Any]] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    partial: bool = False
    trust: Trust | None = None
    folds: Mapping[str, Source] = field(default_factory=dict)
    original: Original | None = None


def _start(wanted: NewOptions, data: Manifest, task: Task, fit: DataFit, outputs: int, channels: list[str]) -> _Start:
    """The source, read."""
    model = nnunet_model(wanted.source)
    if model is None:
        source = open_source(wanted.source)
        if source is None:
            if wanted.network_args:
                raise InputError(
                    "--network-args is for a checkpoint file", hint="a network without a source is planned"
                )
            return _Start()
        trust = trust_in(source, wanted.trust_source)
        found = described_source(source, trust)
        if found is None:
            return _bare(source, wanted, task, fit, outputs)
        if wanted.network is not None and found.network is not None:
            raise InputError(
                "--network is for a checkpoint file", path=wanted.source, hint="a bundle tells its network"
            )
        network = source_network(source, outputs, fit, trust)
        spacing = source_spacing(source, fit.spatial_dims, trust)
        start = _Start(source, network, None, spacing, trust=trust)
        sizes = source_input_sizes(found, task, fit.spatial_dims)
        start = _kept(start, wanted, data, task, fit, sizes)
        return replace(start, facts=start.facts | head_facts(*head_of(found), wanted.source_head, task))
    if task.saved_as != "mask":
        raise InputError(
            f"an nnU-Net model segments, and the task is {task.name}",
            path=wanted.source,
            hint="take another source, or a manifest of a segmentation",
        )
    if wanted.preprocessing == "data":
        raise InputError(
            "an nnU-Net model keeps its own preprocessing, which its plans tell in full",
            path=wanted.source,
            hint="leave --preprocessing data out; --spacing and --patch change its grid",
        )
    asked = one_per_axis(wanted.spacing, fit.spatial_dims, "--spacing") if wanted.spacing else None
    kept = kept_pipeline(replace(model, spacing=list[float | None](asked)) if asked else model, channels)
    network = source_network_config(model, outputs, fit)
    facts = head_facts(model.activation, "its labels", wanted.source_head, task)
    folds, said = nnunet_folds(model)
    facts |= {"own_validation": own_validation(model)} if model.own_dice else {}
    facts |= {"folds": said} if said else {}
    spacing = [float(mm or 1) for mm in model.spacing]
    original = original_of(model)
    return _Start(
        nnunet_source(model), network, kept, spacing, model.patch, facts=facts, folds=folds, original=original
    )  # fmt: skip


def _bare(source: Source, wanted: NewOptions, task: Task, fit: DataFit, outputs: int) -> _Start:
    """A checkpoint file without a bundle around it."""
    found = bare_checkpoint(
        source,
        task,
        fit,
        outputs,
        name=wanted.network,
        arguments=wanted.network_args,
        published=wanted.preprocessing == "source" and not wanted.resize,
        spacing=one_per_axis(wanted.spacing, fit.spatial_dims, "--spacing") if wanted.spacing else None,
        head=wanted.source_head,
    )
    oriented = found.kept is not None
    return _Start(
        source, found.network, found.kept, found.spacing, found.patch, oriented, found.normalise, found.facts,
        found.partial,
    )  # fmt: skip


def _kept(
    start: _Start, wanted: NewOptions, data: Manifest, task: Task, fit: DataFit, sizes: InputSizes | None
) -> _Start:
    """With what a bundle does to images, where that is wanted and can be read; one image is passed through both."""
    found = described_source(start.source, start.trust)
    if wanted.preprocessing == "data":
        return replace(start, spacing=None)  # the planner's, of the data
    if wanted.resize or found is None:
        return start
    dims = fit.spatial_dims
    asked = one_per_axis(wanted.spacing, dims, "--spacing") if wanted.spacing else None
    kept, reason = kept_from_bundle(found, dense=task.dense, dims=dims, spacing=asked)
    if kept is None:
        logger.warning("the source's preprocessing is not kept, steps fitted to the data stand in: %s", reason)
        return replace(start, facts={"preprocessing": f"fitted to the data: {reason}"})
    parity: dict[str, Any] = {}
    if asked is None:
        case = (data.cases("training") or data.cases("unlabeled"))[0]
        image = case.images[0] if len(case.images) == 1 else list(case.images)
        parity = {"parity": check_parity(found, kept, image)}
    if task.dense and sizes is not None:
        kept = kept.padded(sizes.factor)
    facts: dict[str, Any] = {"preprocessing": kept.said} | parity
    return replace(start, kept=kept, patch=patch_of(found), oriented=found.orientation == "RAS", facts=facts)


def _normalise(data: Manifest, fit: DataFit, start: _Start, reasons: Reasons) -> list[dict[str, Any]]:
    if start.kept is not None:
        reasons.add("normalise", "the source's", start.kept.said)
        return []
    if start.normalise is not None:
        reasons.add("normalise", "the source's", start.facts["preprocessing"])
        return start.normalise
    if fit.channels > 1 and not fit.raster and len(fit.foregrounds) == fit.channels:
        modalities = channel_modalities(data, fit.channels)
        if (steps := by_channel(modalities, fit.foregrounds, fit.background, reasons)) is not None:
            return steps
    window = (fit.low, fit.high)
    colour = fit.raster and fit.channels == 3
    modality = channel_modalities(data, 1)[0] if fit.channels == 1 else data.modality
    return normalisation(modality, fit.foreground, window, fit.background, fit.raster, reasons, colour=colour)


def _pipeline(
    wanted: NewOptions,
    task: Task,
    fit: DataFit,
    outputs: int,
    size: Size,
    start: _Start,
    reasons: Reasons,
) -> dict[str, Any]:
    """Grid, patch, network and batch, as fields of the spec."""
    dims = fit.spatial_dims
    spacing = one_per_axis(wanted.spacing, dims, "--spacing") if wanted.spacing else start.spacing
    patch = [int(v) for v in one_per_axis(wanted.patch, dims, "--patch")] if wanted.patch else start.patch
    patch = patch or image_size(start.network, dims)
    image = [int(v) for v in one_per_axis(wanted.resize, dims, "--resize")] if wanted.resize else None
    if image and not fit.raster:
        raise InputError("--resize is for pictures, whose pixels have no size", hint="pass --spacing in mm")
    network = start.network
    if wanted.residual and (network is not None or not task.dense):
        what = "the network is the source's" if network is not None else f"a {task.name} has no such network"
        raise InputError(f"--residual is for a planned DynUNet, and {what}", hint="leave it out")
    if not task.dense:
        return _whole_images(wanted, task, fit, outputs, size, network, spacing, image or patch, reasons)
    if image:
        fit = replace(fit, shape=image)
        reasons.add("resize", image, "as asked")
    plan = plan_dense(
        fit,
        outputs,
        size,
        reasons,
        spacing=[1.0] * dims if image else spacing,
        patch=patch,
        patch_from="as asked" if wanted.patch else "the source's",
        network=network,
        unit=2 ** levels(network) if network is not None else 1,
        name=wanted.network,
        residual=wanted.residual,
        batch_size=wanted.batch_size,
    )
    return {
        "spacing": None if image else plan.spacing,
        "image_size": image,
        "patch": plan.patch,
        "network": plan.network,
        "batch_size": plan.batch_size,
        "crops": plan.crops,
    }


def _whole_images(
    wanted: NewOptions,
    task: Task,
    fit: DataFit,
    outputs: int,
    size: Size,
    network: dict[str, Any] | None,
    spacing: list[float] | None,
    patch: list[int] | None,
    reasons: Reasons,
) -> dict[str, Any]:
    """The pipeline of what says one thing about an image."""
    if wanted.network is not None and network is None:
        raise InputError(f"--network {wanted.network} segments", hint="leave it out for this task")
    dims, asked = fit.spatial_dims, patch is not None
    whose = "as asked" if wanted.patch or wanted.resize else "the source's"
    if network is None:
        network = densenet(dims, fit.channels, outputs, size)
        reasons.add("network", "DenseNet", f"whole images; size {size.name}")
    else:
        reasons.add("network", network["_target_"].rsplit(".", 1)[-1], "the source's")
    # the number of a volume may be one of millimetres: resizing unlike fields of view to one grid would falsify it
    cut = task.label.is_number and dims == 3 and fit.spacing is not None
    if cut and spacing:
        patch = patch or cover(fit, spacing)
        reasons.add("spacing", spacing, "as asked, or the source's")
    elif cut:
        spacing, patch = fit_grid(fit, size, patch)
        reasons.add("spacing", spacing, "the finest at which the median field of view fits into the size's voxels")
    else:
        grid = spacing or fit.spacing
        patch = patch or fit_whole(resampled_shape(fit, grid), size)
        spacing = None if fit.raster or (task.has_classes and dims == 2) else grid
    patch = taken_patch(network, fit.channels, patch, fixed=asked)
    how = "cut or padded to" if cut else "resized to"
    how = how + (", so that a millimetre stays one" if cut and not asked else "")
    reasons.add(
        "patch", patch, f"{whose}; images are {how} it" if asked else f"what images are {how}; size {size.name}"
    )
    return {
        "spacing": spacing,
        "patch": patch,
        "network": network,
        "resize": not cut,
        "crop": cut,
        "batch_size": reasons.add(
            "batch_size", wanted.batch_size or 16, "as asked" if wanted.batch_size else "whole images"
        ),
    }


def _selection(
    data: Manifest, sites: tuple[str | None, str | None], n_labelled: int | None, reasons: Reasons
) -> dict[str, Any]:
    """Whether validation patients choose the epoch, at the target and at the source."""
    found = {}
    for name, site, most in (("select", sites[1], n_labelled), ("pretrain_select", sites[0], None)):
        cases = data.cases("validation", site=site, labelled=True)
        patients = len({case.patient for case in cases})
        patients = patients if most is None else min(patients, most)
        found[name] = selects_epoch(patients)
        where = "at the target" if name == "select" else "at the source"
        kept = "they choose the epoch" if found[name] else "too few to choose an epoch: the last one is kept"
        reasons.add(name, found[name], f"{patients} validation patients {where}: {kept}")
    return found


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
