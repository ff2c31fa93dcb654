"""``monai-transfer export``: a deployable artefact that needs MONAI (or a runtime) alone, never this package."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import re
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.data import save_net_with_metadata

from monai_transfer.bundle.configs.emit import to_yaml
from monai_transfer.bundle.inference import open_inference, own_code, stand_alone
from monai_transfer.bundle.known_code import foreign_code
from monai_transfer.bundle.nnunet_export import write_nnunet
from monai_transfer.bundle.run import best_weights
from monai_transfer.bundle.run_metadata import run_metadata
from monai_transfer.bundle.weights_handler import load_complete
from monai_transfer.bundle_reader.reading import config_file, read_bundle
from monai_transfer.config_text import expr, to_config
from monai_transfer.errors import InputError
from monai_transfer.files import atomic_folder, atomic_path, write_json, write_text
from monai_transfer.networks.output_forms import plain_in_evaluation
from monai_transfer.nnunet.network import with_folds
from monai_transfer.safe_parse import read_mapping
from monai_transfer.weights.hashes import verify_file, write_hashes
from monai_transfer.weights.large_files import LargeFile, write_large_files
from monai_transfer.weights.provenance import Provenance, provenance_of

__all__ = ["export_bundle"]

KINDS = ("bundle", "torchscript", "onnx", "nnunet")
_ANY_SIZE = 64
"""Voxels a side of the image that a model is traced with, where nothing says one: most networks halve a few times."""
_MAX_VALUES = 1 << 28
"""Of that image: 512 voxels a side, two channels."""


def export_bundle(
    bundle: str | Path,
    to: str,
    output: str | Path | None = None,
    *,
    run: str | Path | None = None,
    trust_source: bool = False,
) -> Path:
    """Export a bundle's (or a run's) best model; returns what was written.

    The licence and the origin of weights that the model was trained from go with it: into ``large_files.yml``, the
    script's metadata, the ONNX file's metadata. So do the statistics of the data that it was trained on (a run's own
    site, not what the bundle's weights saw before), as ``transfer`` in the metadata.

    ``bundle``: a folder with the inference config, metadata, licence and weights. ``torchscript``: one ``.ts`` file
    with metadata and inference config as extra files, as MONAI Deploy reads it. ``onnx``: one file with free batch and
    spatial axes. ``nnunet``: a results folder of nnU-Net v2, of a bundle that was made from one (``nnunet_export``).
    The exported model's output is compared with the original's before anything is kept.

    None of the bundle's code runs. What it carries is taken along as it is where this package wrote it; of another
    bundle the inference is written anew from what was read.

    Args:
        bundle: its folder.
        to: one of these.
        output: file or folder to write; by default beside or in the bundle.
        run: the run whose best weights to take.
        trust_source: run the bundle's own code where it cannot be read without, and take it along.

    Raises:
        InputError: no weights, unknown kind, a missing extra, or an export that does not give the same output.
    """
    if to not in KINDS:
        raise InputError(f"cannot export to {to!r}", hint=f"one of {', '.join(KINDS)}")
    bundle = Path(bundle)
    weights = best_weights(bundle, run)
    metadata = run_metadata(bundle, weights.parent.parent if run is not None else None)
    verify_file(weights)
    flow = open_inference(bundle, trust_source=trust_source)
    with own_code(flow):
        return _export(flow, bundle, weights, metadata, to, output)


def _export(
    flow: Any, bundle: Path, weights: Path, metadata: dict[str, Any], to: str, output: str | Path | None
) -> Path:
    flow.initialize()
    network = with_folds(flow.parser.get_parsed_content("network_def").cpu(), weights)
    load_complete(network, weights)  # what is shipped is opened first
    network = plain_in_evaluation(network).eval()
    config = None if flow.trust is not None or not foreign_code(bundle) else stand_alone(read_bundle(bundle))
    if to == "bundle":
        home = bundle.resolve()
        place = Path(output) if output else home.with_name(f"{home.name}_deploy")
        return _export_folder(bundle, weights, place, metadata, config)
    metadata |= _origin(provenance_of(weights))
    if to == "nnunet":
        told, written = _origin(provenance_of(weights)), read_mapping(_inference_config(bundle))
        return write_nnunet(bundle, network, written, metadata, Path(output) if output else None, told)
    example = _example(bundle, metadata)
    with torch.no_grad():
        expected = network(example)
    path = Path(output) if output else bundle / "models" / ("model.ts" if to == "torchscript" else "model.onnx")
    writer = _torchscript if to == "torchscript" else _onnx
    shipped = config if config is not None else read_mapping(_inference_config(bundle))
    return writer(network, example, expected, path, metadata, bundle, shipped)


def _origin(known: Provenance) -> dict[str, str]:
    """What goes with an exported model, by the name that it has there; nothing where nothing is known."""
    pairs = {"weights_licence": known.licence, "weights_origin": known.description, "weights_url": known.url}
    return {key: value for key, value in pairs.items() if value}


def _image_format(metadata: dict[str, Any]) -> dict[str, Any]:
    inputs = (metadata.get("network_data_format") or {}).get("inputs") or {}
    return inputs.get("image") or next((entry for entry in inputs.values() if entry), {})


def _example(bundle: Path, metadata: dict[str, Any]) -> torch.Tensor:
    """Two random images of the size in the metadata, or of the sliding window where these give none in numbers."""
    found, told = read_bundle(bundle), _image_format(metadata)
    channels = told.get("num_channels") or found.in_channels
    sizes = [found.patch, found.roi_size or [], [_ANY_SIZE] * (found.dims or 0)]
    shape = next((size for size in sizes if size and len(size) == found.dims and min(size) > 0), None)
    path = bundle / "configs" / "metadata.json"
    if not channels or channels < 0 or shape is None:
        fault = "network_data_format::inputs::image does not say num_channels and spatial_shape"
        raise InputError(fault, path=path, hint="see MONAI's bundle specification")
    if channels * math.prod(shape) > _MAX_VALUES:
        fault = f"network_data_format::inputs::image has {channels} channels of {shape} voxels"
        raise InputError(fault, path=path, hint="write the size of one patch there")
    return torch.randn(2, channels, *shape, generator=torch.Generator().manual_seed(0))


def _agree(got: torch.Tensor, expected: torch.Tensor, path: Path) -> None:
    worst = float((got - expected).abs().max())
    if worst > 1e-3 * max(1.0, float(expected.abs().max())):
        raise InputError(
            f"the exported model differs from the original by {worst:.3g}; nothing was kept",
            path=path,
            hint="export --to bundle, which changes nothing, and report the network",
        )


def _torchscript(
    network: Any, example: Any, expected: Any, path: Path, metadata: dict[str, Any], bundle: Path, config: Any
) -> Path:
    path = path.with_suffix(".ts")
    try:
        script = torch.jit.script(network)
    except Exception:  # networks with dynamic Python in forward can only be traced
        script = torch.jit.trace(network, example)
    with atomic_path(path) as temporary:
        config = {**config, "bundle_root": "."}
        config |= _carried_scripts(bundle, config)
        save = partial(
            save_net_with_metadata,
            script,
            include_config_vals=False,
            meta_values={
                k: v for k, v in metadata.items() if k not in ("monai_version", "pytorch_version", "numpy_version")
            },
            more_extra_files={"inference.json": json.dumps(config, default=str).encode()},
        )
        stream = io.BytesIO()
        save(filename_prefix_or_stream=stream)
        # torch ends the whole process where it cannot write a file to its end: the room is tried first
        temporary.write_bytes(stream.getvalue())
        temporary.unlink()
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".exporting-") as folder:
            # under its final name: torch names the archive's root by the file, and MONAI Deploy looks for its configs
            # below `<name>/extra`
            named = Path(folder) / path.name
            save(filename_prefix_or_stream=str(named))
            named.replace(temporary)
        with torch.no_grad():
            _agree(torch.jit.load(str(temporary))(example), expected, path)
    return path


def _carried_scripts(bundle: Path, config: dict[str, Any]) -> dict[str, Any]:
    """For a file that has no ``scripts/`` beside it: the code of the bundle's own script, in the config itself."""
    named = re.search(r"run_path\(.*/(scripts/\w+\.py)", str(config.get("functions", "")))
    if named is None:
        return {}
    source = (bundle / named[1]).read_text(encoding="utf-8")
    define = expr("(lambda names: exec(@functions_source, names) or names)({'__name__': 'scripts'})")
    return {"functions_source": to_config(source), "functions": define}


def _onnx(
    network: Any, example: Any, expected: Any, path: Path, metadata: dict[str, Any], bundle: Path, config: Any
) -> Path:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX export needs {', '.join(missing)}", hint="pip install 'monai-transfer[onnx]'")
    import onnxruntime

    axes = {0: "batch"}
    if _image_format(metadata).get("is_patch_data"):
        axes |= {i + 2: f"axis{i}" for i in range(example.ndim - 2)}
    with atomic_path(path) as temporary:
        torch.onnx.export(
            network, (example,), str(temporary), input_names=["image"], output_names=["pred"], dynamo=False,
            dynamic_axes={"image": axes, "pred": axes if expected.ndim == example.ndim else {0: "batch"}},
        )  # fmt: skip
        notes = {key: metadata[key] for key in metadata if key.startswith("weights_")}
        if statistics := (metadata.get("transfer") or {}).get("data_statistics"):
            notes["data_statistics"] = json.dumps(statistics)
        _note_in_onnx(temporary, notes)
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        (got,) = session.run(None, {"image": example.numpy()})
        _agree(torch.from_numpy(got), expected, path)
    return path


def _note_in_onnx(path: Path, notes: dict[str, str]) -> None:
    import onnx

    if notes:
        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, notes)
        onnx.save(model, str(path))


def _left_out(folder: str, names: list[str]) -> list[str]:
    """Caches, and links, which may lead to any file of the user's."""
    return [name for name in names if name == "__pycache__" or (Path(folder) / name).is_symlink()]


def _inference_config(bundle: Path) -> Path:
    found = config_file(bundle, "inference")
    if found is None:
        raise InputError("this bundle has no inference config", path=bundle, hint="name a bundle that predicts")
    return found


def _export_folder(
    bundle: Path, weights: Path, output: Path, metadata: dict[str, Any], written: dict[str, Any] | None
) -> Path:
    """The bundle without what trains it; refused if its inference config still needs this package."""
    config = _inference_config(bundle)
    if re.search(r"\bmonai_transfer\b", config.read_text(encoding="utf-8")):
        raise InputError(
            "its inference config imports monai_transfer, so it does not run without it",
            path=config,
            hint="export --to torchscript, which needs no config",
        )
    if output.exists():
        raise InputError("exists already", path=output, hint="name another --output")
    with atomic_folder(output) as temporary:
        (temporary / "models").mkdir()
        (temporary / "configs").mkdir()
        write_json(temporary / "configs" / "metadata.json", metadata)
        if written is not None:  # of another's bundle: what was read, and none of its files that can be code
            write_text(
                temporary / "configs" / "inference.yaml",
                to_yaml(written, [f"{bundle.resolve().name}: written anew from what was read of another's bundle"]),
            )
        for path in (config, bundle / "configs" / "logging.conf") if written is None else ():
            if path.is_file():
                shutil.copyfile(path, temporary / "configs" / path.name)
        for name in ("scripts", "docs", "sample") if written is None else ("sample",):
            if (bundle / name).is_dir():
                shutil.copytree(bundle / name, temporary / name, ignore=_left_out)
        for path in (bundle / "LICENSE", *bundle.glob("*.yml")):
            if path.is_file() and not path.is_symlink():
                shutil.copyfile(path, temporary / path.name)
        names = {"model.pt", weights.name}  # of several folds: all of them, and one for tools that read no others
        shutil.copyfile(weights, temporary / "models" / weights.name)
        if weights.name != "model.pt":
            shutil.copyfile(weights.with_name("model.pt"), temporary / "models" / "model.pt")
        known = provenance_of(weights)
        if _origin(known):
            files = [(f"models/{name}", known.url, "sha256", "") for name in sorted(names)]
            write_large_files(temporary, [LargeFile(*file, known.licence, known.description) for file in files])
        write_hashes(temporary)
    return output
