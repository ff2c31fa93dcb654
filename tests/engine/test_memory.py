"""What a step needs is what autograd really keeps; what cannot fit is refused with what would."""

from __future__ import annotations

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.networks.nets import DenseNet, SegResNet, UNet

from monai_transfer.engine import memory
from monai_transfer.engine.memory import MemoryAdvice, memory_need, what_would_fit
from monai_transfer.errors import InputError

NETWORKS = {
    "UNet": (lambda: UNet(3, 1, 2, (4, 8, 16), (2, 2), num_res_units=2, norm="batch"), (2, 1, 16, 16, 16)),
    "SegResNet": (lambda: SegResNet(2, 8), (2, 1, 32, 32)),
    "DenseNet": (lambda: DenseNet(2, 1, 3, 8, 4, block_config=(2, 2)), (2, 1, 32, 32)),
}


def really_kept(network: torch.nn.Module, shape: tuple[int, ...]) -> int:
    kept, alive = {}, []
    weights = {tensor.data_ptr() for tensor in network.state_dict().values()}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network.train()(torch.rand(shape))
    return sum(kept.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_need_is_what_autograd_keeps(name):
    build, shape = NETWORKS[name]
    network = build().eval()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    need = memory_need(network, shape)
    assert not network.training
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert need.activations == pytest.approx(really_kept(network, shape), rel=0.02)
    assert need.checkpointed < need.activations
    numbers = sum(p.numel() for p in network.parameters())
    assert need.training == 3 * 4 * numbers


def test_half_the_bytes_in_bfloat16_and_frozen_parts_need_less():
    build, shape = NETWORKS["SegResNet"]
    network = build()
    full = memory_need(network, shape)
    assert memory_need(network, shape, torch.bfloat16).activations < 0.6 * full.activations
    network.requires_grad_(False)
    network.conv_final.requires_grad_(True)
    frozen = memory_need(network, shape)
    assert frozen.activations < 0.3 * full.activations
    assert frozen.training < 0.1 * full.training


def trainer_for(network, shape):
    batch = {"image": torch.rand(shape), "label": torch.zeros(shape[0], *shape[2:], dtype=torch.long)}
    return SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=1, train_data_loader=[batch], network=network,
        optimizer=torch.optim.SGD(network.parameters(), 1e-3), loss_function=torch.nn.CrossEntropyLoss(),
        train_handlers=[MemoryAdvice()], decollate=False,
    )  # fmt: skip


def test_refuses_before_the_step_and_says_what_fits(monkeypatch):
    build, shape = NETWORKS["UNet"]
    network = build()
    need = memory_need(network, shape).total()
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(need * 0.7))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(InputError, match=r"UNet on 2 x 1 x 16 x 16 x 16 does not fit .* would fit: .*batch_size: 1"):
        trainer_for(network, shape).run()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_trains_where_there_is_room():
    build, shape = NETWORKS["UNet"]
    network = build()
    before = network.model[0].conv.unit0.conv.weight.clone()
    trainer_for(network, shape).run()
    assert not torch.equal(network.model[0].conv.unit0.conv.weight, before)


class _Greedy(torch.nn.Module):
    """Asks for more than any machine has, as an allocation that fails really does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 3, padding=1)
        self.greedy = True

    def forward(self, image):
        if image.device.type == "cpu":
            torch.empty(2**50)
        return self.conv(image)


def test_explains_an_allocation_that_failed():
    with pytest.raises(InputError, match=r"_Greedy on 2 x 1 x 32 x 32 does not fit in memory: .*GiB are free"):
        trainer_for(_Greedy(), (2, 1, 32, 32)).run()


def test_other_errors_pass():
    network = NETWORKS["UNet"][0]()
    trainer = trainer_for(network, (2, 1, 16, 16, 16))
    trainer.loss_function = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.run()


def test_nothing_fits_into_nothing():
    build, shape = NETWORKS["UNet"]
    assert what_would_fit(build(), shape, 10) == []
    assert len(what_would_fit(build(), shape, 2**40)) >= 4
