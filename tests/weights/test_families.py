"""Published weights of MONAI's own networks in the wrappings in which they were published: all of the encoder arrives.

The networks are MONAI's in the original code too (CT-FM's package subclasses them), so equal tensors are equal outputs;
what is tested is the nest, the prefix, the parts left over, and what another number of classes does.
"""

from __future__ import annotations

import pytest
import torch
from monai.networks import nets
from monai.networks.nets.segresnet_ds import SegResEncoder
from safetensors.torch import save_file

from monai_transfer.weights import load_weights

SEGRESNET = {"spatial_dims": 3, "init_filters": 8, "in_channels": 1, "blocks_down": (1, 2), "blocks_up": (1,)}
SWIN = {"in_channels": 1, "feature_size": 12, "spatial_dims": 2}


def segresnet_ds(classes: int, kind=nets.SegResNetDS, **more):
    return kind(spatial_dims=3, init_filters=4, in_channels=1, out_channels=classes, blocks_down=(1, 1, 2), **more)


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
