import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.testtime.adabn import Adabn


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_first_layer_gets_the_targets_statistics(dims):
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims](2, momentum=0.1)
    network = nn.Sequential(norm, nn.Dropout(0.9))
    target = [3 + 2 * torch.randn(8, 2, *[4] * dims) for _ in range(5)]
    weight = norm.weight.clone()
    assert Adabn().fit(network, [{"image": x} for x in target]) is network
    axes = [0, *range(2, dims + 2)]
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean(axes) for x in target]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var(axes) for x in target]).mean(0))
    assert norm.momentum == 0.1
    assert not network.training
    torch.testing.assert_close(norm.weight, weight)


def test_undoes_a_change_of_gain_and_offset():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 4, 3), nn.BatchNorm3d(4), nn.ReLU(),
        nn.Conv3d(4, 2, 1),
    )  # fmt: skip
    source = torch.randn(64, 1, 8, 8, 8)
    Adabn().fit(network, [source[:32], source[32:]])
    scanned = 5 * source + 40
    with torch.no_grad():
        expected = network(source)
        assert (network(scanned) - expected).abs().mean() > 1
        Adabn().fit(network, [scanned[:32], scanned[32:]])
        torch.testing.assert_close(network(scanned), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("passes", [1, 2])
def test_instance_norm_that_tracks_statistics_gets_the_targets_too(passes):
    """torch takes its momentum of ``None`` for 0, and would leave the reset values: mean 0, variance 1."""
    norm = nn.InstanceNorm3d(2, track_running_stats=True, momentum=0.3)
    target = [3 + 2 * torch.randn(2, 2, 4, 4, 4) for _ in range(5)]
    Adabn(passes=passes).fit(nn.Sequential(norm), target)
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3, 4)) for x in target]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var((2, 3, 4)).mean(0) for x in target]).mean(0))
    assert norm.momentum == 0.3


def test_a_broken_image_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.BatchNorm2d(1))
    image = torch.randn(4, 1, 3, 3)
    image[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        Adabn().fit(network, [torch.randn(4, 1, 3, 3), image])
    assert network[0].running_mean == 0 and network[0].momentum == 0.1


@pytest.mark.parametrize("norm", ["instance", ("group", {"num_groups": 2}), None])
def test_refuses_with_the_reason(norm):
    network = UNet(3, 1, 2, (4, 8), (2,), norm=norm)
    with pytest.raises(InputError, match="no running statistics"):
        Adabn().fit(network, [torch.randn(2, 1, 8, 8, 8)])


def test_a_failed_run_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.BatchNorm2d(1))
    network(torch.randn(4, 1, 3, 3) + 2)
    kept = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(InputError, match="empty"):
        Adabn().fit(network, [])
    with pytest.raises(InputError, match="no tensor under 'image'"):
        Adabn().fit(network, [torch.randn(4, 1, 3, 3), {"picture": 0}])
    network[0].register_forward_pre_hook(lambda module, _: module.eval() and None)
    with pytest.raises(InputError, match="frozen"):
        Adabn().fit(network, [torch.randn(4, 1, 3, 3)])
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, kept[key])
