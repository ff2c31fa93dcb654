"""Hostile bundles, made here: each would touch a canary file, hang, or fill the memory if it were run or believed."""

from __future__ import annotations

import copy
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import UNet

__all__ = ["ATTACKS", "NETWORK", "make_bundle"]

NETWORK = {"_target_": "monai.networks.nets.UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
NETWORK |= {"channels": [4, 8], "strides": [2]}
METADATA = {
    "name": "theirs",
    "version": "1",
    "network_data_format": {
        "inputs": {
            "image": {"type": "image", "num_channels": 1, "spatial_shape": [32, 32], "modality": "MR"}
            | {"channel_def": {"0": "MR"}, "is_patch_data": True, "dtype": "float32"}
        },
        "outputs": {"pred": {"type": "image", "num_channels": 2, "channel_def": {"0": "background", "1": "lesion"}}},
    },
}
Bundle = dict[str, Any]
"""Files by name: dictionaries become JSON, text and bytes are written, functions are called with the path."""


def sound() -> Bundle:
    """A bundle without a fault, as the model zoo has them."""
    return {
        "configs/metadata.json": copy.deepcopy(METADATA),
        "configs/inference.json": {
            "bundle_root": ".",
            "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
            "network_def": dict(NETWORK),
            "network": "$@network_def.to(@device)",
            "preprocessing": {
                "_target_": "Compose",
                "transforms": [
                    {"_target_": "LoadImaged", "keys": "image"},
                    {"_target_": "EnsureChannelFirstd", "keys": "image"},
                    {"_target_": "ScaleIntensityd", "keys": "image"},
                ],
            },
            "dataset": {"_target_": "Dataset", "data": [], "transform": "@preprocessing"},
            "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32]},
            "postprocessing": {
                "_target_": "Compose",
                "transforms": [
                    {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                    {"_target_": "SaveImaged", "keys": "pred", "output_ext": ".png", "output_postfix": "pred"}
                    | {"output_dir": "predictions", "resample": False},
                ],
            },
            "evaluator": {"_target_": "SupervisedEvaluator", "network": "@network"},
            "run": ["$@evaluator.run()"],
        },
        "models/model.pt": lambda path: torch.save(UNet(2, 1, 2, (4, 8), (2,)).state_dict(), path),
    }


class _Runs:
    """Pickled, it calls a function when it is read."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return open, (self.canary, "w")


def _in(part: str, value: Callable[[str], Any]) -> Callable[[Bundle, str], None]:
    """Put something into the inference config at ``a::b``."""

    def attack(bundle: Bundle, canary: str) -> None:
        node = bundle["configs/inference.json"]
        *parents, last = part.split("::")
        for name in parents:
            node = node[int(name)] if isinstance(node, list) else node[name]
        if isinstance(node, list):
            node.insert(int(last), value(canary))
        else:
            node[last] = value(canary)

    return attack


def _file(name: str, content: Callable[[str], Any], *, instead: str = "") -> Callable[[Bundle, str], None]:
    def attack(bundle: Bundle, canary: str) -> None:
        bundle.pop(instead, None)
        bundle[name] = content(canary)

    return attack


def _both(*attacks: Callable[[Bundle, str], None]) -> Callable[[Bundle, str], None]:
    def attack(bundle: Bundle, canary: str) -> None:
        for one in attacks:
            one(bundle, canary)

    return attack


def _touch(canary: str) -> str:
    return f"$__import__('pathlib').Path({canary!r}).touch()"


def _shell(canary: str) -> dict[str, Any]:
    return {"_target_": "os.system", "command": f"touch {canary}"}


def _dotted(canary: str) -> dict[str, Any]:
    return {"_target_": "monai.networks.trt_compiler.os.system", "command": f"touch {canary}"}


def _script(canary: str) -> str:
    return f"import pathlib, torch\npathlib.Path({canary!r}).touch()\nclass Net(torch.nn.Linear):\n    pass\n"


def _zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        with archive.open("archive/data/0", "w") as stream:
            for _ in range(128):
                stream.write(bytes(1 << 20))


def _malicious(canary: str) -> Callable[[Path], None]:
    return lambda path: torch.save({"state_dict": _Runs(canary)}, path)


def _legacy(canary: str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(pickle.dumps(_Runs(canary)))


def _script_module(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))


def _expanded(path: Path) -> None:
    torch.save({key: torch.zeros(1).expand(1 << 40) for key in UNet(2, 1, 2, (4, 8), (2,)).state_dict()}, path)


def _flipped(path: Path) -> None:
    torch.save(UNet(2, 1, 2, (4, 8), (2,)).state_dict(), path)
    path.with_name("model.pt.sha256").write_text(f"{'0' * 64}  model.pt\n")


def _metadata(change: dict[str, Any]) -> Callable[[Bundle, str], None]:
    """Fields of the metadata by their place, ``a::b``."""

    def attack(bundle: Bundle, canary: str) -> None:
        for where, value in change.items():
            node = bundle["configs/metadata.json"]
            *parents, last = where.split("::")
            for name in parents:
                node = node.setdefault(name, {})
            node[last] = value

    return attack


def _in_metadata(name: str, value: Callable[[str], Any]) -> Callable[[Bundle, str], None]:
    return lambda bundle, canary: bundle["configs/metadata.json"].update({name: value(canary)})


def _known_classes(bundle: Bundle, canary: str) -> None:
    """Only what this package writes itself: such configs are handed to MONAI's own parser."""
    config = bundle["configs/inference.json"]
    config["dataset"]["_target_"] = "monai.data.Dataset"
    config["evaluator"]["_target_"] = "monai.engines.SupervisedEvaluator"


def _another_home(bundle: Bundle, canary: str) -> None:
    """The configs are a link into another bundle, whose scripts and metadata were not judged."""
    config = bundle.pop("configs/inference.json")
    config["network_def"]["norm"] = "@nothing"
    config["imports"] = ["$import runpy"]
    config["functions"] = '$runpy.run_path(f"{@bundle_root}/scripts/boxes.py")'
    config["initialize"] = ["$@functions['FindBoxes']"]
    bundle["other/configs/inference.yaml"] = json.dumps(config)
    bundle["other/configs/metadata.json"] = bundle["configs/metadata.json"]
    bundle["other/scripts/boxes.py"] = _script(canary)
    bundle["configs/inference.yaml"] = lambda path: path.symlink_to("../other/configs/inference.yaml")


def _at_id(key: str, value: Callable[[str], Any]) -> Callable[[Bundle, str], None]:
    """An entry whose name is a path or a sign of MONAI's."""

    def attack(bundle: Bundle, canary: str) -> None:
        content = {"norm": value(canary)} if key.startswith("+") else value(canary)
        bundle["configs/inference.json"][key] = content

    return attack


def _same_name(bundle: Bundle, canary: str) -> None:
    """Two configs of one name: what is judged must be what runs."""
    sound = bundle["configs/inference.json"]
    sound["network_def"]["norm"] = "@nothing"
    bundle["configs/inference.yaml"] = json.dumps({**sound, "initialize": [_touch(canary)]})


def _link(target: str | Callable[[str], str]) -> Callable[[str], Callable[[Path], None]]:
    return lambda canary: lambda path: path.symlink_to(target(canary) if callable(target) else target)


def _bundle_in_a_zip(canary: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("bundle/configs/inference.json", json.dumps({"network_def": _touch(canary)}))
            archive.writestr("bundle/scripts/__init__.py", _script(canary))
            archive.writestr("bundle/data.pkl", pickle.dumps(_Runs(canary)))
            archive.writestr("../../canary", "x")

    return write


_IMAGE, _PRED = "network_data_format::inputs::image", "network_data_format::outputs::pred"
_OTHER_KINDS = {f"{_IMAGE}::num_channels": "x", f"{_IMAGE}::spatial_shape": {"a": [1]}, f"{_IMAGE}::channel_def": [1]}
_OTHER_KINDS |= {f"{_PRED}::channel_def": {"0": {"a": 1}, "x": None}, f"{_PRED}::type": ["image"], "name": {"a": 1}}
_OTHER_KINDS |= {"version": [1], "modality": 3, "licence": {"a": 1}, "transfer::task": ["segmentation"]}
_OTHER_KINDS |= {"transfer::spacing": "x", "transfer::orientation": 7, "transfer::weights": [1]}
_OTHER_KINDS |= {"transfer::data_statistics": {"shape": "x", "intensity": [1], "labels": {"a": 1}, "other_sites": [1]}}
_BEYOND = {f"{_IMAGE}::num_channels": 1 << 70, f"{_IMAGE}::spatial_shape": [1 << 70, -1], "transfer::spacing": [1e400]}
_BEYOND |= {"transfer::task": "segmentation", "transfer::data_statistics": {"intensity": {"mean": 1e400}, "dims": -3}}
_HASHES = f"{'0' * 64}  ../../canary\n{'0' * 64}  /etc/passwd\n{'0' * 64}  \nxyz\n{'f' * 64}  models\n"
_LETTERS = "abcdefghij"
_ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip(_LETTERS, _LETTERS[1:], strict=False)
)
_LOGGING = """[loggers]
keys=root
[handlers]
keys=console
[formatters]
keys=line
[logger_root]
level=INFO
handlers=console
[handler_console]
class=StreamHandler
level=INFO
formatter=line
args=(open({canary!r}, "w"),)
[formatter_line]
format=%(message)s
"""
_STEPS = "preprocessing::transforms"

ATTACKS: dict[str, Callable[[Bundle, str], None]] = {
    "none": lambda bundle, canary: None,
    "expression as an argument of the network": _in("network_def::norm", _touch),
    "expression as the network": _in("network_def", _touch),
    "expression behind a reference": _both(_in("norm", _touch), _in("network_def::norm", lambda c: "@norm")),
    "expression that makes code of a text": _in("network_def::norm", lambda c: f"$'$' + {_touch(c)[1:]!r}"),
    "dictionary that makes a component": _in("network_def::norm", lambda c: f"${_shell(c)!r}"),
    "function as a target": _in("network_def", _shell),
    "dotted target inside MONAI": _in("network_def", _dotted),
    "component as an argument": _in("network_def::norm", _shell),
    "requirement": _in("network_def::_requires_", _touch),
    "requirement of a step": _in(f"{_STEPS}::0::_requires_", _touch),
    "disabled by code": _in("network_def::_disabled_", _touch),
    "imports": _in("imports", lambda c: [f"$import os; open({c!r}, 'w')", _touch(c)]),
    "initialize": _in("initialize", lambda c: [_touch(c)]),
    "run": _in("run", lambda c: [_touch(c)]),
    "handlers": _in("handlers", lambda c: [_shell(c)]),
    "evaluator": _in("evaluator", _shell),
    "dataset": _in("dataset::data", _touch),
    "device": _in("device", _touch),
    "unused entry": _in("anything", _touch),
    "code in a step": _in(f"{_STEPS}::3", lambda c: {"_target_": "Lambdad", "keys": "image", "func": _touch(c)}),
    "function in a step": _in(
        f"{_STEPS}::3", lambda c: {"_target_": "Lambdad", "keys": "image", "func": f"$lambda x: open({c!r}, 'w')"}
    ),
    "target as a step": _in(f"{_STEPS}::0", _shell),
    "reader by its path": _in(f"{_STEPS}::0::reader", lambda c: "subprocess.getoutput"),
    "reader that is code": _in(f"{_STEPS}::0::reader", _touch),
    "inferer": _in("inferer", lambda c: {"_target_": "builtins.exec", "source": f"open({c!r}, 'w')"}),
    "inferer of a terabyte": _in("inferer::roi_size", lambda c: [1 << 20, 1 << 20]),
    "writer by its path": _in("postprocessing::transforms::1::writer", lambda c: "subprocess.getoutput"),
    "output elsewhere": _in("postprocessing::transforms::1::output_dir", lambda c: str(Path(c).parent / "elsewhere")),
    "postfix elsewhere": _in("postprocessing::transforms::1::output_postfix", lambda c: "/../../canary"),
    "formatter that is code": _in("postprocessing::transforms::1::output_name_formatter", _touch),
    "activation that is code": _in("postprocessing::transforms::0::other", _touch),
    "weights from a URL": _in("network_def::pretrained_url", lambda c: "http://127.0.0.1:9/weights"),
    "pretrained weights": _in(
        "network_def", lambda c: {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0", "pretrained": True}
    ),
    "macro of another file": _in("network_def::norm", lambda c: "%/etc/passwd.json::x"),
    "references in a circle": _both(
        _in("a", lambda c: "@b"), _in("b", lambda c: "@a"), _in("network_def", lambda c: "@a")
    ),
    "references that multiply": _both(
        *(_in(f"r{n}", lambda c, n=n: [f"@r{n + 1}"] * 10) for n in range(12)),
        _in("network_def::norm", lambda c: "@r0"),
    ),
    "network of a terabyte": _in("network_def::channels", lambda c: [1 << 20, 1 << 20]),
    "network without an end": _in("network_def::num_res_units", lambda c: 1 << 40),
    "own scripts": _both(
        _in("network_def", lambda c: {"_target_": "scripts.net.Net", "in_features": 2, "out_features": 2}),
        _file("scripts/net.py", _script),
        _file("scripts/__init__.py", _script),
    ),
    "own scripts under a known name": _both(_file("monai.py", _script), _file("torch/__init__.py", _script)),
    "logging": _file("configs/logging.conf", lambda c: _LOGGING.format(canary=c)),
    "names that are code": _file(
        "configs/metadata.json",
        lambda c: json.loads(
            json.dumps(METADATA).replace("lesion", _touch(c).replace("'", "\\u0027")).replace("MR", "@x")
        ),
    ),
    "metadata 200,000 levels deep": _file("configs/metadata.json", lambda c: "[" * 200_000 + "]" * 200_000),
    "metadata of another kind": _file("configs/metadata.json", lambda c: {"network_data_format": [1], "transfer": "x"}),
    "label mapping of another kind": _file(
        "configs/metadata.json",
        lambda c: METADATA | {"transfer": {"label_mapping": {"labels": {"x": [1]}, "regions": 3}}},
    ),
    "config 200,000 levels deep": _file("configs/inference.json", lambda c: '{"a":' * 200_000 + "}" * 200_000),
    "aliases of aliases": _file("configs/inference.yaml", lambda c: _ALIASES, instead="configs/inference.json"),
    "object in YAML": _file(
        "configs/inference.yaml",
        lambda c: f"network_def: !!python/object/apply:os.system ['touch {c}']",
        instead="configs/inference.json",
    ),
    "large file elsewhere": _file(
        "large_files.yml", lambda c: "large_files: [{path: ../../canary, url: 'http://127.0.0.1:9/x'}]"
    ),
    "pickle that runs": _file("models/model.pt", _malicious),
    "old pickle that runs": _file("models/model.pt", _legacy),
    "TorchScript as weights": _file("models/model.pt", lambda c: _script_module),
    "archive that unpacks to much": _file("models/model.pt", lambda c: _zip_bomb),
    "tensors larger than their data": _file("models/model.pt", lambda c: _expanded),
    "weights of another hash": _file("models/model.pt", lambda c: _flipped),
    "weights that are nothing": _file("models/model.pt", lambda c: b"\x80\x02garbage"),
    "safetensors that lie": _file(
        "models/model.safetensors", lambda c: (1 << 40).to_bytes(8, "little") + b"{}", instead="models/model.pt"
    ),
    "metadata fields of another kind": _metadata(_OTHER_KINDS),
    "metadata beyond numbers": _metadata(_BEYOND),
    "code in the metadata behind a reference": _both(
        _known_classes,
        _in("network_def::norm", lambda c: "@_meta_::description"),
        _in_metadata("description", _touch),
    ),
    "code in the metadata behind a text": _both(
        _known_classes,
        _in("network_def::norm", lambda c: "$@_meta_::description"),
        _in_metadata("description", _touch),
    ),
    "component in the metadata behind a reference": _both(
        _known_classes, _in("network_def", lambda c: "@_meta_::net"), _in_metadata("net", _shell)
    ),
    "code in the metadata behind a relative reference": _both(
        _known_classes, _in("network_def::norm", lambda c: "@##_meta_#description"), _in_metadata("description", _touch)
    ),
    "metadata that are a number": _both(
        _known_classes, _in("network_def::norm", lambda c: "@nothing"), _file("configs/metadata.json", lambda c: "7")
    ),
    "metadata that are null": _file("configs/metadata.json", lambda c: "null"),
    "metadata with an empty format": _metadata({_IMAGE: {}, _PRED: {}}),
    "hashes of files elsewhere": _file("hashes.sha256", lambda c: _HASHES),
    "hashes that are no text": _file("hashes.sha256", lambda c: b"\xff\x00" * 5000),
    "licence behind a link": _file("LICENSE", _link("/etc/passwd")),
    "weights behind a link to a device": _file("models/model.pt", _link("/dev/zero")),
    "config behind a link to a device": _file("configs/train.json", _link("/dev/zero")),
    "scripts behind a link": _both(
        _in("network_def", lambda c: {"_target_": "scripts.net.Net", "in_features": 2, "out_features": 2}),
        _file("elsewhere/net.py", _script),
        _file("scripts", _link("elsewhere")),
    ),
    "configs that are pipes": _both(
        *(_file(f"configs/{n}", lambda c: os.mkfifo) for n in ("train.yaml", "large.json")),
        _file("large_files.yml", lambda c: os.mkfifo),
    ),
    "bundle inside an archive": _file("models/model.pt", _bundle_in_a_zip),
    "ids that shadow others": _both(
        _in("network_def::norm", lambda c: "batch"),
        _file("configs/inference.yaml", lambda c: "network_def: {_target_: os.system}\n"),
        *(_in(key, _touch) for key in ("network_def#norm", "@network_def", "", "_meta_", "bundle_root", "image_key")),
    ),
    "known code on data of another kind": _both(
        _known_classes,
        _in("network_def::norm", lambda c: "@nothing"),
        _in("functions", lambda c: 5),
        _in("initialize", lambda c: ["$@functions['FindBoxes']"]),
    ),
    "configs behind a link": _both(_known_classes, _another_home),
    "another config of the same name": _both(_known_classes, _same_name),
    **{
        f"code at the id {key}": _both(
            _known_classes, _in("network_def::norm", lambda c: "@nothing"), _at_id(key, _touch)
        )
        for key in ("network_def#norm", "network_def::norm", "+network_def", "initialize#0", "inferer::_requires_")
    },
    "keys that are no text": _file(
        "configs/inference.yaml",
        lambda c: "1: a\nnull: b\n2020-01-01: c\n1.5: d\ntrue: e\nnetwork_def: {1: 2, null: 3, _target_: 5}\n",
        instead="configs/inference.json",
    ),
    "keys inside that are no text": _file(
        "configs/inference.yaml",
        lambda c: "network_def: {1: 2, null: 3, 2020-01-01: x, _target_: 5}\ninferer: {_target_: [1], 1: 2}\n",
        instead="configs/inference.json",
    ),
    "target of another kind": _in("network_def::_target_", lambda c: [{"a": 1}]),
    "windows beyond numbers": _both(
        _in("inferer::roi_size", lambda c: [1e400, -5]), _in("inferer::overlap", lambda c: 1e400)
    ),
    "batches of windows without an end": _in("inferer::sw_batch_size", lambda c: 1 << 60),
    "network beyond numbers": _both(
        _in("network_def::channels", lambda c: [1e400, -8]), _in("network_def::strides", lambda c: [0])
    ),
    "images resized without an end": _in(
        f"{_STEPS}::3", lambda c: {"_target_": "Resized", "keys": "image", "spatial_size": [1 << 20, 1 << 20]}
    ),
    "spacing of an atom": _in(
        f"{_STEPS}::2", lambda c: {"_target_": "Spacingd", "keys": "image", "pixdim": [1e-9, 1e-9]}
    ),
    "zoom without an end": _in(f"{_STEPS}::3", lambda c: {"_target_": "Zoomd", "keys": "image", "zoom": 1e6}),
    "padding without an end": _in(
        f"{_STEPS}::3", lambda c: {"_target_": "BorderPadd", "keys": "image", "spatial_border": 1 << 30}
    ),
    "channels repeated without an end": _in(
        f"{_STEPS}::3", lambda c: {"_target_": "RepeatChanneld", "keys": "image", "repeats": 1 << 40}
    ),
    "blur without an end": _in(
        f"{_STEPS}::3", lambda c: {"_target_": "GaussianSmoothd", "keys": "image", "sigma": 1e9}
    ),
    "ending elsewhere": _in("postprocessing::transforms::1::output_ext", lambda c: "/../../canary"),
    "postfix with a null": _in("postprocessing::transforms::1::output_postfix", lambda c: "a\0b"),
    "large file by a pattern": _file(
        "large_files.yml", lambda c: "large_files: [{path: models/**, url: 'http://127.0.0.1:9/[*', hash_val: [1]}]"
    ),
    "run record of another kind": _both(
        _file("run.json", lambda c: {"status": "finished", "labels": 7, "task": [1], "target_site": {"a": 1}}),
        _file("config.yaml", lambda c: json.dumps({"network_def": NETWORK, "_meta_": [1]})),
    ),
}
"""Each changes a sound bundle; the file named by its second argument must never appear."""

HARMLESS = (
    "none", "requirement", "requirement of a step", "imports", "initialize", "run", "handlers", "evaluator", "dataset",
    "device", "unused entry", "writer by its path", "output elsewhere", "formatter that is code", "logging",
    "own scripts under a known name", "names that are code", "hashes of files elsewhere", "hashes that are no text",
    "licence behind a link", "config behind a link to a device", "metadata with an empty format",
)  # fmt: skip
"""Attacks in parts that are not needed: the bundle is read and used without them."""


def make_bundle(folder: Path, attack: str, canary: Path) -> Path:
    """Write the bundle of an attack."""
    bundle = sound()
    ATTACKS[attack](bundle, str(canary))
    for name, content in bundle.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder
