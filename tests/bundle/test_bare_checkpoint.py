"""A checkpoint file as the source: the network by its names or as the user says, and the published preprocessing."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.networks import nets
from typer.testing import CliRunner

from monai_transfer.bundle.bare_checkpoint import parse_network_args
from monai_transfer.bundle.export import export_bundle
from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.cli import app
from monai_transfer.errors import CoverageError, InputError
from monai_transfer.predict.images import predict_images
from monai_transfer.safe_parse import read_mapping
from tests.bundle.test_new import SHORT, SMALL

SWIN = {"in_channels": 1, "out_channels": 2, "feature_size": 12, "depths": (1, 1, 1, 1)}


def saved(network: torch.nn.Module, path: Path, prefix: str = "") -> Path:
    torch.save({"state_dict": {prefix + k: v for k, v in network.state_dict().items()}, "epoch": 1}, path)
    return path


def note_of(bundle: Path) -> dict:
    return json.loads((bundle / "models" / "source.json").read_text())


def test_the_network_as_the_user_says(tiny_set, tmp_path):
    torch.manual_seed(5)
    source = nets.UNet(3, 1, 2, (4, 8), (2,), norm="batch")
    path = saved(source, tmp_path / "w.pt", "module.")
    with pytest.raises(InputError, match=r"does not say which network.*--network SwinUNETR --network-args") as caught:
        new_bundle(tmp_path / "b", tiny_set("segmentation", 3), source=path, **SMALL)
    assert str(caught.value).startswith(str(path)) and not (tmp_path / "b").exists()
    arguments = parse_network_args(["channels=[4,8] strides=[2]", "norm=batch"])
    given = {"source": path, "network": "UNet", "network_args": arguments}
    spec = new_bundle(tmp_path / "b", tiny_set("segmentation", 3), **given, **SMALL)
    assert spec.network == {"_target_": "monai.networks.nets.UNet", "channels": [4, 8], "strides": [2], "norm": "batch",
                            "spatial_dims": 3, "in_channels": 1, "out_channels": 2}  # fmt: skip
    note = note_of(tmp_path / "b")
    assert note["weights"]["coverage"] == 1 and note["preprocessing"].startswith(
        "fitted to the data: what these weights"
    )
    weights = torch.load(tmp_path / "b" / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(weights[name], tensor) for name, tensor in source.state_dict().items())
    run = run_workflow(tmp_path / "b", "train", SHORT, log=False)
    assert json.loads((run / "run.json").read_text())["status"] == "finished"


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        ("UNett", {}, "no network 'UNett' in monai.networks.nets; did you mean 'UNet'"),
        ("UNet", {}, "UNet cannot be made.*missing.*--network-args"),
        ("UNet", {"channels": [4, 8], "strides": [2], "depth": 3}, "UNet cannot be made.*depth"),
        (
            "UNet",
            {"channels": [4, 8], "strides": [2], "out_channels": 5},
            "out_channels=5, and the data have 2 classes",
        ),
        ("UNet", {"channels": [8, 16], "strides": [2]}, "only .* of the parameters of UNet were found"),
        (None, {"channels": [4, 8]}, "--network-args needs --network"),
        ("nowhere.Net", {}, "no network 'nowhere.Net' can be imported"),
    ],
)
def test_refusals(tiny_set, tmp_path, network, arguments, message):
    path = saved(nets.UNet(3, 1, 2, (4, 8), (2,)), tmp_path / "w.pt")
    with pytest.raises((InputError, CoverageError), match=message):
        new_bundle(
            tmp_path / "b", tiny_set("segmentation", 3), source=path, network=network, network_args=arguments, **SMALL
        )


def test_the_command_takes_network_args(tiny_set, tmp_path):
    path = saved(nets.SwinUNETR(**SWIN), tmp_path / "swin.pt")
    sites = ["--source-site", "north", "--target-site", "south"]
    told = ["--network", "SwinUNETR", "--network-args", "feature_size=24"]
    call = ["new", str(tmp_path / "b"), "--data", str(tiny_set("segmentation", 3)), "--source", str(path), *sites]
    refused = CliRunner().invoke(app, [*call, *told])
    assert "feature_size=24, and the file's shapes are those of 12" in str(refused.exception)
    done = CliRunner().invoke(app, [*call, *told[:2]])
    assert done.exit_code == 0, done.output
    assert "network: SwinUNETR, as asked" in done.output and "100% of the parameters" in done.output
    assert note_of(tmp_path / "b")["weights"]["skipped"] == []
    odd = CliRunner().invoke(app, [*call, *told[:3], "feature_size"])
    assert "'feature_size' is not of the form key=value" in str(odd.exception)


def test_published_ct_weights_bring_window_and_grid(tiny_set, tmp_path):
    state = {f"module.{k}": v for k, v in nets.SwinUNETR(**SWIN).swinViT.state_dict().items()}
    state = {k.replace("mlp.linear", "mlp.fc"): v for k, v in state.items()}
    torch.save({"state_dict": state}, tmp_path / "model_swinvit.pt")
    given = {"source": tmp_path / "model_swinvit.pt", "patch": [32, 32, 32], **SMALL}
    spec = new_bundle(tmp_path / "b", tiny_set("segmentation", 3), **given)
    assert spec.spacing == [1.5, 1.5, 2.0] and "SwinUNETR/Pretrain/main.py" in note_of(tmp_path / "b")["preprocessing"]
    config = read_mapping(tmp_path / "b" / "configs" / "inference.yaml")
    image = str(next((tiny_set("segmentation", 3).parent / "images").glob("*.nii.gz")))
    parser = ConfigParser(config)
    parser["bundle_root"] = str(tmp_path / "b")
    made = parser.get_parsed_content("preprocessing")({"image": image})["image"]
    assert np.allclose(made.pixdim, [1.5, 1.5, 2.0])
    raw = np.asarray(read_image(image))
    assert float(made.max()) <= (raw.max() + 1000) / 2000 + 1e-3 and abs(float(made.mean()) - 0.525) < 0.02
    planned = new_bundle(tmp_path / "c", tiny_set("segmentation", 3), preprocessing="data", **given)
    assert planned.kept is None and planned.normalise[0]["_target_"].endswith("NormalizeIntensityd")


def read_image(path: str):
    import nibabel

    return nibabel.load(path).dataobj


def test_imagenet_weights_for_pictures(tiny_set, tmp_path):
    """Into ``FlexibleUNet`` for a segmentation, as they are for whole pictures; ImageNet's colours with them."""
    path = saved(nets.EfficientNetBN("efficientnet-b0", False, spatial_dims=2, num_classes=1000), tmp_path / "b0.pt")
    spec = new_bundle(tmp_path / "s", tiny_set("segmentation", 2), source=path, **SMALL)
    assert spec.network["_target_"].endswith("FlexibleUNet") and spec.network["backbone"] == "efficientnet-b0"
    assert spec.picture == "rgb" and spec.channel_names == ["red", "green", "blue"]
    note = note_of(tmp_path / "s")
    assert {name.split(".")[0] for name in note["weights"]["missing"]} == {"decoder", "segmentation_head"}
    assert spec.normalise[1]["subtrahend"] == [0.485, 0.456, 0.406]
    whole = new_bundle(tmp_path / "c", tiny_set("classification", 2), source=path, **SMALL)
    assert whole.network["num_classes"] == 2 and whole.patch == [224, 224] and whole.normalise == spec.normalise
    assert whole.recipe["patch"]["reason"].startswith("the source's; images are resized to it")
    with pytest.raises(InputError, match="the weights are 2D|says one thing about an image"):
        new_bundle(tmp_path / "d", tiny_set("segmentation", 3), source=path, **SMALL)


def test_xray_weights_train_on_grey_pictures(tiny_set, tmp_path):
    source = nets.DenseNet(2, 1, 18, init_features=8, growth_rate=4, block_config=(1, 1))
    path = saved(source, tmp_path / "xray.pt")
    spec = new_bundle(tmp_path / "b", tiny_set("classification", 2), source=path, patch=[32, 32], **SMALL)
    assert spec.picture == "grey" and spec.normalise[0]["b_min"] == -1024
    assert "TorchXRayVision" in note_of(tmp_path / "b")["preprocessing"]
    run = run_workflow(tmp_path / "b", "train", SHORT, log=False)
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    with pytest.raises(InputError, match="TorchXRayVision DenseNet, which says one thing about an image"):
        new_bundle(tmp_path / "s", tiny_set("segmentation", 2), source=path, **SMALL)


def test_an_nnunet_checkpoint_alone_tells_all(tmp_path):
    """nnU-Net v2 writes its plans into every checkpoint: one that was copied away from its folder is a whole source."""
    from monai_transfer.nnunet.model import read_model
    from tests.nnunet.test_parity import folder_of

    folder = folder_of("iso")
    shutil.copy(folder / "fold_0" / "checkpoint_final.pth", tmp_path / "somewhere.pth")
    alone, whole = read_model(tmp_path / "somewhere.pth"), read_model(folder)
    same = ("spacing", "patch", "labels", "channels", "normalization", "architecture", "mirror_axes", "axes", "dims")
    assert all(getattr(alone, name) == getattr(whole, name) for name in same)


@pytest.mark.parametrize("name", [pytest.param("BasicUNetPlusPlus", marks=pytest.mark.slow), "ViT"])
def test_networks_of_several_outputs_answer_alike_in_every_door(tiny_set, tmp_path, name):
    """They give a list or a tuple in evaluation too; inference with MONAI alone and TorchScript take one of it."""
    dense = name == "BasicUNetPlusPlus"
    torch.manual_seed(5)
    if dense:
        data, told = tiny_set("segmentation", 3), {"features": [4, 4, 8, 8, 8, 4]}
        path = saved(nets.BasicUNetPlusPlus(3, 1, 2, (4, 4, 8, 8, 8, 4)), tmp_path / "w.pt")
    else:
        told = {"img_size": [32, 32], "patch_size": [16, 16], "hidden_size": 24, "mlp_dim": 24, "num_layers": 2}
        told |= {"num_heads": 2, "classification": True, "post_activation": "none"}
        data = tiny_set("classification", 2)
        path = saved(nets.ViT(1, spatial_dims=2, num_classes=2, **told), tmp_path / "w.pt")
    bundle = tmp_path / f"many_{'segmentation' if dense else 'classification'}"
    spec = new_bundle(bundle, data, source=path, network=name, network_args=told, **SMALL)
    assert dense or spec.patch == [32, 32]  # the only size that it takes
    run = run_workflow(bundle, "train", SHORT, log=False)
    image = sorted(data.parent.rglob("*.nii.gz" if dense else "*.png"))[0]
    here = predict_images(bundle, [image], tmp_path / "here", run=run).written
    exported = export_bundle(bundle, "bundle", tmp_path / "deploy", run=run)
    flow = ConfigWorkflow(
        str(exported / "configs" / "inference.yaml"), meta_file=str(exported / "configs" / "metadata.json"),
        logging_file=False, bundle_root=str(exported), dataset_dir=str(image.parent), pattern=image.name,
        output_dir=str(tmp_path / "there"),
    )  # fmt: skip
    flow.initialize()
    flow.run()
    flow.finalize()
    if dense:
        (there,) = (tmp_path / "there").rglob("*.nii.gz")
        assert np.array_equal(*(np.asarray(nib.load(path).dataobj) for path in (here[0], there)))
    else:
        ours = next(csv.DictReader(here[0].open()))
        theirs = (tmp_path / "there" / "predictions.csv").read_text().strip().split(",")[1:]
        assert [float(v) for k, v in ours.items() if k.startswith("p_")] == pytest.approx([float(v) for v in theirs])
    script = torch.jit.load(str(export_bundle(bundle, "torchscript", tmp_path / "m.ts", run=run)))
    assert isinstance(script(torch.zeros(1, 1, *spec.patch)), torch.Tensor)
