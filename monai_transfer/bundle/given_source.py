"""The source that a bundle is made from: its weights, network, spacing and class names, out of a bundle or a run.

Nothing of the source's code is run: its config is read, and only plain values are taken from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser

from monai_transfer.bundle.fit import DataFit
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.engine.checkpoint import save_checkpoint
from monai_transfer.errors import InputError
from monai_transfer.files import sha256_file
from monai_transfer.weights import Source, load_weights
from monai_transfer.weights.large_files import LargeFile, write_large_files

__all__ = ["fit_weights", "open_source", "source_network", "source_spacing"]


def open_source(source: str | Path) -> Source | None:
    """The source with its names; of a run folder, its best weights with the classes and metadata of its records."""
    if str(source).lower() in ("none", ""):
        return None
    path = Path(source)
    if not path.exists():
        raise InputError("no such source", path=source, hint="a bundle folder, a run folder, or none")
    if not (path / "run.json").is_file():
        return Source.load(path)
    weights = path / "models" / "model.pt"
    if not weights.is_file():
        raise InputError("this run has no models/model.pt yet", path=path, hint="let it finish, or name another run")
    record = json.loads((path / "run.json").read_text(encoding="utf-8"))
    given = Source.load(weights, classes=record.get("labels") or None)
    given.description = f"run {path.name} of {record.get('bundle', 'a bundle')}"
    config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    given.metadata = config.get("_meta_") or {}
    given.channels = given.channels or list(_channel_names(given.metadata)) or None
    return given


def _channel_names(metadata: dict[str, Any]) -> list[str]:
    image = metadata.get("network_data_format", {}).get("inputs", {}).get("image", {})
    return [str(name) for _, name in sorted(image.get("channel_def", {}).items(), key=lambda item: int(item[0]))]


def _source_config(given: Source) -> dict[str, Any]:
    """The config of a source bundle, or of the run or bundle that a checkpoint lies in, as read; runs nothing."""
    if given.path is None:
        return {}
    root = Path(given.path)
    root = root if root.is_dir() else root.parent.parent
    for name in ("configs/inference", "configs/train", "config"):
        for end in (".json", ".yaml", ".yml"):
            file = root / (name + end)
            if file.is_file():
                parser = ConfigParser()
                parser.read_config(str(file))
                parser.resolve_macro_and_relative_ids()
                return parser.config
    return {}


def _config_of(given: Source) -> dict[str, Any] | None:
    """The ``network_def`` of the source's config, references to plain values resolved."""
    config = _source_config(given)
    network = config.get("network_def") or config.get("net")
    return _literal(config, network) if isinstance(network, dict) else None


def _literal(whole: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """``config`` with references to plain values put in; expressions stay as they are."""
    out = {}
    for key, value in config.items():
        while isinstance(value, str) and value.startswith("@") and value[1:] in whole:
            value = whole[value[1:]]
        out[key] = value
    return out


def source_network(given: Source, classes: int, fit: DataFit) -> dict[str, Any]:
    """The source's network as a config, with the outputs, channels and dimensions of the data.

    Raises:
        InputError: a bare checkpoint, or a 3D source for 2D data.
    """
    config = _config_of(given)
    if config is None:
        raise InputError(
            "a bare checkpoint does not say which network it belongs to",
            path=given.path,
            hint="give the bundle or run folder that it comes from; or make a bundle with --source none and train it "
            "with --pretrained FILE, where its weights fit that network",
        )
    config = dict(config)
    if not config["_target_"].startswith(("monai.", "torch.")) and "." not in config["_target_"]:
        config["_target_"] = f"monai.networks.nets.{config['_target_']}"
    dims = config.get("spatial_dims", config.get("dimensions"))
    if dims is not None and dims != fit.spatial_dims:
        if dims != 2 or "spatial_dims" not in config:
            raise InputError(f"the source is {dims}D and the data are {fit.spatial_dims}D", path=given.path)
        config["spatial_dims"] = 3  # its 2D kernels are inflated on loading, and reported
    for names, value in (
        (("out_channels", "num_classes", "n_classes"), classes),
        (("in_channels", "n_input_channels"), fit.channels),
    ):
        for name in names:
            if name in config:
                config[name] = value
    return config


def source_spacing(given: Source | None, dims: int) -> list[float] | None:
    """Spacing that the source was trained at: from our metadata, else from the ``Spacingd`` of its config."""
    if given is None:
        return None
    told = (given.metadata or {}).get("transfer", {}).get("spacing")
    spacing = told or _find_spacing(_source_config(given))
    return [float(v) for v in spacing] if spacing and len(spacing) == dims else None


def _find_spacing(config: Any) -> list[float] | None:
    if isinstance(config, dict):
        if str(config.get("_target_", "")).rsplit(".", 1)[-1] == "Spacingd":
            spacing = config.get("pixdim")
            if isinstance(spacing, (list, tuple)) and all(isinstance(v, (int, float)) and v > 0 for v in spacing):
                return list(spacing)
        config = list(config.values())
    found = (_find_spacing(item) for item in config) if isinstance(config, list) else ()
    return next((spacing for spacing in found if spacing), None)


def fit_weights(given: Source, spec: BundleSpec, folder: Path) -> None:
    """``source.pt`` as it came, ``model.pt`` fitted to the new network; what fitting did goes into the spec."""
    parser = ConfigParser({"network_def": spec.network})
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def")
    report = load_weights(network, given, target_classes=spec.class_names if spec.labels else None)
    models = folder / "models"
    save_checkpoint(dict(given.state_dict), models / "source.pt")
    save_checkpoint(network.state_dict(), models / "model.pt")
    spec.start = "models/source.pt"
    spec.source_classes = given.classes
    spec.weights_note = {
        "description": given.description,
        "sha256": sha256_file(models / "source.pt"),
        "origin_sha256": given.sha256,
        "licence": given.licence,
        "url": given.url,
        "classes": given.classes,
        "weights": report.to_dict(),
    }
    digest, origin = sha256_file(models / "source.pt"), given.sha256 or ""
    fitted = f"{given.description}, fitted to this bundle's network"
    write_large_files(
        folder,
        [
            LargeFile("models/source.pt", given.url, "sha256", digest, given.licence, given.description, origin),
            LargeFile("models/model.pt", given.url, "sha256", "", given.licence, fitted, origin),
        ],
    )
