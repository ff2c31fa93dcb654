"""What MONAI's networks really give, head by head; and copies of networks that keep something from their last pass."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import BasicUNetPlusPlus, DynUNet, HoVerNet, MedNeXt, SegResNetDS, SegResNetVAE, UNet, ViT

from monai_transfer.errors import InputError
from monai_transfer.networks.copying import copy_network, meta_copy
from monai_transfer.networks.output_forms import (
    auxiliary_loss,
    main_output,
    main_scores,
    may_give_several,
    output_heads,
    plain_in_evaluation,
    spatial_dims_of,
)

DYNUNET = {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3, "filters": [4, 6, 8, 8]}


def dynunet(dims: int = 2) -> DynUNet:
    return DynUNet(dims, 1, 3, **DYNUNET, deep_supervision=True, deep_supr_num=2)


NETWORKS = {  # how many heads while training, and the shape of each in pixels per axis for 32 x 32
    "DynUNet": (dynunet, [32, 32, 32]),
    "SegResNetDS": (lambda: SegResNetDS(2, 8, out_channels=3, blocks_down=(1, 1, 1), dsdepth=2), [32, 16]),
    "MedNeXt": (lambda: MedNeXt(2, 4, 1, 3, blocks_down=(1, 1), blocks_up=(1, 1), deep_supervision=True), [32, 16, 8]),
    "BasicUNetPlusPlus": (
        lambda: BasicUNetPlusPlus(2, 1, 3, features=(4, 4, 4, 4, 4, 4), deep_supervision=True),
        [32] * 4,
    ),
    "SegResNetVAE": (lambda: SegResNetVAE((32, 32), spatial_dims=2, out_channels=3, init_filters=8), [32]),
    "UNet": (lambda: UNet(2, 1, 3, (4, 8), (2,)), [32]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_heads_of_real_networks(name):
    torch.manual_seed(0)
    build, sizes = NETWORKS[name]
    network = build().train()
    image = torch.rand(2, 1, 32, 32)
    output = network(image)
    heads = output_heads(output, 2, network)
    assert [tuple(head.shape) for head in heads] == [(2, 3, size, size) for size in sizes]
    assert torch.equal(heads[0], main_output(output, network=network))  # dims from the network itself
    assert (auxiliary_loss(output) is not None) == (name == "SegResNetVAE")
    plain_in_evaluation(network).eval()
    with torch.no_grad():
        evaluated = network(image)
    assert isinstance(evaluated, torch.Tensor)
    assert torch.equal(evaluated, main_scores(network, image))


def test_the_main_output_is_what_evaluation_gives():
    """Without dropout and batch statistics the main head while training is the output in evaluation, to the bit."""
    torch.manual_seed(0)
    network, image = dynunet(), torch.rand(2, 1, 32, 32)
    trained = main_output(network.train()(image), 2)
    assert torch.equal(trained, network.eval()(image))
    network = NETWORKS["BasicUNetPlusPlus"][0]()
    four = network(image)
    assert main_output(four, 2, network) is four[-1] or torch.equal(main_output(four, 2, network), four[-1])


def test_a_stack_is_no_volume():
    volume, stack = torch.zeros(2, 3, 8, 8, 8), torch.zeros(2, 3, 4, 8, 8)
    assert len(output_heads(volume, 3)) == 1
    assert [head.shape for head in output_heads(stack, 2)] == [(2, 4, 8, 8)] * 3


def test_hidden_states_are_no_heads():
    network = ViT(1, (16, 16), (8, 8), hidden_size=12, mlp_dim=12, num_layers=2, num_heads=2, classification=True,
                  num_classes=5, spatial_dims=2)  # fmt: skip
    heads = output_heads(network(torch.rand(2, 1, 16, 16)), 2)
    assert [tuple(head.shape) for head in heads] == [(2, 5)]


def test_refuses_a_dictionary_by_name():
    network = HoVerNet(out_classes=2)
    with pytest.raises(InputError, match=r"HoVerNet gives a dictionary of outputs \(nucleus_prediction"):
        main_output({"nucleus_prediction": torch.zeros(1, 2, 8, 8)}, 2, network)
    with pytest.raises(InputError, match="without class scores"):
        main_output((None,), 2)


def test_a_network_that_keeps_activations_can_be_copied():
    network = dynunet().train()
    image = torch.rand(2, 1, 32, 32)
    network(image)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(network)  # the fault that copy_network is for
    twin = copy_network(network)
    assert torch.equal(twin(image), network.eval()(image))
    twin.train()
    assert twin.heads is twin.skip_layers.next_layer.heads  # the copy's own list, shared within it as in the original
    assert twin.heads is not network.heads
    own = [head.clone() for head in network.heads]
    twin(image + 1)
    assert all(torch.equal(a, b) for a, b in zip(own, network.heads, strict=True))


def test_a_meta_copy_leaves_the_network_alone():
    network = dynunet(3).train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    dry = meta_copy(network, torch.bfloat16)
    output = dry(torch.empty(2, 1, 16, 16, 16, device="meta", dtype=torch.bfloat16))
    assert output.shape == (2, 3, 3, 16, 16, 16)
    assert output.dtype == torch.bfloat16
    assert all(p.device.type == "cpu" for p in network.parameters())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert len({id(p) for p in dry.parameters()}) == len({id(p) for p in network.parameters()})


def test_what_may_give_several():
    nets = "monai.networks.nets."
    assert not may_give_several(nets + "DynUNet", {"deep_supervision": False})
    assert may_give_several(nets + "DynUNet", {"deep_supervision": True})
    assert may_give_several(nets + "SegResNetDS", {"dsdepth": 4})
    assert not may_give_several(nets + "SegResNetDS", {})
    assert may_give_several("their.own.Network", {})
    assert not may_give_several("monai_transfer.networks.mil.Mil", {})
    assert spatial_dims_of(torch.nn.Linear(1, 1)) is None
