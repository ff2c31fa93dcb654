"""A checkpoint file as the source of a bundle: the network by its names and shapes, or as the user names it.

What the authors of published weights do to images comes with them (``weights.published_preprocessing``), or is said to
be unknown; then the steps are fitted to the data.
"""

from __future__ import annotations

import inspect
import logging
import pydoc
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from monai_transfer.bundle.fit import DataFit
from monai_transfer.bundle.kept_pipeline import KeptPipeline
from monai_transfer.bundle.source_head import head_facts
from monai_transfer.bundle_reader.building import as_config, build
from monai_transfer.bundle_reader.component import Component
from monai_transfer.bundle_reader.table import lookup, table
from monai_transfer.config_text import given_to_config
from monai_transfer.errors import InputError, closest
from monai_transfer.networks.arguments import INPUTS, OUTPUTS, argument_of, with_channels
from monai_transfer.networks.unsuited import refuse_unsuited
from monai_transfer.safe_parse import parse_yaml
from monai_transfer.tasks import Task
from monai_transfer.weights import Source
from monai_transfer.weights.families import Family, find_family

__all__ = ["BareCheckpoint", "bare_checkpoint", "named_network", "parse_network_args"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BareCheckpoint:
    """What a checkpoint file brings.

    Attributes:
        source: the weights. network: its config, for the data's outputs, channels and dimensions.
        normalise: intensity steps of whole images; ``None``: fitted to the data.
        kept: the published steps of volumes and their windows; ``None``: fitted to the data.
        spacing: mm per axis. patch: voxels or pixels per axis.
        facts: for ``source.json``.
        partial: the file is an encoder's; most of the network may start fresh.
    """

    source: Source
    network: dict[str, Any]
    normalise: list[dict[str, Any]] | None = None
    kept: KeptPipeline | None = None
    spacing: list[float] | None = None
    patch: list[int] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    partial: bool = False


def parse_network_args(texts: Sequence[str] | None) -> dict[str, Any]:
    """``["feature_size=48 depths=[2,2,2,2]"]`` as keyword arguments, values read as YAML.

    Raises:
        InputError: something is not of the form ``key=value``.

    >>> parse_network_args(["feature_size=48 use_v2=true", "norm=batch"])
    {'feature_size': 48, 'use_v2': True, 'norm': 'batch'}
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        try:
            pairs = shlex.split(text)
        except ValueError as error:
            raise InputError(f"--network-args {text!r}: {error}", hint="write it like feature_size=48") from error
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals or not key.isidentifier():
                hint = 'write it like --network-args "feature_size=48 depths=[2,2,2,2]"'
                raise InputError(f"--network-args {pair!r} is not of the form key=value", hint=hint)
            found[key] = parse_yaml(value)
    return found


def bare_checkpoint(
    source: Source,
    task: Task,
    fit: DataFit,
    outputs: int,
    *,
    name: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    published: bool = True,
    spacing: Sequence[float] | None = None,
    head: str | None = None,
) -> BareCheckpoint:
    """The network of a checkpoint file and its published preprocessing.

    Args:
        source: the file, read.
        task: of the data. fit: what the data have in common. outputs: of the new network.
        name: the network's class in ``monai.networks.nets``, or a full path; ``None``: found by the file's names.
        arguments: its keyword arguments; dimensions, channels and outputs are the data's.
        published: take the published preprocessing over, where it is known.
        spacing: mm per axis, in place of the published one.
        head: what the file's outputs are, see ``source_head``; ``None``: as its family says, if it does.

    Raises:
        InputError: the network is not told, does not fit the task or dimensions, or cannot be made of the arguments.
    """
    found = _found(source, task, fit, outputs, name, arguments, published, spacing, head)
    family = find_family(source.state_dict)
    encoder = family is not None and (family.partial or found.network["_target_"].endswith("FlexibleUNet"))
    return replace(found, partial=encoder)


def _found(
    source: Source,
    task: Task,
    fit: DataFit,
    outputs: int,
    name: str | None,
    arguments: Mapping[str, Any] | None,
    published: bool,
    spacing: Sequence[float] | None,
    head: str | None,
) -> BareCheckpoint:
    """Without a word on whether it is a part."""
    family = find_family(source.state_dict)
    if name is not None:
        same = family is not None and family.network["_target_"].rpartition(".")[2] == name.rpartition(".")[2]
        seen = family.network if family is not None and same else {}
        network = named_network(name, _agreeing(arguments or {}, seen, source), fit, outputs)
        told = f"{name}, as asked"
    elif arguments:
        raise InputError("--network-args needs --network", hint="name the class that takes these arguments")
    elif family is None:
        raise InputError(
            "a bare checkpoint does not say which network it belongs to, and its names are of no published family",
            path=source.path,
            hint='name it: --network SwinUNETR --network-args "feature_size=48"; or give the bundle or run folder that '
            "the file comes from",
        )
    else:
        network, same, told = (
            _of_family(family, source, task, fit, outputs),
            True,
            f"{family.name}, by names and shapes",
        )
        if family.note:
            logger.warning("%s: %s", family.name, family.note)
        if family.weights is not None:
            source.state_dict = family.weights
        source.classes = source.classes or family.classes
    facts: dict[str, Any] = {"network": told, **_head(family if same else None, head, task, outputs)}
    known = family.preprocessing if family is not None and same else None
    if not published:
        return BareCheckpoint(source, network, facts=facts)
    if known is None:
        facts["preprocessing"] = "fitted to the data: what these weights were trained on is not known"
        logger.warning("preprocessing of these weights is unknown: steps fitted to the data stand in")
        return BareCheckpoint(source, network, facts=facts)
    said = f"{known.name} ({known.source})" + (f"; {known.note}" if known.note else "")
    dims = fit.spatial_dims
    if family is not None and family.dims != dims:
        facts["preprocessing"] = f"fitted to the data: {known.name}'s is for {family.dims}D images"
        logger.warning(
            "%s's preprocessing is for %dD images: steps fitted to the data stand in", known.name, family.dims
        )
        return BareCheckpoint(source, network, facts=facts)
    if known.scale is not None and not fit.raster:
        facts["preprocessing"] = f"fitted to the data: {known.name}'s is for pictures of 8 or 16 bits"
        logger.warning("%s's values are those of pictures: intensities are fitted to the data instead", known.name)
        return BareCheckpoint(source, network, patch=_whole(known.size, task, dims), facts=facts)
    facts["preprocessing"] = said
    if known.window is None:
        steps = known.intensities(fit.channels, _top(fit))
        return BareCheckpoint(source, network, steps, patch=_whole(known.size, task, dims), facts=facts)
    mm = list(spacing) if spacing else None
    kept = KeptPipeline(
        known.dense_steps(fit.channels, mm, label=False),
        known.dense_steps(fit.channels, mm, label=True),
        {"_target_": "monai.inferers.SlidingWindowInferer", "sw_batch_size": 4, "overlap": 0.25},
        said=f"published: {said}",
        facts=facts,
    )
    grid = mm or (list(known.spacing) if known.spacing else None)
    return BareCheckpoint(source, network, None, kept, grid, None, facts)


def _agreeing(given: Mapping[str, Any], seen: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """What the user says of the network and, where he says nothing, what the file's shapes say."""
    taken = {key: value for key, value in seen.items() if key not in ("_target_", *INPUTS, *OUTPUTS, "spatial_dims")}
    for key, value in given.items():
        if key in taken and _listed(taken[key]) != _listed(value):
            hint = f"leave {key} out, or give {key}={taken[key]}"
            raise InputError(
                f"{key}={value}, and the file's shapes are those of {taken[key]}", path=source.path, hint=hint
            )
    return {**taken, **given}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def named_network(name: str, arguments: Mapping[str, Any], fit: DataFit, outputs: int) -> dict[str, Any]:
    """The config of a network that the user names, with the data's dimensions, channels and outputs.

    Raises:
        InputError: there is no such class, or it does not take these arguments, or gives no scores of an image alone.
    """
    refuse_unsuited(name)
    entry = lookup(name)
    if entry is None and "." in name:
        made: Any = pydoc.locate(name)
        if not callable(made):
            raise InputError(f"no network {name!r} can be imported", hint="a full path such as my_package.nets.Net")
        return {"_target_": name, **_filled(made, given_to_config(dict(arguments)), fit, outputs)}
    if entry is None or entry.kind != "network":
        names = sorted({one.name for one in table().values() if one.kind == "network"})
        raise InputError(f"no network {name!r} in monai.networks.nets", hint=closest(name, names))
    given = _filled(entry.make, arguments, fit, outputs)
    component = Component(entry.name, "network", given, path=entry.path)
    try:
        build(component)
    except InputError as error:
        hint = f'--network-args "key=value ..." are the arguments of monai.networks.nets.{entry.name}'
        raise InputError(error.fault, hint=hint) from error
    return as_config(component)


def _filled(made: Any, arguments: Mapping[str, Any], fit: DataFit, outputs: int) -> dict[str, Any]:
    """With the data's numbers under the names that the class has for them."""
    parameters = dict(inspect.signature(made).parameters)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) and isinstance(made, type):
        parameters = {**inspect.signature(made.__mro__[1]).parameters, **parameters}
    filled = dict(arguments)
    if "spatial_dims" in parameters:
        filled.setdefault("spatial_dims", fit.spatial_dims)
    for names, value in ((INPUTS, fit.channels), (OUTPUTS, outputs)):
        name = argument_of(names, parameters)
        if name is not None and filled.get(name, value) != value:
            what = "channels" if names is INPUTS else "classes"
            raise InputError(f"{name}={filled[name]}, and the data have {value} {what}", hint=f"leave {name} out")
        if name is not None:
            filled[name] = value
    return filled


def _of_family(family: Family, source: Source, task: Task, fit: DataFit, outputs: int) -> dict[str, Any]:
    """The family's network for the data."""
    config = dict(family.network)
    if task.dense and not family.dense:
        if family.encoder is None or fit.spatial_dims != 2:
            fault = (
                f"these are weights of {family.name}, which says one thing about an image, and the task is {task.name}"
            )
            hint = "name a network with --network whose encoder they are, or take weights of a segmentation"
            raise InputError(fault, path=source.path, hint=hint)
        config = dict(family.encoder)
    elif family.dense and not task.dense:
        fault = f"these are weights of {family.name}, which segments, and the task is {task.name}"
        raise InputError(fault, path=source.path, hint="take weights of a network for whole images")
    if family.dims != fit.spatial_dims:
        if family.dims != 2 or "spatial_dims" not in config:
            fault = f"the weights are {family.dims}D and the data are {fit.spatial_dims}D"
            raise InputError(
                fault,
                path=source.path,
                hint="name a checkpoint of one of the families in docs/weights.md, or give --network",
            )
        if "img_size" in config:
            raise InputError(
                f"2D weights of {family.name} do not fit volumes",
                path=source.path,
                hint="take a 3D source, or 2D pictures",
            )
        config["spatial_dims"] = fit.spatial_dims  # its kernels are inflated on loading, and reported
        for key in ("conv1_t_size", "conv1_t_stride"):
            if isinstance(config.get(key), list):
                config[key] = [config[key][0]] * fit.spatial_dims
    return with_channels(config, fit.channels, outputs)


def _head(family: Family | None, asked: str | None, task: Task, outputs: int) -> dict[str, Any]:
    """What is known of the outputs; nothing is said of a head that does not go over in any case."""
    if asked is None and family is not None and family.head is None:
        name = argument_of(OUTPUTS, family.network)
        if name is None or family.network[name] != outputs or family.partial:
            return {}
    return head_facts(family.head if family is not None else None, "its family", asked, task)


def _whole(size: int | None, task: Task, dims: int) -> list[int] | None:
    """Pixels of whole pictures; patches of a segmentation are planned."""
    return [size] * dims if size is not None and not task.dense else None


def _top(fit: DataFit) -> float:
    """The largest value of the pictures' type."""
    return 255.0 if fit.high <= 255 else 65535.0
