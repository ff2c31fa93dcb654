"""The source that a bundle is made from: its weights, network, spacing and class names, out of a bundle or a run.

Nothing of the source's code is run: its config is read, and only plain values are taken from it. For those who trust
it, its expressions are evaluated here, once, and a network class of its own ``scripts/`` goes with the new bundle.
"""

from __future__ import annotations

import inspect
import logging
import pydoc
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from monai_transfer.bundle.fit import DataFit
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.bundle_reader import BundleDescription, as_config, read_bundle
from monai_transfer.bundle_reader.running import TrustedConfig, own_scripts, read_trusted
from monai_transfer.bundle_reader.trust import Trust, decide, scripts_folder, untrusted
from monai_transfer.component_table import build_config
from monai_transfer.engine.checkpoint import save_checkpoint
from monai_transfer.errors import InputError, first_cause
from monai_transfer.files import make_folder, sha256_file, write_text
from monai_transfer.networks.arguments import INPUTS, OUTPUTS, argument_of, with_channels
from monai_transfer.networks.input_sizes import InputSizes, input_sizes
from monai_transfer.networks.unsuited import refuse_unsuited
from monai_transfer.tasks import Task
from monai_transfer.weights import Source, WeightReport, load_weights
from monai_transfer.weights.large_files import LargeFile, write_large_files

__all__ = [
    "described_source", "fit_weights", "needs_scripts", "open_source", "source_input_sizes", "source_network",
    "source_spacing", "take_scripts", "trust_in",
]  # fmt: skip

logger = logging.getLogger(__name__)


def open_source(source: str | Path) -> Source | None:
    """The source with its names; of a run folder, its best weights with the classes and metadata of its records.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    if str(source).lower() in ("none", ""):
        return None
    path = Path(source)
    if not path.exists():
        raise InputError(
            "no such source", path=source, hint="a bundle, run or nnU-Net results folder, a checkpoint file, or none"
        )
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


def _root(given: Source | None) -> Path | None:
    """The bundle or run folder of a source, where it has one."""
    if given is None or given.path is None:
        return None
    root = given.path if given.path.is_dir() else given.path.parent.parent
    return root if (root / "configs").is_dir() or (root / "config.yaml").is_file() else None


def trust_in(given: Source | None, trust_source: bool = False) -> Trust | None:
    """The decision to run the source's own code, where a part of it cannot be read without; ``None``: it is not run.

    Args:
        given: the source.
        trust_source: decide so now; else what was decided before holds.

    Raises:
        InputError: its files cannot be read.
    """
    root = _root(given)
    if root is None or not read_bundle(root).unread_of("network", "preprocessing", "inferer", "postprocessing"):
        return None
    return decide(root, trust_source)


def described_source(given: Source | None, trust: Trust | None = None) -> BundleDescription | None:
    """What is known of the source bundle, or of the run or bundle that a checkpoint lies in; runs nothing of it.

    Args:
        given: the source.
        trust: with it, expressions are evaluated that cannot be read otherwise.
    """
    root = _root(given)
    if root is None:
        return None
    return read_trusted(trust) if trust is not None else read_bundle(root)


def source_network(given: Source, classes: int, fit: DataFit, trust: Trust | None = None) -> dict[str, Any]:
    """The source's network as a config, with the outputs, channels and dimensions of the data.

    Args:
        given: the source.
        classes: outputs that the data need.
        fit: what is known of the data.
        trust: with it, a network of the source's own code is made.

    Raises:
        InputError: a bare checkpoint, a 3D source for 2D data, or a network that gives no scores of an image alone.
    """
    found = described_source(given, trust)
    if found is not None and found.network is None and found.unread_of("network"):
        if trust is None:
            raise untrusted(found.folder, found.unread_of("network"), "network")
        return _own_network(trust, classes, fit, found.patch)
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
    refuse_unsuited(config["_target_"], given.path)
    dims = config.get("spatial_dims", config.get("dimensions"))
    if dims is not None and dims != fit.spatial_dims:
        if dims != 2 or "spatial_dims" not in config:
            raise InputError(
                f"the source is {dims}D and the data are {fit.spatial_dims}D",
                path=given.path,
                hint=f"take a source of {fit.spatial_dims}D images",
            )
        config["spatial_dims"] = 3  # its 2D kernels are inflated on loading, and reported
    return with_channels(config, fit.channels, classes)


def _own_network(trust: Trust, classes: int, fit: DataFit, patch: list[int]) -> dict[str, Any]:
    """The network of a trusted bundle, whatever class it is, as a config of plain values.

    An argument that its config leaves at its default (``out_channels=2``) is set as well; a network without one is
    taken as it is, where its outputs and channels are those of the data.
    """
    config = TrustedConfig(trust)
    key = next((key for key in ("network_def", "network", "net", "model") if config.has(key)), None)
    if key is None:
        raise InputError("its configs define no network_def", path=trust.folder, hint="name another source")
    made = config.as_data(key)
    if not isinstance(made, dict) or "_target_" not in made:
        raise InputError(f"its {key} is no network", path=trust.folder, hint="name another source")
    with own_scripts(scripts_folder(trust.folder)):
        known = _arguments_of(made["_target_"])
        for names, value in ((OUTPUTS, classes), (INPUTS, fit.channels)):
            name = argument_of(names, known | made.keys())
            if name is not None:
                made[name] = value
        network = _built(made, trust.folder)
        shape = patch if len(patch) == fit.spatial_dims else [64] * fit.spatial_dims
        try:
            with torch.no_grad():
                out = network.eval()(torch.zeros(1, fit.channels, *shape))
        except Exception as error:  # whatever its code says to an image of these data
            size = " x ".join(map(str, shape))
            fault = f"its network does not take {fit.channels} channels of {size} voxels ({first_cause(error)})"
            raise InputError(fault, path=trust.folder, hint="name a source that was trained on such images") from error
    first = out[0] if isinstance(out, (list, tuple)) else out
    if isinstance(first, torch.Tensor) and first.ndim > 1 and first.shape[1] != classes:
        fault = f"its network has {first.shape[1]} outputs, and the data need {classes}"
        hint = f"give {made['_target_']} an argument {OUTPUTS[0]}, by which they are set"
        raise InputError(fault, path=trust.folder, hint=hint)
    return made


def _arguments_of(target: str) -> set[str]:
    """Names of the arguments of a class, as far as they can be told."""
    try:
        return set(inspect.signature(pydoc.locate(target)).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return set()


def _built(network: dict[str, Any], folder: Path) -> torch.nn.Module:
    """A network of its config, within ``own_scripts``."""
    try:
        made = build_config(network)
    except Exception as error:  # whatever a class says to its arguments
        fault = f"the network {network['_target_']} cannot be made ({first_cause(error)})"
        raise InputError(fault, path=folder, hint="look at its class and its arguments") from error
    if not isinstance(made, torch.nn.Module):
        raise InputError(f"{network['_target_']} makes no network", path=folder, hint="name another source")
    return made


def needs_scripts(config: Any) -> bool:
    """Whether a class in a config is one of a bundle's own ``scripts/``."""
    if isinstance(config, dict):
        own = str(config.get("_target_", "")).split(".")[0] == "scripts"
        return own or any(needs_scripts(value) for value in config.values())
    return isinstance(config, list) and any(needs_scripts(item) for item in config)


def take_scripts(trust: Trust, folder: Path) -> None:
    """Copy the source's ``scripts/`` into a new bundle, without links and caches; our ``infer.py`` comes later."""
    theirs = scripts_folder(trust.folder) / "scripts"
    for path in sorted(theirs.rglob("*")):
        inside = path.relative_to(theirs)
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc" and "__pycache__" not in inside.parts:
            make_folder((folder / "scripts" / inside).parent)
            shutil.copyfile(path, folder / "scripts" / inside)
    if not (folder / "scripts" / "__init__.py").is_file():
        write_text(folder / "scripts" / "__init__.py", "")


def source_spacing(given: Source | None, dims: int, trust: Trust | None = None) -> list[float] | None:
    """Spacing that the source was trained at: from our metadata, else from the ``Spacingd`` of its config."""
    found = described_source(given, trust)
    spacing = found.spacing if found is not None else None
    return spacing if spacing and len(spacing) == dims and min(spacing) > 0 else None


def source_input_sizes(found: BundleDescription, task: Task, dims: int) -> InputSizes | None:
    """What images the source's network takes; ``None`` where it does not say.

    Raises:
        InputError: it answers for each voxel where the task asks for one answer, or the other way round.
    """
    if found.network is None or found.dims not in (None, dims):
        return None
    try:
        network = found.build_network()
    except InputError:
        return None
    sizes = input_sizes(network, found.in_channels or 1, dims)
    if sizes is not None and sizes.dense != task.dense:
        here = "one answer for a whole image" if sizes.dense else "an answer for every voxel"
        there = "an answer for every voxel" if sizes.dense else "one answer for a whole image"
        hint = "name a source of the manifest's task, or leave --source out"
        fault = f"its network ({found.network.name}) has {there}, and the task is {task.name}: {here}"
        raise InputError(fault, path=found.folder, hint=hint)
    return sizes


def fit_weights(
    given: Source,
    spec: BundleSpec,
    folder: Path,
    facts: dict[str, Any] | None = None,
    folds: Mapping[str, Source] | None = None,
) -> None:
    """``source.pt`` as it came, ``model.pt`` fitted to the new network; what fitting did goes into the spec.

    Args:
        given: the source. spec: of the bundle. folder: of the bundle.
        facts: more for ``source.json``.
        folds: further networks of the source; fitted likewise, all of them go into ``folds.pt``.
    """
    if given.channels and len(given.channels) > 1:
        spec.loading = {"target_channels": list(spec.channel_names)}
    if spec.kept_classes and spec.kind.exclusive:
        spec.loading = {**spec.loading, "new_classes": "background"}
    network, report = _fitted(given, spec, folder)
    models = folder / "models"
    save_checkpoint(dict(given.state_dict), models / "source.pt")
    save_checkpoint(network.state_dict(), models / "model.pt")
    if folds:
        states = [network.state_dict(), *(_fitted(fold, spec, folder)[0].state_dict() for fold in folds.values())]
        stacked = {f"networks.{n}.{name}": value for n, state in enumerate(states) for name, value in state.items()}
        save_checkpoint(stacked, models / "folds.pt")
        spec.folds = list(folds)
    else:
        (models / "folds.pt").unlink(missing_ok=True)  # of a bundle that stood here before
    spec.start = "models/source.pt"
    spec.source_classes = given.classes
    spec.weights_note = {
        "description": given.description,
        "sha256": sha256_file(models / "source.pt"),
        "fitted_sha256": sha256_file(models / "model.pt"),
        "origin_sha256": given.sha256,
        "licence": given.licence,
        "url": given.url,
        "classes": given.classes,
        "channels": given.channels,
        **({"trusted": spec.trusted} if spec.trusted else {}),
        "weights": report.to_dict(),
        **({"folds_sha256": sha256_file(models / "folds.pt")} if folds else {}),
        **(spec.kept.facts if spec.kept is not None else {}),
        **(facts or {}),
    }
    digest, origin = sha256_file(models / "source.pt"), given.sha256 or ""
    fitted = f"{given.description}, fitted to this bundle's network"
    files = [
        LargeFile("models/source.pt", given.url, "sha256", digest, given.licence, given.description, origin),
        LargeFile("models/model.pt", given.url, "sha256", "", given.licence, fitted, origin),
    ]
    if folds:
        both = f"{fitted}, and {len(folds)} more folds"
        files.append(LargeFile("models/folds.pt", given.url, "sha256", "", given.licence, both, origin))
    write_large_files(folder, files)


def _fitted(given: Source, spec: BundleSpec, folder: Path) -> tuple[torch.nn.Module, WeightReport]:
    """The spec's network with a source's weights; what these do not fill is drawn alike for all."""
    torch.manual_seed(0)
    network = _built(spec.network, folder)
    classes = spec.class_names if spec.labels else None
    report = load_weights(network, given, target_classes=classes, min_coverage=spec.min_coverage, **spec.loading)
    return network, report
