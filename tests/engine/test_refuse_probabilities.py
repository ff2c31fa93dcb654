"""In a stock trainer: the first batch is looked at, nothing is learned before, ordinary runs are left alone."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from torch import nn

from monai_transfer.engine.refuse_probabilities import RefuseProbabilities
from monai_transfer.errors import InputError


class Net(nn.Module):
    def __init__(self, probabilities: bool) -> None:
        super().__init__()
        self.linear, self.probabilities = nn.Linear(4, 3), probabilities

    def forward(self, x):
        x = self.linear(x)
        return x.softmax(1) if self.probabilities else x


def run(network: nn.Module, batch_size: int = 3) -> int:
    data = [{"image": torch.randn(4), "label": index % 3} for index in range(6)]
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=DataLoader(Dataset(data), batch_size=batch_size),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=nn.CrossEntropyLoss(),
        train_handlers=[RefuseProbabilities()],
        decollate=False,
    )
    trainer.run()
    return trainer.state.iteration


def test_probabilities_are_refused_before_anything_is_learned():
    network = Net(True)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InputError, match="CrossEntropyLoss"):
        run(network)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_batch_of_one_case_proves_nothing_and_two_do():
    with pytest.raises(InputError, match="sum to 1"):
        run(Net(True), batch_size=1)


def test_logits_train():
    assert run(Net(False)) == 4
    assert run(Net(False), batch_size=1) == 12
