"""What the four consumers of a bundle ask of it: MONAI's own tools, MONAI Label, federated clients, MONAI Deploy."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.apps.utils import check_hash
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject

from monai_transfer.bundle.export import export_bundle
from tests.bundles.conftest import NAMES

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = {"max_epochs": 1, "steps_per_epoch": 2}
# an exported bundle must run where this package is not installed


def quick_for(*names: str) -> pytest.MarkDecorator:
    """Every packaged bundle; those not named only among the slow tests (each is a process that loads MONAI anew)."""
    params = [pytest.param(name, marks=() if name in names else pytest.mark.slow) for name in NAMES]
    return pytest.mark.parametrize("bundle", params, indirect=True)


BLOCK = "import sys; sys.modules['monai_transfer'] = None\n"


def workflow(bundle: Path, kind: str, names: list[str], **overrides) -> ConfigWorkflow:
    return ConfigWorkflow(
        workflow_type=kind,
        config_file=[str(bundle / "configs" / f"{name}.yaml") for name in names],
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        **overrides,
    )


# ---------------------------------------------------------------------- MONAI bundle, model zoo
def test_verify_metadata(bundle, schema, tmp_path):
    assert check_hash(str(schema), None)
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(schema))
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    assert (bundle / "LICENSE").is_file()


@pytest.mark.parametrize("config", ["train", "inference"])
def test_verify_net_in_out(bundle, config, monkeypatch):
    monkeypatch.chdir(bundle)
    verify_net_in_out(
        net_id="network_def", meta_file="configs/metadata.json", config_file=f"configs/{config}.yaml", device="cpu"
    )


@quick_for("head_mr_slice_classification")
def test_ckpt_export_from_the_command_line(bundle, python):
    words = ["-m", "monai.bundle", "ckpt_export", "--net_id", "network_def", "--filepath", "models/model.ts"]
    words += ["--ckpt_file", "models/model.pt", "--meta_file", "configs/metadata.json"]
    python(*words, "--config_file", "configs/inference.yaml", cwd=bundle)
    script = torch.jit.load(str(bundle / "models" / "model.ts"))
    parser = ConfigParser.load_config_file(str(bundle / "configs" / "inference.yaml"))
    network = ConfigParser({"network_def": parser["network_def"]}).get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    size = 32
    image = torch.randn(1, 1, *[size] * parser["network_def"]["spatial_dims"])
    with torch.no_grad():
        torch.testing.assert_close(script.eval()(image), network(image))


@pytest.mark.parametrize(("kind", "names"), [("train", ["train"]), ("infer", ["inference"])])
def test_check_properties_from_elsewhere_and_from_its_own_folder(bundle, kind, names, monkeypatch, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    flow = workflow(bundle, kind, names, bundle_root=str(bundle))
    flow.initialize()
    assert flow.check_properties() == []
    monkeypatch.chdir(bundle)
    flow = workflow(Path(), kind, names)
    flow.initialize()
    assert flow.check_properties() == []
    assert not list(elsewhere.iterdir())


def test_weights_are_small_and_hashed(bundle):
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert sum(tensor.numel() for tensor in weights.values()) <= 250_000
    recorded = (bundle / "models" / "model.pt.sha256").read_text().split()[0]
    assert check_hash(str(bundle / "models" / "model.pt"), recorded, "sha256")


# ---------------------------------------------------------------------- plain MONAI, without this package
@quick_for("head_mr_lesion_localization", "head_mr_segmentation")
def test_inference_at_once_from_a_fresh_clone_without_this_package(bundle, task, python):
    files = list((bundle / "sample").iterdir())
    assert files, "a bundle brings a sample"
    script = f"{BLOCK}from monai.bundle import run; run(config_file='configs/inference.yaml')"
    python("-c", script, cwd=bundle)
    if task == "segmentation":
        (image,) = (nibabel.load(path) for path in files)
        (mask,) = (nibabel.load(path) for path in (bundle / "predictions").rglob("*.nii.gz"))
        assert mask.shape == image.shape
        np.testing.assert_allclose(mask.affine, image.affine, atol=1e-5)
        assert mask.get_data_dtype() == np.uint8
        values = np.unique(np.asarray(mask.dataobj))
        assert len(values) > 1 and values.max() <= 2, "the shipped weights find something"
    elif task == "localization":
        (image,) = (nibabel.load(path) for path in files)
        found = json.loads((bundle / "predictions" / f"{files[0].name.split('.')[0]}_boxes.json").read_text())
        assert found["boxes"], "the shipped weights find something"
        for box in found["boxes"]:
            assert 0.1 <= box["score"] <= 1 and box["label"] == "lesion"
            ends = np.array([box["voxel_low"], box["voxel_high"]])
            assert (ends[0] >= 0).all() and (ends[1] <= image.shape).all() and (ends[0] < ends[1]).all()
            world = nibabel.affines.apply_affine(image.affine, ends - 0.5)
            np.testing.assert_allclose([world.min(0), world.max(0)], [box["world_low"], box["world_high"]], atol=1e-2)
    else:
        ((_, *scores),) = csv.reader((bundle / "predictions" / "predictions.csv").open())
        if task == "classification":
            assert sum(map(float, scores)) == pytest.approx(1, abs=1e-4)
        else:
            assert np.isfinite(float(scores[0])) and len(scores) == 1


@quick_for("head_mr_lesion_localization")
def test_inference_script_keeps_equal_names_apart_without_this_package(bundle, task, python, tmp_path):
    (sample,) = (bundle / "sample").iterdir()
    for patient in "ab":
        (tmp_path / "in" / patient).mkdir(parents=True)
        (tmp_path / "in" / patient / sample.name).write_bytes(sample.read_bytes())
    # as if installed: the block comes first in the interpreter that runs the script
    run = f"runpy.run_path(r'{bundle}/scripts/infer.py', run_name='__main__')"
    code = f"{BLOCK}import runpy; sys.argv = ['infer.py', 'in', '-o', 'out']; {run}"
    python("-c", code, cwd=tmp_path)
    if task == "segmentation":
        assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 2
    elif task == "localization":
        assert len(list((tmp_path / "out").rglob("*_boxes.json"))) == 2
    else:
        assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 2


def test_inference_config_names_nothing_of_ours(bundle):
    text = (bundle / "configs" / "inference.yaml").read_text() + (bundle / "scripts" / "infer.py").read_text()
    assert not re.search(r"\bmonai_transfer\b", text)


# ---------------------------------------------------------------------- MONAI Label
def test_monai_label_injects_its_own_data_and_handlers(bundle, monkeypatch):
    """Its contract: plain train config, handlers as dicts, these ids overridden, a checkpoint loader put in front."""
    monkeypatch.chdir(bundle)
    config = ConfigParser.load_config_file("configs/train.yaml")
    handlers = config["train"]["handlers"]
    assert all(isinstance(handler, dict) for handler in handlers)
    flow = workflow(bundle, "train", ["train"], bundle_root=str(bundle), **TINY)
    flow.initialize()
    items = [dict(item) for item in flow.parser.get_parsed_content("lists").target_training]
    items = [{"image": item["image"], "label": item["label"]} for item in items]
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": str(bundle / "models" / "model.pt"),
        "load_dict": {"model": "$@network"},
        "strict": False,
    }
    overrides = {
        "bundle_root": str(bundle),
        "device": "$torch.device('cpu')",
        "steps_per_epoch": 2,
        "train#trainer#max_epochs": 1,
        "train#dataset#data": items[:2],
        "validate#dataset#data": items[2:3],
        "train#handlers": [loader, *handlers],
    }
    flow = workflow(bundle, "train", ["train"], **overrides)
    flow.initialize()
    assert flow.check_properties() == []
    flow.run()
    assert flow.parser.get_parsed_content("train#trainer").state.epoch == 1
    record = json.loads((bundle / "runs" / "train-0" / "run.json").read_text())
    assert (record["labelled_train"], record["labelled_validation"], record["status"]) == (2, 1, "finished")
    assert (bundle / "runs" / "train-0" / "models" / "model.pt").is_file()


# ---------------------------------------------------------------------- federated clients
def test_federated_rounds_start_from_the_servers_weights(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    algo = MonaiAlgo(
        bundle_root=str(bundle),
        local_epochs=1,
        send_weight_diff=False,
        config_train_filename="configs/train.yaml",
        train_kwargs={"steps_per_epoch": 1, "lr": 0.0, "val_interval": 1},
        config_evaluate_filename=["configs/train.yaml", "configs/evaluate.yaml"],
    )
    algo.initialize({ExtraItems.CLIENT_NAME: "hospital", ExtraItems.APP_ROOT: ""})
    own = algo.get_weights().weights
    started = torch.load(bundle / "models" / "model.pt", weights_only=True)
    learned = [name for name, _ in algo.trainer.network.named_parameters()]
    assert all(np.array_equal(own[name], started[name].numpy()) for name in learned), "pretrained weights are the start"
    for factor in (0.5, 0.25):  # worse and worse, so that the best epoch is not the last one
        sent = {name: np.asarray(value) * (factor if name in learned else 1) for name, value in own.items()}
        algo.train(ExchangeObject(weights=sent))
        back = algo.get_weights().weights
        for name in learned:  # the learning rate is 0: whatever differs was loaded over the server's weights
            np.testing.assert_array_equal(np.asarray(back[name]), sent[name], err_msg=f"round with {factor}: {name}")
    assert algo.trainer.state.epoch == 2
    metrics = algo.evaluate(ExchangeObject(weights=own)).metrics
    key = algo.evaluator.state.key_metric_name
    assert np.isfinite(metrics[key])
    assert sorted(p.name for p in (bundle / "models").iterdir()) == ["model.pt", "model.pt.sha256"]


# ---------------------------------------------------------------------- MONAI Deploy
def test_deploy_reads_torchscript_with_extra_files(bundle, task, tmp_path):
    path = export_bundle(bundle, "torchscript", tmp_path / "model.ts")
    extra = {"metadata.json": "", "inference.json": ""}
    script = torch.jit.load(str(path), _extra_files=extra).eval()
    metadata = json.loads(extra["metadata.json"])
    assert metadata["name"] == bundle.name and "network_data_format" in metadata
    parser = ConfigParser(json.loads(extra["inference.json"]))
    # as monai-deploy's bundle operators do: each component by itself, no evaluator, no dataset
    preprocessing = parser.get_parsed_content("preprocessing")
    inferer = parser.get_parsed_content("inferer")
    postprocessing = parser.get_parsed_content("postprocessing")
    assert parser.get_parsed_content("device").type in ("cpu", "cuda")
    (sample,) = (bundle / "sample").iterdir()
    data = preprocessing({"image": str(sample)})
    with torch.no_grad():
        data["pred"] = inferer(data["image"][None], script)[0]
    names = {type(transform).__name__ for transform in postprocessing.transforms}
    assert names <= {"Invertd", "AsDiscreted", "SaveImaged", "Activationsd", "Lambdad", "CopyItemsd"}
    for transform in postprocessing.transforms:
        if type(transform).__name__ != "SaveImaged":
            data = transform(data)
    if task == "segmentation":
        assert data["pred"].shape[1:] == nibabel.load(sample).shape
    elif task == "localization":
        assert data["pred"].shape[1:] == nibabel.load(sample).shape and data["boxes"]["boxes"]
    elif task == "classification":
        assert float(data["pred"].sum()) == pytest.approx(1, abs=1e-4)
    else:
        assert data["pred"].shape == (1,)


# ---------------------------------------------------------------------- two processes
@pytest.mark.slow
@pytest.mark.parametrize("overlay", [[], ["adapt"], ["pretrain"]])
def test_two_processes(bundle, overlay, python):
    _torchrun(bundle, overlay, python)


@pytest.mark.slow  # tests/engine/test_adapt.py holds quickly that two ranks equal one process
def test_two_processes_adapt(segmentation, python):
    _torchrun(segmentation, ["adapt"], python)


def _torchrun(bundle, overlay, python):
    names = ["train", *overlay, "multi_gpu_train"]
    files = "[" + ",".join(f"'configs/{name}.yaml'" for name in names) + "]"
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle", "run"]
    words += ["--config_file", files, "--max_epochs", "1", "--steps_per_epoch", "2", "--val_interval", "1"]
    python(*words, cwd=bundle, CUDA_VISIBLE_DEVICES="")
    kind = overlay[0] if overlay else "train"
    run = bundle / "runs" / f"{kind}-0"
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    rows = list(csv.DictReader((run / "cases.csv").open()))
    assert len(rows) == len({row["case"] for row in rows}) > 0
    weights = torch.load(run / "models" / "model.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in weights)
