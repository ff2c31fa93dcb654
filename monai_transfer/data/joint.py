"""Joint training: every batch half source, half labelled target, the target's half augmented by itself.

Fine-tuning on three target cases forgets what the source taught; with the source's cases in every batch it cannot. Of
all fixed rules this one was the safest on public sets (``docs/fine_tuning.md``). Where only some of the source's cases
are at hand, the same with those few is replay.

Paper: Rebuffi et al., iCaRL, CVPR 2017, arXiv:1611.07725 (replay of few kept cases); Oliver et al., Realistic
Evaluation of Deep Semi-Supervised Learning Algorithms, NeurIPS 2018, arXiv:1804.09170 (why such baselines deserve a
budget of their own)

Items say which part they are of under the key ``part`` (``DataLists.joint_training``): ``JointSampler`` draws by it,
and ``SwitchOnd`` augments by it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from torch.utils.data import Sampler

from monai_transfer.data.augmentation.base import composed
from monai_transfer.data.balanced import BalancedSampler, items_of
from monai_transfer.errors import InputError

__all__ = ["JointSampler", "SwitchOnd", "joint_items"]

SOURCE, TARGET = "source", "target"


def joint_items(source: Sequence[Mapping[str, Any]], target: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Source and target cases in one list, each with its ``part``; a case of both is the target's.

    Args:
        source: data list of the source.
        target: data list of the target.

    >>> joint_items([{"image": "a"}, {"image": "b"}], [{"image": "b"}])
    [{'image': 'a', 'part': 'source'}, {'image': 'b', 'part': 'target'}]
    """
    known = {str(item.get("image")) for item in target}
    kept = [{**item, "part": SOURCE} for item in source if str(item.get("image")) not in known]
    return kept + [{**item, "part": TARGET} for item in target]


def target_count(items: Sequence[Mapping[str, Any]]) -> int:
    """How many of a training list's cases are the target's: all but those marked as the source's.

    Args:
        items: of ``joint_items``, or a list without ``part``.

    >>> target_count([{"part": "source"}, {"part": "target"}, {"image": "given by a program that drives the bundle"}])
    2
    """
    return sum(item.get("part") != SOURCE for item in items)


class JointSampler(Sampler[int]):
    """Draws indices that alternate between the source's cases and the target's, each part balanced over its sites.

    With an even batch size and ``share`` .5 every batch is exactly half target. Where only one part is there, all draws
    come from it, and so they do where no case says which part it is of.

    Args:
        data_source: a MONAI dataset (its ``data``) or a data list of dictionaries with ``part``.
        num_samples: draws in an epoch, of this process.
        share: of the draws that are the target's.
        domain, alpha, label, seed, rank, world_size: as in ``BalancedSampler``, inside each part.

    Raises:
        InputError: a share outside (0, 1), or (when drawn from) no case.

    >>> items = joint_items([{"image": n} for n in range(6)], [{"image": 10}])
    >>> [items[i]["part"][0] for i in JointSampler(items, 6, seed=0)]
    ['s', 't', 's', 't', 's', 't']
    """

    def __init__(
        self,
        data_source: Any,
        num_samples: int,
        share: float = 0.5,
        domain: str = "site",
        alpha: float = 0.0,
        label: str | None = None,
        seed: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if not 0 < share < 1:
            raise InputError(f"the target's share of a batch lies between 0 and 1, not at {share}", hint="such as 0.5")
        self.data_source, self.num_samples, self.share = data_source, int(num_samples), float(share)
        self._options: dict[str, Any] = {
            "domain": domain, "alpha": alpha, "label": label, "seed": seed, "rank": rank, "world_size": world_size
        }  # fmt: skip
        BalancedSampler([], 0, **self._options)  # refuses what is wrong with them now
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch that ``seed`` is combined with."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        items = items_of(self.data_source)
        parts = [[n for n, item in enumerate(items) if item.get("part") == name] for name in (SOURCE, TARGET)]
        # each case once before any returns, also where a part is a single site
        own = {"rank": 0, "world_size": 1, "seed": int(torch.empty((), dtype=torch.int64).random_().item())}
        options = {**self._options, **(own if self._options["seed"] is None else {})}
        if not all(parts):
            yield from self._drawn(list(range(len(items))), self.num_samples, options)
            return
        target = int(self.num_samples * self.share)
        draws = [self._drawn(p, n, options) for p, n in zip(parts, (self.num_samples - target, target), strict=True)]
        for n in range(self.num_samples):
            # the n-th draw is the target's where its share of all draws reaches the next whole number
            yield next(draws[int((n + 1) * self.share + 1e-9) > int(n * self.share + 1e-9)])

    def _drawn(self, indices: list[int], count: int, options: Mapping[str, Any]) -> Iterator[int]:
        items = items_of(self.data_source)
        sampler = BalancedSampler([items[n] for n in indices], count, **options)
        sampler.set_epoch(self.epoch)
        return (indices[n] for n in sampler)


class SwitchOnd(Randomizable, Transform):
    """Other transforms for other cases, by the value of a key: the target's half strongly augmented, the source's not.

    Args:
        key: what is looked at, e.g. ``part`` or ``site``.
        cases: for each value the transforms, or their MONAI configs (dictionaries with ``_target_``).
        default: for all other values, and for cases without the key.

    >>> switch = SwitchOnd("part", {"target": [lambda case: {**case, "image": 1}]})
    >>> switch({"part": "target", "image": 0})["image"], switch({"part": "source", "image": 0})["image"]
    (1, 0)
    """

    def __init__(self, key: Hashable, cases: Mapping[str, Sequence[Any]], default: Sequence[Any] = ()) -> None:
        self.key = key
        self.cases = {str(value): composed(transforms) for value, transforms in cases.items()}
        self.default = composed(default)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> SwitchOnd:
        """Seed all of its transforms, each by itself."""
        super().set_random_state(seed, state)
        for transform in (*self.cases.values(), self.default):
            transform.set_random_state(seed=int(self.R.randint(2**31)))
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        return self.cases.get(str(data.get(self.key)), self.default)(data)
