"""Published weights of MONAI's own networks in the wrappings in which they were published: all of the encoder arrives.

The networks are MONAI's in the original code too (CT-FM's package subclasses them), so equal tensors are equal outputs;
what is tested is the nest, the prefix, the parts left over, and what another number of classes does.
"""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks import nets
from monai.networks.nets.segresnet_ds import SegResEncoder
from monai.transforms import Compose
from safetensors.torch import save_file
from torch import nn

from monai_transfer.weights import load_weights
from monai_transfer.weights.families import find_family
from monai_transfer.weights.published_preprocessing import PREPROCESSING

SEGRESNET = {"spatial_dims": 3, "init_filters": 8, "in_channels": 1, "blocks_down": (1, 2), "blocks_up": (1,)}
IMAGENET = [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]
SWIN = {"in_channels": 1, "feature_size": 12, "spatial_dims": 2}


def segresnet_ds(classes: int, kind=nets.SegResNetDS, **more):
    return kind(spatial_dims=3, init_filters=4, in_channels=1, out_channels=classes, blocks_down=(1, 1, 2), **more)


def build_network(config: dict) -> nn.Module:
    return ConfigParser({"network": dict(config)}).get_parsed_content("network")


def equal(ours, theirs) -> bool:
    return all(torch.equal(a, theirs[name]) for name, a in ours.items())


def test_suprem_segresnet_with_other_classes(tmp_path):
    source = nets.SegResNet(out_channels=32, **SEGRESNET)
    state = {f"module.backbone.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"net": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}, "epoch": 2100}, tmp_path / "s.pth")
    network = nets.SegResNet(out_channels=5, **SEGRESNET)
    report = load_weights(network, tmp_path / "s.pth")
    assert report.skipped == ["conv_final.2.conv.weight", "conv_final.2.conv.bias"]
    assert report.missing == report.unused == report.adapted == []
    assert len(report.loaded) == len(state) - 2


def test_suprem_swin_unetr_whole_and_encoder():
    source = nets.SwinUNETR(out_channels=32, **SWIN)
    checkpoint = {"net": {f"module.{name}": tensor for name, tensor in source.state_dict().items()}, "epoch": 2100}
    network = nets.SwinUNETR(out_channels=3, **SWIN)
    report = load_weights(network, checkpoint)
    assert report.missing == report.unused == [] and report.skipped == ["out.conv.conv.weight", "out.conv.conv.bias"]
    encoder = nets.SwinUNETR(out_channels=3, **SWIN).swinViT
    report = load_weights(encoder, checkpoint)
    assert report.coverage == 1 and "swinViT." in report.dialect and report.unused
    assert equal(encoder.state_dict(), source.swinViT.state_dict())


def test_ct_fm_encoder_into_segresnet_ds(tmp_path):
    """The feature extractor is an encoder alone, in safetensors; the segmenter is a whole ``SegResNetDS``."""
    torch.manual_seed(1)
    source = SegResEncoder(spatial_dims=3, init_filters=4, in_channels=1, blocks_down=(1, 1, 2))
    save_file(source.state_dict(), tmp_path / "model.safetensors", metadata={"licence": "Apache-2.0"})
    network = segresnet_ds(2)
    report = load_weights(network.encoder, tmp_path / "model.safetensors")
    assert report.coverage == 1 and report.unused == [] and report.licence == "Apache-2.0"
    assert equal(network.encoder.state_dict(), source.state_dict())
    whole = segresnet_ds(2)
    report = load_weights(whole, tmp_path / "model.safetensors")  # also without naming the part
    assert "encoder." in report.dialect and equal(whole.encoder.state_dict(), source.state_dict())
    assert {name.split(".")[0] for name in report.missing} == {"up_layers"}


@pytest.mark.parametrize("kind", [nets.SegResNetDS, nets.SegResNetDS2])
def test_vista3d_encoder(kind):
    """VISTA3D keeps a ``SegResNetDS2`` under ``image_encoder`` beside its heads for points and classes."""
    torch.manual_seed(1)
    image = segresnet_ds(4, nets.SegResNetDS2)
    state = {f"image_encoder.{name}": tensor for name, tensor in image.state_dict().items()}
    state |= {"class_head.class_embeddings.weight": torch.ones(132, 4), "point_head.pe_layer.weight": torch.ones(3, 4)}
    network = segresnet_ds(4, kind)
    report = load_weights(network, state)
    assert "image_encoder." in report.dialect
    assert equal(network.encoder.state_dict(), image.encoder.state_dict())
    heads = {name for name in report.unused if not name.startswith("image_encoder.")}
    assert len(heads) == 2
    decoder = sum(name.startswith("up_layers.") for name in report.loaded)
    assert decoder == sum(name.startswith("up_layers.") for name in network.state_dict())


ORIGINALS = {
    "torchvision_densenet121": ("DenseNet", "DenseNet", {"block_config": [6, 12, 24, 16], "growth_rate": 32}),
    "torchvision_resnet18": ("resnet18", "ResNet", {"block": "basic", "layers": [2, 2, 2, 2]}),
    "torchvision_resnet50": ("resnet50", "ResNet", {"block": "bottleneck", "layers": [3, 4, 6, 3]}),
    "pretrainedmodels_se_resnet50": ("SEResNet50", "SEResNet50", {"in_channels": 3}),
    "pretrainedmodels_se_resnext50": ("SEResNext50", "SEResNext50", {"in_channels": 3}),
    "timm_efficientnet_b0": ("efficientnet-b0", "EfficientNetBN", {"model_name": "efficientnet-b0"}),
    "efficientnet_pytorch_b0": ("efficientnet-b0", "EfficientNetBN", {"model_name": "efficientnet-b0"}),
    "timm_vit": ("ViT", "ViT", {"num_layers": 3, "hidden_size": 24}),
    "nnunet_plain_2d": ("nnU-Net", "DynUNet", {"spatial_dims": 2}),
    "nnunet_plain_3d": ("nnU-Net", "DynUNet", {"spatial_dims": 3}),
}


@pytest.mark.parametrize("name", ORIGINALS)
def test_published_names_and_shapes_tell_the_network(name, original):
    """What torchvision, timm and the others wrote, wrapped as a training loop saves it."""
    state = {f"module.{key}": value for key, value in original(name).state.items()}
    known, kind, arguments = ORIGINALS[name]
    if name == "timm_vit":  # 24 features are no multiple of 64, the published size of a head: nothing is guessed
        assert find_family({"model": state}) is None
        return
    family = find_family({"model": state, "epoch": 3})
    assert family is not None and family.name == known
    assert family.network["_target_"] == f"monai.networks.nets.{kind}"
    assert {key: family.network[key] for key in arguments} == arguments
    assert family.preprocessing is None  # the heads there have 10 outputs: not ImageNet's
    network = build_network(family.network)
    report = load_weights(network, family.weights or state)
    assert report.coverage == 1 and report.missing == report.skipped == [], report


def test_what_is_known_of_their_images():
    grey = nets.DenseNet121(2, 1, 18).state_dict()
    assert find_family(grey).preprocessing is PREPROCESSING["xray"]
    assert find_family(nets.DenseNet121(2, 1, 5).state_dict()).preprocessing is None
    colour = find_family(nets.DenseNet121(2, 3, 1000).state_dict())
    steps = ConfigParser({"s": colour.preprocessing.intensities(3, 255.0)}).get_parsed_content("s")
    white = Compose(steps)({"image": torch.full((3, 4, 4), 255.0)})["image"]
    torch.testing.assert_close(white[:, 0, 0], torch.tensor([(1 - m) / s for m, s in IMAGENET]))
    black = ConfigParser({"s": PREPROCESSING["xray"].intensities(1, 65535.0)}).get_parsed_content("s")
    assert float(Compose(black)({"image": torch.full((1, 4, 4), 65535.0)})["image"].max()) == 1024.0
    b3 = find_family(nets.EfficientNetBN("efficientnet-b3", False, spatial_dims=2).state_dict())
    assert b3.network["model_name"] == "efficientnet-b3" and b3.preprocessing.size == 300
    assert b3.encoder["backbone"] == "efficientnet-b3"
    medical = nets.resnet18(spatial_dims=3, n_input_channels=1, feed_forward=False, shortcut_type="A").state_dict()
    assert find_family({"state_dict": medical}).preprocessing is PREPROCESSING["medicalnet"]


def test_segmentation_networks_by_their_wrappings():
    swin = nets.SwinUNETR(out_channels=5, depths=(2, 2, 2, 1), use_v2=True, **SWIN)
    family = find_family(swin.state_dict())
    made = build_network(family.network)
    assert load_weights(made, swin.state_dict()).coverage == 1 and family.preprocessing is None
    pretext = {f"module.{k.replace('mlp.linear', 'mlp.fc')}": v for k, v in swin.swinViT.state_dict().items()}
    encoder = find_family({"state_dict": pretext})
    assert encoder.preprocessing is PREPROCESSING["swinvit"] and "decoder starts fresh" in encoder.note
    source = nets.SegResNet(out_channels=32, **SEGRESNET)
    suprem = find_family({"net": {f"module.backbone.{k}": v for k, v in source.state_dict().items()}, "epoch": 2})
    assert suprem.name == "SuPreM SegResNet" and suprem.preprocessing.window == (-175, 250)
    assert load_weights(build_network(suprem.network), source.state_dict()).coverage == 1
    image = segresnet_ds(4, nets.SegResNetDS2, norm="instance")
    vista = find_family({f"image_encoder.{k}": v for k, v in image.state_dict().items()})
    assert vista.network["norm"] == "instance" and vista.preprocessing is PREPROCESSING["vista3d"]
    assert load_weights(build_network(vista.network), image.state_dict(), min_coverage=0.9).skipped == []
    plain = segresnet_ds(3, dsdepth=2)
    assert find_family(plain.state_dict()).network["dsdepth"] == 2
    assert find_family(nets.UNet(3, 1, 2, (4, 8), (2,)).state_dict()) is None
