"""One network of several in a checkpoint, one part of a network, and input channels by name: nothing is guessed."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import SwinUNETR, UNet, resnet10
from torch import Tensor, nn

from monai_transfer.errors import CoverageError, InputError
from monai_transfer.networks.depth import encoder_decoder
from monai_transfer.weights import load_weights


def unet(seed: int, channels: int = 1, classes: int = 2) -> UNet:
    torch.manual_seed(seed)
    return UNet(2, channels, classes, (4, 8, 8), (2, 2), norm="batch")


def prefixed(prefix: str, network: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in network.state_dict().items()}


def same(network: nn.Module, other: nn.Module) -> bool:
    state = other.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


PAIRS = {
    "keys": lambda a, b: {"student": a.state_dict(), "teacher": b.state_dict(), "epoch": 3},
    "prefixes": lambda a, b: {"state_dict": prefixed("student", a) | prefixed("teacher", b)},
    "deep prefixes": lambda a, b: prefixed("module.student", a) | prefixed("module.teacher", b),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_two_networks_that_fit_equally_are_refused_and_can_be_named(kind):
    first, second = unet(1), unet(2)
    network = unet(3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(
        InputError, match="two networks that fit equally well: .*student' and .*teacher'.*part="
    ) as caught:
        load_weights(network, PAIRS[kind](first, second))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    named = str(caught.value).rpartition("part=")[2].strip("'")  # what the hint says works
    assert load_weights(network, PAIRS[kind](first, second), part=named).coverage == 1 and same(network, second)
    other = named.replace("teacher", "student")
    assert load_weights(network, PAIRS[kind](first, second), part=other).coverage == 1 and same(network, first)
    with pytest.raises(InputError, match="no part 'critic'; it has .*student"):
        load_weights(network, PAIRS[kind](first, second), part="critic")


def test_what_is_no_ambiguity():
    first, second = unet(1), unet(2)
    twice = {"student": first.state_dict(), "teacher": first.state_dict()}  # before the first step they are one
    assert load_weights(unet(3), twice).coverage == 1
    network = unet(3)
    average = {"net": first.state_dict(), "ema": second.state_dict()}
    assert load_weights(network, average).dialect == "plain, in 'net'" and same(network, first)
    usual = {"best": second.state_dict(), "state_dict": first.state_dict()}
    assert load_weights(network, usual).dialect == "plain, in 'state_dict'" and same(network, first)
    smaller = {"student": first.state_dict(), "critic": unet(2, classes=5).state_dict()}
    assert load_weights(network, smaller).coverage == 1 and same(network, first)


def test_encoder_only():
    source, network = unet(1), unet(2)
    fresh = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    encoder, decoder = encoder_decoder(network)
    report = load_weights(network, source.state_dict(), only="encoder", min_coverage=1.0)
    assert report.coverage == 1 and set(encoder) <= set(report.loaded) and set(decoder) <= set(report.skipped)
    assert {report.notes[name] for name in decoder} == {"left out: not among the modules to load into"}
    state, theirs = network.state_dict(), source.state_dict()
    assert all(torch.equal(state[name], theirs[name]) for name in report.loaded)
    assert all(torch.equal(state[name], fresh[name]) for name in report.skipped)
    owners = {name.rpartition(".")[0] for name in encoder}
    buffers = {name for name, _ in network.named_buffers() if name.rpartition(".")[0] in owners}
    assert buffers and buffers <= set(report.loaded)


def test_named_modules_only():
    torch.manual_seed(1)
    source = SwinUNETR(1, 2, feature_size=12, spatial_dims=2)
    network = SwinUNETR(1, 2, feature_size=12, spatial_dims=2)
    report = load_weights(network, source.state_dict(), only=["swinViT", "encoder1"])
    assert report.coverage == 1 and same(network.swinViT, source.swinViT) and same(network.encoder1, source.encoder1)
    assert not same(network.encoder2, source.encoder2)
    with pytest.raises(InputError, match="no module 'swin' to load into; its first ones are swinViT"):
        load_weights(network, source.state_dict(), only="swin")
    with pytest.raises(CoverageError):  # what is asked for has to be there
        load_weights(network, prefixed("encoder1", source.encoder1), only="swinViT")


def test_the_encoder_of_a_plain_module_is_not_guessed():
    pair = nn.ModuleList([nn.Linear(2, 2)])
    with pytest.raises(InputError, match="cannot tell the encoder"):
        load_weights(pair, pair.state_dict(), only="encoder")


NAMES = ["T1", "T2w", "FLAIR"]


def test_equally_many_channels_in_another_order():
    source = unet(1, channels=3)
    network = unet(2, channels=3)
    names = {"source_channels": NAMES, "target_channels": ["flair", "t1", "T2-W"]}
    report = load_weights(network, source.state_dict(), **(names | {"source_channels": ["T1", "T2_w", "FLAIR"]}))
    assert report.adapted == ["model.0.conv.weight"] and report.coverage == 1
    image = torch.randn(1, 3, 16, 16)
    ours, theirs = network.eval()(image[:, [2, 0, 1]]), source.eval()(image)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_equally_many_channels_some_of_them_new():
    source, network = unet(1, channels=3), unet(2, channels=3)
    fresh = network.model[0].conv.weight[:, 2].clone()
    report = load_weights(network, source.state_dict(), source_channels=NAMES, target_channels=["FLAIR", "T1", "CT"])
    note = report.notes["model.0.conv.weight"]
    assert note == "input channels by name: FLAIR, T1; new, as initialised: CT; dropped: T2w"
    assert torch.equal(network.model[0].conv.weight[:, 2], fresh)
    assert torch.equal(network.model[0].conv.weight[:, 0], source.model[0].conv.weight[:, 2])


def test_names_with_nothing_in_common_are_taken_in_order_and_said():
    source, network = unet(1, channels=2), unet(2, channels=2)
    names = {"source_channels": ["T1", "T2"], "target_channels": ["PET", "CT"]}
    report = load_weights(network, source.state_dict(), **names)
    assert report.adapted == [] and same(network, source)
    assert "taken in order: the names have none in common" in str(report)
    with pytest.raises(InputError, match="mapped by name: T1, T2 in the source, PET, CT here; pass"):
        load_weights(network, source.state_dict(), channels="name", **names)
    with pytest.raises(InputError, match="unknown in the source"):
        load_weights(network, source.state_dict(), channels="name", target_channels=["PET", "CT"])


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ({"source_channels": ["T1"]}, "source_channels names 1 .*source has 3 input channels"),
        ({"target_channels": ["T1"]}, "target_channels names 1 .*network has 2 input channels"),
        ({"source_channels": ["T1", "t1", "x"]}, "two channels are named"),
    ],
)
def test_channel_names_that_do_not_fit_are_refused(names, fault):
    with pytest.raises(InputError, match=fault):
        load_weights(unet(2, channels=2), unet(1, channels=3).state_dict(), **names)


def test_channels_of_a_residual_network_without_names_are_adapted_as_before():
    args = {"spatial_dims": 2, "num_classes": 2, "widen_factor": 0.125}
    source, network = resnet10(n_input_channels=3, **args), resnet10(n_input_channels=4, **args)
    report = load_weights(network, source.state_dict())
    assert report.adapted == ["conv1.weight"] and "3 -> 4: repeated" in report.notes["conv1.weight"]
