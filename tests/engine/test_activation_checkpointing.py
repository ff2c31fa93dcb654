"""Recomputed blocks: the same gradients, the same running statistics, less kept between forward and backward."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import DenseNet, DynUNet, EfficientNetBN, SegResNet, SwinUNETR, UNet, ViT

from monai_transfer.engine.activation_checkpointing import checkpoint_activations, checkpointable_blocks
from monai_transfer.errors import InputError

NETWORKS = {
    "UNet": lambda: UNet(3, 1, 2, (4, 8, 16), (2, 2), num_res_units=2, norm="batch", dropout=0.2),
    "SegResNet": lambda: SegResNet(3, 8, norm="batch"),
    "DenseNet": lambda: DenseNet(2, 1, 3, init_features=8, growth_rate=4, block_config=(2, 2)),
    "DynUNet": lambda: DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 16]),
    "EfficientNet": lambda: EfficientNetBN("efficientnet-b0", spatial_dims=2, in_channels=1, num_classes=2,
                                           pretrained=False),
    "SwinUNETR": lambda: SwinUNETR(1, 2, feature_size=12, spatial_dims=2),
    "ViT": lambda: ViT(1, (32, 32), (8, 8), hidden_size=24, mlp_dim=32, num_layers=2, num_heads=4, spatial_dims=2),
}  # fmt: skip


def image_for(name: str) -> torch.Tensor:
    size = {"UNet": [16] * 3, "SegResNet": [16] * 3, "SwinUNETR": [64, 64]}.get(name, [32, 32])
    return torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(1))


def step(network: torch.nn.Module, image: torch.Tensor) -> int:
    """One backward pass under a fixed seed; the bytes that were kept for it."""
    kept: dict[int, int] = {}
    alive = []
    weights = {p.data_ptr() for p in network.parameters()}

    def pack(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(image)
    output = output[0] if isinstance(output, tuple) else output
    output.square().mean().backward()
    return sum(kept.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_same_gradients_and_statistics_with_less_kept(name):
    torch.manual_seed(0)
    network = NETWORKS[name]().train()
    again = checkpoint_activations(copy.deepcopy(network))
    image = image_for(name)
    plain, less = step(network, image), step(again, image)
    assert less < plain
    assert list(again.state_dict()) == list(network.state_dict())
    for (key, one), two in zip(network.named_parameters(), again.parameters(), strict=True):
        if one.grad is not None:
            assert torch.allclose(one.grad, two.grad, rtol=1e-4, atol=1e-7), key
    for key, one in network.named_buffers():
        assert torch.equal(one, again.get_buffer(key)), f"{key} was updated twice"


@pytest.mark.parametrize("name", NETWORKS)
def test_runs_outside_of_saved_tensors_hooks(name):
    """Those hooks switch off torch's check that nothing saved was changed in place: DenseNet's end does that."""
    network = checkpoint_activations(NETWORKS[name]().train())
    output = network(image_for(name))
    (output[0] if isinstance(output, tuple) else output).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_a_block_that_changes_its_input_is_left_out_or_refused():
    network = NETWORKS["DenseNet"]()
    assert "class_layers" not in checkpointable_blocks(network) and len(checkpointable_blocks(network)) == 3
    with pytest.raises(InputError, match="'class_layers' begins by changing its input"):
        checkpoint_activations(network, ["class_layers"])


def test_a_copy_computes_with_its_own_weights():
    network = checkpoint_activations(NETWORKS["UNet"]().train())
    teacher = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.zero_()
    image = image_for("UNet")
    assert teacher(image).abs().max() == 0
    assert network(image).abs().max() > 0
    teacher(image).sum().backward()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_applied_twice_is_applied_once():
    network = checkpoint_activations(checkpoint_activations(NETWORKS["UNet"]()))
    name = checkpointable_blocks(network)[0]
    kind = type(network.get_submodule(name))
    assert sum(base.__name__ == "_Recomputed" for base in kind.__mro__) == 1


def test_names_what_is_not_there():
    with pytest.raises(InputError, match="no module 'encoder'"):
        checkpoint_activations(NETWORKS["UNet"](), ["encoder"])
    with pytest.raises(InputError, match="no block"):
        checkpoint_activations(torch.nn.Linear(2, 2))
