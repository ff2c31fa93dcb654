"""``study``: arms, seeds and label counts under one budget; it continues, and a failing run costs only itself."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.errors import InputError
from monai_transfer.study.arms import DEFAULT_ARMS
from monai_transfer.study.budget import study_budget
from monai_transfer.study.run_arms import PRESETS, arms_on, for_pretraining, has_weights, parse_arms, run_study

pytestmark = pytest.mark.filterwarnings("ignore")
SHORT = {"max_epochs": 1, "steps_per_epoch": 2, "val_interval": 1}


def test_arms_by_name_and_by_hand():
    scratch, lora, deep = parse_arms("scratch, low:fine_tuned:lr=1e-4:n_labelled=null, deep:adapt:weight=0.5")
    assert scratch is PRESETS["scratch"]
    assert (lora.name, lora.workflow, lora.overrides) == (
        "low",
        "train",
        {"joint": False, "lr": 1e-4, "n_labelled": None},
    )
    assert (deep.workflow, deep.overrides, deep.seeded) == ("adapt", {"weight": 0.5}, True)
    assert not parse_arms("x:evaluate")[0].seeded
    mine = parse_arms("mine:randomised:augment_source=colour")[0]
    assert mine.pretraining == {"augment_source": "randomised"} and mine.workflow == "evaluate"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scrach", "no arm 'scrach'; did you mean scratch"),
        ("scratch,scratch", "twice"),
        ("", "empty"),
        ("a:fly", "no workflow 'fly'"),
        ("a:infer", "no arm"),
    ],
)
def test_arms_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_arms(text)


@pytest.fixture(scope="module")
def bundle(tiny_set, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "tiny_classification"
    sites = {"source_site": "north", "target_site": "south"}
    new_bundle(folder, tiny_set("classification", 2), size="small", batch_size=2, **sites, pretrain_epochs=1)
    return folder


def quiet() -> Console:
    return Console(record=True, file=open("/dev/null", "w"), width=200)  # noqa: SIM115, PTH123


def test_a_study_with_fractions_continues_and_repeats(bundle, tmp_path):
    arms = parse_arms("scratch,source,adapted")
    console = quiet()
    reports = run_study(
        bundle, tmp_path / "s", arms, seeds=[0, 1], fractions=[0.5, 1], overrides=SHORT, console=console
    )
    # half of four cases, and one case
    assert [path.relative_to(tmp_path / "s").as_posix() for path in reports] == [
        "labelled-2/report.html",
        "labelled-1/report.html",
        "label_efficiency.html",
    ]
    assert all(path.is_file() for path in reports)
    assert "Training from scratch reaches AUC" in console.export_text(clear=False)
    with (tmp_path / "s" / "label_efficiency.csv").open(encoding="utf-8") as stream:
        drawn = {(row["arm"], row["scratch_with"]): row["labelled"] for row in csv.DictReader(stream)}
    assert drawn["scratch", "1"] == "1" and drawn["scratch", "2"] == "2"
    assert {drawn["source", "2"], drawn["adapted", "2"]} == {"0"}, "arms without labels"
    runs = {
        p.parent.relative_to(tmp_path / "s").as_posix(): json.loads(p.read_text())
        for p in (tmp_path / "s").rglob("run.json")
    }
    expected = {f"labelled-{n}/{arm}-{seed}" for n in (1, 2) for arm in ["scratch"] for seed in (0, 1)}
    expected |= {"any-labelled/source-0", "any-labelled/adapted-0", "any-labelled/adapted-1", "pretrain-0"}
    assert set(runs) == expected
    for name, record in runs.items():
        assert record["status"] == "finished"
        if "source" not in name and "pretrain" not in name:
            assert record["steps"] == 2, "equal budgets"
        if "labelled-1/" in name:
            assert record["n_labelled"] == record["labelled_train"] == 1
    assert "untouched source" in console.export_text(), "the report is printed"
    # again: nothing runs twice; a run that is taken away comes back as it was
    again = tmp_path / "s" / "labelled-1" / "scratch-1"
    old = torch.load(again / "models" / "model.pt", weights_only=True)
    again.rename(tmp_path / "taken")
    before = (tmp_path / "s" / "labelled-2" / "scratch-0" / "run.json").read_text()
    run_study(bundle, tmp_path / "s", arms, seeds=[0, 1], fractions=[0.5, 1], overrides=SHORT, console=quiet(), jobs=1)
    new = torch.load(again / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert (tmp_path / "s" / "labelled-2" / "scratch-0" / "run.json").read_text() == before
    # what was asked for differently is not passed off as finished
    with pytest.raises(
        InputError, match=r"is finished, under other settings: max_epochs \(it was 1, now 2\); give"
    ) as caught:
        run_study(
            bundle,
            tmp_path / "s",
            arms,
            seeds=[0],
            fractions=[1],
            overrides={**SHORT, "max_epochs": 2},
            console=quiet(),
        )
    assert caught.value.path.name == "scratch-0"
    shutil.copytree(tmp_path / "s", tmp_path / "moved")
    console = quiet()
    run_study(bundle, tmp_path / "moved", arms, seeds=[0], fractions=[0.5, 1], overrides=SHORT, console=console)
    assert "besides" not in console.export_text()
    # fewer arms than the folder has: the reports say what they leave out
    fewer = parse_arms("scratch")
    run_study(bundle, tmp_path / "moved", fewer, seeds=[0], fractions=[0.5, 1], overrides=SHORT, console=console)
    assert "has finished runs of adapted, source besides, which were not asked for" in console.export_text()


def test_joint_averaged_and_randomised(bundle, tmp_path):
    """Joint training sees both sites, the others the target alone; a randomised arm starts from a source of its own."""
    arms = parse_arms("fine_tuned,joint,averaged,joint_averaged,randomised")
    run_study(bundle, tmp_path / "s", arms, seeds=[0], overrides=SHORT, console=quiet())
    told = {name: json.loads((tmp_path / "s" / name / "run.json").read_text()) for name in
            ("fine_tuned-0", "joint-0", "averaged-0", "randomised-0", "pretrain-randomised-0")}  # fmt: skip
    assert [told[name]["joint"] for name in ("fine_tuned-0", "joint-0", "averaged-0")] == [False, True, False]
    assert told["fine_tuned-0"]["labelled_train"] == told["joint-0"]["labelled_train"]
    assert told["fine_tuned-0"]["steps"] == told["joint-0"]["steps"], "equal budgets"
    share = json.loads((tmp_path / "s" / "averaged-0" / "weight_average.json").read_text())
    assert share == {"tuned_share": 0.5, "source_score": None, "statistics": True}, "too few cases to rank"
    assert '"statistics": true' in (tmp_path / "s" / "joint_averaged-0" / "weight_average.json").read_text()
    given = {**PRESETS["joint_averaged"].overrides, "augment_source": "randomised", **SHORT}
    given |= {"pretrained": str(tmp_path / "s" / "pretrain-randomised-0" / "models" / "model.pt")}
    run_workflow(bundle, "train", {**given, "output_dir": str(tmp_path / "of_randomised")}, log=False)
    kept = json.loads((tmp_path / "of_randomised" / "weight_average.json").read_text())
    assert kept["statistics"] is False, "a source of randomised contrast keeps its own"
    tuned = torch.load(tmp_path / "s" / "joint_averaged-0" / "models" / "fine_tuned.pt", weights_only=True)
    joint = torch.load(tmp_path / "s" / "joint-0" / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(tuned[name], value) for name, value in joint.items()), "joint training, and then averaged"
    config = (tmp_path / "s" / "pretrain-randomised-0" / "config.yaml").read_text()
    assert "augment_source: randomised" in config
    assert "pretrain-randomised-0" in json.dumps(told["randomised-0"])


def test_each_seed_has_a_source_of_its_own(bundle, tmp_path):
    console = quiet()
    arms = parse_arms("source,fine_tuned")
    run_study(bundle, tmp_path / "s", arms, seeds=[0, 1], overrides=SHORT, console=console, source_per_seed=True)
    told = {p.parent.name: json.loads(p.read_text()) for p in (tmp_path / "s").glob("*/run.json")}
    assert set(told) == {f"{arm}-{seed}" for arm in ("pretrain", "source", "fine_tuned") for seed in (0, 1)}
    assert [told[f"pretrain-{seed}"]["seed"] for seed in (0, 1)] == [0, 1]
    starts = {seed: told[f"fine_tuned-{seed}"]["pretrained_sha256"] for seed in (0, 1)}
    assert starts[0] != starts[1]
    assert all(told[f"source-{seed}"]["pretrained_sha256"] == starts[seed] for seed in (0, 1))
    assert "different source weights" not in console.export_text()


def test_a_source_for_each_seed_goes_with_no_weights_that_are_given(bundle, tmp_path):
    def study(names, **overrides):
        run_study(bundle, tmp_path / "s", parse_arms(names), overrides={**SHORT, **overrides}, source_per_seed=True)

    with pytest.raises(InputError, match="leave out --pretrained"):
        study("source", pretrained="none")
    with pytest.raises(InputError, match="the arm randomised has a source of its own"):
        study("source,randomised")
    assert not (tmp_path / "s").exists()


def test_older_bundles_have_no_joint_training(bundle, tmp_path):
    """Their default arms run as before; an arm that wants what they lack is refused with what to do."""
    old = tmp_path / "old"
    shutil.copytree(bundle, old, ignore=shutil.ignore_patterns("runs"))
    config = old / "configs" / "train.yaml"
    lines = [line for line in config.read_text().splitlines() if not line.startswith(("joint:", "average:"))]
    config.write_text("\n".join(lines))
    default = parse_arms(DEFAULT_ARMS)
    assert [arm.name for arm in arms_on(old, default)] == [
        "scratch", "source", "fine_tuned", "source_longer", "adapted"
    ]  # fmt: skip
    assert "joint" not in arms_on(old, default)[0].overrides
    assert arms_on(bundle, default) == default
    with pytest.raises(InputError, match="arm averaged wants average.*new --force"):
        arms_on(old, parse_arms("averaged"))


def test_no_arm_stops_early_whatever_the_bundle_says(bundle, tmp_path):
    impatient = shutil.copytree(bundle, tmp_path / "b", ignore=shutil.ignore_patterns("runs"))
    config = impatient / "configs" / "train.yaml"
    config.write_text(config.read_text().replace("\npatience: null", "\npatience: 3"))
    arms = {arm.name: arm.overrides for arm in arms_on(impatient, parse_arms("joint,source,adapted"))}
    assert arms == {"joint": {"joint": True, "patience": None}, "source": {}, "adapted": {"patience": None}}


def test_the_budget_of_a_study_is_found_once(bundle, tmp_path):
    found, words = study_budget(bundle, tmp_path, "9", {"steps_per_epoch": 2})
    assert found == {"max_epochs": 5} and words == "budget 9: 5 epochs of 2 steps"
    known = {"asked": "1h", "epochs": 3, "steps_per_epoch": 2, "seconds_per_step": 9.0, "seconds_per_validation": 0.5}
    (tmp_path / "budget.json").write_text(json.dumps(known))
    found, words = study_budget(bundle, tmp_path, "1h", {"steps_per_epoch": 2})
    assert found == {"max_epochs": 3} and "by 9 s per step and 0.5 s per validation" in words


def test_a_failing_run_is_named_with_its_log_and_the_others_are_kept(bundle, tmp_path):
    arms = parse_arms("scratch,broken:train:pretrained=/nowhere/model.pt")
    with pytest.raises(
        InputError, match="'broken, seed 0' failed: /nowhere/model.pt: the weights.*finished runs are kept"
    ) as caught:
        run_study(
            bundle, tmp_path / "s", arms, seeds=[0], overrides={**SHORT, "pretrained": "none"}, console=quiet(), jobs=1
        )
    log = Path(str(caught.value.path))
    assert log == tmp_path / "s" / "broken-0.log" and "Traceback" in log.read_text()
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "s" / "scratch-0" / "run.json").read_text())["status"] == "finished"


def test_a_run_that_was_cut_off_under_another_configuration_says_what_to_do(bundle, tmp_path):
    """Its process is gone. `study` has no --fresh: the advice must be one that works here too."""
    arms, none = parse_arms("scratch"), {"pretrained": "none"}
    run_study(bundle, tmp_path / "s", arms, seeds=[0], overrides={**SHORT, **none}, console=quiet(), jobs=1)
    path = tmp_path / "s" / "scratch-0" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "running"}))
    changed = {**SHORT, **none, "lr": 0.02}
    with pytest.raises(InputError, match=r"holds an unfinished run.*delete it to start over.*`study`: --out"):
        run_study(bundle, tmp_path / "s", arms, seeds=[0], overrides=changed, console=quiet(), jobs=1)


@pytest.mark.parametrize("value", [-1, 0, 1.5])
def test_a_fraction_that_is_none(bundle, tmp_path, value):
    with pytest.raises(InputError, match="neither a share below 1 nor a count"):
        run_study(
            bundle, tmp_path / "s", parse_arms("scratch"), seeds=[0], fractions=[value], console=quiet(),
            overrides={**SHORT, "pretrained": "none"},
        )  # fmt: skip


def test_options_reach_pretraining_but_for_what_is_its_own(bundle):
    """What both must share does; epochs, learning rate, cases and fine-tuning's own parts do not."""
    shared = {
        "batch_size": 3,
        "patch": [8, 8],
        "network_def#channels": [4, 8],
        "train::random_transforms": [],
        "device": "cpu",
        "steps_per_epoch": 2,
    }
    own = {"max_epochs": 9, "lr": 1.0, "n_labelled": 2, "strategy": {}, "regulariser": None, "ckpt": "a", "method": {}}
    assert for_pretraining(bundle, {**shared, **own}) == shared


def test_a_published_model_is_not_what_a_bundle_starts_from(bundle, tmp_path):
    """A bundle that pretrains its source names that run's weights; ``models/model.pt`` may be a tuned model."""
    copied = tmp_path / "bundle"
    shutil.copytree(bundle, copied)
    assert not has_weights(copied)
    (copied / "models").mkdir(exist_ok=True)
    torch.save({}, copied / "models" / "model.pt")
    assert not has_weights(copied)
    home = copied / "runs" / "pretrain-0"
    (home / "models").mkdir(parents=True)
    torch.save({}, home / "models" / "model.pt")
    (home / "run.json").write_text('{"format": 1, "status": "interrupted"}')
    assert not has_weights(copied)
    (home / "run.json").write_text('{"format": 1, "status": "finished"}')
    assert has_weights(copied)
