"""Checkpoints that are not what their names say: LoRA adapters, fresh norm layers, averages, wrappers inside."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from monai_transfer.errors import CoverageError, InputError
from monai_transfer.strategies.lora import add_lora
from monai_transfer.weights import WeightReport, load_weights


def unet(seed: int, norm: str | tuple = "batch") -> UNet:
    torch.manual_seed(seed)
    return UNet(2, 1, 3, (4, 8), (2,), num_res_units=1, norm=norm)


@pytest.fixture
def tuned() -> nn.Module:
    network = add_lora(unet(1).eval(), rank=2, alpha=3)
    torch.manual_seed(5)
    for name, parameter in network.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter)
    return network


def peft_names(state: dict) -> dict:
    """As peft writes them: no scale, B of a convolution with its kernel of one."""
    renamed = {}
    for name, tensor in state.items():
        layer, _, last = name.rpartition(".")
        adapted = f"{layer}.lora_A" in state
        if last == "lora_scale":
            continue
        if last in ("lora_A", "lora_B"):
            wide = tensor[..., None, None] if last == "lora_B" and state[f"{layer}.lora_A"].ndim == 4 else tensor
            renamed[f"base_model.model.{layer}.{last}.default.weight"] = wide
        else:
            renamed[f"base_model.model.{layer}.{'base_layer.' if adapted else ''}{last}"] = tensor
    return renamed


@pytest.mark.parametrize("form", ["ours", "peft"])
def test_adapters_are_merged_on_request(tuned, form):
    state = tuned.state_dict()
    state = peft_names(state) if form == "peft" else state
    plain, image = unet(2).eval(), torch.rand(2, 1, 16, 16)
    if form == "peft":
        with pytest.raises(InputError, match=r"does not say the scale .* pass lora_scale"):
            load_weights(plain, state, lora="merge")
    report = load_weights(plain, state, lora="merge", lora_scale=1.5 if form == "peft" else None)
    assert (report.coverage, report.unused, report.skipped) == (1.0, [], [])
    assert "LoRA adapters of 6 layers merged" in report.dialect
    torch.testing.assert_close(plain(image), tuned(image), rtol=1e-4, atol=1e-5)


def test_adapters_are_never_lost_in_silence(tuned):
    plain = unet(2)
    before = copy.deepcopy(plain.state_dict())
    with pytest.raises(CoverageError, match="LoRA adapter beside it in the source.*pass lora='merge'"):
        load_weights(plain, tuned.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    report = load_weights(plain, tuned.state_dict(), lora="drop")
    assert report.coverage == 1.0
    assert any(name.endswith("lora_A") for name in report.unused)
    with pytest.raises(InputError, match="lora is one of refuse, merge, drop"):
        load_weights(plain, tuned.state_dict(), lora="add")


def test_adapters_load_into_adapters(tuned):
    other, image = add_lora(unet(2).eval(), rank=2), torch.rand(1, 1, 16, 16)
    assert load_weights(other, tuned.state_dict()).coverage == 1.0
    torch.testing.assert_close(other(image), tuned(image))


def test_fresh_norm_layers_are_named(caplog):
    """GroupNorm's scale and shift fit a BatchNorm, whose running statistics then are still 0 and 1."""
    source, target = unet(1, ("group", {"num_groups": 1})), unet(2, "batch")
    with caplog.at_level(logging.WARNING):
        report = load_weights(target, source.state_dict())
    norms = [name for name, module in target.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert report.coverage == 1.0
    assert report.fresh_norms == norms
    assert f"{len(norms)} norm layers stay fresh" in str(report)
    assert "norm layers that stay fresh: " + norms[0] in caplog.text
    assert load_weights(target, unet(3).state_dict()).fresh_norms == []


def test_an_average_beside_the_weights_is_mentioned(tmp_path):
    raw, average = unet(1).state_dict(), unet(2).state_dict()
    content = {"state_dict": raw, "ema_state_dict": average}
    report = load_weights(unet(3), content)
    assert report.alternatives == ["ema_state_dict"]
    assert "also holds weights under ema_state_dict: part= takes them" in str(report)
    network = unet(3)
    assert load_weights(network, content, part="ema_state_dict").alternatives == []
    assert torch.equal(
        network.state_dict()["model.0.conv.unit0.conv.weight"], average["model.0.conv.unit0.conv.weight"]
    )
    assert load_weights(unet(3), {"state_dict": raw, "ema": dict(raw)}).alternatives == []  # the same values
    report.save(tmp_path / "weights.json")
    assert WeightReport.load(tmp_path / "weights.json").alternatives == ["ema_state_dict"]


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_wrappers_inside_are_taken_off(wrapper):
    state = {
        (name.replace("model.1.", f"model.1.{wrapper}.").replace("model.2.", f"model.2.{wrapper}.")): tensor
        for name, tensor in unet(1).state_dict().items()
    }
    assert any(wrapper in name for name in state)
    network = unet(2)
    report = load_weights(network, {"model": state})
    assert (report.coverage, report.unused, report.missing) == (1.0, [], [])
    assert all(torch.equal(value, unet(1).state_dict()[name]) for name, value in network.state_dict().items())


def test_a_compiled_part_of_the_network_takes_plain_names():
    network = unet(2)
    network.model[1] = torch.compile(network.model[1], backend="eager")
    report = load_weights(network, unet(1).state_dict())
    assert (report.coverage, report.missing) == (1.0, [])
