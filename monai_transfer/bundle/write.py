"""From a ``BundleSpec`` to a bundle folder: the templates rendered, metadata, licence, scripts."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import monai

import monai_transfer
from monai_transfer.bundle import self_supervised
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.files import make_folder, write_json, write_text

__all__ = ["CONFIGS", "SCHEMA", "render_bundle", "write_bundle"]

CONFIGS = ("train", "pretrain", "adapt", "evaluate", "multi_gpu_train", "inference")
SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"
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


def _inline(value: Any) -> str:
    """A value as inline YAML: JSON is YAML, except that MONAI wants ``null`` and friends, which JSON has too."""
    return json.dumps(value, ensure_ascii=False)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("monai_transfer.bundle", "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  (YAML, not HTML)
    )
    environment.filters["y"] = _inline
    environment.filters["path"] = lambda path: ", ".join(repr(part) for part in path.split("/"))
    return environment


def _metadata(spec: BundleSpec) -> dict[str, Any]:
    spatial = spec.patch
    image_format = spec.modality or "magnitude"
    image = {
        "type": "image",
        "format": image_format,
        "modality": spec.modality or "unknown",
        "num_channels": len(spec.channel_names),
        "spatial_shape": spatial,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": spec.dense,
        "channel_def": {str(i): name for i, name in enumerate(spec.channel_names)},
    }
    output = {
        "type": {"classification": "probabilities", "regression": "array"}.get(spec.task, "image"),
        "format": {"classification": "classes", "regression": "array", "self_supervised": image_format}.get(
            spec.task, "segmentation"
        ),
        "num_channels": spec.out_channels,
        "spatial_shape": spatial if spec.dense else [],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": spec.dense,
        "channel_def": {str(i): name for i, name in enumerate(spec.class_names)},
    }
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "first version"},
        "monai_version": monai.__version__,
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {
            "nibabel": version("nibabel"),
            "itk-io": version("itk-io"),
            "pytorch-ignite": version("pytorch-ignite"),
            "monai-transfer": monai_transfer.__version__,
        },
        "name": spec.name,
        "task": f"{spec.spatial_dims}D {spec.task}",
        "description": spec.description or f"{spec.spatial_dims}D {spec.task}, transferred from one site to another",
        "authors": "monai_transfer authors",
        "copyright": "Copyright (c) monai_transfer authors",
        "data_source": spec.data_source or "the user's own manifest",
        "data_type": "image",
        "intended_use": "Research. Not a medical device; evaluate on your own labelled cases before any use.",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": output}},
        # beyond the schema: what `monai-transfer check --source` and `predict` read
        "transfer": {
            "task": spec.task,
            "spacing": spec.spacing,
            "orientation": "RAS" if spec.oriented else None,
            "source_site": spec.source_site,
            "target_site": spec.target_site,
            "data_statistics": spec.data_statistics,
            "weights": spec.weights_note,
        },
    }


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
| `infer` | inference.yaml (MONAI alone) | {spec.expect["inference"]} |

Run `python -m monai.bundle run --config_file "['configs/train.yaml','configs/adapt.yaml']"` in this folder, or
`monai-transfer run . adapt` from anywhere. `scripts/infer.py IMAGE... -o DIR` predicts with MONAI alone.
Opening a bundle runs the code in its configs: open only those whose author you trust.
"""


def render_bundle(spec: BundleSpec) -> dict[str, str]:
    """All text files of the bundle, by their path inside it."""
    environment = _environment()
    alone = spec.task == "self_supervised"  # other workflows, so other templates
    place, names = ("self_supervised/", self_supervised.CONFIGS) if alone else ("", CONFIGS)
    given = {"s": spec, **(self_supervised.values(spec) if alone else {})}
    files = {
        f"configs/{name}.yaml": environment.get_template(f"{place}{name}.yaml.j2").render(given).strip() + "\n"
        for name in names
    }
    files["configs/metadata.json"] = json.dumps(_metadata(spec), indent=2, ensure_ascii=False) + "\n"
    files["configs/logging.conf"] = _LOGGING
    files["scripts/__init__.py"] = ""
    files["scripts/infer.py"] = environment.get_template("infer.py.j2").render(s=spec)
    files["docs/README.md"] = self_supervised.readme(spec) if alone else _readme(spec)
    files["LICENSE"] = (Path(__file__).parent / "templates" / "LICENSE").read_text(encoding="utf-8")
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
