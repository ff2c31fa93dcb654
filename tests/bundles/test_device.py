"""A device may be a word: from the shell, from plain `monai.bundle run`, from MONAI Label."""

from __future__ import annotations

import json

import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_transfer.bundle.run import config_files

pytestmark = pytest.mark.filterwarnings("ignore")
ENGINES = {"train": ("train#trainer", "validate#evaluator", "test#evaluator"), "adapt": ("train#trainer",)}


def opened(bundle, workflow: str, **overrides) -> ConfigWorkflow:
    flow = ConfigWorkflow(
        workflow_type="infer" if workflow == "infer" else "train",
        config_file=config_files(bundle, workflow),
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        bundle_root=str(bundle),
        **overrides,
    )
    flow.initialize()
    return flow


@pytest.mark.parametrize("workflow", ["train", "adapt", "infer"])
def test_every_engine_takes_a_word(bundle, workflow):
    flow = opened(bundle, workflow, device="cpu")
    for id in ENGINES.get(workflow, ("evaluator",)):
        engine = flow.parser.get_parsed_content(id)
        assert engine.state.device == torch.device("cpu") and engine.amp is False
    assert flow.check_properties() == []


@pytest.mark.parametrize(
    ("device", "amp"), [("cuda", True), ("cuda:1", True), (torch.device("cuda"), True), ("cpu", False)]
)
@pytest.mark.parametrize("bundle", ["head_mr_slice_classification"], indirect=True)
def test_mixed_precision_follows_the_device(bundle, device, amp):
    """Nothing is moved there: only the ids are read."""
    for workflow in ("train", "infer"):
        flow = opened(bundle, workflow, device=device)
        assert flow.parser.get_parsed_content("amp") is amp


@pytest.mark.slow  # the engines' own device is read above; two processes import everything anew
@pytest.mark.parametrize("bundle", ["head_mr_slice_classification"], indirect=True)
def test_plain_monai_runs_on_a_named_device(bundle, python):
    words = ["-m", "monai.bundle", "run", "--device", "cpu", "--config_file"]
    short = ["--max_epochs", "1", "--steps_per_epoch", "1", "--val_interval", "1"]
    python(*words, "['configs/train.yaml','configs/adapt.yaml']", *short, cwd=bundle)
    assert json.loads((bundle / "runs" / "adapt-0" / "run.json").read_text())["status"] == "finished"
    python(*words, "configs/inference.yaml", cwd=bundle)
    assert (bundle / "predictions" / "predictions.csv").is_file()
