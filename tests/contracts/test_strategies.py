"""The contract of every strategy: each file in ``strategies/`` is picked up by itself and trains in a stock trainer.

Six MONAI networks and our FCN in 2D and 3D, each with two steps under every strategy: what does not learn is bitwise
unchanged, buffers included, and what is in the optimizer moves.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
import re
import warnings

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.networks.nets import DenseNet, DynUNet, SegResNet, UNet, ViT, resnet10
from torch import nn

import monai_transfer.strategies as package
from monai_transfer.errors import InputError
from monai_transfer.networks.fcn import Fcn
from monai_transfer.strategies.base import NORM_LAYERS, Scheduled, Strategy

FILES = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name != "base")


def strategy_class(name: str) -> type[Strategy]:
    return getattr(importlib.import_module(f"{package.__name__}.{name}"), name.title().replace("_", ""))


NETWORKS = {
    "unet": lambda d: UNet(d, 1, 2, (4, 8), (2,), num_res_units=1, norm="batch", dropout=0.1),
    "dynunet": lambda d: DynUNet(
        d, 1, 2, [3, 3, 3, 3], [1, 2, 1, 1], [2, 1, 1], filters=[4, 4, 4, 4], deep_supervision=True, deep_supr_num=1
    ),
    "segresnet": lambda d: SegResNet(d, 8, 1, 2, blocks_down=(1, 1), blocks_up=(1,), norm="batch"),
    "resnet": lambda d: resnet10(spatial_dims=d, n_input_channels=1, num_classes=2, widen_factor=0.0625),
    "densenet": lambda d: DenseNet(d, 1, 2, init_features=4, growth_rate=2, block_config=(1, 1), bn_size=1),
    "vit": lambda d: ViT(1, [8] * d, [4] * d, 8, 8, 2, 2, classification=True, num_classes=2, spatial_dims=d),
    "fcn": lambda d: Fcn(d, 1, 2, stride=4, channels=(4, 4, 4, 4), convolutions=1, neck_channels=4),
}
SEGMENTERS = ("unet", "dynunet", "segresnet", "fcn")


def loader(kind: str, dims: int, length: int = 2) -> list[dict[str, torch.Tensor]]:
    side = 16 if kind == "densenet" else 8
    shape = (4, *[side] * dims) if kind in SEGMENTERS else (4,)
    return [{"image": torch.randn(4, 1, *[side] * dims), "label": torch.randint(0, 2, shape)} for _ in range(length)]


def contents(network: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, each under its first name (DynUNet's state dict has several)."""
    return {n: t.detach() for n, t in (*network.named_parameters(), *network.named_buffers())}


class LastOutput(nn.Module):
    """Cross entropy; a ViT returns its hidden states as well, deep supervision stacks its outputs."""

    def forward(self, output, label):
        if isinstance(output, torch.Tensor) and output.ndim == label.ndim + 2:
            return sum(self(part, label) for part in output.unbind(1))
        return nn.functional.cross_entropy(output[0] if isinstance(output, tuple) else output, label)


def train(network, strategy, batches, epochs=1):
    optimizer = torch.optim.AdamW(strategy.param_groups(network), lr=0.01, weight_decay=0.1)
    SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=epochs, train_data_loader=batches, network=network,
        optimizer=optimizer, loss_function=LastOutput(), train_handlers=[strategy],
    ).run()  # fmt: skip
    return optimizer


@pytest.mark.parametrize("name", FILES)
def test_form(name):
    module = importlib.import_module(f"{package.__name__}.{name}")
    kind = strategy_class(name)
    assert issubclass(kind, Strategy) and kind.__module__ == module.__name__ and kind.__name__ in module.__all__
    assert re.search(r"^Paper: .+", module.__doc__, re.MULTILINE), "the docstring has no line `Paper: ...`"
    assert all(p.default is not p.empty for p in inspect.signature(kind).parameters.values())
    kind()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", FILES)
def test_trains_and_freezes(name, kind, dims):
    strategy, original = strategy_class(name)(), NETWORKS[kind](dims)
    reference = copy.deepcopy(original.state_dict())
    network = strategy.apply(original)
    for key, value in reference.items():  # applying changes no value
        assert torch.equal(value, network.state_dict()[key])
    groups = strategy.param_groups(network)
    flat = [id(p) for group in groups for p in group["params"]]
    assert len(flat) == len(set(flat)), "a parameter is in two groups"
    assert set(flat) <= {id(p) for p in network.parameters()}
    before = copy.deepcopy(contents(network))
    in_optimizer = {n for n, p in network.named_parameters() if id(p) in set(flat)}
    optimizer = train(network, strategy, loader(kind, dims))
    moved = {key for key, value in contents(network).items() if not torch.equal(before[key], value)}
    # two steps of a run of two: a scheduled strategy has reached its second half
    parameters = {n for n, _ in network.named_parameters()}
    learning = {n for n, p in network.named_parameters() if p.requires_grad}
    assert learning <= in_optimizer
    assert moved & parameters <= in_optimizer
    assert moved & parameters, "nothing learned"
    for key in moved - parameters:  # a buffer moves only where its module learns
        owner = key.rpartition(".")[0]
        assert isinstance(network.get_submodule(owner), NORM_LAYERS)
        assert any(n.rpartition(".")[0] == owner for n in in_optimizer), f"{key} moved, its module does not learn"
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in network.parameters())
    assert len(optimizer.param_groups) == len(groups)


@pytest.mark.parametrize("kind", ["unet", "resnet", "vit"])
@pytest.mark.parametrize("name", [n for n in FILES if issubclass(strategy_class(n), Scheduled)])
def test_scheduled_start_and_resume(name, kind):
    """In the first phase what waits is bitwise still; stopping and resuming gives the same weights."""
    batches = loader(kind, 2, 8)

    def start():
        torch.manual_seed(1)
        strategy = strategy_class(name)()
        network = strategy.apply(NETWORKS[kind](2))
        optimizer = torch.optim.AdamW(strategy.param_groups(network), lr=0.01, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=40)
        strategy.bind(network, optimizer)
        return strategy, network, optimizer, schedule

    def steps(parts, first, last):
        strategy, network, optimizer, schedule = parts
        for step in range(first, last):
            torch.manual_seed(step)
            network.train()
            strategy.advance(step / 32)
            optimizer.zero_grad(set_to_none=False)  # zero gradients must not move anything either
            batch = batches[step % 8]
            LastOutput()(network(batch["image"]), batch["label"]).backward()
            optimizer.step()
            schedule.step()

    whole = start()
    initial = copy.deepcopy(whole[1].state_dict())
    waiting = {n for n, p in whole[1].named_parameters() if not p.requires_grad}
    steps(whole, 0, 3)
    state = whole[1].state_dict()
    owners = {n.rpartition(".")[0] for n in waiting}
    still = waiting | {n for n, _ in whole[1].named_buffers() if n.rpartition(".")[0] in owners}
    assert waiting and all(torch.equal(initial[n], state[n]) for n in still)
    steps(whole, 3, 20)
    saved = [copy.deepcopy(part.state_dict()) for part in whole[1:]]
    steps(whole, 20, 32)
    stuck = {n for n, p in whole[1].named_parameters() if torch.equal(initial[n], p)}
    assert all(".norm_cross_attn." in n for n in stuck), "at the end all learn but what the network does not use"
    resumed = start()
    for part, content in zip(resumed[1:], saved, strict=True):
        part.load_state_dict(content)
    steps(resumed, 20, 32)
    for key, value in whole[1].state_dict().items():
        assert torch.equal(value, resumed[1].state_dict()[key]), key


@pytest.mark.parametrize("name", FILES)
def test_nothing_to_learn_is_refused(name):
    strategy = strategy_class(name)()
    with pytest.raises(InputError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = strategy.apply(nn.Sequential(nn.Flatten(), nn.ReLU()))
        strategy.param_groups(network)
