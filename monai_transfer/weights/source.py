"""Source: weights and where they came from (a checkpoint file, a MONAI bundle folder, a state dict in memory)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from monai_transfer.bundle_reader.building import build
from monai_transfer.bundle_reader.licence import bundle_licence
from monai_transfer.bundle_reader.reading import config_file, read_bundle, read_metadata
from monai_transfer.bundle_reader.running import TrustedConfig
from monai_transfer.bundle_reader.trust import decide, untrusted
from monai_transfer.errors import InputError
from monai_transfer.files import sha256_file
from monai_transfer.safe_parse import parse_json
from monai_transfer.weights.classes import class_names
from monai_transfer.weights.large_files import find_file, read_large_files
from monai_transfer.weights.provenance import provenance_of
from monai_transfer.weights.reading import read_checkpoint
from monai_transfer.weights.tfjs import is_tfjs, sha256_tfjs
from monai_transfer.weights.transfer import transfer_weights

__all__ = ["Source"]

log = logging.getLogger(__name__)


@dataclass
class Source:
    """Weights to start from, with what is known about them. Made by ``Source.load`` or around a state dict.

    Attributes:
        state_dict: what the checkpoint holds; nests and prefixes are resolved against a network by ``load_weights``.
        classes: names of the outputs, in order, or ``None``.
        channels: names of the input channels, in order, or ``None``.
        description: what it is, in words, for reports.
        sha256: of the weights file, ``None`` for a state dict in memory.
        licence: of the weights, as far as the source says, and of those that they were trained from.
        url: where they are published, if the source says.
        metadata: a bundle's ``metadata.json``, or the metadata of a safetensors file.
        path: the file or the bundle folder.

    >>> import torch
    >>> from monai_transfer.weights.source import Source
    >>> source = Source({"weight": torch.ones(2, 4), "bias": torch.zeros(2)}, classes=["normal", "pneumonia"])
    >>> source.description, source.classes
    ('a state dict', ['normal', 'pneumonia'])
    """

    state_dict: Mapping[str, Any]
    classes: list[str] | None = None
    channels: list[str] | None = None
    description: str = "a state dict"
    sha256: str | None = None
    licence: str | None = None
    url: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @classmethod
    def load(
        cls,
        path_or_bundle: str | PathLike[str],
        *,
        classes: Sequence[str] | Mapping[str, str] | None = None,
        channels: Sequence[str] | Mapping[str, str] | None = None,
    ) -> Source:
        """Read a checkpoint file or a bundle's weights. Runs no code of either.

        Args:
            path_or_bundle: a ``.pt``, ``.pth``, ``.ckpt``, ``.safetensors`` ... file, or a MONAI bundle folder, of
                which ``models/model.pt`` (else the only file in ``models``, else what ``large_files.yml`` lists and
                a folder named by ``WEIGHTS_DIR`` holds) and ``configs/metadata.json`` are read. A file in a bundle
                or a run folder has the licence and description that lie beside it.
            classes, channels: names that the file does not say, in order; they stand over those of a bundle.

        Raises:
            InputError: nothing readable is there.
        """
        path = Path(path_or_bundle)
        if path.is_dir() and is_tfjs(path / "model.json"):
            path = path / "model.json"
        if path.is_dir():
            source = _read_bundle(path)
        else:
            source = _read_file(path)
        source.classes = class_names(classes) or source.classes
        source.channels = class_names(channels) or source.channels
        return source

    def network(self, *, trust_source: bool = False, **overrides: Any) -> nn.Module:
        """The bundle's network with its weights in it, on the CPU, in eval mode; none of the bundle's code runs.

        Args:
            trust_source: where the network cannot be read without it, run the bundle's own code. The decision is
                remembered until a file of that code changes.
            overrides: arguments of the network to set, e.g. ``out_channels=4``. Weights then follow the rules of
                ``load_weights``.

        Raises:
            InputError: this is no bundle, or it defines no network, or one that needs its own code.
            CoverageError: the weights are not those of this network.
        """
        if self.path is None or not self.path.is_dir():
            raise InputError(f"{self.description} holds weights without a network", hint="build the network in Python")
        network = _network(self.path, overrides, trust_source)
        transfer_weights(network, self, min_coverage=0.5 if overrides else 0.99)
        return network.eval()


def _network(folder: Path, overrides: Mapping[str, Any], trust_source: bool) -> nn.Module:
    described = read_bundle(folder)
    trust = decide(folder, trust_source)
    if described.network is not None and not trust_source:
        component = described.network
        try:
            return build(replace(component, arguments={**component.arguments, **overrides}))
        except InputError:
            if trust is None:
                raise
    unread = described.unread_of("network")
    if trust is None and (unread or described.network is not None):
        raise untrusted(folder, unread, "network")
    if trust is not None:
        for names in (("inference",), ("train",)):
            if config_file(folder, *names) is None:
                continue
            config = TrustedConfig(trust, *names)
            key = next((key for key in ("network_def", "network", "net") if config.has(key)), None)
            network = config.get(key, overrides) if key else None
            if isinstance(network, nn.Module):
                return network
    raise InputError("the bundle's configs define no network_def", path=folder, hint="build the network in Python")


def _read_file(path: Path) -> Source:
    content, metadata = read_checkpoint(path)
    layers_model = is_tfjs(path)
    known = provenance_of(path)
    licence = metadata.get("licence") or metadata.get("license") or known.licence
    return Source(
        content if isinstance(content, Mapping) else {"": content},
        classes=_from_json(metadata.get("classes")),
        channels=_from_json(metadata.get("channels")) or list(known.channels) or None,
        description=f"{path.parent.name} (TensorFlow.js)" if layers_model else _described(path.name, known.description),
        sha256=sha256_tfjs(path) if layers_model else sha256_file(path),
        licence=licence or (bundle_licence(path.parent, {}) if layers_model else None),
        url=known.url,
        metadata=dict(metadata),
        path=path,
    )


def _described(name: str, origin: str) -> str:
    return f"{name} ({origin})" if origin else name


def _from_json(text: str | None) -> list[str] | None:
    if not text:
        return None
    try:
        return class_names(parse_json(text))
    except (InputError, TypeError):
        return None


def _read_bundle(folder: Path) -> Source:
    metadata = read_metadata(folder)
    weights = _bundle_weights(folder, bool(metadata))
    content, _ = read_checkpoint(weights)
    formats = metadata.get("network_data_format") or {}
    name, version = metadata.get("name") or folder.name, metadata.get("version")
    known = provenance_of(folder / "models" / weights.name)
    what = f"bundle {name}" + (f" {version}" if version else "")
    what += f" {weights.name}" if weights.name not in _MODELS else ""
    return Source(
        content if isinstance(content, Mapping) else {"": content},
        classes=_channel_def(formats, "outputs"),
        channels=_channel_def(formats, "inputs"),
        description=_described(what, known.description),
        sha256=sha256_file(weights),
        licence=known.licence or bundle_licence(folder, metadata),
        url=known.url,
        metadata=metadata,
        path=folder,
    )


_MODELS = ("model.pt", "model.safetensors")


def _bundle_weights(folder: Path, has_metadata: bool) -> Path:
    """The file in ``models`` that holds a bundle's weights, or the local file that ``large_files.yml`` means."""
    models = folder / "models"
    for name in _MODELS:
        if (models / name).is_file():
            return models / name
    entries = read_large_files(folder)
    wanted = [e for e in entries if Path(e.path).suffix in (".pt", ".pth", ".safetensors", ".ckpt")]
    wanted = [e for e in wanted if Path(e.path).name in _MODELS] or wanted
    if len(wanted) == 1:
        return find_file(folder, wanted[0])
    others = sorted(p for p in models.glob("*") if p.suffix in (".pt", ".pth", ".safetensors", ".ckpt"))
    if len(others) == 1:
        return others[0]
    if others or wanted:
        names = ", ".join([p.name for p in others] or [e.path for e in wanted])
        raise InputError(f"holds several weights, none of them model.pt: {names}", path=models, hint="name one of them")
    script = next((p for p in sorted(models.glob("*.ts"))), None)
    if script is not None:
        fault = f"the bundle's weights are there as TorchScript alone ({script.name}), which is a program"
        raise InputError(fault, path=folder, hint="ask for its models/model.pt")
    what = "the bundle's" if has_metadata else "no MONAI bundle: its"
    raise InputError(
        f"{what} weights models/model.pt are not there", path=folder, hint="name the checkpoint file itself"
    )


def _channel_def(formats: Mapping[str, Any], side: str) -> list[str] | None:
    """The names in ``channel_def`` of the first output (input); zoo bundles have odd ones, which are left aside."""
    entries = formats.get(side) if isinstance(formats, Mapping) else None
    for entry in entries.values() if isinstance(entries, Mapping) else ():
        names = entry.get("channel_def") if isinstance(entry, Mapping) else None
        if isinstance(names, Mapping) and names:
            try:
                return class_names({str(k): str(v) for k, v in names.items()})
            except InputError:
                return None
    return None
