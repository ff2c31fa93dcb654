"""The bundle for pretraining without labels: its workflows, its consumers, and what another bundle takes from it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out
from PIL import Image

from monai_transfer import load_weights
from monai_transfer.bundle.export import export_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.engine.progress import ProgressLine
from tests.tiny_sets import copied

pytestmark = pytest.mark.filterwarnings("ignore")
BUNDLES = Path(__file__).parents[2] / "bundles"
NAME = "head_mr_self_supervised"
TINY = {"max_epochs": 3, "steps_per_epoch": 2, "val_interval": 1, "batch_size": 2}
BLOCK = "import sys; sys.modules['monai_transfer'] = None\n"


@pytest.fixture
def bundle(tmp_path) -> Path:
    return copied(NAME, tmp_path)


@pytest.fixture(scope="session")
def unlabelled(embedded_set_of_two, tmp_path_factory) -> str:
    """Two patients per site and split, without any label, and with test images that nobody can read."""
    folder = tmp_path_factory.mktemp("sets") / "unlabelled"
    shutil.copytree(embedded_set_of_two("segmentation"), folder)
    shutil.rmtree(folder / "labels")
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    for split in ("training", "validation", "test"):
        for item in content[split]:
            item["label"] = None
    for item in content["test"]:
        image = folder / item["image"]
        shutil.rmtree(image) if image.is_dir() else image.write_bytes(b"not to be opened")
    content["unlabeled"] = [content["training"].pop()]
    path.write_text(json.dumps(content))
    return str(folder)


@pytest.mark.parametrize("workflow", ["train", "contrastive"])
def test_learns_from_scans_without_labels_and_continues_where_it_was_stopped(
    bundle, unlabelled, workflow, tmp_path, monkeypatch
):
    overrides = {**TINY, "dataset_dir": unlabelled}
    whole = run_workflow(bundle, workflow, {**overrides, "output_dir": str(tmp_path / "whole")}, log=False)
    record = json.loads((whole / "run.json").read_text())
    assert record["status"] == "finished" and record["task"] == "self_supervised"
    assert (record["unlabelled_train"], record["unlabelled_validation"]) == (4, 4)
    rows = list(csv.DictReader((whole / "metrics.csv").open()))
    metric = {"train": "val_masked_error", "contrastive": "val_contrast"}[workflow]
    assert [float(row[metric]) > 0 for row in rows if row["split"] == "validation"] == [True] * 3

    class Stop(Exception):
        pass

    def stop(self, engine):
        if engine.state.epoch == 2:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(ProgressLine, "_report", stop)
        with pytest.raises(Exception):  # noqa: B017, PT011  (MONAI wraps what stops it)
            run_workflow(bundle, workflow, {**overrides, "output_dir": str(tmp_path / "part")}, log=False)
    part = run_workflow(bundle, workflow, {**overrides, "output_dir": str(tmp_path / "part")}, log=False)
    assert json.loads((part / "run.json").read_text())["resumed"]
    one, two = (torch.load(run / "models" / "model.pt", weights_only=True) for run in (whole, part))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    if workflow == "train":
        picture = np.asarray(Image.open(whole / "figures" / "reconstruction.png"))
        assert picture.std() > 10
        assert not any("projection" in key for key in one)
    else:
        assert not any(key.startswith("model.2") for key in one), "what never learnt is not passed on"


def test_weights_are_small_hashed_and_start_the_segmentation_bundle(bundle):
    segmentation = ConfigParser.load_config_file(str(BUNDLES / "head_mr_segmentation" / "configs" / "train.yaml"))
    network = ConfigParser({"n": segmentation["network_def"]}).get_parsed_content("n")
    fresh = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for source in (bundle, bundle / "models" / "model.pt"):
        report = load_weights(network, source, target_classes=segmentation["class_names"])
        assert report.coverage > 0.95
        assert report.skipped and all(name.startswith("model.2.") for name in report.skipped), report.skipped
        assert all(torch.equal(network.state_dict()[name], fresh[name]) for name in report.skipped)
        assert not report.missing and not report.unused
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert sum(tensor.numel() for tensor in weights.values()) <= 250_000


def test_fine_tuning_reports_what_came_over(bundle, embedded_set_of_two, tmp_path):
    """``monai-transfer run head_mr_segmentation train --pretrained .../models/model.pt``"""
    target = shutil.copytree(BUNDLES / "head_mr_segmentation", tmp_path / "target")
    given = {
        "dataset_dir": str(embedded_set_of_two("segmentation")),
        "n_labelled": 2,
        "max_epochs": 1,
        "steps_per_epoch": 2,
    }
    run = run_workflow(target, "train", {**given, "pretrained": str(bundle / "models" / "model.pt")}, log=False)
    report = json.loads((run / "weights.json").read_text())
    assert report["coverage"] > 0.95 and report["skipped"]
    assert json.loads((run / "run.json").read_text())["pretrained_sha256"]


# ---------------------------------------------------------------------- consumers
def test_metadata(bundle, schema):
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(schema))


@pytest.mark.parametrize("config", ["train", "inference"])
def test_network_in_and_out(bundle, config, monkeypatch):
    monkeypatch.chdir(bundle)
    verify_net_in_out(
        net_id="network_def", meta_file="configs/metadata.json", config_file=f"configs/{config}.yaml", device="cpu"
    )


@pytest.mark.parametrize(
    ("kind", "names"), [("train", ["train"]), ("infer", ["inference"]), ("train", ["train", "contrastive"])]
)
def test_required_ids(bundle, kind, names):
    flow = ConfigWorkflow(
        workflow_type=kind,
        config_file=[str(bundle / "configs" / f"{name}.yaml") for name in names],
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        bundle_root=str(bundle),
    )
    flow.initialize()
    assert flow.check_properties() == []


def test_features_from_a_fresh_clone_without_this_package(bundle, python):
    (sample,) = (bundle / "sample").iterdir()
    python("-c", f"{BLOCK}from monai.bundle import run; run(config_file='configs/inference.yaml')", cwd=bundle)
    ((name, *features),) = csv.reader((bundle / "predictions" / "predictions.csv").open())
    assert Path(name).name == sample.name
    assert len(features) == 32 and np.std([float(value) for value in features]) > 0
    text = (bundle / "configs" / "inference.yaml").read_text() + (bundle / "scripts" / "infer.py").read_text()
    assert not re.search(r"\bmonai_transfer\b", text)


def test_features_are_those_of_the_layer(bundle):
    parser = ConfigParser.load_config_file(str(bundle / "configs" / "inference.yaml"))
    parser = ConfigParser({key: parser[key] for key in ("imports", "network_def", "pool", "flatten", "encoder")})
    network, encoder = (parser.get_parsed_content(key).eval() for key in ("network_def", "encoder"))
    layer = ConfigParser.load_config_file(str(bundle / "configs" / "contrastive.yaml"))["layer"]
    heard = []
    network.get_submodule(layer).register_forward_hook(lambda _m, _i, output: heard.append(output.mean((2, 3, 4))))
    image = torch.randn(2, 1, 16, 16, 16)
    with torch.no_grad():
        network(image)
        torch.testing.assert_close(encoder(image), heard[0])


def test_torchscript(bundle, tmp_path):
    script = torch.jit.load(str(export_bundle(bundle, "torchscript", tmp_path / "model.ts"))).eval()
    assert script(torch.randn(1, 1, 16, 16, 16)).shape == (1, 1, 16, 16, 16)


@pytest.mark.slow
@pytest.mark.parametrize("overlay", [[], ["contrastive"]])
def test_two_processes(bundle, overlay, python, unlabelled):
    names = ["train", *overlay, "multi_gpu_train"]
    files = "[" + ",".join(f"'configs/{name}.yaml'" for name in names) + "]"
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle", "run"]
    words += ["--config_file", files, "--max_epochs", "1", "--steps_per_epoch", "2", "--val_interval", "1"]
    python(*words, "--batch_size", "2", "--dataset_dir", unlabelled, cwd=bundle, CUDA_VISIBLE_DEVICES="")
    run = bundle / "runs" / f"{overlay[0] if overlay else 'train'}-0"
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    weights = torch.load(run / "models" / "model.pt", weights_only=True)
    assert weights and not any(name.startswith(("module.", "projection")) for name in weights)
