"""A bundle made from an nnU-Net model becomes an nnU-Net model again; what nnU-Net cannot say is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from monai_transfer.bundle.export import export_bundle
from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.cli import app
from monai_transfer.errors import InputError
from monai_transfer.nnunet.predictor import NnunetPredictor
from monai_transfer.predict.images import predict_images
from tests.nnunet.originals.kinds import KINDS
from tests.nnunet.originals.phantoms import write_case
from tests.nnunet.test_parity import HAVE_ORIGINAL, folder_of


def write_data(folder: Path, kind: str, **more) -> Path:
    """Three cases and their manifest, with the model's channels and labels unless ``more`` says otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for seed in (3, 4, 5):
        images, label = write_case(folder, kind, seed)
        names = [Path(image).name for image in images]
        image = names if len(names) > 1 else names[0]
        items.append(
            {"image": image, "label": Path(label).name, "case": f"c{seed}", "patient": f"p{seed}", "site": "a"}
        )
    made = {
        "name": "phantom", "task": "segmentation", "modality": "MR",
        "channel_names": KINDS[kind].get("channels", {"0": "MRI"}),
        "labels": {"0": "background", "1": "left", "2": "right"},
        "training": items[:1], "validation": items[1:2], "test": items[2:], **more,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(made))
    return folder / "manifest.json"


def made_of(kind: str, tmp_path: Path, manifest: dict | None = None, **options) -> Path:
    data = write_data(tmp_path / "data", kind, **(manifest or {}))
    bundle = tmp_path / f"{kind}_segmentation"
    new_bundle(bundle, data, source=folder_of(kind), epochs=1, steps_per_epoch=1, batch_size=2, **options)
    return bundle


def checkpoint(folder: Path, fold: str = "0") -> dict:
    return torch.load(folder / f"fold_{fold}" / "checkpoint_final.pth", weights_only=True)


@pytest.mark.parametrize("kind", ["iso", "thick", "two"])
def test_untouched_it_is_the_model_that_it_was(kind, tmp_path):
    """Every tensor to the bit, under every name that nnU-Net asks for; plans and labels are the same data."""
    bundle = made_of(kind, tmp_path)
    folder = export_bundle(bundle, "nnunet", tmp_path / "back")
    for name in ("plans.json", "dataset.json"):
        assert json.loads((folder / name).read_text()) == json.loads((folder_of(kind) / name).read_text())
    folds = KINDS[kind].get("folds", 1)
    assert len(list(folder.glob("fold_*"))) == folds
    theirs, ours = checkpoint(folder_of(kind)), checkpoint(folder)
    assert list(ours["network_weights"]) == list(theirs["network_weights"])
    assert all(torch.equal(t, ours["network_weights"][k]) for k, t in theirs["network_weights"].items())
    for key in ("trainer_name", "inference_allowed_mirroring_axes"):
        assert ours[key] == theirs[key]
    assert ours["init_args"]["configuration"] == theirs["init_args"]["configuration"]
    if folds > 1:  # biases that a norm takes out and heads of deep supervision are the first fold's
        theirs, ours = (checkpoint(place, "1")["network_weights"] for place in (folder_of(kind), folder))
        apart = {k for k, t in theirs.items() if not torch.equal(t, ours[k])}
        assert apart and all(k.endswith("bias") or "seg_layers.0" in k for k in apart)


def test_fine_tuned_it_predicts_what_the_bundle_predicts(tmp_path):
    """Also where training filled kernels that were flat in nnU-Net: the plans get the larger kernel."""
    bundle = made_of("thick", tmp_path, {"labels": {"0": "background", "1": "right", "2": "tumour"}})
    run = run_workflow(bundle, "train", {"lr": 0.01}, log=False)
    out = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    done = CliRunner().invoke(app, ["export", str(bundle), "--to", "nnunet", "--run", str(run), "-o", str(out)])
    assert done.exit_code == 0, done.output
    arguments = json.loads((out / "plans.json").read_text())["configurations"]["3d_fullres"]["architecture"]
    assert arguments["arch_kwargs"]["kernel_sizes"] == [[3, 3, 3]] * 3  # was [1, 3, 3] first
    labels = {"background": 0, "right": 1, "tumour": 2, "left": 3}  # the source's, which nobody looked for here
    assert json.loads((out / "dataset.json").read_text())["labels"] == labels
    image = tmp_path / "data" / "thick5_0000.nii.gz"
    (there,) = predict_images(bundle, [image], tmp_path / "pred", run=run).written
    mask = NnunetPredictor(out, mirror=False)(image)[0]
    assert np.array_equal(np.asarray(nib.load(there).dataobj), np.asarray(mask))


def test_regions_stand_in_the_order_that_nnunet_writes_them_in(tmp_path):
    """Declared the smaller first: nnU-Net would write the larger over it."""
    labels = {"labels": {"0": "background", "1": "shell", "2": "core"}, "regions": {"core": [2], "whole": [1, 2]}}
    bundle = made_of("regions", tmp_path, labels)
    folder = export_bundle(bundle, "nnunet", tmp_path / "back")
    dataset = json.loads((folder / "dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "whole": [1, 2], "core": 2}
    assert list(dataset["labels"]) == ["background", "whole", "core"]
    assert dataset["regions_class_order"] == [1, 2]
    image = tmp_path / "data" / "regions5_0000.nii.gz"
    (there,) = predict_images(bundle, [image], tmp_path / "pred").written
    mask = NnunetPredictor(folder, mirror=False)(image)[0]
    assert np.array_equal(np.asarray(nib.load(there).dataobj), np.asarray(mask))


@pytest.mark.skipif(not HAVE_ORIGINAL, reason="dynamic_network_architectures is not installed")
def test_a_residual_encoder(tmp_path):
    folder = export_bundle(made_of("resenc", tmp_path), "nnunet", tmp_path / "back")
    theirs, ours = (checkpoint(place)["network_weights"] for place in (folder_of("resenc"), folder))
    assert list(ours) == list(theirs) and all(torch.equal(t, ours[k]) for k, t in theirs.items())


def test_another_spacing_goes_into_the_plans(tmp_path):
    bundle = made_of("two", tmp_path, spacing=[1.5, 1.25, 2.0])
    folder = export_bundle(bundle, "nnunet", tmp_path / "back")
    # nnU-Net's first axis is the file's y, then z, then x
    assert json.loads((folder / "plans.json").read_text())["configurations"]["3d_fullres"]["spacing"] == [
        1.25,
        2.0,
        1.5,
    ]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return made_of("iso", tmp_path_factory.mktemp("plain"))


def edited(bundle: Path, to: Path, change) -> Path:
    """A copy whose inference config was changed."""
    shutil.copytree(bundle, to)
    path = to / "configs" / "inference.yaml"
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config))
    return to


def test_what_plans_cannot_say_is_refused(plain, tmp_path):
    def other_steps(config):
        config["preprocessing"]["transforms"][4]["channels"] = [{"scheme": "NoNormalization"}]

    def one_step_more(config):
        config["preprocessing"]["transforms"].append({"_target_": "monai.transforms.ScaleIntensityd", "keys": "image"})

    def other_tiles(config):
        config["inferer"]["roi_size"] = [8, 8, 8]

    def cleaned(config):
        step = {"_target_": "monai.transforms.KeepLargestConnectedComponentd", "keys": "pred"}
        config["postprocessing"]["transforms"].insert(2, step)

    for number, (change, words) in enumerate([
        (other_steps, r"not those that nnU-Net makes of the plans \(step 2: NormalizeChannelsd\)"),
        (one_step_more, r"step 4: ScaleIntensityd"),
        (other_tiles, "its tiles are not those of nnU-Net's plans"),
        (cleaned, "it does KeepLargestConnectedComponentd to its predictions"),
    ]):  # fmt: skip
        bundle = edited(plain, tmp_path / f"b{number}_segmentation", change)
        with pytest.raises(InputError, match=words):
            export_bundle(bundle, "nnunet", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_labels_that_nnunet_cannot_write(tmp_path):
    data = write_data(tmp_path / "data", "iso")
    for path in (tmp_path / "data").glob("*_seg.nii.gz"):
        image = nib.load(path)
        values = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(np.where(values == 2, 4, values).astype(np.uint8), image.affine), path)
    content = json.loads(data.read_text())
    content["labels"] = {"0": "background", "1": "left", "4": "right"}
    data.write_text(json.dumps(content))
    bundle = tmp_path / "gaps_segmentation"
    new_bundle(bundle, data, source=folder_of("iso"), epochs=1, steps_per_epoch=1, batch_size=2)
    with pytest.raises(InputError, match="label values are 0, 1, 4, and nnU-Net writes 0, 1, 2 ... without a gap"):
        export_bundle(bundle, "nnunet", tmp_path / "out")


def test_a_bundle_of_another_source(plain, tmp_path):
    other = tmp_path / "other_segmentation"
    shutil.copytree(plain, other)
    (other / "models" / "nnunet.json").unlink()
    with pytest.raises(InputError, match="was not made from an nnU-Net model"):
        export_bundle(other, "nnunet", tmp_path / "out")
    (other / "models" / "nnunet.json").write_text("{}")
    with pytest.raises(InputError, match="is not what `new` writes of an nnU-Net model"):
        export_bundle(other, "nnunet", tmp_path / "out")
