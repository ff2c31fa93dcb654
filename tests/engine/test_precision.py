"""Autocast in any inferer: what is lower precision inside is float32 outside, on the CPU too."""

from __future__ import annotations

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet

from monai_transfer.engine.adapt import Adapt
from monai_transfer.engine.precision import AutocastInferer, channels_last
from monai_transfer.errors import InputError
from monai_transfer.methods.coral import Coral


def unet() -> UNet:
    torch.manual_seed(0)
    return UNet(3, 1, 2, (4, 8), (2,), norm="batch")


def seen_dtypes(network: torch.nn.Module) -> list[torch.dtype]:
    seen: list[torch.dtype] = []
    network.model[0].conv.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    return seen


@pytest.mark.parametrize("inner", [None, SlidingWindowInferer((8, 8, 8), sw_batch_size=4)])
def test_convolves_in_bfloat16_and_returns_float32(inner):
    network, image = unet().eval(), torch.rand(2, 1, 16, 16, 16)
    seen = seen_dtypes(network)
    with torch.no_grad():
        output = AutocastInferer(inner)(image, network)
        plain = AutocastInferer(inner, enabled=False)(image, network)
    assert output.dtype == torch.float32
    assert seen[0] == torch.bfloat16
    assert seen[-1] == torch.float32
    assert torch.allclose(output, plain, atol=0.05)
    assert not torch.equal(output, plain)


def test_outputs_of_several_parts_are_float32():
    def network(image):
        return {"out": (image @ image, [image.long()])}

    output = AutocastInferer()(torch.rand(4, 4), network)
    assert output["out"][0].dtype == torch.float32
    assert output["out"][1][0].dtype == torch.int64


def test_trains_with_adaptation_in_a_stock_trainer():
    network = channels_last(unet())
    seen = seen_dtypes(network)
    g = torch.Generator().manual_seed(0)
    source = [
        {"image": torch.rand(2, 1, 8, 8, 8, generator=g), "label": torch.randint(0, 2, (2, 8, 8, 8), generator=g)}
        for _ in range(4)
    ]
    before = network.model[0].conv.weight.clone()
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=source,
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), 1e-3),
        loss_function=torch.nn.CrossEntropyLoss(),
        inferer=AutocastInferer(),
        train_handlers=[Adapt(Coral(), source)],
        decollate=False,
    )
    trainer.run()
    assert set(seen) == {torch.bfloat16}
    assert len(seen) == 16, "the target's passes go through the inferer too"
    assert trainer.state.output["pred"].dtype == torch.float32
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert not torch.equal(network.model[0].conv.weight, before)


def test_refuses_what_would_lose_gradients():
    with pytest.raises(InputError, match="dtype 'half'"):
        AutocastInferer(dtype="half")
    with pytest.raises(InputError, match="choose dtype bfloat16"):
        AutocastInferer(dtype="float16")(torch.rand(1, 1, 8, 8, 8), unet())


@pytest.mark.parametrize("dims", [2, 3])
def test_channels_last_keeps_names_and_values(dims):
    torch.manual_seed(0)
    network = UNet(dims, 1, 2, (4, 8), (2,), norm="batch").eval()
    image = torch.rand(2, 1, *[16] * dims)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    expected = network(image)
    assert channels_last(network) is network
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    assert network(image).is_contiguous(memory_format=layout)
    assert torch.allclose(network(image), expected, atol=1e-5)
