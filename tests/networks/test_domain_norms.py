import copy

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.networks.domain_norms import DomainNorms


def test_each_domain_keeps_its_own_and_the_network_is_the_targets():
    network = nn.Sequential(nn.BatchNorm2d(2, momentum=None), nn.Conv2d(2, 2, 1))
    names = list(network.state_dict())
    norms = DomainNorms(network)
    source, target = 3 + torch.randn(8, 2, 4, 4), -5 + 2 * torch.randn(8, 2, 4, 4)
    norms.use_source()
    norms.use_source()  # a second time changes nothing
    network(source)
    norms.use_target()
    network(target)
    torch.testing.assert_close(network[0].running_mean, target.mean((0, 2, 3)))
    torch.testing.assert_close(norms.source[0].running_mean, source.mean((0, 2, 3)))
    assert network[0].num_batches_tracked == norms.source[0].num_batches_tracked == 1
    assert list(network.state_dict()) == names
    assert not any("source" in name for name, _ in network.named_parameters())


def test_scales_learn_apart_and_the_rest_together():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    shared = copy.deepcopy(network)
    norms = DomainNorms(network)
    norms.use_source()
    loss = network(torch.randn(6, 3)).square().sum()
    norms.use_target()
    loss.backward()
    assert network[1].weight.grad is None  # the target's has seen nothing
    assert norms.source[0].weight.grad.abs().sum() > 0
    assert network[0].weight.grad.abs().sum() > 0
    torch.testing.assert_close(network[1].weight, shared[1].weight)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_the_sources_optimizer_is_as_the_networks(kind):
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    groups = [
        {"params": network[:2].parameters(), "lr": 0.1, "weight_decay": 0.3},
        {"params": network[2:].parameters(), "lr": 0.2},
    ]
    optimizer = kind(groups, lr=1.0)
    network[3].bias.requires_grad_(False)
    norms = DomainNorms(network)
    own = norms.make_optimizer(optimizer)
    assert type(own) is kind
    assert [group["lr"] for group in own.param_groups] == [0.1, 0.2]
    assert own.param_groups[0]["weight_decay"] == 0.3
    assert [len(group["params"]) for group in own.param_groups] == [2, 1]
    optimizer.param_groups[1]["lr"] = 0.05
    norms.follow(own, optimizer)
    assert [group["lr"] for group in own.param_groups] == [0.1, 0.05]
    own.load_state_dict(own.state_dict())
    norms.follow(own, optimizer)
    network.requires_grad_(False)
    assert DomainNorms(network).make_optimizer(optimizer) is None


@pytest.mark.parametrize("norm", ["instance", ("group", {"num_groups": 2})])
def test_refuses_networks_without_batch_norm(norm):
    with pytest.raises(InputError, match="no BatchNorm layer"):
        DomainNorms(UNet(3, 1, 2, (4, 8), (2,), norm=norm))
