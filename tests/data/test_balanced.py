"""Balanced draws: the shares hold in every stretch, nobody is left out, resuming and processes agree."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from monai.data import CacheDataset
from torch.utils.data import RandomSampler, Subset

from monai_transfer.data.balanced import BalancedSampler
from monai_transfer.errors import InputError

SITES = ["big"] * 50 + ["middle"] * 12 + ["small"] * 3
DATA = [{"image": n, "site": site, "label": n % 2 == 0} for n, site in enumerate(SITES)]


def counts(indices) -> Counter:
    return Counter(SITES[i] for i in indices)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_shares_hold_in_every_stretch(alpha):
    drawn = list(BalancedSampler(DATA, 600, alpha=alpha, seed=1))
    assert len(drawn) == 600
    total = sum(n**alpha for n in (50, 12, 3))
    for start in range(0, 600, 60):
        found = counts(drawn[start : start + 60])
        for site, n in (("big", 50), ("middle", 12), ("small", 3)):
            assert abs(found[site] - 60 * n**alpha / total) <= 2


def test_a_case_returns_only_after_all_others_of_its_site():
    drawn = [i for i in BalancedSampler(DATA, 450, seed=2) if SITES[i] == "middle"]
    for start in range(0, len(drawn) - 11, 12):
        assert sorted(drawn[start : start + 12]) == list(range(50, 62))


def test_classes_inside_sites():
    drawn = list(BalancedSampler(DATA, 300, label="label", seed=3))
    for site, n in counts(drawn).items():
        positive = sum(DATA[i]["label"] for i in drawn if SITES[i] == site)
        assert abs(positive - n / 2) <= 2


def test_a_rare_site_is_not_always_left_out():
    """With less than one draw an epoch, its share holds over epochs."""
    data = [{"site": "a"}] * 99 + [{"site": "b"}]
    sampler = BalancedSampler(data, 10, alpha=1.0, seed=0)
    found = 0
    for epoch in range(400):
        sampler.set_epoch(epoch)
        found += sum(i == 99 for i in sampler)
    assert 20 < found < 60  # 40 expected


def test_epochs_differ_and_are_repeatable():
    sampler, again = BalancedSampler(DATA, 40, seed=5), BalancedSampler(DATA, 40, seed=5)
    first = list(sampler)
    assert list(sampler) == first == list(again) != list(BalancedSampler(DATA, 40, seed=6))
    sampler.set_epoch(1)
    again.set_epoch(1)
    assert list(sampler) == list(again) != first


def test_processes_share_one_sequence_out():
    whole = list(BalancedSampler(DATA, 60, seed=5))
    parts = [list(BalancedSampler(DATA, 30, seed=5, rank=rank, world_size=2)) for rank in (0, 1)]
    assert parts[0] + parts[1] == whole
    assert all(all(abs(n - 10) <= 1 for n in counts(part).values()) for part in parts), (
        "each process has its share of all sites"
    )
    with pytest.raises(InputError, match="rank 2 of 2"):
        list(BalancedSampler(DATA, 30, seed=5, rank=2, world_size=2))


def test_without_a_seed_it_follows_torchs_stream():
    torch.manual_seed(4)
    first = list(BalancedSampler(DATA, 20))
    assert list(BalancedSampler(DATA, 20)) != first
    torch.manual_seed(4)
    assert list(BalancedSampler(DATA, 20)) == first


def test_one_domain_is_torchs_own_sampler():
    one = [{"image": n} for n in range(9)]
    torch.manual_seed(4)
    wanted = list(RandomSampler(one, replacement=True, num_samples=40))
    torch.manual_seed(4)
    assert list(BalancedSampler(one, 40)) == wanted


def test_datasets_and_subsets():
    dataset = CacheDataset(DATA, progress=False)
    assert list(BalancedSampler(dataset, 30, seed=1)) == list(BalancedSampler(DATA, 30, seed=1))
    part = Subset(dataset, [0, 1, 2, 64])
    assert sorted(set(BalancedSampler(part, 30, seed=1))) == [0, 1, 2, 3]
    assert sum(i == 3 for i in BalancedSampler(part, 30, seed=1)) in (14, 15, 16)


def test_refused():
    with pytest.raises(InputError, match="alpha is -1"):
        BalancedSampler(DATA, 3, alpha=-1)
    with pytest.raises(InputError, match="no case"):
        list(BalancedSampler([], 3))
    with pytest.raises(InputError, match="data list of dictionaries"):
        list(BalancedSampler([1, 2], 3))
