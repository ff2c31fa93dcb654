"""``new``: a bundle for each kind of data and source runs without editing a config."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow, verify_net_in_out
from monai.networks.nets import UNet

from monai_transfer.bundle.fit import DataFit
from monai_transfer.bundle.fitted_pipeline import fit_grid
from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.planning.size import get_size
from monai_transfer.bundle.run import run_workflow
from monai_transfer.errors import InputError
from monai_transfer.files import write_text
from monai_transfer.manifest import Manifest
from monai_transfer.study.arms import DEFAULT_ARMS, parse_arms
from monai_transfer.study.method_arms import resolve_arms
from monai_transfer.weights import Source, load_weights

pytestmark = pytest.mark.filterwarnings("ignore")
SHORT = {"max_epochs": 1, "steps_per_epoch": 2, "val_interval": 1}
SITES = {"source_site": "north", "target_site": "south"}
SMALL = {**SITES, "size": "small", "batch_size": 2}


def assert_sound(bundle: Path, monkeypatch) -> None:
    monkeypatch.chdir(bundle)
    for kind, name in (("train", "train"), ("infer", "inference")):
        flow = ConfigWorkflow(
            workflow_type=kind,
            config_file=f"configs/{name}.yaml",
            meta_file="configs/metadata.json",
            logging_file=False,
        )
        flow.initialize()
        assert flow.check_properties() == []
        verify_net_in_out(
            net_id="network_def", meta_file="configs/metadata.json", config_file=f"configs/{name}.yaml", device="cpu"
        )


@pytest.mark.parametrize("method", ["adabn", "dg_tta", "histogram", "translation"])
def test_methods_without_a_term_adapt_too(method, tiny_set, tmp_path):
    """At test time (fitted, and while it predicts), and in the images that train."""
    bundle = tmp_path / "tiny_segmentation"
    new_bundle(bundle, tiny_set("segmentation", 2), **SMALL, n_labelled=2, method=method, pretrain_epochs=1)
    text = (bundle / "configs" / "adapt.yaml").read_text(encoding="utf-8")
    assert "engine.adapt.Adapt" not in text
    quick: dict = {}
    if method == "dg_tta":
        path = "monai_transfer.testtime.dg_tta.DgTta"
        assert path in text
        quick = {"method": {"_target_": path, "steps": 1, "patches": 1, "members": 1}}
    if method == "translation":
        quick = {"translation#steps": 2, "translation#attempts": 1, "translation#width": 4, "translation#depth": 1}
    run_workflow(bundle, "pretrain", SHORT, log=False)
    run = run_workflow(bundle, "adapt", {**SHORT, **quick}, log=False)
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "finished"
    assert record["method"].rpartition(".")[2] in ("Adabn", "DgTta", "HistogramMatchToTargetd", "Translation")
    assert record["steps"] == (2 if method in ("histogram", "translation") else 0)
    weights = torch.load(run / "models" / "model.pt", weights_only=True)
    source = torch.load(bundle / "runs" / "pretrain-0" / "models" / "model.pt", weights_only=True)
    same = all(torch.equal(weights[name], value) for name, value in source.items())
    assert same == (method == "dg_tta"), "what was fitted or trained is what the run leaves"
    assert (run / "cases.csv").is_file()


def test_without_a_source_case_the_targets_images_alone_adapt(tiny_set, tmp_path):
    """The default then is source-free: said with its reason, teacher and student kept, looked at for a collapse."""
    bundle = tmp_path / "tiny_segmentation"
    spec = new_bundle(bundle, tiny_set("segmentation", 2), **SMALL | {"source_site": "south"}, pretrain_epochs=1)
    assert spec.method["_target_"].endswith("SourceFreeSelfTraining")
    assert "the target's images alone" in spec.recipe["adapt"]["reason"]
    run_workflow(bundle, "pretrain", SHORT, log=False)
    run = run_workflow(bundle, "adapt", {**SHORT, "method#steps": 2}, log=False)
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "finished" and record["labelled_train"] == 0
    assert {path.name for path in (run / "models").glob("*.pt")} == {"model.pt", "student.pt"}
    assert json.loads((run / "validators.json").read_text())["cases"] > 0
    arms, said = resolve_arms(bundle, parse_arms(DEFAULT_ARMS))
    assert "source_longer" not in {arm.name for arm in arms}
    assert said == ["source_longer is left out: this bundle adapts without source data"]


@pytest.mark.parametrize(
    ("task", "method"),
    [
        ("segmentation", "SelfTraining"),
        ("classification", "Cdan"),
        ("regression", "Dann"),
        ("localization", "SelfTraining"),
    ],
)
def test_the_default_of_adapt_fits_the_task(tiny_set, tmp_path, task, method):
    spec = new_bundle(tmp_path / f"tiny_{task}", tiny_set(task, 2), **SMALL)
    assert spec.method["_target_"].rpartition(".")[2] == method
    assert spec.recipe["adapt"]["reason"]


def assert_runs(bundle: Path, workflow: str, monkeypatch) -> Path:
    assert_sound(bundle, monkeypatch)
    run = run_workflow(bundle, workflow, SHORT, log=False)
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    rows = list(csv.DictReader((run / "cases.csv").open()))
    assert [row["site"] for row in rows] == ["north" if workflow == "pretrain" else "south"] * 2
    return run


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@pytest.mark.parametrize(
    ("task", "dims"),
    [
        ("segmentation", 3),
        pytest.param("segmentation", 2, marks=pytest.mark.slow),
        ("classification", 2),
        pytest.param("classification", 3, marks=pytest.mark.slow),
        ("regression", 3),
        pytest.param("localization", 3, marks=pytest.mark.slow),
        ("localization", 2),
    ],
)
def test_without_a_source(tiny_set, tmp_path, monkeypatch, task, dims):
    spec = new_bundle(tmp_path / f"my_{task}", tiny_set(task, dims), **SMALL)
    assert (spec.task, spec.spatial_dims) == (task, dims)
    bundle = tmp_path / f"my_{task}"
    assert_sound(bundle, monkeypatch)  # before any training
    assert not (bundle / "runs").exists()
    with pytest.raises(Exception, match="") as caught:
        run_workflow(bundle, "train", SHORT, log=False)
    assert "pretrain first" in str(_root(caught.value)), "no silent training from scratch"
    assert not (bundle / "runs").exists()
    run_workflow(bundle, "pretrain", SHORT, log=False)
    tuned = assert_runs(bundle, "train", monkeypatch)  # from the pretraining's best, without naming it
    assert json.loads((tuned / "weights.json").read_text())["coverage"] == 1
    run_workflow(bundle, "adapt", SHORT, log=False)
    run_workflow(bundle, "evaluate", {}, log=False)


def test_from_a_packaged_bundle_with_classes_mapped_by_name(tiny_set, packaged, tmp_path, monkeypatch):
    """The source knows background, ventricle, lesion; the data know background, tumour, lesion, in another order."""
    data = tiny_set("segmentation", 3, labels=("background", "lesion", "tumour"))
    bundle = tmp_path / "from_packaged"
    source = packaged / "head_mr_segmentation"
    spec = new_bundle(bundle, data, source=source, **SMALL)
    assert spec.spacing == [4.0, 4.0, 4.0], "the source's spacing is kept"
    assert {p.name for p in (bundle / "models").iterdir()} >= {"source.pt", "model.pt", "source.json"}
    note = json.loads((bundle / "models" / "source.json").read_text())
    assert note["classes"] == ["background", "ventricle", "lesion"] and note["weights"]["adapted"]
    old = torch.load(source / "models" / "model.pt", weights_only=True)
    new = torch.load(bundle / "models" / "model.pt", weights_only=True)
    *_, head = [name for name in note["weights"]["adapted"] if name.endswith("conv.bias") and old[name].shape == (3,)]
    assert new[head][0] == old[head][0] and new[head][1] == old[head][2], "lesion's row went to lesion's place"
    run = assert_runs(bundle, "train", monkeypatch)
    assert json.loads((run / "weights.json").read_text())["adapted"] == note["weights"]["adapted"]
    assert run_workflow(bundle, "evaluate", {}, log=False).is_dir()


def test_from_a_run_folder_with_another_class_count_and_channel_count(tiny_set, tmp_path, monkeypatch):
    first = tmp_path / "first_segmentation"
    new_bundle(first, tiny_set("segmentation", 3), **SMALL)
    run = run_workflow(first, "pretrain", SHORT, log=False)
    data = tiny_set("segmentation", 3, channels=2, labels=("background", "organ", "lesion"))
    second = tmp_path / "second_segmentation"
    spec = new_bundle(second, data, source=run, **SMALL)
    assert spec.network["in_channels"] == 2 and spec.network["out_channels"] == 3
    note = json.loads((second / "models" / "source.json").read_text())
    assert note["classes"] == ["background", "lesion"] and len(note["weights"]["adapted"]) >= 2
    assert_runs(second, "train", monkeypatch)


def test_from_2d_into_3d(tiny_set, tmp_path, monkeypatch):
    flat = tmp_path / "flat_segmentation"
    new_bundle(flat, tiny_set("segmentation", 2), **SMALL)
    run = run_workflow(flat, "pretrain", SHORT, log=False)
    solid = tmp_path / "solid_segmentation"
    spec = new_bundle(solid, tiny_set("segmentation", 3), source=run, **SMALL)
    assert spec.network["spatial_dims"] == 3
    adapted = json.loads((solid / "models" / "source.json").read_text())["weights"]["adapted"]
    assert len(adapted) > 5, "every kernel was inflated"
    assert_runs(solid, "train", monkeypatch)


def test_load_weights_takes_a_source(packaged):
    source = Source.load(packaged / "head_mr_segmentation")
    network = UNet(3, 1, 2, [8, 16, 32], [2, 2], num_res_units=1, norm="BATCH")
    report = load_weights(network, source, target_classes=["background", "lesion"])
    assert report.coverage > 0.99 and report.adapted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_site": "east"}, "no site 'east'.*north, south"),
        ({"source_site": None, "target_site": None}, "holds 2 sites.*--target-site"),
        ({"strategy": "ful"}, "no strategy 'ful'; did you mean full"),
        ({"method": "korral"}, "no method 'korral'"),
        ({"epoch": 3}, "new_bundle has no option 'epoch'; did you mean 'epochs'"),
        ({"method": "base"}, "no method 'base'"),
        ({"method": "my.method.Thing"}, "can be imported"),
        ({"size": "huge"}, "no network size 'huge'; one of small"),
        ({"source": "nowhere"}, "nowhere: no such source"),
        ({"spacing": [1, 1]}, "--spacing needs 3 positive numbers"),
        ({"patch": [0, 8, 8]}, "--patch needs 3 positive numbers"),
    ],
)
def test_refusals_give_a_hint_and_write_nothing(tiny_set, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        new_bundle(tmp_path / "b", tiny_set("segmentation", 3), **{**SMALL, **options})
    assert not (tmp_path / "b").exists()


def test_a_stopped_one_leaves_no_half_bundle(tiny_set, tmp_path, monkeypatch):
    def stop(spec, folder):
        write_text(folder / "configs" / "train.yaml", "half")
        raise KeyboardInterrupt

    monkeypatch.setattr("monai_transfer.bundle.new.write_bundle", stop)
    manifest = tiny_set("classification", 2)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        new_bundle(tmp_path / "b_classification", manifest, **SMALL)
    assert sorted(tmp_path.iterdir()) == before


def test_an_existing_bundle_is_kept_unless_forced(tiny_set, tmp_path):
    data = tiny_set("segmentation", 3)
    new_bundle(tmp_path / "b", data, **SMALL)
    with pytest.raises(InputError, match="holds a bundle already.*--force"):
        new_bundle(tmp_path / "b", data, **SMALL)
    new_bundle(tmp_path / "b", data, force=True, epochs=7, **SMALL)
    assert yaml.safe_load((tmp_path / "b" / "configs" / "train.yaml").read_text())["max_epochs"] == 7


def test_strategy_and_method_stand_in_the_configs(tiny_set, tmp_path):
    new_bundle(tmp_path / "b", tiny_set("segmentation", 3), strategy="head_only", method="coral", **SMALL)
    train = yaml.safe_load((tmp_path / "b" / "configs" / "train.yaml").read_text())
    adapt = yaml.safe_load((tmp_path / "b" / "configs" / "adapt.yaml").read_text())
    assert train["strategy"]["_target_"] == "monai_transfer.strategies.head_only.HeadOnly"
    assert adapt["method"]["_target_"] == "monai_transfer.methods.coral.Coral"


def _thick(folder: Path, slices: int = 10, task: str = "regression") -> Path:
    """Few thick slices, and at one site half the field of view of the other."""
    rng = np.random.default_rng(0)
    content: dict = {"name": "thick", "task": task}
    if task == "classification":
        content["labels"] = {"0": "no", "1": "yes"}
    for site, side in (("north", 60), ("south", 30)):
        for split, count in (("training", 3), ("validation", 2), ("test", 2)):
            for number in range(count):
                case = f"{site}_{split}_{number}"
                image = nibabel.Nifti1Image(
                    rng.normal(50, 5, (side, side, slices)).astype("float32"), np.diag([1, 1, 6, 1])
                )
                nibabel.save(image, folder / f"{case}.nii.gz")
                label = float(number) + 0.5 if task == "regression" else ("no", "yes")[number % 2]
                content.setdefault(split, []).append(
                    {"case": case, "patient": case, "site": site, "image": f"{case}.nii.gz", "label": label}
                )
    Manifest.from_dict(content, folder).save(folder / "manifest.json")
    return folder / "manifest.json"


def test_a_3d_regression_keeps_its_millimetres_and_fits_its_network(tmp_path, monkeypatch):
    """Whole volumes are padded or cut, not resized; ten slices are padded to what the network needs."""
    data = _thick(tmp_path)
    spec = new_bundle(tmp_path / "my_regression", data, **SMALL)
    assert spec.crop and not spec.resize
    assert spec.spacing == [1.0, 1.0, 6.0] and spec.patch == [48, 48, 16], "median 45 x 45 x 10 voxels"
    flow = ConfigWorkflow(
        workflow_type="train",
        config_file=str(tmp_path / "my_regression" / "configs" / "train.yaml"),
        logging_file=False,
    )
    flow.initialize()
    sizes = {item["image"].shape for item in flow.parser.get_parsed_content("test#dataset")}
    zooms = {tuple(item["image"].pixdim.tolist()) for item in flow.parser.get_parsed_content("test#dataset")}
    assert sizes == {(1, 48, 48, 16)} and zooms == {(1.0, 1.0, 6.0)}
    run_workflow(tmp_path / "my_regression", "pretrain", SHORT, log=False)
    run_workflow(tmp_path / "my_regression", "train", SHORT, log=False)


def test_coarser_until_the_median_field_of_view_fits(tmp_path):
    fit = DataFit(3, ".nii.gz", False, 1, [0.5, 0.5, 5.0], [400, 480, 32], 0, 1, 0, 1, 0)
    for size in ("small", "medium", "large"):
        spacing, patch = fit_grid(fit, get_size(size))
        assert spacing[2] == 5.0, "the finest axes alone are made coarser"
        assert spacing[0] == spacing[1] > 0.5
        for voxels, mm, field in zip(patch, spacing, (200, 240, 160), strict=True):
            assert field <= voxels * mm < field + 8 * mm
    spacing, patch = fit_grid(fit, get_size("small"), [40, 40, 40])
    assert (spacing, patch) == ([5.0, 6.0, 5.0], [40, 40, 40])


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_patch_that_the_network_cannot_take_is_refused(tmp_path, task):
    data = _thick(tmp_path, task=task)
    with pytest.raises(InputError, match="DenseNet does not take images of 48 x 48 x 8 voxels .*--patch"):
        new_bundle(tmp_path / "b", data, patch=[48, 48, 8], **SMALL)
    assert not (tmp_path / "b").exists()
    assert min(new_bundle(tmp_path / "b", data, **SMALL).patch) == 16


@pytest.mark.parametrize(
    "name",
    ["l2_sp", "co_tuning", *(pytest.param(n, marks=pytest.mark.slow) for n in ("bss", "distillation", "ewc"))],
)
def test_a_method_without_target_images_is_fine_tunings(tiny_set, tmp_path, name):
    data = tiny_set("classification", 2)
    spec = new_bundle(tmp_path / "my_classification", data, method=name, **SMALL)
    assert spec.regulariser["_target_"].startswith(f"monai_transfer.methods.{name}.")
    assert spec.method["_target_"] == "monai_transfer.methods.cdan.Cdan"
    for workflow in ("pretrain", "train", "adapt"):
        run = run_workflow(tmp_path / "my_classification", workflow, {**SHORT, "max_epochs": 2}, log=False)
        with (run / "metrics.csv").open() as file:
            assert ("adapt_loss" in next(csv.reader(file))) == (workflow != "pretrain")


def test_augmentation_joint_training_and_mirroring_are_fitted(tiny_set, tmp_path):
    """Named in the bundle with a reason; joint only where another site has labelled cases; sides are not mirrored."""
    manifest = tiny_set("segmentation", 3)
    spec = new_bundle(tmp_path / "auto", manifest, **SMALL)
    assert (spec.augment, spec.joint) == ("standard", True)
    text = (tmp_path / "auto" / "configs" / "train.yaml").read_text()
    assert f"augment_source: {spec.augment_source}" in text
    recipe = json.loads((tmp_path / "auto" / "configs" / "recipe.json").read_text())
    assert "range apart" in recipe["augment_source"]["reason"] and "half of each batch" in recipe["joint"]["reason"]
    told = new_bundle(tmp_path / "asked", manifest, augment="randomised", **SMALL)
    assert (told.augment, told.augment_source) == ("randomised", "randomised")
    number = new_bundle(tmp_path / "number", tiny_set("regression", 3), **SMALL)
    assert (number.augment, number.augment_source) == ("light", "standard"), "few cases that tell a number"
    with pytest.raises(InputError, match="no augmentation preset 'strong'"):
        new_bundle(tmp_path / "bad", manifest, augment="strong", **SMALL)
    content = json.loads(Path(manifest).read_text())
    content["labels"] = {"0": "background", "1": "left kidney"}
    sided = Path(manifest).with_name("sided.json")
    sided.write_text(json.dumps(content))
    assert new_bundle(tmp_path / "sided", sided, **SMALL).flips == []


@pytest.mark.parametrize("kind", ["segmentation", pytest.param("classification", marks=pytest.mark.slow), "regression"])
def test_joint_training_with_all_options_runs(kind, tiny_set, tmp_path):
    new_bundle(tmp_path / "b", tiny_set(kind, 3), **SMALL, pretrain_epochs=1)
    run_workflow(tmp_path / "b", "pretrain", SHORT, log=False)
    options = {"joint": True, "ema": 0.5, "average": "rule", "average_statistics": True, "tta": "flips", "n_replay": 2}
    run = run_workflow(tmp_path / "b", "train", {**SHORT, **options}, log=False)
    told = json.loads((run / "weight_average.json").read_text())
    assert told["statistics"] and 0.5 <= told["tuned_share"] <= 1
    record = json.loads((run / "run.json").read_text())
    assert record["joint"] is True and record["selected_by"] == "last epoch"
    assert list(csv.DictReader((run / "cases.csv").open()))
