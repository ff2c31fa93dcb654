"""The source that a bundle is made from: its weights, network, spacing and class names, out of a bundle or a run.

Nothing of the source's code is run: its config is read, and only plain values are taken from it.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from monai_transfer.bundle.fit import DataFit
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.bundle_reader import BundleDescription, as_config, read_bundle
from monai_transfer.bundle_reader.trust import untrusted
from monai_transfer.component_table import share_table
from monai_transfer.config_text import expr
from monai_transfer.engine.checkpoint import save_checkpoint
from monai_transfer.errors import InputError
from monai_transfer.files import sha256_file
from monai_transfer.weights import Source, load_weights
from monai_transfer.weights.large_files import LargeFile, write_large_files

__all__ = ["described_source", "fit_weights", "open_source", "source_network", "source_spacing"]


logger = logging.getLogger(__name__)


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
    found = read_bundle(path)
    record = found.run or {}
    given = Source.load(weights, classes=record.get("labels") or None)
    given.description = f"run {path.name} of {record.get('bundle', 'a bundle')}"
    given.metadata = found.metadata
    given.channels = given.channels or found.channels
    return given


def described_source(given: Source | None) -> BundleDescription | None:
    """What is known of the source bundle, or of the run or bundle that a checkpoint lies in; runs nothing of it."""
    if given is None or given.path is None:
        return None
    root = given.path if given.path.is_dir() else given.path.parent.parent
    if not (root / "configs").is_dir() and not (root / "config.yaml").is_file():
        return None
    return read_bundle(root)


def source_network(given: Source, classes: int, fit: DataFit) -> dict[str, Any]:
    """The source's network as a config, with the outputs, channels and dimensions of the data.

    Raises:
        InputError: a bare checkpoint, or a 3D source for 2D data.
    """
    found = described_source(given)
    if found is not None and found.network is None and found.unread_of("network"):
        raise untrusted(found.folder, found.unread_of("network"), "network")
    if found is None or found.network is None:
        raise InputError(
            "a bare checkpoint does not say which network it belongs to",
            path=given.path,
            hint="give the bundle or run folder that it comes from; or make a bundle with --source none and train it "
            "with --pretrained FILE, where its weights fit that network",
        )
    for note in found.notes:
        logger.warning("%s: %s", found.network.name, note)
    config = as_config(found.network)
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
    found = described_source(given)
    spacing = found.spacing if found is not None else None
    return spacing if spacing and len(spacing) == dims and min(spacing) > 0 else None


def fit_weights(given: Source, spec: BundleSpec, folder: Path, facts: dict[str, Any] | None = None) -> None:
    """``source.pt`` as it came, ``model.pt`` fitted to the new network; what fitting did goes into the spec."""
    parser = share_table(ConfigParser({"imports": [expr("import torch")], "network_def": copy.deepcopy(spec.network)}))
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def")
    if given.channels and len(given.channels) > 1:
        spec.loading = {"target_channels": list(spec.channel_names)}
    classes = spec.class_names if spec.labels else None
    report = load_weights(network, given, target_classes=classes, min_coverage=spec.min_coverage, **spec.loading)
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
        "channels": given.channels,
        "weights": report.to_dict(),
        **(spec.kept.facts if spec.kept is not None else {}),
        **(facts or {}),
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
