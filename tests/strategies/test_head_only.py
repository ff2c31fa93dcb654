"""Head only: everything beside the head is bitwise unchanged after real steps in a stock trainer, buffers included."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet, resnet10
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.strategies.full import Full
from monai_transfer.strategies.head_only import HeadOnly


class Flat(nn.Module):
    """A BatchNorm and a dropout directly inside the parent, which also owns a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.shift = nn.Parameter(torch.zeros(4, 1, 1))
        self.out = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out((self.dropout(self.norm(self.conv(x))) + self.shift).mean((2, 3)))


def train(network: nn.Module, strategy, batch: dict, loss: nn.Module, epochs: int = 3) -> None:
    optimizer = torch.optim.AdamW(strategy.param_groups(network), lr=0.01, weight_decay=0.1)
    SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=epochs, train_data_loader=[batch], network=network,
        optimizer=optimizer, loss_function=loss, train_handlers=[strategy],
    ).run()  # fmt: skip


def moved(before: dict, network: nn.Module) -> set[str]:
    return {k for k, v in network.state_dict().items() if not torch.equal(before[k], v)}


def test_flat_parent():
    network = HeadOnly(head="out").apply(Flat())
    before = copy.deepcopy(network.state_dict())
    batch = {"image": torch.randn(4, 1, 8, 8), "label": torch.tensor([0, 1, 0, 1])}
    train(network, HeadOnly(head="out"), batch, nn.CrossEntropyLoss())
    assert moved(before, network) == {k for k in before if k.startswith("out.")}
    assert network.out[0].training and not network.norm.training and not network.dropout.training


@pytest.mark.parametrize("dims", [2, 3])
def test_resnet(dims):
    network = resnet10(spatial_dims=dims, n_input_channels=1, num_classes=2, widen_factor=0.125, feed_forward=True)
    strategy = HeadOnly(head=["fc"])
    network = strategy.apply(network)
    before = copy.deepcopy(network.state_dict())
    batch = {"image": torch.randn(2, 1, *[16] * dims), "label": torch.tensor([0, 1])}
    train(network, strategy, batch, nn.CrossEntropyLoss())
    assert moved(before, network) == {"fc.weight", "fc.bias"}


def test_without_freezing_the_same_run_moves_statistics():
    """The check above can fail: freezing gradients alone leaves BatchNorm counting."""
    network = Flat()
    network.conv.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    batch = {"image": torch.randn(4, 1, 8, 8), "label": torch.tensor([0, 1, 0, 1])}
    train(network, Full(), batch, nn.CrossEntropyLoss())
    assert "norm.running_mean" in moved(before, network)


def test_full_after_head_only_releases_everything_but_fixed_parameters():
    network = Flat()
    network.shift.requires_grad_(False)  # fixed by the network's author
    network = Full().apply(HeadOnly(head="out").apply(network))
    assert not network.shift.requires_grad
    assert all(p.requires_grad for n, p in network.named_parameters() if n != "shift")
    network.train()
    network(torch.randn(4, 1, 8, 8))
    assert network.norm.num_batches_tracked == 1 and network.norm.training
    assert not any(m._forward_pre_hooks for m in network.modules())


def test_survives_deepcopy():
    network = copy.deepcopy(HeadOnly(head="out").apply(Flat())).train()
    network(torch.randn(4, 1, 8, 8))
    assert network.norm.num_batches_tracked == 0
    assert [n for n, p in network.named_parameters() if p.requires_grad] == [
        n for n, _ in network.named_parameters() if n.startswith("out.")
    ]


def test_bad_heads_are_refused():
    with pytest.raises(InputError, match="no module 'nothing'"):
        HeadOnly(head="nothing").apply(Flat())
    with pytest.raises(InputError, match="no parameters"):
        HeadOnly(head="dropout").apply(Flat())
    with pytest.raises(InputError, match="empty"):
        HeadOnly(head=[]).apply(Flat())


def test_segmentation_head():
    network = UNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8), strides=(2,), norm="batch")
    strategy = HeadOnly(head="model.2")
    network = strategy.apply(network)
    before = copy.deepcopy(network.state_dict())
    train(
        network,
        strategy,
        {"image": torch.randn(2, 1, 8, 8), "label": torch.zeros(2, 8, 8).long()},
        nn.CrossEntropyLoss(),
    )
    assert moved(before, network) == {k for k in before if k.startswith("model.2.")}
