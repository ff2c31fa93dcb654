"""Residual-encoder U-Nets of nnU-Net and nnssl: sizes read from a checkpoint; the network where its package is here."""

from __future__ import annotations

import sys

import pytest
import torch
from monai.networks.nets import UNet

from monai_transfer.errors import InputError
from monai_transfer.networks.head import find_head, find_stem
from monai_transfer.weights import load_weights
from monai_transfer.weights.resenc import residual_unet, residual_unet_arguments

PLAN = {"architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": None}, "key_to_encoder": "encoder.stages"}


@pytest.fixture
def nnssl(original) -> dict:
    """A checkpoint as nnssl saves it."""
    state = original("nnunet_resenc_3d").state
    return {"network_weights": state, "nnssl_adaptation_plan": PLAN, "citations": ["x"]}


def test_sizes_are_read_from_the_checkpoint(nnssl, tmp_path):
    torch.save(nnssl, tmp_path / "checkpoint_final.pth")
    arguments = residual_unet_arguments(tmp_path / "checkpoint_final.pth")
    assert arguments == {
        "input_channels": 2, "n_stages": 4, "features_per_stage": [4, 6, 8, 8], "stem_channels": 4, "num_classes": 3,
        "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]], "conv_bias": True,
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]],
        "n_blocks_per_stage": [1, 2, 3, 1], "n_conv_per_stage_decoder": [1, 1, 1],
    }  # fmt: skip


def test_an_encoder_alone_needs_its_strides(nnssl):
    state = {name: t for name, t in nnssl["network_weights"].items() if name.startswith("encoder.")}
    with pytest.raises(InputError, match="no decoder.*pass strides"):
        residual_unet_arguments(state)
    strides = [[1] * 3] + [[2] * 3] * 3
    assert residual_unet_arguments(state, strides=strides)["strides"] == strides
    with pytest.raises(InputError, match="has 4 stages of 3 axes"):
        residual_unet_arguments(state, strides=strides[:2])
    with pytest.raises(InputError, match="no weights of a residual-encoder"):
        residual_unet_arguments(UNet(2, 1, 2, (4, 8), (2,)).state_dict())


def test_without_the_package_the_hint_names_it(nnssl, monkeypatch):
    monkeypatch.setitem(sys.modules, "dynamic_network_architectures", None)  # as if it were not installed
    with pytest.raises(InputError, match="pip install --no-deps dynamic-network-architectures"):
        residual_unet(nnssl)


def test_output_of_the_original(nnssl, original):
    pytest.importorskip("dynamic_network_architectures", reason="pip install --no-deps dynamic-network-architectures")
    known = original("nnunet_resenc_3d")
    network = residual_unet(nnssl, deep_supervision=True)
    report = load_weights(network, nnssl)
    assert report.coverage == 1 and report.missing == report.unused == report.adapted == []
    with torch.no_grad():
        for number, output in enumerate(network.eval()(known.image)):
            known.check(output, number)


def test_surgery_on_the_original(nnssl):
    pytest.importorskip("dynamic_network_architectures", reason="pip install --no-deps dynamic-network-architectures")
    network = residual_unet(nnssl, out_channels=2, in_channels=1)
    assert find_stem(network)[0] == "encoder.stem.convs.0.conv"
    assert find_head(network) == [f"decoder.seg_layers.{n}" for n in range(3)]
    names = {"source_classes": ["background", "edema", "tumour"], "target_classes": ["background", "Tumour"]}
    report = load_weights(network, nnssl, **names)
    assert report.coverage == 1 and {n.split(".convs")[0] for n in report.adapted if "stem" in n} == {
        "encoder.stem", "decoder.encoder.stem"
    }  # fmt: skip
    weight = nnssl["network_weights"]["decoder.seg_layers.2.weight"]
    assert torch.equal(network.decoder.seg_layers[2].weight, weight[[0, 2]])
    assert network.eval()(torch.randn(1, 1, 8, 16, 16)).shape == (1, 2, 8, 16, 16)
