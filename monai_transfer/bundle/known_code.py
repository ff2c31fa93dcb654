"""Which code of a bundle this package wrote itself: what is not among it is foreign, and is neither run nor copied."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_transfer.bundle.boxes_script import boxes_script
from monai_transfer.bundle_reader.building import check
from monai_transfer.bundle_reader.component import Unread, components_in, unread_in
from monai_transfer.bundle_reader.reading import config_file
from monai_transfer.bundle_reader.references import Resolver
from monai_transfer.bundle_reader.table import lookup
from monai_transfer.errors import InputError
from monai_transfer.nnunet import steps
from monai_transfer.safe_parse import read_mapping

__all__ = ["foreign_code"]

_STEPS = [f"$@functions['{name}']" for name in steps.__all__]
_EXPRESSIONS = frozenset(
    [
        *_STEPS,
        '$runpy.run_path(f"{@bundle_root}/scripts/nnunet_steps.py")',
        *(f"$torch.nn.{name}{dims}d" for name in ("Conv", "InstanceNorm") for dims in (2, 3)),
        "$torch.nn.LeakyReLU",
        *(f"$import {name}" for name in ("glob", "os", "runpy", "torch", "numpy", "itertools", "json")),
        "$from PIL import ImageOps",
        "$from scipy import ndimage",
        "$'cuda' if torch.cuda.is_available() else 'cpu'",
        "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "$torch.cuda.is_available()",
        "$'cuda' in str(@device)",
        "$@device.type == 'cuda'",
        "$glob.glob(@pattern, root_dir=@dataset_dir, recursive=True)",
        "$@network_def.to(@device)",
        "$@functions['FoldMean'](@network_def.to(@device))",
        "$@functions['bundle_weights'](@bundle_root)",
        '$[{"image": f"{@dataset_dir}/{path}"} for path in sorted(@images)]',
        "$[{'image': path} for path in sorted(glob.glob(os.path.join(@dataset_dir, @pattern), recursive=True))]",
        '$runpy.run_path(f"{@bundle_root}/scripts/boxes.py")',
        "$@functions['FindBoxes']",
        "$@functions['WriteBoxes']",
        "$lambda batch: [item['image'].meta for item in batch]",
        "$monai.handlers.from_engine(['pred'])",
        "$monai.utils.set_determinism(seed=0)",
        *(
            f"$@network.register_forward_hook(lambda module, images, output: {place})"
            for place in ("output[0]", "output[-1]", "output[0][0]")
        ),
        "$@evaluator.run()",
        "$import PIL.ImageOps as ImageOps",
        "$ImageOps.exif_transpose",
        "$@encoder.to(@device)",
        "$lambda image: image if image.mode in ('1', 'L', 'I', 'I;16', 'F') else image.convert('L')",
        "$lambda image: image.convert('RGB')",
    ]
)
_CLASSES = frozenset(
    [
        *_STEPS,
        "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        "torch.device",
        "monai.data.Dataset",
        "monai.data.DataLoader",
        "monai.data.PILReader",
        "monai.engines.SupervisedEvaluator",
        "monai.handlers.CheckpointLoader",
        "monai.handlers.ClassificationSaver",
        "torch.nn.AdaptiveAvgPool2d",
        "torch.nn.AdaptiveAvgPool3d",
        "torch.nn.Flatten",
        "$@functions['FindBoxes']",
        "$@functions['WriteBoxes']",
    ]
)
# the encoder of a network for pretraining: its modules one after the other
_ENCODER = re.compile(r"\$torch\.nn\.Sequential\((@network_def(\.model|\.submodule|\[\d\])*, )+@pool, @flatten\)")
_LATER = {"saver": ("output_dir", "data_root_dir", "separate_folder")}


def foreign_code(bundle: str | Path) -> list[Unread]:
    """What of a bundle's inference config, metadata and scripts is code that this package does not write.

    MONAI makes the metadata a part of the config (``@_meta_::name``), so they are judged likewise.

    Args:
        bundle: its folder.

    Raises:
        InputError: a file of these cannot be read.
    """
    path = config_file(bundle, "inference")
    if path is None:
        return []
    config = read_mapping(path)
    metadata = path.with_name("metadata.json")
    if metadata.is_file():
        config |= {"_meta_": read_mapping(metadata)}
    resolver = Resolver(config)
    found = [item for item in _strings(config, "") if _is_foreign(*item, resolver)]
    foreign = [Unread(where, text[:120], "is code of its own") for where, text in found]
    foreign += [Unread(key, "", "is an id that changes another part of the config") for key in _paths(config)]
    for component in components_in(resolver.get_all()):
        try:
            later = _LATER.get(component.kind, ("transforms",))  # each of these is looked at by itself
            check(replace(component, arguments={k: v for k, v in component.arguments.items() if k not in later}))
        except InputError as error:
            if not list(unread_in(component.arguments)):  # those were judged by their text
                foreign.append(Unread(component.where, "", error.fault))
    for where, text in _strings(config, ""):
        named = re.search(r"run_path\(.*/(scripts/\w+\.py)", text)
        if named is not None and not (Path(bundle) / named[1]).is_file():
            foreign.append(Unread(where, "", f"runs {named[1]}, which is not there"))
    for script in sorted((Path(bundle) / "scripts").rglob("*")):
        if script.is_file() and script.suffix != ".pyc" and not _is_ours(script):
            foreign.append(Unread(f"scripts/{script.name}", "", "is a script of its own"))
    return foreign


def _paths(node: Any) -> Iterator[str]:
    """Keys that MONAI takes for a path into the config, or for a sign to merge: they would change what was judged."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if isinstance(key, str) and ("::" in key or "#" in key or key.startswith(("+", "~"))):
            yield key
        if key != "_meta_":  # data, of which texts alone are judged
            yield from _paths(value)


def _strings(node: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _strings(value, f"{where}::{key}" if where else str(key))
    elif isinstance(node, list):
        for n, value in enumerate(node):
            yield from _strings(value, f"{where}::{n}" if where else str(n))
    elif isinstance(node, str):
        yield where, node


def _is_foreign(where: str, text: str, resolver: Resolver) -> bool:
    if where.endswith("_mode_"):
        return text not in ("default", "callable", "partial")  # none that opens a debugger
    if where.endswith("_target_"):
        return text not in _CLASSES and lookup(text) is None
    if text.startswith("%"):
        return True
    if not text.startswith("$") or text in _EXPRESSIONS or _ENCODER.fullmatch(text):
        return False
    return not resolver.has(where) or any(True for _ in unread_in(resolver.get(where)))


def _is_ours(script: Path) -> bool:
    infer = Path(__file__).with_name("infer_script.py").read_text(encoding="utf-8")
    texts = {"__init__.py": "", "infer.py": infer, "boxes.py": boxes_script()}
    texts["nnunet_steps.py"] = inspect.getsource(steps)
    own = texts.get(script.name)
    return own is not None and _sha256(own.encode()) == _sha256(script.read_bytes())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
