"""FCN: every input size, skip fusion by stride, bilinear start, TorchScript, and it learns."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.networks.depth import depth_groups, encoder_decoder
from monai_transfer.networks.fcn import Fcn, bilinear_kernel
from monai_transfer.networks.head import find_head

SMALL = {"channels": (4, 4, 4, 4, 4), "convolutions": 1, "neck_channels": 4}


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize(
    ("dims", "size"), [(2, (64, 64)), (2, (37, 101)), (2, (1, 7)), (3, (32, 17, 5)), (3, (9, 8, 40))]
)
def test_any_size(dims, size, stride):
    network = Fcn(dims, 2, 3, stride=stride, **SMALL).eval()
    assert len(network.skip_scores) == {32: 0, 16: 1, 8: 2}[stride]
    x = torch.randn(2, 2, *size)
    assert network(x).shape == (2, 3, *size)
    scripted = torch.jit.script(network)
    assert torch.equal(scripted(x), network(x))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_upsampling_starts_bilinear(dims, factor):
    layer = Fcn(dims, 1, 2, channels=(4,) * 5, convolutions=1, stride=8, neck_channels=4).ups[0]
    if factor != 2:
        layer = Fcn(dims, 1, 2, channels=(4,) * 3, convolutions=1, stride=factor, neck_channels=4).last_up
    x = torch.randn(1, 2, *[6] * dims)
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear" if dims == 2 else "trilinear", align_corners=False)
    inner = (..., *[slice(factor, -factor)] * dims)  # at the border interpolation repeats, convolution sees zeros
    torch.testing.assert_close(layer(x)[inner], expected[inner])
    assert bilinear_kernel(dims, factor).sum().item() == pytest.approx(factor**dims)


def test_skips_carry_detail():
    """A shift of the image by one stride of the encoder shifts the output by as much: nothing is misaligned."""
    network = Fcn(2, 1, 2, channels=(4, 4, 4), convolutions=1, neck_channels=4, stride=2, norm=None).eval()
    for layer in (network.score, *network.skip_scores):
        torch.nn.init.normal_(layer.weight)
    x = torch.zeros(1, 1, 160, 160)
    x[..., 70:77, 70:74] = 1
    moved = torch.roll(x, (8, 16), (2, 3))
    inner = (..., slice(64, 104), slice(64, 104))  # away from the border
    torch.testing.assert_close(torch.roll(network(x), (8, 16), (2, 3))[inner], network(moved)[inner])
    assert network(x)[inner].std() > 1e-3


@pytest.mark.parametrize("dims", [2, 3])
def test_it_learns(dims):
    torch.manual_seed(0)
    network = Fcn(dims, 1, 2, channels=(8, 8, 8), convolutions=1, neck_channels=16, stride=2)
    label = torch.zeros(4, *[16] * dims, dtype=torch.long)
    label[(slice(None), slice(3, 11), slice(5, 12))] = 1
    x = label.unsqueeze(1) + 0.3 * torch.randn(4, 1, *[16] * dims)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), label)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(0.693, abs=0.01), "score layers start at zero"
    assert losses[-1] < 0.15


def test_depth_order_and_head():
    network = Fcn(2, 1, 3, stride=8, **SMALL)
    levels = depth_groups(network)
    assert len(levels) == 7 and levels[0][0].startswith("stages.0.")
    encoder, decoder = encoder_decoder(network)
    assert {n.split(".")[0] for n in encoder} == {"stages", "neck"}
    assert {n.split(".")[0] for n in decoder} == {"score", "skip_scores", "ups", "last_up"}
    sized = {n.rpartition(".")[0] for n, p in network.named_parameters() if 3 in p.shape[:1]}
    assert set(find_head(network)) == sized


@pytest.mark.parametrize(
    "arguments", [{"spatial_dims": 1}, {"stride": 3}, {"stride": 64}, {"channels": ()}, {"out_channels": 0}]
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(InputError):
        Fcn(**arguments)
