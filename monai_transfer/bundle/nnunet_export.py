"""A bundle that was made from an nnU-Net model, written back as a results folder that nnU-Net's own commands read.

What nnU-Net's plans cannot say of a bundle is refused by its name: other steps, another network, other tiles, label
values with gaps, regions whose overlap no order of writing gives.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_transfer.bundle.configs.emit import uncommented
from monai_transfer.bundle.nnunet_source import kept_pipeline
from monai_transfer.bundle_reader.description import step_kind
from monai_transfer.engine.checkpoint import save_checkpoint
from monai_transfer.errors import InputError
from monai_transfer.files import atomic_folder, write_json
from monai_transfer.manifest.label_mapping import LabelMapping
from monai_transfer.nnunet.checkpoints import fold_weights
from monai_transfer.nnunet.model import NnunetModel, read_model
from monai_transfer.nnunet.network import network_config, nnunet_network
from monai_transfer.nnunet.original import Original, read_original
from monai_transfer.nnunet.steps import FoldMean
from monai_transfer.nnunet.writing import nnunet_weights, with_kernels

__all__ = ["ORIGINAL", "write_nnunet"]

ORIGINAL = "models/nnunet.json"
"""What the bundle keeps of its source for this."""
_AROUND = ("LoadImaged", "EnsureChannelFirstd", "DeleteItemsd", "EnsureTyped")
"""What a bundle does before nnU-Net's steps and behind them: reading, and the type."""
_HINT = "--to bundle keeps it as it is"


def write_nnunet(
    bundle: Path,
    network: nn.Module,
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    output: Path | None,
    told: Mapping[str, str],
) -> Path:
    """Write the results folder; what it says is read back, and gives the network's own output, before it is kept.

    Args:
        bundle: its folder.
        network: with its weights, in eval mode; of several folds their ``FoldMean``.
        config: its inference config.
        metadata: its metadata.
        output: the folder; default ``<bundle>_nnunet/<trainer>__<plans>__<configuration>`` beside the bundle.
        told: more for the checkpoint: licence and origin of the weights.

    Raises:
        InputError: the source was no nnU-Net model, or nnU-Net cannot express what became of it; names the part.
    """
    place = bundle / ORIGINAL
    if not place.is_file():
        hint = "make it with new --source NNUNET_FOLDER"
        raise InputError("this bundle was not made from an nnU-Net model", path=bundle, hint=hint)
    original = read_original(place)
    model = original.model(place)
    names, channels = (_named(metadata, side) for side in ("outputs", "inputs"))
    dataset, rows = _dataset(original, metadata, names, channels, bundle)
    plans = _with_steps(original, model, config, channels, bundle)
    _check_network(model, config, len(names), bundle)
    source = fold_weights(bundle / "models" / "source.pt")
    networks = list(network.networks) if isinstance(network, FoldMean) else [network]
    folds = original.folds[: len(networks)]
    written, kernels = [], model.architecture.kernels
    for one in networks:
        weights, found = nnunet_weights(original, model, one.state_dict(), source, names, rows)
        written.append(weights)
        kernels = [[max(pair) for pair in zip(a, b, strict=True)] for a, b in zip(kernels, found, strict=True)]
    if kernels != model.architecture.kernels:
        plans = with_kernels(plans, original.configuration, kernels)
    home = bundle.resolve()
    name = f"{original.trainer}__{plans.get('plans_name', 'nnUNetPlans')}__{original.configuration}"
    target = Path(output) if output else home.with_name(f"{home.name}_nnunet") / name
    if target.exists():
        raise InputError("exists already", path=target, hint="name another --output")
    mirror = None if original.mirror_axes is None else tuple(original.mirror_axes)
    with atomic_folder(target) as temporary:
        write_json(temporary / "plans.json", plans)
        write_json(temporary / "dataset.json", dataset)
        for fold, weights in zip(folds, written, strict=True):
            arguments: dict[str, Any] = {
                "plans": plans,
                "configuration": original.configuration,
                "dataset_json": dataset,
            }
            arguments["fold"] = int(fold) if fold.isdigit() else fold
            content = {
                "network_weights": weights,
                "init_args": arguments,
                "trainer_name": original.trainer,
                "inference_allowed_mirroring_axes": mirror,
                **told,
            }
            save_checkpoint(content, temporary / f"fold_{fold}" / "checkpoint_final.pth")
        _check(temporary, network, model, rows, bundle)
    return target


def _named(metadata: Mapping[str, Any], side: str) -> list[str]:
    formats: Mapping[str, Any] = (metadata.get("network_data_format") or {}).get(side) or {}
    told: Mapping[str, str] = next((entry.get("channel_def") or {} for entry in formats.values()), {})
    return [str(told[key]) for key in sorted(told, key=int)]


def _with_steps(
    original: Original, model: NnunetModel, config: Mapping[str, Any], channels: list[str], bundle: Path
) -> dict[str, Any]:
    """The plans, with the bundle's spacing.

    Raises:
        InputError: steps or tiles are not those that nnU-Net makes of these plans.
    """
    if len(channels) != len(model.channels):
        fault = f"it reads {len(channels)} channels, and the nnU-Net model has {len(model.channels)}"
        raise InputError(fault, path=bundle, hint=_HINT)
    kept = kept_pipeline(model, model.channels)
    steps = (config.get("preprocessing") or {}).get("transforms") or []
    here = [step for step in steps if _name(step) not in _AROUND]
    spacing = next((step.get("spacing") for step in here if _name(step) == "ResizeToSpacingd"), None)
    theirs = uncommented(kept.steps(["image"], alone=True))
    theirs = [step | ({"spacing": spacing} if _name(step) == "ResizeToSpacingd" else {}) for step in theirs]
    if here != theirs:
        odd = next(n for n, (a, b) in enumerate(itertools.zip_longest(here, theirs)) if a != b)
        what = _name(here[odd]) if odd < len(here) else f"none, where nnU-Net has {_name(theirs[odd])}"
        fault = f"its steps before the network are not those that nnU-Net makes of the plans (step {odd + 1}: {what})"
        raise InputError(fault, path=bundle, hint=_HINT)
    after = [_name(step) for step in (config.get("postprocessing") or {}).get("transforms") or []]
    kinds = {name: step_kind(name) for name in after if name != "MapLabelValued"}  # the labels' values, seen to before
    if (odd_one := next((name for name, kind in kinds.items() if kind == "components"), None)) is not None:
        fault = f"it does {odd_one} to its predictions, which nnU-Net's results folder cannot say"
        raise InputError(fault, path=bundle, hint=_HINT)
    tiles = uncommented(kept.inferer_config(alone=True))
    given = dict(config.get("inferer") or {})
    same = {key: given.get(key) for key in tiles if key != "mirror_axes"}
    if same != {key: value for key, value in tiles.items() if key != "mirror_axes"}:
        raise InputError("its tiles are not those of nnU-Net's plans", path=bundle, hint=_HINT)
    plans = copy.deepcopy(original.plans)
    if spacing is not None and spacing != model.spacing:
        values = [float(mm) for mm in spacing if mm is not None]
        changed = [values[model.axes.index(axis)] for axis in range(model.dims)]
        plans["configurations"][original.configuration]["spacing"] = changed
    return plans


def _name(step: Mapping[str, Any]) -> str:
    """Of a step's class, also of one of the bundle's script: ``$@functions['ResizeToSpacingd']``."""
    return str(step.get("_target_")).rpartition(".")[2].removeprefix("$@functions['").removesuffix("']")


def _check_network(model: NnunetModel, config: Mapping[str, Any], outputs: int, bundle: Path) -> None:
    expected = uncommented(network_config(model))
    key = "out_channels" if model.architecture.in_monai else "num_classes"
    given = config.get("network_def")
    if given != expected | {key: outputs}:
        name = str(given.get("_target_")).rpartition(".")[2] if isinstance(given, Mapping) else "none"
        fault = f"its network ({name}) is not that of the plans ({model.architecture.kind})"
        raise InputError(fault, path=bundle, hint=_HINT)


def _dataset(
    original: Original, metadata: Mapping[str, Any], names: list[str], channels: list[str], bundle: Path
) -> tuple[dict[str, Any], list[int] | None]:
    """``dataset.json`` with the bundle's labels and channels; of regions, the order of outputs that nnU-Net writes in.

    Raises:
        InputError: nnU-Net cannot write these labels.
    """
    told = (metadata.get("transfer") or {}).get("label_mapping")
    mapping = LabelMapping.from_dict(told) if isinstance(told, Mapping) else None
    made = {key: value for key, value in original.dataset.items() if key not in ("labels", "regions_class_order")}
    made["channel_names"] = {str(n): name for n, name in enumerate(channels)}
    if mapping is not None and mapping.overlapping:
        rows, values = _order(mapping, bundle)
        named = list(mapping.regions)
        regions = {named[row]: [int(v) for v in mapping.regions[named[row]]] for row in rows}
        made["labels"] = {"background": 0, **{name: v if len(v) > 1 else v[0] for name, v in regions.items()}}
        made["regions_class_order"] = values
        return made, None if rows == list(range(len(rows))) else rows
    values = list(range(len(names))) if mapping is None else mapping.written_values
    if values != list(range(len(names))):
        fault = f"its label values are {', '.join(map(str, values))}, and nnU-Net writes 0, 1, 2 ... without a gap"
        raise InputError(fault, path=bundle, hint=_HINT)
    if "ignore" in names[1:]:
        raise InputError("a class is called 'ignore', which nnU-Net does not learn", path=bundle, hint=_HINT)
    made["labels"] = {"background": 0} | dict(zip(names[1:], values[1:], strict=True))
    return made, None


def _order(mapping: LabelMapping, bundle: Path) -> tuple[list[int], list[int]]:
    """Regions in the order of writing, and the value of each, where that gives what the bundle writes."""
    wanted, n = mapping.values_of_regions(), len(mapping.regions)
    alone = [wanted[1 << region] for region in range(n)]
    for rows in _orders(mapping):
        painted = []
        for on in range(2**n):
            value = wanted[0]
            for row in rows:
                value = alone[row] if on >> row & 1 else value
            painted.append(value)
        if painted == wanted:
            return rows, [alone[row] for row in rows]
    fault = "its regions overlap in a way that no order of writing them gives, which is how nnU-Net writes them"
    raise InputError(fault, path=bundle, hint=_HINT)


def _orders(mapping: LabelMapping) -> Sequence[list[int]]:
    """Larger regions first; where several are alike, as they stand."""
    sizes = [len(values) for values in mapping.regions.values()]
    first = sorted(range(len(sizes)), key=lambda region: -sizes[region])
    return [first, list(range(len(sizes)))]


def _check(folder: Path, network: nn.Module, model: NnunetModel, rows: list[int] | None, bundle: Path) -> None:
    """The folder, read back, has the network's output for a patch.

    Raises:
        InputError: it has not; nothing is kept.
    """
    again = nnunet_network(read_model(folder))
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(1, len(model.channels), *model.patch, generator=draw)
    with torch.no_grad():
        ours: Tensor = network.eval()(image)
        theirs: Tensor = again(image)
    ours = ours[:, rows] if rows is not None else ours
    apart = float((ours - theirs).abs().max())
    if apart > 1e-3 * max(1.0, float(ours.abs().max())):
        fault = f"the folder's network differs by {apart:.3g}; nothing was kept"
        raise InputError(fault, path=bundle, hint="export it with --to bundle, and report this network")
