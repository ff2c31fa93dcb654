"""What a config line switches on: appearance, the cache, balanced draws, accumulation, choosing an epoch, bfloat16."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from monai_transfer.bundle.run import config_files, run_workflow
from monai_transfer.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")
SHORT = {"max_epochs": 2, "steps_per_epoch": 2, "val_interval": 1}
CLASSIFICATION = pytest.mark.parametrize("bundle", ["head_mr_slice_classification"], indirect=True)
BOTH = pytest.mark.parametrize("bundle", ["head_mr_slice_classification", "head_mr_segmentation"], indirect=True)


@pytest.fixture(scope="session")
def sets(embedded_set_of_two) -> dict[str, str]:
    tasks = {"head_mr_segmentation": "segmentation", "head_mr_slice_classification": "classification"}
    return {name: str(embedded_set_of_two(task)) for name, task in tasks.items()}


@pytest.fixture
def given(bundle, sets) -> dict[str, object]:
    return {**SHORT, "dataset_dir": sets[bundle.name]}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "models" / "model.pt", weights_only=True)


def same(a: Path, b: Path) -> bool:
    one, two = weights(a), weights(b)
    return all(torch.equal(one[key], two[key]) for key in one)


def opened(bundle: Path, workflow: str, given: dict, *more: str) -> ConfigWorkflow:
    flow = ConfigWorkflow(
        workflow_type="train",
        config_file=[*config_files(bundle, workflow), *more],
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        bundle_root=str(bundle),
        **given,
    )
    flow.initialize()
    return flow


@BOTH
def test_the_examples_of_the_header_run_when_pasted(bundle, given, tmp_path):
    """The commented lines of train.yaml, put into an overlay, are transforms of the training images alone."""
    text = (bundle / "configs" / "train.yaml").read_text()
    lines = re.findall(
        r"^# ((?:style:|augmentations:|- _target_|  \w).*)$", text[text.index("# ---- appearance") :], re.M
    )
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("\n".join(lines))
    asked = yaml.safe_load(overlay.read_text())
    assert {key: len(value) for key, value in asked.items()} == {"style": 2, "augmentations": 2}
    flow = opened(bundle, "adapt", {**given, "max_epochs": 1}, str(overlay))
    content = flow.parser.get_parsed_content
    names = [type(transform).__name__ for transform in content("train#preprocessing").transforms]
    wanted = [item["_target_"].rsplit(".", 1)[1] for key in ("style", "augmentations") for item in asked[key]]
    assert set(wanted) < set(names)
    assert names.index("FourierDomainAdaptd") < names.index("NormalizeIntensityd") < names.index("RandAppearanced")
    for part in ("validate", "test", "target"):
        others = {type(transform).__name__ for transform in content(f"{part}#preprocessing").transforms}
        assert not others & set(wanted), f"{part} images keep their own look"
    case = content("train#dataset")[0]
    assert torch.isfinite(case["image"]).all()
    if "label" in asked["augmentations"][0]["keys"]:
        assert case["label"].unique().tolist() == [0, 1, 2] and case["label"].shape == case["image"].shape
    flow.run()
    assert json.loads((bundle / "runs" / "adapt-0" / "run.json").read_text())["status"] == "finished"


@pytest.mark.parametrize(
    "bundle",
    ["head_mr_slice_classification", pytest.param("head_mr_segmentation", marks=pytest.mark.slow)],
    indirect=True,
)
def test_cached_runs_give_the_same_and_compute_nothing_twice(bundle, given, tmp_path):
    given = {**given, "max_epochs": 1, "n_labelled": 2}
    plain = run_workflow(bundle, "train", {**given, "output_dir": str(tmp_path / "plain")}, log=False)
    found = []
    for name in ("one", "two"):
        options = {"cache_dir": str(tmp_path / "cache"), "output_dir": str(tmp_path / name)}
        flow = opened(bundle, "train", {**given, **options})
        flow.run()
        parts = [flow.parser.get_parsed_content(f"{part}#dataset") for part in ("train", "validate", "test")]
        found.append([sum(part.computed for part in parts), sum(part.found for part in parts)])
        assert same(tmp_path / name, plain)
        assert (tmp_path / name / "cases.csv").read_text() == (plain / "cases.csv").read_text()
    assert found[0] == found[1][::-1] and found[0][0] > 4, "computed once, found ever after"


@CLASSIFICATION
@pytest.mark.parametrize("validator", ["information_maximisation", "snd"])
def test_an_epoch_can_be_chosen_without_target_labels(bundle, given, validator, tmp_path):
    given = {**given, "max_epochs": 3, "val_interval": 1}
    run = run_workflow(bundle, "adapt", {**given, "choose_by": validator}, log=False)
    assert json.loads((run / "run.json").read_text())["selected_by"] == validator
    rows = [row for row in csv.DictReader((run / "metrics.csv").open()) if row["split"] == "validation"]
    scores = [float(row["unlabelled"]) for row in rows]
    assert len(scores) == 3 and all(row["val_auc"] for row in rows)
    last = torch.load(run / "models" / "last.pt", weights_only=True)
    assert last["best"]["epoch"] == 1 + scores.index(max(scores))
    assert last["best"]["score"] == pytest.approx(max(scores), rel=1e-4)


@CLASSIFICATION
def test_few_target_cases_are_not_drowned(bundle, given):
    flow = opened(bundle, "adapt", {**given, "n_labelled": 2, "steps_per_epoch": 10})
    data, sampler = (
        flow.parser.get_parsed_content("train#dataset").data,
        flow.parser.get_parsed_content("train#sampler"),
    )
    sites = [data[i]["site"] for i in sampler]
    assert sum(item["site"] == "site_b" for item in data) == 2 < len(data) / 4
    assert abs(sites.count("site_b") - len(sites) / 2) <= 2


@CLASSIFICATION
def test_accumulated_halves_are_one_batch(bundle, given, tmp_path):
    """Without batch statistics the mean of two half batches' gradients is the whole batch's."""
    found = []
    for steps, size, times in ((2, 8, 1), (4, 4, 2)):
        options = {"steps_per_epoch": steps, "batch_size": size, "accumulation_steps": times, "max_epochs": 1}
        options |= {"train#random_transforms": [], "output_dir": str(tmp_path / str(times)), "n_labelled": None}
        options |= {"strategy": {"_target_": "monai_transfer.strategies.head_only.HeadOnly"}}
        run = run_workflow(bundle, "train", {**given, **options}, log=False)
        found.append(weights(run))
    moved = weights_of_start(bundle)
    assert any(not torch.equal(found[0][key], moved[key]) for key in moved)
    for key in moved:
        torch.testing.assert_close(found[0][key], found[1][key], rtol=1e-4, atol=1e-6)


def weights_of_start(bundle: Path) -> dict[str, torch.Tensor]:
    return torch.load(bundle / "models" / "model.pt", weights_only=True)


@CLASSIFICATION
def test_bf16_and_channels_last_are_config_lines(bundle, given, tmp_path):
    base = {**given, "max_epochs": 1, "n_labelled": 2}
    plain = run_workflow(bundle, "train", {**base, "output_dir": str(tmp_path / "plain")}, log=False)
    fast = {**base, "bf16": True, "channels_last": True, "output_dir": str(tmp_path / "fast")}
    run = run_workflow(bundle, "train", fast, log=False)
    assert not same(run, plain)
    for key, value in weights(run).items():
        assert value.dtype == weights(plain)[key].dtype
        torch.testing.assert_close(value, weights(plain)[key], rtol=0.2, atol=0.02)


@CLASSIFICATION
def test_a_frozen_backbone_runs_once_and_resuming_gives_the_same(bundle, given, tmp_path, caplog):
    frozen = {"strategy": {"_target_": "monai_transfer.strategies.head_only.HeadOnly"}, "train#random_transforms": []}
    base = {**given, **frozen, "n_labelled": 2, "max_epochs": 3}
    with caplog.at_level("INFO", logger="monai_transfer"):
        whole = run_workflow(bundle, "train", {**base, "output_dir": str(tmp_path / "whole")}, log=False)
    assert [line for line in caplog.messages if "feature cache: features of" in line]
    off = {**base, "feature_cache#enabled": False, "output_dir": str(tmp_path / "off")}
    assert same(run_workflow(bundle, "train", off, log=False), whole)
    part = tmp_path / "part"
    flow = opened(bundle, "train", {**base, "output_dir": str(part)})
    trainer = flow.parser.get_parsed_content("train#trainer")

    @trainer.on(Events.EPOCH_COMPLETED(once=2))
    def _stop(engine):
        raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        flow.run()
    assert json.loads((part / "run.json").read_text())["status"] == "running"
    again = run_workflow(bundle, "train", {**base, "output_dir": str(part)}, log=False)
    assert same(again, whole) and (again / "cases.csv").read_text() == (whole / "cases.csv").read_text()


@CLASSIFICATION
def test_probabilities_under_a_logits_loss_stop_the_first_batch(bundle, given):
    dense = "monai.networks.nets.DenseNet(2, 1, 2, init_features=8, growth_rate=4, block_config=(1, 1))"
    softmax = f"$torch.nn.Sequential({dense}, torch.nn.Softmax(1))"
    options = {"network_def": softmax, "pretrained": "none", "n_labelled": 2}
    with pytest.raises(Exception, match="") as caught:
        run_workflow(bundle, "train", {**given, **options}, log=False)
    error: BaseException = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, InputError) and "softmax" in str(error).lower()


@CLASSIFICATION
@pytest.mark.parametrize(
    ("method", "views"), [("fixmatch.Fixmatch", 1), ("mean_teacher.MeanTeacher", 1), ("coral.Coral", 0)]
)
def test_a_strong_view_comes_with_the_method_that_asks_for_it(bundle, given, method, views, caplog):
    given = {**given, "max_epochs": 1, "method": {"_target_": f"monai_transfer.methods.{method}"}}
    flow = opened(bundle, "adapt", given)
    target, source = (flow.parser.get_parsed_content(f"{part}#dataset") for part in ("target", "train"))
    case = target[0]
    assert ("strong" in case, "strong" in source[0]) == (bool(views), False)
    if views:
        assert case["strong"].shape == case["image"].shape and not torch.equal(case["strong"], case["image"])
        flow.run()
        assert "strongly augmented view" not in caplog.text


@CLASSIFICATION
def test_fine_tuning_can_be_held_to_its_source(bundle, given, tmp_path):
    """The term, in place of weight decay, keeps the weights nearer to where they started."""
    start, base = weights_of_start(bundle), {**given, "max_epochs": 1, "n_labelled": 2, "lr": 0.01}
    held = {"_target_": "monai_transfer.methods.l2_sp.L2Sp", "alpha": 10.0}
    far = []
    for name, regulariser in (("free", None), ("held", held)):
        options = {**base, "regulariser": regulariser, "output_dir": str(tmp_path / name)}
        flow = opened(bundle, "train", options)
        decay = flow.parser.get_parsed_content("optimizer").param_groups[0]["weight_decay"]
        assert decay == (0.0 if regulariser else 1e-4)
        flow.run()
        moved = weights(tmp_path / name)
        far.append(sum(float((moved[k] - start[k]).square().sum()) for k in start if start[k].ndim > 1))
        assert ("adapt_loss" in (tmp_path / name / "metrics.csv").read_text()) == bool(regulariser)
    assert far[1] < far[0]
    for workflow in ("pretrain", "adapt"):
        text = yaml.safe_load((bundle / "configs" / f"{workflow}.yaml").read_text())
        assert text["regulariser"] is None, "the term is fine-tuning's alone"
