"""Every batch is half source and half target, each part balanced; other transforms for other parts; stock loaders."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, RandShiftIntensityd
from monai.utils import set_determinism

from monai_transfer.data.joint import JointSampler, SwitchOnd, joint_items
from monai_transfer.errors import InputError

SITES = ["big"] * 40 + ["small"] * 4
SOURCE = [{"image": n, "site": site} for n, site in enumerate(SITES)]
TARGET = [{"image": 100 + n, "site": "mine"} for n in range(3)]
ITEMS = joint_items(SOURCE, TARGET)


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize(("batch", "share"), [(4, 0.5), (2, 0.5), (4, 0.25), (6, 0.5)])
def test_every_batch_holds_its_share(seed, batch, share):
    drawn = [ITEMS[i] for i in JointSampler(ITEMS, 20 * batch, share, seed=seed)]
    assert len(drawn) == 20 * batch
    for start in range(0, len(drawn), batch):
        assert sum(item["part"] == "target" for item in drawn[start : start + batch]) == batch * share
    sites = Counter(item["site"] for item in drawn if item["part"] == "source")
    assert abs(sites["big"] - sites["small"]) <= 3, "sites of the source equally"
    cases = Counter(item["image"] for item in drawn if item["part"] == "target")
    assert max(cases.values()) - min(cases.values()) <= 1, "each target case as often as the others"


def test_odd_batches_are_as_even_as_they_can_be():
    drawn = [ITEMS[i]["part"] == "target" for i in JointSampler(ITEMS, 30, seed=0)]
    assert {sum(drawn[n : n + 3]) for n in range(0, 30, 3)} == {1, 2}


def test_epochs_and_processes():
    sampler = JointSampler(ITEMS, 40, seed=1)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    ranks = [list(JointSampler(ITEMS, 20, seed=1, rank=r, world_size=2)) for r in (0, 1)]
    assert ranks[0] != ranks[1]
    torch.manual_seed(5)
    free = list(JointSampler(ITEMS, 20))
    assert free != list(JointSampler(ITEMS, 20))
    torch.manual_seed(5)
    assert free == list(JointSampler(ITEMS, 20)), "torch's own stream, as EpochSeed sets it"


def test_one_part_alone_and_refusals():
    alone = joint_items([], TARGET)
    assert Counter(JointSampler(alone, 9, seed=0)) == {0: 3, 1: 3, 2: 3}
    assert len(set(JointSampler(SOURCE[:9], 9, seed=0))) == 9, "without parts all cases are of one"
    with pytest.raises(InputError, match="no case"):
        list(JointSampler([], 3))
    with pytest.raises(InputError, match="between 0 and 1"):
        JointSampler(ITEMS, 3, share=1)
    with pytest.raises(InputError, match="alpha"):
        JointSampler(ITEMS, 3, alpha=-1)


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_stock_loader_the_targets_half_is_augmented_by_itself(workers):
    shift = {"_target_": "monai.transforms.RandShiftIntensityd", "keys": ["image"], "offsets": [10, 20], "prob": 1.0}
    chain = Compose([SwitchOnd("part", {"target": [shift]}, [RandShiftIntensityd("image", (0.1, 0.2), prob=1.0)])])
    items = [{**item, "image": torch.zeros(1, 4, 4)} for item in ITEMS]

    def batches():
        set_determinism(3)
        dataset = CacheDataset(items, chain, progress=False)
        loader = DataLoader(dataset, batch_size=4, sampler=JointSampler(dataset, 24), num_workers=workers)
        return [(batch["part"], batch["image"][:, 0, 0, 0]) for batch in loader]

    found = batches()
    for parts, values in found:
        assert [10 <= v <= 20 for v in values.tolist()] == [part == "target" for part in parts]
        assert sorted(parts) == ["source"] * 2 + ["target"] * 2
    assert len(torch.cat([values for _, values in found]).unique()) == 24, "each case has a draw of its own"
    for (_, one), (_, two) in zip(found, batches(), strict=True):
        assert torch.equal(one, two)
    set_determinism(None)
