"""Reading results folders: what is found, and what is refused by its name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from monai.networks.nets import DynUNet

from monai_transfer.errors import InputError
from monai_transfer.nnunet.checkpoints import fold_weights
from monai_transfer.nnunet.model import is_nnunet_folder, read_model
from monai_transfer.nnunet.network import build_network, network_config, nnunet_network, turned_weights
from tests.nnunet.test_parity import folder_of


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(folder_of("iso"), tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"))


def edit(folder: Path, name: str = "plans.json", **changes) -> None:
    """Change keys of a file, or of its only configuration where they belong there."""
    content = json.loads((folder / name).read_text())
    inner = next(iter(content["configurations"].values())) if name == "plans.json" else content
    for key, value in changes.items():
        (inner if key in inner or key == "previous_stage" else content)[key] = value
    (folder / name).write_text(json.dumps(content))


def test_what_a_folder_says():
    model = read_model(folder_of("iso"))
    assert (model.configuration, model.trainer, model.plans) == ("3d_fullres", "nnUNetTrainer", "nnUNetPlans")
    assert model.spacing == [1.0, 1.05, 1.1]  # turned: x, y, z
    assert model.patch == [20, 24, 16]
    assert model.labels == ["background", "left", "right"]
    assert (model.activation, model.regions_order, model.ignore) == ("softmax", [], None)
    assert (model.channels, model.file_ending) == (["MRI"], ".nii.gz")
    assert (model.order, model.order_z, model.inverse, model.separate) == (3, 0, (1, 0), None)
    assert model.architecture.in_monai


def test_slices_regions_and_turned_axes():
    flat = read_model(folder_of("flat"))
    assert (flat.dims, flat.image_dims, flat.slice_axis, flat.spacing) == (2, 3, 2, [1.0, 1.05, None])
    picture = read_model(folder_of("png"))
    assert (picture.dims, picture.image_dims, picture.slice_axis, picture.patch) == (2, 2, None, [40, 32])
    regions = read_model(folder_of("regions"))
    assert (regions.activation, regions.labels, regions.regions_order) == ("sigmoid", ["whole", "core"], [1, 2])
    assert (regions.label_values, regions.ignore) == ([[1, 2], [2]], 3)
    two = read_model(folder_of("two"))
    # nnU-Net's first axis is the file's y, then z, then x
    assert two.axes == [2, 0, 1]
    assert (two.patch, two.spacing) == ([20, 16, 24], [1.0, 1.1, 1.05])
    assert list(two.folds) == ["0", "1"]
    assert [channel.masked for channel in two.normalization] == [True, False]


def test_one_fold_by_its_path_or_name():
    folder = folder_of("two")
    assert list(read_model(folder / "fold_1").folds) == ["1"]
    assert list(read_model(folder, folds=["fold_1"]).folds) == ["1"]
    assert is_nnunet_folder(folder / "fold_1")
    assert not is_nnunet_folder(folder.parent)
    with pytest.raises(InputError, match="no fold '7'; there are 0, 1"):
        read_model(folder, folds=["7"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"previous_stage": "3d_lowres"}, "second stage of a cascade.*3d_lowres"),
        ({"normalization_schemes": ["TheirOwn"]}, "channel 0 has TheirOwn, which is not rebuilt"),
        ({"preprocessor_name": "TheirPreprocessor"}, "preprocessor_name TheirPreprocessor, which is not rebuilt"),
        ({"resampling_fn_data": "resample_torch_fornnunet"}, "resample_torch_fornnunet, which is not rebuilt"),
        ({"image_reader_writer": "Tiff3DIO"}, "images were read by Tiff3DIO, which is not rebuilt"),
        ({"label_manager": "TheirLabels"}, "label manager TheirLabels"),
        ({"configurations": {}}, "has no configuration '3d_fullres'"),
        ({"normalization_schemes": ["CTNormalization"], "foreground_intensity_properties_per_channel": {}},
         "no intensities for channel 0"),
    ],
)  # fmt: skip
def test_refused_by_name(folder, changes, words):
    edit(folder, **changes)
    with pytest.raises(InputError, match=f"plans.json: .*{words}"):
        read_model(folder)


def test_networks_that_are_not_rebuilt(folder):
    content = json.loads((folder / "plans.json").read_text())
    made = content["configurations"]["3d_fullres"]["architecture"]
    made["network_class_name"] = "their.own.Primus"
    (folder / "plans.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="the network Primus is not rebuilt here"):
        read_model(folder)
    made["network_class_name"] = "a.PlainConvUNet"
    made["arch_kwargs"] |= {"dropout_op": "torch.nn.Dropout3d", "nonlin": "torch.nn.ReLU"}
    (folder / "plans.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"activation torch.nn.ReLU, dropout, which is not rebuilt"):
        read_model(folder)


def test_older_plans_and_inheritance(folder):
    """As nnU-Net 2.0 to 2.3 wrote the network, and a configuration that stands on another."""
    now = read_model(folder).architecture
    content = json.loads((folder / "plans.json").read_text())
    config = content["configurations"]["3d_fullres"]
    made = config.pop("architecture")["arch_kwargs"]
    old = {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": made["n_conv_per_stage"],
        "n_conv_per_stage_decoder": made["n_conv_per_stage_decoder"],
        "conv_kernel_sizes": made["kernel_sizes"],
        "pool_op_kernel_sizes": made["strides"],
    }
    content["configurations"] = {"base": {**config, **old}, "3d_fullres": {"inherits_from": "base"}}
    (folder / "plans.json").write_text(json.dumps(content))
    then = read_model(folder).architecture
    assert then.features == [4, 8, 8]
    assert (then.kernels, then.strides, then.blocks) == (now.kernels, now.strides, now.blocks)
    content["configurations"]["base"]["inherits_from"] = "3d_fullres"
    (folder / "plans.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="in a circle"):
        read_model(folder)


def test_faults_of_folders(folder, tmp_path):
    with pytest.raises(InputError, match=r"holds no plans.json and dataset.json; name a results folder"):
        read_model(tmp_path)
    (folder / "dataset.json").write_text("{")
    with pytest.raises(InputError, match="dataset.json: is not JSON"):
        read_model(folder)
    edit_labels = {"channel_names": {"0": "MRI"}, "labels": {"a": 1}}
    (folder / "dataset.json").write_text(json.dumps(edit_labels))
    with pytest.raises(InputError, match="declares no labels with a background"):
        read_model(folder)
    for file in folder.rglob("*.pth"):
        file.unlink()
    with pytest.raises(InputError, match="holds no checkpoint_final.pth"):
        read_model(folder)


def test_a_bundle_of_monais_converter(folder, tmp_path):
    """``convert_nnunet_to_monai_bundle``'s files, which it needs nnunetv2 and its environment variables to write."""
    final = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=True)
    models = tmp_path / "bundle" / "models"
    (models / "fold_0").mkdir(parents=True)
    kept = ("inference_allowed_mirroring_axes", "init_args", "trainer_name")
    torch.save({key: final[key] for key in kept}, models / "nnunet_checkpoint.pth")
    torch.save({"network_weights": final["network_weights"]}, models / "fold_0" / "model.pt")
    for name in ("plans.json", "dataset.json"):
        shutil.copy(folder / name, models / name)
    model, original = read_model(tmp_path / "bundle"), read_model(folder)
    assert (model.spacing, model.patch, model.mirror_axes) == (original.spacing, original.patch, [0, 1, 2])
    theirs, ours = turned_weights(original), turned_weights(model)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)


def test_the_turned_network_sees_the_turned_image():
    """``two``: nnU-Net's axes are y, z, x of the file."""
    model = read_model(folder_of("two"), folds=["0"])
    ours, image = nnunet_network(model), torch.randn(1, 2, 20, 16, 24)
    assert isinstance(ours, DynUNet)
    straight = build_network(network_config(model) | {
        "kernel_size": model.architecture.kernels, "strides": model.architecture.strides,
        "upsample_kernel_size": model.architecture.strides[1:],
    })  # fmt: skip
    from monai_transfer.weights import load_weights

    load_weights(straight.eval(), fold_weights(model.folds["0"]))
    theirs = straight(image.permute(0, 1, 3, 4, 2)).permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(ours(image), theirs, rtol=1e-4, atol=1e-4)


def test_residual_encoders_name_their_package(monkeypatch):
    import sys

    model = read_model(folder_of("resenc"))
    assert not model.architecture.in_monai
    monkeypatch.setitem(sys.modules, "dynamic_network_architectures", None)
    with pytest.raises(InputError, match="needs the package dynamic_network_architectures.*pip install --no-deps"):
        nnunet_network(model)
