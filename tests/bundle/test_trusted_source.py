"""`new --trust-source`: a network of the source's own scripts, and `$` expressions, from `new` to `export`."""

from __future__ import annotations

import json
import sys

import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow

from monai_transfer.bundle.export import export_bundle
from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.bundle_reader.running import TrustedConfig, own_scripts
from monai_transfer.bundle_reader.trust import code_sha256, decide
from monai_transfer.errors import InputError
from monai_transfer.predict.images import predict_images
from tests.security.corpus import METADATA
from tests.tiny_sets import SHORT

SMALL = {"target_site": "north", "size": "small", "epochs": 1, "steps_per_epoch": 2}
BLOCKS = """
import torch
def block(inside, outside):
    return torch.nn.Sequential(torch.nn.Conv2d(inside, outside, 3, padding=1), torch.nn.ReLU())
"""
NET = """
from pathlib import Path
import torch
from scripts.blocks import block
from .blocks import block as again
assert block is again
Path(CANARY).touch()
class Net(torch.nn.Module):
    def __init__(self, width, kind=torch.nn.Conv2d, out_channels=2):
        super().__init__()
        self.first, self.last = block(1, width), kind(width, out_channels, 1)
    def forward(self, x):
        return self.last(self.first(x))
"""
STEPS = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "ScaleIntensityd", "keys": "image", "minv": "$float(len('')) - json.loads('1')"},
]
AFTER = [
    {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
    {"_target_": "SaveImaged", "keys": "pred", "output_dir": "predictions", "output_ext": ".png", "resample": False},
]


def theirs(folder, network):
    for name in ("configs", "scripts", "models"):
        (folder / name).mkdir(parents=True)
    (folder / "scripts" / "__init__.py").write_text("from .net import Net\n")
    (folder / "scripts" / "net.py").write_text(NET.replace("CANARY", repr(str(folder.parent / "canary"))))
    (folder / "scripts" / "blocks.py").write_text(BLOCKS)
    (folder / "scripts" / "infer.py").write_text("raise RuntimeError('not this one')\n")
    (folder / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    config = {
        "imports": ["$import json", "$import scripts"],
        "width": "$json.loads('3')",
        "network_def": network,
        "preprocessing": {"_target_": "Compose", "transforms": STEPS},
        "postprocessing": {"_target_": "Compose", "transforms": AFTER},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "$json.loads('[32, 32]')"},
        "dataset": {"_target_": "Dataset", "data": [], "transform": "@preprocessing"},
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    with own_scripts(folder):
        from scripts import Net  # type: ignore[import-not-found]

        torch.save(Net(3).state_dict(), folder / "models" / "model.pt")
    (folder.parent / "canary").unlink()
    return folder


@pytest.fixture
def data(tiny_set):
    return tiny_set("segmentation", 2)


NETWORKS = {
    "target": {"_target_": "scripts.net.Net", "width": "@width", "kind": "$torch.nn.Conv2d"},
    "expression": "$scripts.Net(@width, kind=torch.nn.Conv2d).to('cpu')",
}


@pytest.mark.parametrize("form", NETWORKS)
def test_own_code_becomes_a_bundle_once_trusted(form, data, tmp_path):
    source, bundle = theirs(tmp_path / "theirs", NETWORKS[form]), tmp_path / "my_segmentation"
    with pytest.raises(InputError, match="--trust-source"):
        new_bundle(bundle, data, source=source, **SMALL)
    assert not (tmp_path / "canary").exists() and not bundle.exists()
    spec = new_bundle(bundle, data, source=source, trust_source=True, **SMALL)
    assert (tmp_path / "canary").exists()
    told = {"bundle": "theirs", "code_sha256": code_sha256(source)}
    assert spec.trusted == told
    assert json.loads((bundle / "models" / "source.json").read_text())["trusted"] == told
    assert spec.network["out_channels"] == 2 and spec.network["width"] == 3
    assert spec.network["kind"] == {"_target_": "torch.nn.modules.conv.Conv2d", "_mode_": "callable"}
    assert spec.kept is not None and spec.kept.image[-1]["minv"] == -1.0, "the value of the expression, not its text"
    assert spec.kept.inferer["roi_size"] == [32, 32]
    written = (bundle / "configs" / "inference.yaml").read_text() + (bundle / "configs" / "train.yaml").read_text()
    assert "json.loads" not in written
    assert "not this one" not in (bundle / "scripts" / "infer.py").read_text()


def test_it_trains_predicts_and_exports(data, tmp_path):
    source, bundle = theirs(tmp_path / "theirs", NETWORKS["target"]), tmp_path / "my_segmentation"
    told = new_bundle(bundle, data, source=source, trust_source=True, **SMALL).trusted
    run = run_workflow(bundle, "train", SHORT, log=False)
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished" and record["trusted"] == told
    with pytest.raises(InputError, match="--trust-source"):  # a run lies in the bundle's runs/, and uses its scripts
        new_bundle(tmp_path / "second_segmentation", data, source=run, **SMALL)
    spec = new_bundle(tmp_path / "second_segmentation", data, source=run, trust_source=True, **SMALL)
    assert spec.network["_target_"] == "scripts.net.Net"
    assert (tmp_path / "second_segmentation" / "scripts" / "blocks.py").exists()
    image = next((data.parent / "images").glob("north_test*.png"))
    assert predict_images(bundle, [image], tmp_path / "ours").written
    script = export_bundle(bundle, "torchscript", tmp_path / "model.ts", run=run)
    assert torch.jit.load(str(script))(torch.zeros(1, 1, 32, 32)).shape == (1, 2, 32, 32)
    deployed = export_bundle(bundle, "bundle", tmp_path / "deployed")
    flow = ConfigWorkflow(  # plain MONAI puts the bundle's folder where its scripts are found
        workflow_type="infer",
        config_file=str(deployed / "configs" / "inference.yaml"),
        logging_file=False,
        bundle_root=str(deployed),
        dataset_dir=str(image.parent),
        pattern=image.name,
        output_dir=str(tmp_path / "alone"),
    )
    flow.initialize()
    flow.run()
    assert list((tmp_path / "alone").rglob("*.png"))
    for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
        del sys.modules[name]

    (bundle / "scripts" / "blocks.py").write_text(BLOCKS + "# changed\n")
    with pytest.raises(InputError, match="--trust-source"):
        predict_images(bundle, [image], tmp_path / "again")
    assert not any(name.split(".")[0] == "scripts" for name in sys.modules)


def test_what_no_config_can_hold_is_said(data, tmp_path):
    source = theirs(tmp_path / "theirs", {"_target_": "scripts.net.Net", "width": "$[object()]"})
    with pytest.raises(InputError, match="width gives what no config can hold"):
        new_bundle(tmp_path / "b", data, source=source, trust_source=True, **SMALL)
    named = theirs(tmp_path / "others" / "theirs", "$torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1))")
    with pytest.raises(InputError, match="hands arguments without names to torch.nn"):
        new_bundle(tmp_path / "b", data, source=named, trust_source=True, **SMALL)
    assert not (tmp_path / "b").exists()


def test_outputs_that_cannot_be_set_must_be_those_of_the_data(tiny_set, tmp_path):
    data = tiny_set("segmentation", 2, labels=("background", "lesion", "tumour"))
    source = theirs(
        tmp_path / "theirs", {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 2} | {"kernel_size": 1}
    )
    torch.save(torch.nn.Conv2d(1, 2, 1).state_dict(), source / "models" / "model.pt")
    spec = new_bundle(tmp_path / "a", data, source=source, trust_source=True, **SMALL)
    assert spec.network["out_channels"] == 3
    (source / "scripts" / "fixed.py").write_text("import torch\ndef make(): return torch.nn.Conv2d(1, 2, 1)\n")
    config = json.loads((source / "configs" / "inference.json").read_text())
    (source / "configs" / "inference.json").write_text(
        json.dumps(config | {"network_def": {"_target_": "scripts.fixed.make"}})
    )
    with pytest.raises(InputError, match="has 2 outputs, and the data need 3"):
        new_bundle(tmp_path / "b", data, source=source, trust_source=True, **SMALL)


def test_disabled_parts_and_relative_ids_are_followed(tmp_path):
    source = theirs(tmp_path / "theirs", NETWORKS["target"])
    config = {
        "size": "$[2 ** n for n in (3, 4)]",
        "parts": [{"_target_": "a.B", "_disabled_": "$1 > 0"}, {"_target_": "a.C", "n": "$@size[0]", "m": "@##0"}],
        "copied": "%parts#1",
    }
    (source / "configs" / "inference.json").write_text(json.dumps(config))
    made = TrustedConfig(decide(source, trust_source=True))
    assert made.as_data("size") == [8, 16]
    assert yaml.safe_load(json.dumps(made.as_data("parts")))[0]["n"] == 8
