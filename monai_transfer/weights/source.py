"""Source: weights and where they came from (a checkpoint file, a MONAI bundle folder, a state dict in memory)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.files import sha256_file
from monai_transfer.weights.classes import class_names
from monai_transfer.weights.reading import read_checkpoint
from monai_transfer.weights.tfjs import is_tfjs, sha256_tfjs

__all__ = ["Source"]


@dataclass
class Source:
    """Weights to start from, with what is known about them. Made by ``Source.load`` or around a state dict.

    Attributes:
        state_dict: what the checkpoint holds; nests and prefixes are resolved against a network by ``load_weights``.
        classes: names of the outputs, in order, or ``None``.
        channels: names of the input channels, in order, or ``None``.
        description: what it is, in words, for reports.
        sha256: of the weights file, ``None`` for a state dict in memory.
        licence: of the weights, as far as the source says.
        metadata: a bundle's ``metadata.json``, or the metadata of a safetensors file.
        path: the file or the bundle folder.
    """

    state_dict: Mapping[str, Any]
    classes: list[str] | None = None
    channels: list[str] | None = None
    description: str = "a state dict"
    sha256: str | None = None
    licence: str | None = None
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
                which ``models/model.pt`` and ``configs/metadata.json`` are read.
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
            content, metadata = read_checkpoint(path)
            source = cls(
                content if isinstance(content, Mapping) else {"": content},
                classes=_from_json(metadata.get("classes")),
                channels=_from_json(metadata.get("channels")),
                description=f"{path.parent.name} (TensorFlow.js)" if is_tfjs(path) else path.name,
                sha256=sha256_tfjs(path) if is_tfjs(path) else sha256_file(path),
                licence=metadata.get("licence")
                or metadata.get("license")
                or (_bundle_licence(path.parent, {}) if is_tfjs(path) else None),
                metadata=dict(metadata),
                path=path,
            )
        source.classes = class_names(classes) or source.classes
        source.channels = class_names(channels) or source.channels
        return source

    def network(self, **overrides: Any) -> nn.Module:
        """The bundle's network with its weights in it, on the CPU, in eval mode.

        This **runs the bundle's code**: opening a MONAI config evaluates its expressions and imports what it names.
        Do it only with bundles that you trust; ``Source.load`` alone runs nothing.

        Args:
            overrides: arguments of ``network_def`` to set, e.g. ``out_channels=4``. Weights then follow the rules of
                ``load_weights``.

        Raises:
            InputError: this is no bundle, or it defines no network.
            CoverageError: the weights are not those of this network.
        """
        from monai_transfer.weights.bundle_network import bundle_network
        from monai_transfer.weights.loading import load_weights

        if self.path is None or not self.path.is_dir():
            raise InputError(f"{self.description} holds weights without a network", mend="build the network in Python")
        network = bundle_network(self.path, overrides)
        load_weights(network, self, min_coverage=0.5 if overrides else 0.99)
        return network.eval()


def _from_json(text: str | None) -> list[str] | None:
    if not text:
        return None
    try:
        return class_names(json.loads(text))
    except (json.JSONDecodeError, InputError, TypeError):
        return None


def _read_bundle(folder: Path) -> Source:
    metadata = _read_metadata(folder)
    weights = next(
        (
            folder / "models" / name
            for name in ("model.pt", "model.safetensors")
            if (folder / "models" / name).is_file()
        ),
        None,
    )
    if weights is None:
        large = next(
            (n for n in ("large_files.yml", "large_files.yaml", "large_files.json") if (folder / n).is_file()), ""
        )
        mend = f"download them as {large} says" if large else "name the checkpoint file itself"
        what = "the bundle's" if metadata else "no MONAI bundle: its"
        raise InputError(f"{what} weights models/model.pt are not there", path=folder, mend=mend)
    content, _ = read_checkpoint(weights)
    formats = metadata.get("network_data_format") or {}
    name, version = metadata.get("name") or folder.name, metadata.get("version")
    return Source(
        content if isinstance(content, Mapping) else {"": content},
        classes=_channel_def(formats, "outputs"),
        channels=_channel_def(formats, "inputs"),
        description=f"bundle {name}" + (f" {version}" if version else ""),
        sha256=sha256_file(weights),
        licence=_bundle_licence(folder, metadata),
        metadata=metadata,
        path=folder,
    )


def _read_metadata(folder: Path) -> dict[str, Any]:
    path = folder / "configs" / "metadata.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"is no readable JSON ({error})", path=path, mend="mend the bundle") from error
    return content if isinstance(content, dict) else {}


def _channel_def(formats: Mapping[str, Any], side: str) -> list[str] | None:
    """The names in ``channel_def`` of the first output (input); zoo bundles have odd ones, which are left aside."""
    for entry in (formats.get(side) or {}).values():
        names = entry.get("channel_def") if isinstance(entry, Mapping) else None
        if isinstance(names, Mapping) and names:
            try:
                return class_names({str(k): str(v) for k, v in names.items()})
            except InputError:
                return None
    return None


_LICENCES = {
    r"apache license,?\s+version 2": "Apache-2.0",
    r"mit license|permission is hereby granted, free of charge": "MIT",
    r"attribution-noncommercial-sharealike 4": "CC BY-NC-SA 4.0",
    r"attribution-noncommercial 4": "CC BY-NC 4.0",
    r"attribution-sharealike 4": "CC BY-SA 4.0",
    r"attribution 4": "CC BY 4.0",
    r"non-?commercial": "a non-commercial licence",
    r"redistribution and use in source and binary forms": "BSD",
}


def _bundle_licence(folder: Path, metadata: Mapping[str, Any]) -> str | None:
    """From the metadata, else recognised in the bundle's LICENSE file, else that file's first line."""
    for key in ("licence", "license"):
        if isinstance(metadata.get(key), str):
            return metadata[key]
    path = next(
        (folder / n for n in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE") if (folder / n).is_file()), None
    )
    if path is None:
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    for pattern, name in _LICENCES.items():
        if re.search(pattern, text[:4000], re.IGNORECASE):
            return name
    return next((line.strip()[:80] for line in text.splitlines() if line.strip()), None)
