"""From a ``BundleSpec`` to a bundle folder: configs, metadata, licence, scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monai_transfer.bundle import self_supervised
from monai_transfer.bundle.boxes_script import boxes_script
from monai_transfer.bundle.configs import self_supervised as alone
from monai_transfer.bundle.configs.adapt import adapt
from monai_transfer.bundle.configs.emit import to_yaml
from monai_transfer.bundle.configs.evaluate import evaluate
from monai_transfer.bundle.configs.headers import header
from monai_transfer.bundle.configs.inference import BOXES_SCRIPT, inference
from monai_transfer.bundle.configs.multi_gpu import multi_gpu
from monai_transfer.bundle.configs.pretrain import pretrain
from monai_transfer.bundle.configs.scratch import scratch
from monai_transfer.bundle.configs.training import train
from monai_transfer.bundle.metadata import metadata
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr, ref
from monai_transfer.files import make_folder, write_json, write_text

__all__ = ["configs", "render_bundle", "write_bundle"]

_HERE = Path(__file__).parent
_CONFIGS: Mapping[str, Callable[[BundleSpec], dict[str, Any]]] = {
    "train": train,
    "pretrain": pretrain,
    "adapt": adapt,
    "evaluate": evaluate,
    "multi_gpu_train": lambda spec: multi_gpu(spec, expr("@prepared.network")),
    "inference": inference,
}
_ALONE: Mapping[str, Callable[[BundleSpec], dict[str, Any]]] = {
    "train": alone.train,
    "contrastive": alone.contrastive,
    "multi_gpu_train": lambda spec: multi_gpu(spec, ref("learner")),
    "inference": alone.inference,
}
_LOGGING = """[loggers]
keys=root,ignite,decoder

[handlers]
keys=console

[formatters]
keys=line

[logger_root]
level=INFO
handlers=console

[logger_ignite]
level=WARNING
handlers=
qualname=ignite

[logger_decoder]
level=ERROR
handlers=
qualname=monai.data.nvimgcodec_pydicom_plugin

[handler_console]
class=StreamHandler
level=INFO
formatter=line
args=(sys.stdout,)

[formatter_line]
format=%(asctime)s %(levelname)s %(name)s: %(message)s
"""


def configs(spec: BundleSpec) -> dict[str, dict[str, Any]]:
    """The bundle's configs as data, by name; pretraining without labels has workflows of its own."""
    found = {name: build(spec) for name, build in (_CONFIGS if spec.kind.judged else _ALONE).items()}
    return found | ({"scratch": scratch(spec)} if spec.scratch is not None else {})


def _recipe(spec: BundleSpec) -> str:
    """Every planned number with its reason."""
    if not spec.recipe:
        return ""
    lines = [
        f"| {name} | {entry['value']} | {entry['reason']} |".replace("\n", " ") for name, entry in spec.recipe.items()
    ]
    return "\n".join(["| planned | value | reason |", "|---|---|---|", *lines, "", ""])


def _scratch_row(spec: BundleSpec) -> str:
    if spec.scratch is None:
        return ""
    what = "`scratch`: planned for the data, without the source"
    return f"| {what} | train.yaml, scratch.yaml | {spec.expect['scratch']} |\n"


def _readme(spec: BundleSpec) -> str:
    return f"""# {spec.name}

{spec.description or f"{spec.spatial_dims}D {spec.task}."}

Classes: {", ".join(spec.class_names)}. Channels: {", ".join(spec.channel_names)}.
Source site: {spec.source_site}; target site: {spec.target_site}.

| workflow | config files | expect |
|---|---|---|
| fine-tune (`train`) | train.yaml | {spec.expect["train"]} |
| `pretrain` on the source | train.yaml, pretrain.yaml | {spec.expect["pretrain"]} |
| `adapt` without target labels | train.yaml, adapt.yaml | {spec.expect["adapt"]} |
| `evaluate` | train.yaml, evaluate.yaml | {spec.expect["evaluate"]} |
{_scratch_row(spec)}| `infer` | inference.yaml (MONAI alone) | {spec.expect["inference"]} |

{_recipe(spec)}Run `python -m monai.bundle run --config_file "['configs/train.yaml','configs/adapt.yaml']"` here, or
`monai-transfer run . adapt` from anywhere. `scripts/infer.py IMAGE... -o DIR` predicts with MONAI alone.
Opening a bundle runs the code in its configs: open only those whose author you trust.
"""


def render_bundle(spec: BundleSpec) -> dict[str, str]:
    """All text files of the bundle, by their path inside it."""
    files = {f"configs/{name}.yaml": to_yaml(config, header(spec, name)) for name, config in configs(spec).items()}
    files["configs/metadata.json"] = json.dumps(metadata(spec), indent=2) + "\n"
    if spec.recipe:
        files["configs/recipe.json"] = json.dumps(spec.recipe, indent=2) + "\n"
    files["configs/logging.conf"] = _LOGGING
    if not spec.trusted:  # else it came with the source's own scripts
        files["scripts/__init__.py"] = ""
    files["scripts/infer.py"] = (_HERE / "infer_script.py").read_text(encoding="utf-8")
    if spec.kind.saved_as == "boxes":
        files[BOXES_SCRIPT] = boxes_script()
    if spec.kept is not None and spec.kept.script:
        files[spec.kept.script] = spec.kept.script_text()
    files["docs/README.md"] = _readme(spec) if spec.kind.judged else self_supervised.readme(spec)
    files["LICENSE"] = (_HERE / "LICENSE").read_text(encoding="utf-8")
    return files


def write_bundle(spec: BundleSpec, folder: str | Path) -> Path:
    """Write the bundle's text files into ``folder`` (made if need be); weights and samples there are left alone."""
    folder = Path(folder)
    for name, text in render_bundle(spec).items():
        write_text(folder / name, text)
    make_folder(folder / "models")
    if spec.weights_note:
        write_json(folder / "models" / "source.json", spec.weights_note)
    return folder
