"""One object from a fresh network to the one that trains: weights, strategy, layout, recomputation, device."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import UNet

from monai_transfer.engine.prepare import Prepared
from monai_transfer.errors import InputError
from monai_transfer.strategies.head_only import HeadOnly
from monai_transfer.strategies.lora import Lora


def unet(classes: int = 2) -> UNet:
    return UNet(3, 1, classes, (4, 8), (2,), norm="batch")


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(1)
    network = unet()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt", network


def test_weights_come_before_the_strategy(weights):
    path, source = weights
    prepared = Prepared(unet(), path, HeadOnly())
    assert prepared.report is not None
    assert prepared.report.coverage == 1.0
    assert torch.equal(prepared.network.model[0].conv.weight, source.model[0].conv.weight)
    groups = prepared.param_groups()
    learning = sum(p.numel() for group in groups for p in group["params"])
    assert 0 < learning < sum(p.numel() for p in prepared.network.parameters())


@pytest.mark.parametrize("none", [None, "", "none", "None"])
def test_from_scratch_reports_nothing(none):
    assert Prepared(unet(), none).report is None


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.pt.*not there.*--pretrained none"):
        Prepared(unet(), tmp_path / "absent.pt")
    prepared = Prepared(unet(), tmp_path / "absent.pt", missing_later=True)
    with pytest.raises(InputError, match=r"absent\.pt.*not there"):
        prepared.require()


def test_weights_that_are_there_are_all_that_is_required(weights):
    path, _ = weights
    Prepared(unet(), path, missing_later=True).require()
    Prepared(unet(), None, missing_later=True).require()


@pytest.mark.parametrize("strategy", [None, Lora(rank=2)])
def test_layout_and_recomputation_change_no_value(weights, strategy):
    path, _ = weights
    image = torch.rand(2, 1, 8, 8, 8)
    outputs, gradients = [], []
    for less in (False, True):
        torch.manual_seed(0)
        prepared = Prepared(unet(), path, strategy, channels_last=less, checkpoint_activations=less)
        network = prepared.network.train()
        output = network(image)
        output.square().mean().backward()
        outputs.append(output.detach())
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    assert torch.allclose(*outputs, atol=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-5), name


def test_words_of_the_loading_reach_it(weights):
    path, source = weights
    prepared = Prepared(unet(), path, loading={"only": "encoder"}, min_coverage=0.1)
    assert prepared.report is not None
    assert "model.0.conv.weight" in prepared.report.loaded
    assert not any(name.startswith("model.2.") for name in prepared.report.loaded)
    assert torch.equal(prepared.network.model[0].conv.weight, source.model[0].conv.weight)
