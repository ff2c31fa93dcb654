import logging

import pytest
import torch
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.testtime.source_free_self_training import SourceFreeSelfTraining


def blobs(n, shift, seed):
    """Two classes that lie 4 apart; the target is shifted and has outgrown the source's boundary."""
    g = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % 2
    return torch.randn(n, 2, generator=g) * 0.6 + torch.stack([4.0 * label, torch.zeros(n)], 1) + shift, label


def test_follows_a_shift_without_source_data_and_says_what_it_does(caplog):
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
    xs, ys = blobs(200, 0.0, 0)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(xs), ys).backward()
        optimizer.step()
    xt, yt = blobs(200, 3.0, 1)
    network.eval()
    before = (network(xt).argmax(1) == yt).float().mean().item()
    loader = [{"image": xt[i : i + 50], "strong": xt[i : i + 50] + 0.3} for i in range(0, 200, 50)]
    method = SourceFreeSelfTraining(steps=40)
    with caplog.at_level(logging.INFO, logger="monai_transfer"):
        assert method.fit(network, loader) is network
    assert "without source data: 40 steps on the target's images alone" in caplog.text
    assert before < 0.8 and (network(xt).argmax(1) == yt).float().mean() > 0.95
    assert method.student.keys() == network.state_dict().keys()
    assert not network.training


def test_a_strong_view_is_made_where_the_loader_brings_none():
    torch.manual_seed(0)
    network = nn.Conv2d(1, 2, 3, padding=1)  # nothing whose statistics could be estimated
    before = network.weight.detach().clone()
    SourceFreeSelfTraining(steps=3, lr=1e-2).fit(network, [torch.rand(2, 1, 12, 12) for _ in range(2)])
    assert not torch.equal(network.weight, before)


def test_refused():
    with pytest.raises(InputError, match="makes steps"):
        SourceFreeSelfTraining(steps=0)
    with pytest.raises(InputError, match="cannot keep"):
        SourceFreeSelfTraining(keep="both")
    with pytest.raises(InputError, match="loader is empty"):
        SourceFreeSelfTraining().fit(nn.Conv2d(1, 2, 1), [])
    with pytest.raises(InputError, match="may learn"):
        SourceFreeSelfTraining().fit(nn.Conv2d(1, 2, 1).requires_grad_(False), [torch.rand(2, 1, 4, 4)])
