"""TensorFlow.js layers models (``model.json`` beside ``*.bin`` shards): their weights, and the network in PyTorch.

So are the models of brainchop published (MeshNet: Fedorov et al., "End-to-end learning of brain tissue segmentation
from imperfect labeling", arXiv:1612.00940; MIT licence), which run on a conformed T1 head of 256^3 voxels of 1 mm.
Read as data: nothing of TensorFlow is needed, and no code of the file's runs.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.safe_parse import read_json

__all__ = ["is_tfjs", "read_tfjs", "sha256_tfjs", "tfjs_network"]

AGAIN = "copy model.json and its .bin files again"
_ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "elu": nn.ELU, "tanh": nn.Tanh}
_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def is_tfjs(path: str | Path) -> bool:
    """Whether a file looks like the ``model.json`` of a layers model.

    Args:
        path: of any file.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "model.json"
    >>> _ = path.write_text('{"modelTopology": {}, "weightsManifest": []}')
    >>> is_tfjs(path), is_tfjs("model.pt")
    (True, False)
    """
    path = Path(path)
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        return "weightsManifest" in read_json(path)
    except (InputError, TypeError):
        return False


def read_tfjs(path: str | Path) -> dict[str, Tensor]:
    """The weights of a layers model by ``layer.weight`` and so on, in PyTorch's layout.

    Kernels come as spatial x in x out and are turned to out x in x spatial; batch norms get PyTorch's names.

    Args:
        path: ``model.json``; the shards are read from beside it.

    Raises:
        InputError: a shard is missing or has another size than the manifest says, or holds other than float32.
    """
    path = Path(path)
    state: dict[str, Tensor] = {}
    for group in _content(path)["weightsManifest"]:
        data = b"".join(_shard(path, name) for name in group["paths"])
        offset = 0
        for entry in group["weights"]:
            if entry["dtype"] != "float32" or "quantization" in entry:
                fault = f"{entry['name']} is {entry['dtype']}{', quantised' if 'quantization' in entry else ''}"
                raise InputError(fault, path=path, hint="convert the model again without quantisation")
            count = math.prod(entry["shape"])
            if offset + 4 * count > len(data):
                raise InputError(f"its shards end within {entry['name']}", path=path, hint=AGAIN)
            array = np.frombuffer(data, "<f4", count, offset).reshape(entry["shape"])
            offset += 4 * count
            layer, _, kind = entry["name"].rpartition("/")
            state[f"{layer.replace('/', '_').replace('.', '_')}.{_NORM.get(kind, kind)}"] = torch.tensor(array)
        if offset != len(data):
            raise InputError(f"its shards hold {len(data) - offset} bytes too many", path=path, hint=AGAIN)
    return {
        name.replace(".kernel", ".weight"): tensor.permute(-1, -2, *range(tensor.ndim - 2)).contiguous()
        if name.endswith(".kernel")
        else tensor
        for name, tensor in state.items()
    }


def sha256_tfjs(path: str | Path) -> str:
    """The SHA-256 of all shards, one after the other; with one shard, that of its file."""
    path = Path(path)
    digest = hashlib.sha256()
    for group in _content(path)["weightsManifest"]:
        for name in group["paths"]:
            digest.update(_shard(path, name))
    return digest.hexdigest()


def tfjs_network(path: str | Path) -> nn.Sequential:
    """The network that a layers model describes, in PyTorch, fresh: fill it with ``load_weights(network, path)``.

    For a chain of convolutions (2D or 3D, "same" padding, any dilation), activations and batch norms. Input and
    output are B x C x spatial, with the axes as TensorFlow had them. Layers keep their names.

    Raises:
        InputError: it is no layers model, is no chain, or has a layer of another kind.
    """
    path = Path(path)
    try:
        topology = _content(path)["modelTopology"]
        layers = topology.get("model_config", topology)["config"]["layers"]
        shapes = {entry["name"]: entry["shape"] for g in _content(path)["weightsManifest"] for entry in g["weights"]}
    except (KeyError, TypeError) as error:
        fault = f"describes no layers (no {error})"
        raise InputError(fault, path=path, hint="pass the model.json of a layers model") from error
    chain: OrderedDict[str, nn.Module] = OrderedDict()
    before = None
    for layer in layers:
        kind, name = layer["class_name"], layer["config"]["name"]
        inbound = [node[0] for node in (layer.get("inbound_nodes") or [[]])[0]]
        if before is not None and inbound not in ([], [before]):
            raise InputError(
                f"layer {name!r} takes {', '.join(inbound)}: the network is no chain",
                path=path,
                hint="only chains of convolutions such as MeshNet are read",
            )
        before = name
        if kind == "InputLayer":
            continue
        modules = _layer(kind, layer["config"], shapes, path)
        for suffix, module in modules.items():
            chain[name.replace("/", "_").replace(".", "_") + suffix] = module
    return nn.Sequential(chain)


def _layer(kind: str, config: Mapping[str, Any], shapes: Mapping[str, list[int]], path: Path) -> dict[str, nn.Module]:
    """The modules of one layer, by what is added to its name."""
    name = config["name"]
    if kind in ("Conv2D", "Conv3D"):
        shape = shapes[f"{name}/kernel"]
        odd = all(size % 2 for size in shape[:-2])
        steps = config["strides"]
        if config["padding"] != "same" or max(steps) > 1 or not odd or config.get("data_format") == "channels_first":
            raise InputError(
                f"layer {name!r} is no odd convolution of stride 1 with same padding",
                path=path,
                hint="only chains of convolutions such as MeshNet are read",
            )
        convolution = Conv[Conv.CONV, len(shape) - 2](
            shape[-2] * config.get("groups", 1),
            shape[-1],
            tuple(shape[:-2]),
            padding=tuple(d * (size // 2) for d, size in zip(config["dilation_rate"], shape[:-2], strict=True)),
            dilation=tuple(config["dilation_rate"]),
            groups=config.get("groups", 1),
            bias=config["use_bias"],
        )
        return {"": convolution} | _activation(config.get("activation"), name, "_activation", path)
    if kind == "BatchNormalization":
        axis = config["axis"][0] if isinstance(config["axis"], list) else config["axis"]
        norm = {3: nn.BatchNorm2d, 4: nn.BatchNorm3d}.get(axis)
        if norm and {f"{name}/gamma", f"{name}/beta"} <= shapes.keys():
            width = shapes[f"{name}/moving_mean"][0]
            return {"": norm(width, eps=config["epsilon"], momentum=1 - config["momentum"])}
    if kind == "Activation":
        return _activation(config["activation"], name, "", path)
    if kind in ("Dropout", "SpatialDropout3D", "SpatialDropout2D"):
        return {}
    raise InputError(f"layer {name!r} is a {kind}, which is not read", path=path, hint="build the network by hand")


def _activation(kind: str | None, name: str, suffix: str, path: Path) -> dict[str, nn.Module]:
    if kind in (None, "linear"):
        return {}
    if kind not in _ACTIVATIONS:
        raise InputError(
            f"layer {name!r} has the activation {kind!r}, which is not read",
            path=path,
            hint="only chains of convolutions such as MeshNet are read",
        )
    return {suffix: _ACTIVATIONS[kind]()}


def _content(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or "weightsManifest" not in content:
        raise InputError("is no TensorFlow.js model: it has no weightsManifest", path=path, hint="name its model.json")
    return content


def _shard(path: Path, name: str) -> bytes:
    shard = path.parent / name
    if Path(name).name != name:
        raise InputError(f"names a shard in another folder: {name!r}", path=path, hint=AGAIN)
    try:
        return shard.read_bytes()
    except OSError as error:
        raise InputError("there is no such file", path=shard, hint=AGAIN) from error
