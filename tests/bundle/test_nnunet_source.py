"""A bundle made from an nnU-Net model: as it is it predicts what nnU-Net predicts, it trains, and it runs elsewhere."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from monai_transfer.bundle.export import export_bundle
from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import open_workflow, run_workflow
from monai_transfer.errors import InputError
from tests.nnunet.originals.phantoms import write_case
from tests.nnunet.test_parity import ORIGINALS, dice, folder_of


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Six phantoms of the kind that the model was trained on, and their manifest."""
    folder = tmp_path_factory.mktemp("data")
    items = []
    for seed in range(6):
        images, label = write_case(folder, "iso", seed)
        names = {"case": f"c{seed}", "patient": f"p{seed}", "site": "a"}
        items.append({"image": Path(images[0]).name, "label": Path(label).name, **names})
    made = {
        "name": "phantom",
        "task": "segmentation",
        "modality": "MR",
        "labels": {"0": "background", "1": "left", "2": "right"},
        "channel_names": {"0": "MRI"},
        "training": items[:3],
        "validation": items[3:4],
        "test": items[4:],
    }
    (folder / "manifest.json").write_text(json.dumps(made))
    return folder


@pytest.fixture(scope="module")
def bundle(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "phantom_segmentation"
    new_bundle(folder, data / "manifest.json", source=folder_of("iso"), epochs=1, steps_per_epoch=2, batch_size=2)
    return folder


def predict(bundle: Path, images: Path, out: Path, **more) -> list[np.ndarray]:
    """As ``python -m monai.bundle run`` does, in nnU-Net's axis order."""
    flow = ConfigWorkflow(
        str(bundle / "configs" / "inference.yaml"), meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False, bundle_root=str(bundle), dataset_dir=str(images), output_dir=str(out),
        **{"pattern": "iso[45]_0000.nii.gz", **more},
    )  # fmt: skip
    flow.initialize()
    flow.run()
    flow.finalize()
    return [np.asarray(nib.load(path).dataobj).T for path in sorted(out.glob("*.nii.gz"))]


def expected(kind: str) -> list[np.ndarray]:
    with np.load(ORIGINALS / "iso" / "predictions.npz") as found:
        return [found[f"{kind}_{number}"] for number in (0, 1)]


def test_the_untouched_source_predicts_as_nnunet_does(bundle, data, tmp_path):
    assert "monai_transfer" not in (bundle / "configs" / "inference.yaml").read_text()
    plain = predict(bundle, data, tmp_path / "plain")
    assert np.mean([dice(a, b) for a, b in zip(plain, expected("plain"), strict=True)]) >= 0.999
    mirrored = predict(bundle, data, tmp_path / "mirrored", **{"inferer::mirror_axes": [0, 1, 2]})
    assert np.mean([dice(a, b) for a, b in zip(mirrored, expected("mirrored"), strict=True)]) >= 0.999
    note = json.loads((bundle / "models" / "source.json").read_text())
    assert note["weights"]["coverage"] == 1.0
    assert note["nnunet"]["configuration"] == "3d_fullres"
    assert "nnU-Net Dataset001_Phantom" in note["description"]


def test_predict_takes_the_bundle_for_ours(bundle, data, tmp_path):
    from typer.testing import CliRunner

    from monai_transfer.bundle.known_code import foreign_code
    from monai_transfer.cli import app

    assert foreign_code(bundle) == []
    done = CliRunner().invoke(app, ["predict", str(bundle), str(data / "iso4_0000.nii.gz"), "-o", str(tmp_path / "o")])
    assert done.exit_code == 0, done.output
    (made,) = (tmp_path / "o").rglob("*.nii.gz")
    assert dice(np.asarray(nib.load(made).dataobj).T, expected("plain")[0]) >= 0.999
    words = [str(bundle), str(data / "iso4_0000.nii.gz"), "-o", str(tmp_path / "m"), "--tta", "flips"]
    assert CliRunner().invoke(app, ["predict", *words]).exit_code == 0  # classes have sides: nnU-Net mirrors them still
    (made,) = (tmp_path / "m").rglob("*.nii.gz")
    assert dice(np.asarray(nib.load(made).dataobj).T, expected("mirrored")[0]) >= 0.999


def test_it_is_fine_tuned_evaluated_and_exported(bundle, data, tmp_path):
    flow = open_workflow(bundle, "train", {}, log=False)
    flow.initialize()
    flow.run()
    flow.finalize()
    assert json.loads((bundle / "runs" / "train-0" / "run.json").read_text())["status"] == "finished"
    cases = (bundle / "runs" / "train-0" / "cases.csv").read_text().splitlines()
    assert len(cases) == 3
    exported = export_bundle(bundle, "bundle", tmp_path / "out", run=bundle / "runs" / "train-0")
    assert (exported / "scripts" / "nnunet_steps.py").is_file()
    here = predict(bundle, data, tmp_path / "here", ckpt=str(bundle / "runs" / "train-0" / "models" / "model.pt"))
    there = predict(exported, data, tmp_path / "there")
    assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True))


def test_refusals(data, tmp_path):
    with pytest.raises(InputError, match="the data have 1 channels and the nnU-Net model 2"):
        new_bundle(tmp_path / "a", data / "manifest.json", source=folder_of("two"))
    with pytest.raises(InputError, match="the model is 2D and the data are 3D; take a 3d_fullres model"):
        new_bundle(tmp_path / "b", data / "manifest.json", source=folder_of("flat"))
    with pytest.raises(InputError, match="keeps its own preprocessing.*leave --preprocessing data out"):
        new_bundle(tmp_path / "d", data / "manifest.json", source=folder_of("iso"), preprocessing="data")


def test_a_model_of_regions_keeps_its_head_for_the_same_regions(tmp_path):
    """Sigmoid outputs on both sides: the rows go over by the regions' names, and the masks are nnU-Net's."""
    items = []
    for seed in (3, 4, 5):
        images, label = write_case(tmp_path, "regions", seed)
        names = {"case": f"c{seed}", "patient": f"p{seed}", "site": "a"}
        items.append({"image": Path(images[0]).name, "label": Path(label).name, **names})
    made = {
        "name": "phantom", "task": "segmentation", "modality": "MR", "channel_names": {"0": "MRI"},
        "labels": {"0": "background", "1": "shell", "2": "core"}, "regions": {"core": [2], "whole": [1, 2]},
        "training": items[:1], "validation": items[1:2], "test": items[2:],
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(made))
    bundle = tmp_path / "regions_segmentation"
    spec = new_bundle(bundle, tmp_path / "manifest.json", source=folder_of("regions"), epochs=1, batch_size=2)
    note = json.loads((bundle / "models" / "source.json").read_text())
    assert spec.task == "regions" and note["weights"]["coverage"] == 1.0
    assert note["weights"]["skipped"] == note["weights"]["missing"] == []
    assert any("classes by name" in text or "core" in text for text in note["weights"]["notes"].values())
    assert note["head"] == {"source": "sigmoid", "by": "its labels", "here": "sigmoid"}
    ours = predict(bundle, tmp_path, tmp_path / "out", pattern="regions[45]_0000.nii.gz")
    with np.load(ORIGINALS / "regions" / "predictions.npz") as found:
        theirs = [found[f"plain_{number}"] for number in (0, 1)]
    assert np.mean([dice(a, b) for a, b in zip(ours, theirs, strict=True)]) >= 0.999


def test_nnunets_own_validation_is_a_line_of_the_report(data, tmp_path):
    """``summary.json`` beside the checkpoint: its Dice goes into the runs, and ``compare`` says it."""
    import shutil

    from monai_transfer.report.cautions import cautions
    from monai_transfer.report.run import Run

    model = tmp_path / "model" / folder_of("iso").name
    shutil.copytree(folder_of("iso"), model)
    (model / "fold_0" / "validation").mkdir()
    (model / "fold_0" / "validation" / "summary.json").write_text(json.dumps({"foreground_mean": {"Dice": 0.8719}}))
    bundle = tmp_path / "said_segmentation"
    new_bundle(bundle, data / "manifest.json", source=model, epochs=1, steps_per_epoch=1, batch_size=2)
    run = Run.load(run_workflow(bundle, "evaluate", {}, log=False))
    from monai_transfer.report.alignment import tabulate

    arms = {"source": {0: run}}
    measure = run.metric("dice")
    said = cautions(arms, tabulate(arms, measure, run.task), measure, [], {})
    assert any("own validation of the source" in text and "mean foreground Dice fold 0 0.872" in text for text in said)


@pytest.fixture(scope="module")
def of_two_folds(tmp_path_factory) -> tuple[Path, Path]:
    """A folder of cases of two channels, and a bundle made from a model of two folds."""
    folder = tmp_path_factory.mktemp("two")
    items = []
    for seed in range(6):
        images, label = write_case(folder, "two", seed)
        names = {"case": f"c{seed}", "patient": f"p{seed}", "site": "a"}
        items.append({"image": [Path(image).name for image in images], "label": Path(label).name, **names})
    made = {
        "name": "phantom", "task": "segmentation", "modality": "MR", "channel_names": {"0": "MRI", "1": "CT"},
        "labels": {"0": "background", "1": "left", "2": "right"},
        "training": items[:3], "validation": items[3:4], "test": items[4:],
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(made))
    bundle = tmp_path_factory.mktemp("made_of_two") / "two_segmentation"
    new_bundle(bundle, folder / "manifest.json", source=folder_of("two"), epochs=1, steps_per_epoch=1, batch_size=2)
    return folder, bundle


def in_two(bundle: Path, folder: Path, out: Path, **more) -> list[np.ndarray]:
    """``predict_images`` on the two cases that nnU-Net predicted, in its axis order."""
    from monai_transfer.predict.images import predict_images

    cases = [folder / f"two{seed}_{channel:04d}.nii.gz" for seed in (4, 5) for channel in (0, 1)]
    (out / "in").mkdir(parents=True)
    for case in cases:
        (out / "in" / case.name.replace("_0000", "_MRI").replace("_0001", "_CT")).symlink_to(case)
    predict_images(bundle, [out / "in"], out / "out", **more)
    return [np.asarray(nib.load(path).dataobj).T for path in sorted((out / "out").rglob("*.nii.gz"))]


def test_of_several_folds_the_untouched_source_is_the_mean(of_two_folds, tmp_path):
    folder, bundle = of_two_folds
    note = json.loads((bundle / "models" / "source.json").read_text())
    assert note["folds"].startswith("The untouched source is the mean of 2 folds (0, 1), as nnU-Net predicts")
    ours = in_two(bundle, folder, tmp_path / "a")
    with np.load(ORIGINALS / "two" / "predictions.npz") as found:
        theirs = [found[f"plain_{number}"] for number in (0, 1)]
    assert np.mean([dice(a, b) for a, b in zip(ours, theirs, strict=True)]) >= 0.999
    # the arm of a study: its Dice is that of these label maps
    run = run_workflow(bundle, "evaluate", {}, log=False)
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished" and record["source_says"] == note["folds"]
    with (run / "cases.csv").open() as lines:
        scored = {row["case"]: row for row in csv.DictReader(lines)}
    for seed, mask in zip((4, 5), ours, strict=True):
        truth = np.asarray(nib.load(folder / f"two{seed}_seg.nii.gz").dataobj).T
        expected = [2 * ((mask == v) & (truth == v)).sum() / ((mask == v).sum() + (truth == v).sum()) for v in (1, 2)]
        assert float(scored[f"c{seed}"]["dice"]) == pytest.approx(np.mean(expected), abs=1e-4)
    # and it is not that of one fold
    one = run_workflow(
        bundle,
        "evaluate",
        {"ckpt": str(bundle / "models" / "model.pt"), "output_dir": str(tmp_path / "one")},
        log=False,
    )
    assert (one / "cases.csv").read_text() != (run / "cases.csv").read_text()


def test_fine_tuning_of_several_folds_leaves_one_network_in_every_door(of_two_folds, tmp_path):
    folder, bundle = of_two_folds
    before = in_two(bundle, folder, tmp_path / "before")
    run = run_workflow(bundle, "train", {"output_dir": str(tmp_path / "tuned"), "lr": 0.01}, log=False)
    tuned = in_two(bundle, folder, tmp_path / "here", run=run)
    assert not all(np.array_equal(a, b) for a, b in zip(before, tuned, strict=True))
    exported = export_bundle(bundle, "bundle", tmp_path / "deploy", run=run)
    there = in_two(exported, folder, tmp_path / "there")
    assert all(np.array_equal(a, b) for a, b in zip(tuned, there, strict=True))
    untouched = export_bundle(bundle, "bundle", tmp_path / "untouched")
    again = in_two(untouched, folder, tmp_path / "again")
    assert all(np.array_equal(a, b) for a, b in zip(before, again, strict=True))
    assert export_bundle(bundle, "torchscript", tmp_path / "both.ts").is_file()
