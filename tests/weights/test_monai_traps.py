"""What MONAI 1.6.1 does in silence when weights do not fit, shown as it is, and what ours does instead."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader
from monai.networks import copy_model_state
from monai.networks.nets import UNet, resnet10, resnet18

from monai_transfer.errors import CoverageError
from monai_transfer.weights import load_weights
from monai_transfer.weights.medicalnet import resnet_flags


def unet(classes: int) -> UNet:
    return UNet(3, 1, classes, (8, 16, 32), (2, 2), num_res_units=1, norm="batch")


def copied(network, before, source) -> int:
    """How many of the network's tensors now hold the source's values, and did not before."""
    now = network.state_dict()
    return sum(
        name in now
        and now[name].shape == tensor.shape
        and torch.equal(now[name], tensor)
        and not torch.equal(now[name], before[name])
        for name, tensor in source.items()
    )


def snapshot(network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def load_with_handler(network, path, **more) -> None:
    engine = Engine(lambda engine, batch: None)
    CheckpointLoader(str(path), {"model": network}, map_location="cpu", **more).attach(engine)
    engine.run([0], 1)


@pytest.fixture
def source(tmp_path):
    torch.manual_seed(5)
    network = unet(3)
    network(torch.randn(2, 1, 16, 16, 16))
    torch.save({"model": network.state_dict()}, tmp_path / "source.pt")
    return network.state_dict(), tmp_path / "source.pt"


def test_1_strict_shape_false_loads_nothing(source, caplog):
    state, path = source
    network = unet(4)
    before = snapshot(network)
    with caplog.at_level(logging.WARNING):
        load_with_handler(network, path, strict_shape=False)
    assert copied(network, before, state) == 0 and not caplog.records  # MONAI: not one tensor, not a word
    report = load_weights(network, path)
    assert copied(network, before, state) > 20
    assert all(name.startswith("model.2.") for name in report.skipped)
    assert report.coverage > 0.9


def test_1_strict_false_raises_on_a_shape(source):
    state, path = source
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_with_handler(unet(4), path, strict=False)
    assert load_weights(unet(4), path).skipped


def test_2_a_prefix_loads_nothing(source, caplog):
    state, _ = source
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    network = unet(3)
    before = snapshot(network)
    with caplog.at_level(logging.WARNING):
        copy_model_state(network, prefixed)
    assert copied(network, before, state) == 0 and not caplog.records
    report = load_weights(network, prefixed)
    assert report.coverage == 1 and "without 'module.'" in report.dialect
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())


def test_2_exclude_vars_is_ignored_with_a_prefix(source):
    """MONAI copies the head that it was asked to leave out. Ours needs no such request, and says what it took."""

    class Wrapper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = unet(3)

    state, _ = source
    network = Wrapper()
    _, updated, _ = copy_model_state(network, state, dst_prefix="net.", exclude_vars="model.2")
    assert any(name.startswith("net.model.2") for name in updated)
    network = Wrapper()
    report = load_weights(network.net, {k: v for k, v in state.items() if not k.startswith("model.2")})
    assert report.missing and all(name.startswith("model.2") for name in report.missing)


def test_6_numbers_of_numpy_in_a_checkpoint(source, tmp_path):
    state, _ = source
    path = tmp_path / "numbers.pt"
    torch.save({"model": state, "best_dice": np.float64(0.81)}, path)
    with pytest.raises(Exception, match="weights_only"):
        load_with_handler(unet(3), path)
    assert load_weights(unet(3), path).coverage == 1


def test_7_flags_of_resnet():
    with pytest.raises(NotImplementedError):
        resnet10(pretrained=True)
    published = {f"module.{k}": v for k, v in resnet18(**resnet_flags(18)).state_dict().items()}
    # With MONAI's default flags the shortcuts would stay fresh; the report names them.
    report = load_weights(resnet18(spatial_dims=3, n_input_channels=1, num_classes=2), {"state_dict": published})
    assert {"fc.weight", "layer2.0.downsample.0.weight", "layer2.0.downsample.0.bias"} <= set(report.missing)
    report = load_weights(resnet18(**resnet_flags(18)), {"state_dict": published})
    assert report.coverage == 1 and not report.missing and not report.unused


def test_another_network_is_refused_where_monai_says_nothing(source, caplog):
    state, path = source
    network = resnet10(spatial_dims=3, n_input_channels=1, num_classes=2)
    before = snapshot(network)
    with caplog.at_level(logging.WARNING):
        load_with_handler(network, path, strict_shape=False)
    assert not caplog.records
    with pytest.raises(CoverageError, match="only 0.0%"):
        load_weights(network, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_loading_in_a_handler_of_a_stock_engine(source):
    """The function is one line in any loop; here before the first epoch."""
    state, path = source
    network = unet(3)
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.STARTED, lambda engine: load_weights(network, path))
    engine.run([0], 1)
    assert torch.equal(network.state_dict()["model.0.conv.unit0.conv.weight"], state["model.0.conv.unit0.conv.weight"])
