"""``read_bundle``: the configs, metadata and licence of a bundle or run folder as one ``BundleDescription``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_transfer.bundle_reader.component import Component, Unread, unread_in
from monai_transfer.bundle_reader.description import BundleDescription, step_kind
from monai_transfer.bundle_reader.licence import bundle_licence
from monai_transfer.bundle_reader.metadata_kinds import usable_metadata
from monai_transfer.bundle_reader.older_arguments import translate
from monai_transfer.bundle_reader.pipeline import ImageLoading
from monai_transfer.bundle_reader.references import Resolver
from monai_transfer.bundle_reader.table import ARGUMENTS, DEFAULT_OFF
from monai_transfer.config_text import from_config
from monai_transfer.errors import InputError
from monai_transfer.networks.arguments import INPUTS, argument_of
from monai_transfer.runs.record import read_record
from monai_transfer.safe_parse import MAX_CONFIG_BYTES, config_file, read_json, read_mapping

__all__ = ["config_file", "read_bundle", "read_metadata"]

_NETWORKS = ("network_def", "network", "net", "model", "net_def")
_PREPROCESSING = ("preprocessing", "validate::preprocessing", "test::preprocessing", "val::preprocessing")
_INFERERS = ("inferer", "validate::inferer", "validate::evaluator::inferer", "test::inferer", "evaluator::inferer")
_POSTPROCESSING = ("postprocessing", "validate::postprocessing", "test::postprocessing")
_LOSSES = ("loss", "loss_function", "loss_fn", "criterion", "train::loss", "train::loss_function",
           "train::trainer::loss_function")  # fmt: skip
_CONVERT = re.compile(r"\bconvert\(\s*(['\"])(L|RGB)\1\s*\)")


def read_metadata(folder: str | Path) -> dict[str, Any]:
    """``configs/metadata.json`` of a bundle; ``{}`` where it has none.

    Fields that hold another kind of value than they should are left out (``metadata_kinds``).

    Args:
        folder: of the bundle.

    Raises:
        InputError: it is not JSON.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> read_metadata(folder)
    {}
    >>> (folder / "configs").mkdir()
    >>> _ = (folder / "configs" / "metadata.json").write_text('{"version": "0.1.0", "network_data_format": "odd"}')
    >>> read_metadata(folder)  # a field of another kind than it should be is left out
    {'version': '0.1.0'}
    """
    path = Path(folder) / "configs" / "metadata.json"
    return usable_metadata(from_config(read_json(path, max_bytes=MAX_CONFIG_BYTES)) if path.is_file() else {})


def read_bundle(folder: str | Path, *, values: Mapping[str, Any] | None = None) -> BundleDescription:
    """Read a bundle folder or a run folder; no code of it runs, and what cannot be read so is in ``unread``.

    Args:
        folder: a MONAI bundle (of any form of the model zoo), or a run folder with ``run.json`` and ``config.yaml``.
        values: plain data in place of what stands at ids of the config (``preprocessing::transforms::2::keys``).

    Raises:
        InputError: it is no folder, or a file of it cannot be parsed or is beyond a limit.

    What is plain is computed, what would run code is named:

    >>> import json, tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "configs").mkdir()
    >>> network = {"_target_": "UNet", "spatial_dims": 3, "in_channels": "@channels", "out_channels": "$@channels + 1"}
    >>> network |= {"channels": [4, 8], "strides": [2]}
    >>> inferer = {"_target_": "SimpleInferer", "of": "$__import__('os').system('touch here')"}
    >>> config = json.dumps({"channels": 1, "network_def": network, "inferer": inferer})
    >>> _ = (folder / "configs" / "inference.json").write_text(config)
    >>> found = read_bundle(folder)
    >>> found.network.arguments["out_channels"], [part.where for part in found.unread]
    (2, ['inferer::of'])
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("no such folder", path=folder, hint="name a MONAI bundle's folder, or a run folder")
    found = BundleDescription(folder)
    training: Mapping[str, Any] = {}
    if (folder / "run.json").is_file() and (folder / "config.yaml").is_file():
        found.run = read_record(folder) or {}
        found.config = read_mapping(folder / "config.yaml")
        found.metadata = usable_metadata(from_config(found.config.get("_meta_")))
        found.files = [folder / "config.yaml", folder / "run.json"]
        training = found.config
    else:
        found.metadata = read_metadata(folder)
        inference, train = config_file(folder, "inference"), config_file(folder, "train")
        found.files = [path for path in (inference, train, folder / "configs" / "metadata.json") if path]
        training = read_mapping(train) if train is not None else {}
        found.config = read_mapping(inference) if inference is not None else dict(training)
    for where, value in (values or {}).items():
        _put(found.config, where.split("::"), value)
    _metadata(found)
    _configs(found, training)
    found.licence = bundle_licence(folder, found.metadata)
    _finish(found)
    return found


def _put(node: Any, parts: list[str], value: Any) -> None:
    for n, part in enumerate(parts):
        at = int(part) if isinstance(node, list) else part
        if n == len(parts) - 1:
            node[at] = value
        else:
            node = node[at]


def _configs(found: BundleDescription, training: Mapping[str, Any]) -> None:
    resolver = Resolver(found.config)
    other = Resolver(training) if training is not found.config else resolver
    found.network = _one(found, "network", resolver, _NETWORKS)
    if found.network is None and other is not resolver:  # what one config cannot say the other one may
        before = list(found.unread)
        found.network = _one(found, "network", other, _NETWORKS)
        if found.network is not None or before:
            found.unread = [] if found.network is not None else before
    if found.network is not None and resolver.has("network_def") and resolver.has("network"):
        used = resolver.get("network")
        if used is not found.network and found.network.where == "network_def":  # parts of it, or another around it
            _note(found, "wrapper", list(unread_in(used)) or [Unread("network", "", "is not the network itself")])
    if found.network is not None:
        found.notes += translate(found.network.name, found.network.arguments)[1]
        found.notes += [
            f"{name} is switched off: the weights come from the bundle"
            for name in DEFAULT_OFF
            if found.network.arguments.get(name) not in (None, False)
        ]
    _preprocessing(found, resolver)
    found.inferer = _one(found, "inferer", resolver, _INFERERS)
    where, steps = _first(resolver, _POSTPROCESSING)
    for step in _flat(steps):
        _keep(found, step, found.postprocessing, "postprocessing", where)
    handlers = resolver.get("handlers")
    texts = (
        [str(item.text) for item in handlers or [] if isinstance(item, Unread)] if isinstance(handlers, list) else []
    )
    found.tabular = found.tabular or any(text.endswith("ClassificationSaver") for text in texts)
    found.loss = _one(found, "loss", other, _LOSSES)


def _first(resolver: Resolver, places: tuple[str, ...]) -> tuple[str, Any]:
    for where in places:
        value = resolver.get(where)
        if value is not None:
            return where, value
    return "", None


def _one(found: BundleDescription, kind: str, resolver: Resolver, places: tuple[str, ...]) -> Component | None:
    """The component of a kind at the first of some places that has something; noted where it was not read."""
    where, value = _first(resolver, places)
    unread = list(unread_in(value))
    if isinstance(value, Component) and value.kind == kind and not unread:
        return value
    if value is not None:
        _note(found, kind, unread or [Unread(where, "", f"is no {kind} that is read here")])
    return None


def _note(found: BundleDescription, part: str, unread: list[Unread]) -> None:
    found.unread += [replace(item, part=part) for item in unread]


def _preprocessing(found: BundleDescription, resolver: Resolver) -> None:
    where, steps = _first(resolver, _PREPROCESSING)
    for step in _flat(steps):
        if isinstance(step, Component) and step.name.startswith("LoadImage"):
            found.loading = _loading(step, resolver)
            # what the reader needs besides the file was read just now, and a file is all that it gets
            readers = ("reader", "converter", "image_only")
            step = Component(step.name, step.kind, _without(step.arguments, *readers), step.where, step.path)
        if isinstance(step, Unread) and _leaves_image(found, resolver._raw(step.where)):
            continue  # what a training does to its labels
        _keep(found, step, found.preprocessing, "preprocessing", where)
    keys = [_first_key(step.arguments.get("keys")) for step in found.preprocessing]
    found.image_key = next((key for key in keys if key), found.image_key)
    where, value = _first(resolver, ("image_key",))
    if isinstance(value, str):
        found.image_key = value


def _leaves_image(found: BundleDescription, raw: Any) -> bool:
    """Whether a step, as it stands in the config, names its keys, and the image read before is none of them."""
    keys = raw.get("keys") if isinstance(raw, Mapping) else None
    names = [keys] if isinstance(keys, str) else keys
    image = next((key for step in found.preprocessing if (key := _first_key(step.arguments.get("keys")))), None)
    if image is None or not isinstance(names, list) or not names:
        return False
    return all(isinstance(name, str) and name.isidentifier() and name != image for name in names)


def _without(arguments: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if key not in names}


def _first_key(keys: Any) -> str | None:
    keys = keys[0] if isinstance(keys, (list, tuple)) and keys else keys
    return keys if isinstance(keys, str) else None


def _loading(step: Component, resolver: Resolver) -> ImageLoading:
    """Reader and colours; a ``PILReader`` with ``image.convert(...)`` is understood, though it is a function."""
    raw = resolver._raw(step.where)
    reader = step.arguments.get("reader")
    given = raw.get("reader") if isinstance(raw, Mapping) else None
    while isinstance(given, str) and given.startswith("@"):
        given = resolver._raw(given[1:])
    text = str(given.get("converter", "")) if isinstance(given, Mapping) else ""
    text += str(raw.get("converter", "")) if isinstance(raw, Mapping) else ""
    found = _CONVERT.search(text)
    name = str(given.get("_target_", "")) if isinstance(given, Mapping) else reader
    name = name.rpartition(".")[2] if isinstance(name, str) else None
    mode = given.get("mode") if isinstance(given, Mapping) and name == "SafeReader" else None
    mode = {"L": "grey", "RGB": "rgb"}[found[2]] if found else mode if mode in ("grey", "rgb") else None
    return ImageLoading(None if name == "SafeReader" else name, mode)


def _flat(steps: Any) -> Iterator[Any]:
    """The steps of nested ``Compose`` and lists, one after the other."""
    if isinstance(steps, Component) and steps.name == "Compose":
        yield from _flat(steps.arguments.get("transforms", []))
    elif isinstance(steps, (list, tuple)):
        for step in steps:
            yield from _flat(step)
    elif steps is not None:
        yield steps


def _keep(found: BundleDescription, step: Any, steps: list[Component], part: str, where: str) -> None:
    if isinstance(step, Component) and step.kind == "saver" and not list(unread_in(_said(step))):
        found.saving = found.saving or replace(step, arguments=_said(step))
        return
    if isinstance(step, Unread) and step.text.rpartition(".")[2].startswith("SaveClassification"):
        found.tabular = True
        return
    if isinstance(step, Component) and step.kind in ("transform", "function"):
        # what an inverting step inverts we know: the preprocessing
        arguments = _without(step.arguments, *(["transform"] if step_kind(step.name) == "invert" else []))
        unread = list(unread_in(arguments))
        if not unread:
            steps.append(replace(step, arguments=arguments))
            return
    else:
        unread = list(unread_in(step)) or [Unread(where, str(step)[:80], "is no transform that is read here")]
    _note(found, part, unread)


def _said(step: Component) -> dict[str, Any]:
    """What a saving step says of names and types; where files go is the user's to say."""
    return {key: value for key, value in step.arguments.items() if key in ARGUMENTS["saver"]}


def _metadata(found: BundleDescription) -> None:
    path = found.folder / "configs" / "metadata.json"
    try:
        formats = _mapping(found.metadata.get("network_data_format"))
        image, pred = _format(formats, "inputs", "image"), _format(formats, "outputs", "pred")
        found.channels, found.labels = _names(image), _names(pred)
        transfer = _mapping(found.metadata.get("transfer"))
        statistics = _mapping(found.metadata.get("data_statistics")) or _mapping(transfer.get("data_statistics"))
        found.modality = _text(statistics.get("modality")) or _text(image.get("modality"))
        found.task, found.output_type = _text(transfer.get("task")), _text(pred.get("type"))
        shape = image.get("spatial_shape") or []
        found.dims = len(shape) or None
        found.patch = [v for v in shape if isinstance(v, int)]
        channels = image.get("num_channels")
        found.in_channels = channels if isinstance(channels, int) else None
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"broken metadata ({error})", path=path, hint="see MONAI's bundle specification") from error


def _format(formats: Mapping[str, Any], side: str, name: str) -> Mapping[str, Any]:
    entries = _mapping(formats.get(side))
    return _mapping(entries.get(name)) or next((e for e in entries.values() if isinstance(e, dict)), {})


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(entry: Mapping[str, Any]) -> list[str] | None:
    """``channel_def`` as a list; some public bundles have odd ones, which are left aside."""
    defined = entry.get("channel_def") or {}
    try:
        numbered = {int(key): str(name) for key, name in defined.items()}
    except (ValueError, AttributeError):
        return None
    return [numbered[key] for key in sorted(numbered)] or None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _finish(found: BundleDescription) -> None:
    """What follows from several parts: activation, dimensions, channels."""
    if found.network is not None:
        arguments = translate(found.network.name, found.network.arguments)[0]
        dims = arguments.get("spatial_dims")
        found.dims = dims if isinstance(dims, int) else found.dims
        channels = arguments.get(argument_of(INPUTS, arguments) or "")
        found.in_channels = channels if isinstance(channels, int) else found.in_channels
    for step in found.postprocessing:
        for name in ("softmax", "sigmoid"):
            value = step.arguments.get(name)
            if found.activation is None and step_kind(step.name) == "activation":
                found.activation = name if value is True or value == [True] else None
    if found.activation is None and found.loss is not None:
        for name in ("softmax", "sigmoid"):
            if found.loss.arguments.get(name) is True:
                found.activation = name
        if found.activation is None:
            known = {"CrossEntropyLoss": "softmax", "BCEWithLogitsLoss": "sigmoid"}
            found.activation = known.get(found.loss.name)
    if found.activation is None:
        for step in found.postprocessing:
            if step_kind(step.name) == "discrete":
                argmax = step.arguments.get("argmax")
                found.activation = "softmax" if argmax is True or argmax == [True] else found.activation
