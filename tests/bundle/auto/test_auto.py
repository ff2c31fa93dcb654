"""``strategy=auto`` on a tiny bundle: one model, the decision in its record, and no test case in any candidate."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from monai_transfer.bundle.auto import plan as planning
from monai_transfer.bundle.auto.plan import make_plan
from monai_transfer.bundle.auto.run import level_of, run_auto
from monai_transfer.bundle.command_line import named_strategy
from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.errors import InputError
from monai_transfer.report.run import Run

pytestmark = pytest.mark.filterwarnings("ignore")
SHORT = {"max_epochs": 2, "steps_per_epoch": 3, "val_interval": 1}


@pytest.fixture(scope="module")
def bundle(tiny_set, tmp_path_factory) -> Path:
    """Pretrained on the north site long enough that it knows something of the south site's lesions."""
    folder = tmp_path_factory.mktemp("auto") / "tiny_segmentation"
    sites = {"source_site": "north", "target_site": "south"}
    new_bundle(folder, tiny_set("segmentation", 2), size="small", batch_size=2, **sites, pretrain_epochs=6)
    run_workflow(folder, "pretrain", {"steps_per_epoch": 5}, log=False)
    return folder


def start(bundle: Path) -> dict:
    return {**SHORT, "pretrained": str(bundle / "runs" / "pretrain-0" / "models" / "model.pt")}


def read(folder: Path) -> tuple[dict, set[str]]:
    with (folder / "cases.csv").open(newline="") as stream:
        cases = {row["case"] for row in csv.DictReader(stream)}
    return json.loads((folder / "run.json").read_text()), cases


def noise(bundle: Path, path: Path) -> str:
    """Weights of random numbers in the place of the source's, as constant as an untrained network is."""
    state = torch.load(bundle / "runs" / "pretrain-0" / "models" / "model.pt", weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for name, value in state.items():
        if value.is_floating_point() and "running" not in name:
            state[name] = 0.5 * torch.randn(value.shape, generator=generator)
    torch.save(state, path)
    return str(path)


def test_few_labelled_patients_follow_a_fixed_rule(bundle, tmp_path):
    said: list[str] = []
    out = tmp_path / "run"
    folder = run_auto(bundle, {**start(bundle), "n_labelled": 2, "output_dir": str(out)}, log=False, say=said.append)
    assert folder == out
    record, tested = read(out)
    decision = record["auto"]
    assert (record["arm"], record["workflow"], record["joint"], record["steps"]) == ("auto", "train", True, 6)
    assert (decision["taken"], decision["rule"], decision["labelled_patients"]) == ("joint_averaged", "fixed rule", 4)
    average = json.loads((out / "weight_average.json").read_text())
    assert average["statistics"] and 0.5 <= average["tuned_share"] < 1, (
        "by how well the source does on the labelled cases"
    )
    assert decision["cost"] == 1.0 and set(decision["scores"]) == {"source"} and decision["source_level"] > 0.1
    assert "Cost: at most 1.00 times one fine-tuning" in said[0] and said[1].startswith(
        "auto takes joint training averaged"
    )
    assert tested == {"south_test_0", "south_test_1"}
    looked, cases = read(out / "candidates" / "source")
    assert len(cases) == 4 and not cases & tested, "the source is scored on labelled cases, never on test cases"
    assert not (out / "candidates" / "source" / "models").exists() and (out / "models" / "model.pt").is_file()
    assert not (tmp_path / "run.candidates").exists()
    with pytest.raises(InputError, match="finished run"):
        run_auto(bundle, {**start(bundle), "n_labelled": 2, "output_dir": str(out)}, log=False)


def test_a_source_of_noise_is_not_taken(bundle, tmp_path):
    given = {**start(bundle), "n_labelled": 2, "output_dir": str(tmp_path / "run")}
    given["pretrained"] = noise(bundle, tmp_path / "noise.pt")
    record, _ = read(run_auto(bundle, given, log=False))
    assert record["auto"]["taken"] == "scratch" and record["pretrained"] == "none"
    assert record["auto"]["source_level_at_home"] < 0.1


def test_a_ranking_by_luck_is_not_knowledge():
    """What the lower end of the interval over patients says: noise ranks six patients above chance now and then."""

    def at_home(scores):
        cases = [
            {"case": f"c{n}", "patient": f"p{n // 2}", "site": "a", "label": ("no", "yes")[n % 2],
             "prediction": ("no", "yes")[p > 0.5], "p_no": str(1 - p), "p_yes": str(p)}
            for n, p in enumerate(scores)
        ]  # fmt: skip
        return Run(
            Path("source"),
            {"task": "classification", "arm": "source", "seed": 0, "labels": {"0": "no", "1": "yes"}},
            cases,
        )

    luck = at_home([0.4, 0.6, 0.7, 0.5, 0.3, 0.4, 0.5, 0.9, 0.6, 0.7, 0.8, 0.75])
    assert 0.1 < level_of(luck) < 0.5 and level_of(luck, surely=True) < 0.1
    assert level_of(at_home([0.2, 0.8] * 6), surely=True) == 1.0


@pytest.mark.slow
def test_enough_patients_are_cross_validated(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "ENOUGH_PATIENTS", 6)
    given = {**start(bundle), "max_epochs": 8, "n_labelled": 4, "output_dir": str(tmp_path / "run")}
    plan = make_plan(bundle, given)
    assert plan.cost <= 3.0 and plan.compared == [
        "head_only", "averaged", "joint_averaged", "joint", "fine_tuned", "scratch"
    ]  # fmt: skip
    record, tested = read(run_auto(bundle, given, log=False))
    decision = record["auto"]
    assert decision["rule"] == "cross-validation" and decision["labelled_patients"] == 6
    assert {"source", "statistics", *plan.compared} == set(decision["scores"]) | set(decision["left_out"]) - {
        "self_trained"
    }
    held_out = [read(tmp_path / "run" / "candidates" / f"joint-{fold}")[1] for fold in (0, 1)]
    assert len(held_out[0] | held_out[1]) == 6 and not held_out[0] & held_out[1] and not (held_out[0] & tested)
    scores = decision["scores"]
    assert scores[decision["taken"]] >= max(scores.values()) - 0.2


@pytest.mark.slow
def test_without_labels_and_again_after_an_interruption(bundle, tmp_path):
    given = {**start(bundle), "n_labelled": 0, "output_dir": str(tmp_path / "run")}
    record, _ = read(run_auto(bundle, given, log=False))
    decision = record["auto"]
    assert decision["rule"] == "validators" and decision["labelled_cases"] == 0
    assert set(decision["validators"]["source"]) == {"entropy", "information_maximisation", "bnm"}
    assert record["labelled_train"] == 0 and (tmp_path / "run" / "models" / "model.pt").is_file()
    # candidates of another configuration are not passed off as its own
    (tmp_path / "other.candidates").mkdir()
    settings = (tmp_path / "run" / "candidates" / "settings.json").read_text()
    (tmp_path / "other.candidates" / "settings.json").write_text(
        settings.replace('"n_labelled": "0"', '"n_labelled": "9"')
    )
    with pytest.raises(InputError, match="candidates that were made under other settings"):
        run_auto(bundle, {**given, "output_dir": str(tmp_path / "other")}, log=False)


def test_statistics_of_a_source_under_randomised_contrast_are_kept_without_labels(bundle):
    """Validators prefer re-estimated ones, which cost .07 Dice on nuclei; labelled cases can tell."""
    none = {**start(bundle), "n_labelled": 0}
    said = "no labelled target case; scored on unlabelled images: untouched source, "
    assert f"{said}re-estimated statistics, self-trained. That takes" in make_plan(bundle, none).words
    for name in ("randomised", "randomised_all"):
        plan = make_plan(bundle, {**none, "augment_source": name})
        assert "statistics serve both sites" in plan.left_out["statistics"] and "statistics" not in plan.arms
        assert f"{said}self-trained. That takes" in plan.words
        assert "statistics" in make_plan(bundle, {**none, "n_labelled": 2, "augment_source": name}).arms


def test_names_of_strategies():
    assert named_strategy({"strategy": "auto"}, "train") == {"strategy": "auto"}
    lora = named_strategy({"strategy": "lora"}, "train")["strategy"]
    assert lora == {"_target_": "monai_transfer.strategies.lora.Lora"}
    with pytest.raises(InputError, match="does not go with adapt"):
        named_strategy({"strategy": "auto"}, "adapt")
    with pytest.raises(InputError, match="no strategy 'ful'; did you mean 'full'"):
        named_strategy({"strategy": "ful"}, "train")
