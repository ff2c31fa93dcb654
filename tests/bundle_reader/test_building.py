"""Objects of components: equal to MONAI's own, and refused beyond the limits before memory is taken."""

from __future__ import annotations

import importlib.util
import socket
import time

import pytest
import torch
from monai.bundle import ConfigParser

from monai_transfer.bundle_reader.building import as_config, build
from monai_transfer.bundle_reader.references import Resolver
from monai_transfer.errors import InputError

UNET = {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}
# configs as public bundles write them, small
NETWORKS = {
    "UNet": UNET | {"norm": "batch", "act": ["prelu", {"init": 0.2}]},
    "SegResNet": {"_target_": "monai.networks.nets.SegResNet", "init_filters": 8, "blocks_down": [1, 1]}
    | {"blocks_up": [1], "in_channels": 1, "out_channels": 2, "spatial_dims": 2},
    "SwinUNETR": {"_target_": "SwinUNETR", "img_size": 64, "in_channels": 1, "out_channels": 2, "feature_size": 12}
    | {"spatial_dims": 2},
    "DynUNet": {"_target_": "monai.networks.nets.DynUNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    | {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8]},
    "EfficientNetBN": {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0", "in_channels": 1}
    | {"spatial_dims": 2, "num_classes": 2},
    "DenseNet121": {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": 2},
    "SEResNet50": {
        "_target_": "SEResNet50",
        "spatial_dims": 2,
        "in_channels": 1,
        "num_classes": 2,
        "pretrained": False,
    },
}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def component(config):
    return Resolver({"it": config}).get("it")


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_equal_those_that_monai_makes(name):
    torch.manual_seed(0)
    ours = build(component(NETWORKS[name]))
    torch.manual_seed(0)
    config = {k: v for k, v in NETWORKS[name].items() if k != "img_size"}
    theirs = ConfigParser({"it": config | ({"pretrained": False} if name == "EfficientNetBN" else {})})
    theirs = theirs.get_parsed_content("it")
    assert type(ours) is type(theirs)
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("said", [{}, {"pretrained": True}, {"pretrained": 1}])
def test_weights_are_never_fetched(said):
    """Neither by a default nor where the config asks for them: the bundle's own weights come behind."""
    found = component({"_target_": "EfficientNetBN", "model_name": "efficientnet-b0", **said})
    assert build(found) is not None
    assert as_config(found)["pretrained"] is False


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is here")
def test_a_missing_package_is_one_line():
    found = component({"_target_": "TorchVisionFCModel", "model_name": "resnet18", "pretrained": True})
    with pytest.raises(InputError) as error:
        build(found)
    assert error.value.fault == "TorchVisionFCModel needs the package torchvision, which is not here"


HOSTILE = {
    "a URL": {"_target_": "HoVerNet", "pretrained_url": "https://example.org/x.pt"},
    "a reader by its path": {"_target_": "LoadImaged", "keys": "image", "reader": "subprocess.getoutput"},
    "a reader among others": {"_target_": "LoadImaged", "keys": "image", "reader": ["ITKReader", "os.system"]},
    "a function": {"_target_": "Activationsd", "keys": "pred", "other": "$print"},
    "a function's name": {"_target_": "Activationsd", "keys": "pred", "other": "print"},
    "a function that is code": {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x.numpy()"},
    "a function by its name": {"_target_": "Lambdad", "keys": "pred", "func": "os.system"},
    "a file to write": {"_target_": "SaveImaged", "keys": "pred", "output_dir": "/etc"},
    "a log": {"_target_": "Compose", "transforms": [], "log_stats": "/tmp/x"},
    "a component where none belongs": UNET | {"norm": {"_target_": "torch.nn.ReLU"}},
    "a torchvision attribute": {"_target_": "TorchVisionFCModel", "model_name": "_api"},
    "a wide network": UNET | {"channels": [1 << 20, 1 << 20]},
    "a huge kernel": UNET | {"kernel_size": [1 << 16, 1 << 16]},
    "a deep network": NETWORKS["SegResNet"] | {"blocks_down": [1, 1 << 30]},
    "a huge window": {"_target_": "SlidingWindowInferer", "roi_size": [1 << 20, 1 << 20, 1 << 20]},
    "code in a text": UNET | {"norm": "$'$__import__(' + '1)'"},
    "a component in a text": UNET | {"norm": "${'_target_': 'os.system', 'command': 'touch canary'}"},
    "tiny voxels": {"_target_": "Spacingd", "keys": "image", "pixdim": [1e-6, 1e-6, 1e-6]},
    "a huge image": {"_target_": "Resized", "keys": "image", "spatial_size": [1 << 14, 1 << 14, 1 << 14]},
    "a wrong type": UNET | {"channels": "many"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_in_a_line_and_soon(name, monkeypatch):
    monkeypatch.setattr("monai_transfer.bundle_reader.building.MAX_SECONDS", 2.0)
    found, start = component(HOSTILE[name]), time.monotonic()
    with pytest.raises(InputError) as error:
        build(found)
    assert time.monotonic() - start < 10
    assert "\n" not in str(error.value) and error.value.hint


def test_transforms_share_what_they_refer_to():
    config = {
        "preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "Orientationd", "keys": "image"}]},
        "back": {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
    }
    config["preprocessing"]["transforms"][0]["axcodes"] = "RAS"
    resolver, share = Resolver(config), {}
    first = build(resolver.get("preprocessing"), share=share)
    assert build(resolver.get("back"), share=share).transform is first


def test_a_config_of_ones_own_holds_plain_values():
    made = as_config(component(UNET | {"channels": "$[4, 2 * 4]"}))
    assert made == UNET | {"_target_": "monai.networks.nets.UNet"}
