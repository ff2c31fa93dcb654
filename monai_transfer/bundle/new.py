"""``monai-transfer new``: a bundle fitted to the user's manifest and source, that runs without editing a config."""

from __future__ import annotations

import difflib
import json
import math
import pydoc
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.bundle import ConfigParser

from monai_transfer.bundle.fit import DataFit, fit_data
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.bundle.write import write_bundle
from monai_transfer.engine.capabilities import refuse_unfit
from monai_transfer.engine.checkpoint import save_checkpoint
from monai_transfer.errors import InputError
from monai_transfer.files import sha256_file
from monai_transfer.manifest import Manifest
from monai_transfer.methods.base import Method
from monai_transfer.strategies.base import Strategy
from monai_transfer.weights import Source, load_weights
from monai_transfer.weights.large_files import LargeFile, write_large_files

__all__ = ["new_bundle"]

PRETRAINED = "runs/pretrain-0/models/model.pt"
"""Where a bundle without a source finds its weights, once its ``pretrain`` has run."""
_CHANNELS = {"small": [8, 16, 32], "medium": [16, 32, 64, 128], "large": [32, 64, 128, 256, 512]}
_VOXELS = {
    2: {"small": 128**2, "medium": 256**2, "large": 512**2},
    3: {"small": 48**3, "medium": 96**3, "large": 128**3},
}


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
        source: a bundle folder, a checkpoint, a run folder, or ``"none"``.
        source_site, target_site: sites of the manifest; with two sites and one given, the other is taken.
        n_labelled: labelled target cases; default all.
        strategy, method: a name in ``monai_transfer.strategies`` / ``.methods``, or a full ``_target_`` path.
        spacing: mm per axis; default the data's median.
        patch: voxels per axis; default fitted to the data and ``size``.
        size: ``small``, ``medium`` or ``large``; default small without a GPU, else medium.
        force: overwrite the configs of an existing bundle.
        numbers: further ``BundleSpec`` fields, e.g. ``epochs``, ``batch_size``.

    Raises:
        InputError: the folder holds a bundle already, or manifest, source, sites or options do not fit together.
    """
    folder, path = Path(folder), Path(manifest)
    if (folder / "configs").exists() and not force:
        raise InputError("holds a bundle already", path=folder, mend="name another folder, or pass --force")
    data = Manifest.load(path)
    source_site, target_site = _sites(data, source_site, target_site)
    chosen = _component("methods", method)
    kind = pydoc.locate(chosen["_target_"])
    refuse_unfit(kind, data.task)
    size = size or ("medium" if torch.cuda.is_available() else "small")
    if size not in _CHANNELS:
        raise InputError(f"no network size {size!r}", mend=f"one of {', '.join(_CHANNELS)}")
    fit = fit_data(data, [source_site, target_site])
    labels = {int(key): name for key, name in data.labels.items()} if data.task != "regression" else {}
    dense = data.task in ("segmentation", "localization")
    if data.task == "localization":
        labels = {0: "background"} | (labels or {1: "lesion"})
    channels = list(data.channel_names.values()) or [f"channel {i}" for i in range(fit.channels)]
    if len(channels) != fit.channels:
        raise InputError(f"names {len(channels)} channels, but its images hold {fit.channels}", path=path)
    asked = _three(spacing, fit.spatial_dims, "--spacing") if spacing else None
    given = _open_source(source)
    network = _network_of(given, len(labels) or 1, fit) if given is not None else _network(data.task, fit, labels, size)
    levels = _levels(network)
    grid = asked or _source_spacing(given, fit.spatial_dims) or fit.spacing
    shape = _resampled(fit, grid)
    patch = (
        [int(v) for v in _three(patch, fit.spatial_dims, "--patch")]
        if patch
        else _patch(shape, data.task, size, levels, fit)
    )
    regression = _label_scale(data, source_site, target_site)
    spec = BundleSpec(
        name=folder.resolve().name,
        task=data.task,
        spatial_dims=fit.spatial_dims,
        labels=labels,
        channel_names=channels,
        network=network,
        patch=patch,
        spacing=None if fit.raster or data.task == "classification" and fit.spatial_dims == 2 else grid,
        oriented=not fit.raster and fit.spatial_dims == 3,
        resize=not dense,
        grey=fit.raster,
        normalise=_normalise(data, fit),
        flips=[0, 1] if fit.raster and dense else [0],
        rotation_axes=["x", "y", "z"] if fit.spatial_dims == 3 else ["x"],
        balanced_crops=dense and any(p < 0.8 * s for p, s in zip(patch, shape, strict=True)),
        source_site=source_site,
        target_site=target_site,
        n_labelled=n_labelled,
        dataset_dir=str(path.resolve().parent),
        manifest=f"$os.path.join(@dataset_dir, {path.name!r})",
        strategy=_component("strategies", strategy),
        method=chosen,
        suffix=fit.suffix or ".nii.gz",
        modality=data.modality if isinstance(data.modality, str) else "",
        description=data.description or "",
        data_note=f"the manifest {path.name} and its images; or --dataset_dir DIR --manifest FILE",
        data_source=data.reference or "the user's own manifest",
        data_statistics=fit.statistics(),
        layer=_bottleneck(network) if getattr(kind, "default_pool", "mean") else None,  # class heads stand on the last
        label_mean=regression[0],
        label_std=regression[1],
        **{"batch_size": (4 if fit.spatial_dims == 3 else 8) if dense else 16, **numbers},
    )
    if given is not None:
        _fit_weights(given, spec, folder)
    else:
        spec.start = spec.weights = PRETRAINED
    write_bundle(spec, folder)
    return spec


def _sites(data: Manifest, source: str | None, target: str | None) -> tuple[str | None, str | None]:
    sites = data.sites
    for name in (source, target):
        if name is not None and name not in sites:
            raise InputError(f"no site {name!r}", path=data.path, mend=f"its sites are {', '.join(sites)}")
    if len(sites) == 2:
        if source is None and target is not None:
            source = next(site for site in sites if site != target)
        if target is None and source is not None:
            target = next(site for site in sites if site != source)
    if len(sites) > 1 and target is None:
        raise InputError(
            f"holds {len(sites)} sites ({', '.join(sites)})",
            path=data.path,
            mend="pass --target-site, and --source-site",
        )
    return source, target


def _component(kind: str, name: str) -> dict[str, Any]:
    """``coral`` or a full path as a config; refused here, not after the first hours of a run."""
    word = "method" if kind == "methods" else "strategy"
    if "." in name:
        module, _, attribute = name.rpartition(".")
        try:
            found = hasattr(import_module(module), attribute)
        except ImportError:
            found = False
        if not found:
            raise InputError(f"no {word} {name!r} can be imported", mend="give the full path of its class")
        return {"_target_": name}
    known = sorted(p.stem for p in (Path(__file__).parents[1] / kind).glob("*.py") if _class_of(kind, p.stem))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        mend = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
        raise InputError(f"no {word} {name!r}", mend=mend)
    return {"_target_": f"monai_transfer.{kind}.{name}.{_camel(name)}"}


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _class_of(kind: str, name: str) -> bool:
    """Whether the file holds what a bundle can use: a strategy, or a method that gives a term."""
    if name.startswith("_") or name == "base":
        return False
    found = getattr(import_module(f"monai_transfer.{kind}.{name}"), _camel(name), None)
    base = Method if kind == "methods" else Strategy
    return isinstance(found, type) and issubclass(found, base)


def _three(values: Sequence[float], dims: int, option: str) -> list[float]:
    if len(values) != dims or min(values) <= 0:
        raise InputError(f"{option} needs {dims} positive numbers, got {list(values)}")
    return list(values)


# ---------------------------------------------------------------------- network
def _network(task: str, fit: DataFit, labels: dict[int, str], size: str) -> dict[str, Any]:
    """The network without a source. BatchNorm, since InstanceNorm hides the domain from feature alignment."""
    channels = _CHANNELS[size]
    if task in ("segmentation", "localization"):
        return {
            "_target_": "monai.networks.nets.UNet",
            "spatial_dims": fit.spatial_dims,
            "in_channels": fit.channels,
            "out_channels": len(labels),
            "channels": [c * 2 for c in channels] if fit.spatial_dims == 2 else channels,
            "strides": [2] * (len(channels) - 1),
            "num_res_units": 1,
            "norm": "BATCH",
        }
    growth = {"small": 8, "medium": 16, "large": 32}[size]
    return {
        "_target_": "monai.networks.nets.DenseNet",
        "spatial_dims": fit.spatial_dims,
        "in_channels": fit.channels,
        "out_channels": len(labels) or 1,
        "init_features": 2 * growth,
        "growth_rate": growth,
        "block_config": {"small": [2, 4, 4], "medium": [4, 8, 8], "large": [6, 12, 24, 16]}[size],
        "bn_size": 2,
    }


def _open_source(source: str | Path) -> Source | None:
    """The source with its names; of a run folder, its best weights with the classes and metadata of its records."""
    if str(source).lower() in ("none", ""):
        return None
    path = Path(source)
    if not path.exists():
        raise InputError("no such source", path=source, mend="a bundle folder, a run folder, or none")
    if not (path / "run.json").is_file():
        return Source.load(path)
    weights = path / "models" / "model.pt"
    if not weights.is_file():
        raise InputError("this run has no models/model.pt yet", path=path, mend="let it finish, or name another run")
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


def _network_of(given: Source, classes: int, fit: DataFit) -> dict[str, Any]:
    config = _config_of(given)
    if config is None:
        raise InputError(
            "a bare checkpoint does not say which network it belongs to",
            path=given.path,
            mend="give the bundle or run folder that it comes from; or make a bundle with --source none and train it "
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


def _levels(network: dict[str, Any]) -> int:
    """How often the network halves its input, so that patches divide."""
    strides = network.get("strides")
    if isinstance(strides, list):
        return sum(1 for stride in strides if (max(stride) if isinstance(stride, list) else stride) > 1)
    return 5 if "Swin" in network["_target_"] else 4


def _bottleneck(network: dict[str, Any]) -> str | None:
    """The deepest block of a MONAI UNet, whose features carry the domain; elsewhere what enters the class head."""
    if network["_target_"] != "monai.networks.nets.UNet":
        return None
    return "model.1" + ".submodule.1" * (len(network["channels"]) - 2) + ".submodule"


# ---------------------------------------------------------------------- geometry and intensity
def _source_spacing(given: Source | None, dims: int) -> list[float] | None:
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


def _resampled(fit: DataFit, spacing: Sequence[float] | None) -> list[int]:
    if spacing is None or fit.spacing is None:
        return fit.shape
    return [max(1, round(n * old / new)) for n, old, new in zip(fit.shape, fit.spacing, spacing, strict=True)]


def _patch(shape: Sequence[int], task: str, size: str, levels: int, fit: DataFit) -> list[int]:
    """As large as the data, within the voxels that ``size`` allows, and divisible as the network needs it."""
    dense = task in ("segmentation", "localization")
    unit = 2**levels if dense else 8
    budget = _VOXELS[fit.spatial_dims][size]
    scale = min(1.0, (budget / math.prod(shape)) ** (1 / len(shape)))
    patch = [max(unit, math.ceil(n * scale / unit - 0.25) * unit) for n in shape]
    return patch if dense else [min(p, 64 if size == "small" else 224) for p in patch]


def _normalise(data: Manifest, fit: DataFit) -> list[dict[str, Any]]:
    if isinstance(data.modality, str) and re.search(r"\bCT\b", data.modality):
        # Hounsfield units mean something: one fixed window, fitted on training images
        window = {"a_min": fit.low, "a_max": fit.high, "b_min": 0.0, "b_max": 1.0, "clip": True}
        return [{"_target_": "monai.transforms.ScaleIntensityRanged", "keys": ["image"], **window}]
    return [
        {
            "_target_": "monai.transforms.NormalizeIntensityd",
            "keys": ["image"],
            "nonzero": fit.background > 0.2 and not fit.raster,
            "channel_wise": True,
        }
    ]


def _label_scale(data: Manifest, *sites: str | None) -> tuple[float, float]:
    if data.task != "regression":
        return 0.0, 1.0
    values = [float(c.label) for site in sites for c in data.cases("training", site=site, labelled=True)]  # type: ignore[arg-type]
    if len(values) < 2:
        raise InputError("fewer than two labelled training cases", path=data.path)
    return round(float(np.mean(values)), 6), round(float(np.std(values)), 6)


# ---------------------------------------------------------------------- weights
def _fit_weights(given: Source, spec: BundleSpec, folder: Path) -> None:
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
