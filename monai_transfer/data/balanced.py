"""Balanced draws from domains of different size: sites equally, by their size, or in between, whatever a batch holds.

    p_site = n_site^alpha / sum over sites of n^alpha,        alpha 0: equally, alpha 1: by size

Fifty labelled source cases beside three of the target: drawn by size, nine batches of ten never see the target. Unlike
torch's ``WeightedRandomSampler`` the shares hold nearly in every batch, not only on average (a low-discrepancy
sequence with a random start), and a case returns only when all others of its site were drawn.

Paper: Conneau and Lample, Cross-lingual Language Model Pretraining, NeurIPS 2019, arXiv:1901.07291 (sampling with
exponent alpha); Wang et al., Balancing Training for Multilingual Neural Machine Translation, ACL 2020 (its trade-off)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import RandomSampler, Sampler, Subset

from monai_transfer.errors import InputError

__all__ = ["BalancedSampler", "items_of"]


_GOLDEN = (5**0.5 - 1) / 2


class BalancedSampler(Sampler[int]):
    """Draws ``num_samples`` indices, with the domains in the shares above.

    With a single domain (and no ``label``) it draws exactly as ``RandomSampler(replacement=True)``.

    Args:
        data_source: a MONAI dataset (its ``data``), a ``Subset`` of one, or a data list of dictionaries.
        num_samples: draws in an epoch, of this process.
        domain: the key that tells a case's domain; cases without it are a domain of their own.
        alpha: exponent of the size.
        label: a key whose values (classes) are drawn equally inside each domain; ``None``: not looked at.
        seed: ``None``: from torch's own stream, as torch's samplers do, which ``EpochSeed`` sets in each epoch and
            process. A number: from (seed, epoch), with ``set_epoch`` as in ``DistributedSampler``; the processes then
            share one sequence out.
        rank, world_size: this process and their number; default those of ``torch.distributed``.

    Raises:
        InputError: a negative ``alpha``; no case, or (when drawn from) items that are no dictionaries.

    Ninety cases of one site and ten of another, drawn equally often:

    >>> from monai_transfer.data.balanced import BalancedSampler
    >>> cases = [{"site": "large"}] * 90 + [{"site": "small"}] * 10
    >>> drawn = [cases[i]["site"] for i in BalancedSampler(cases, num_samples=100, seed=0)]
    >>> drawn.count("small")
    51
    """

    def __init__(
        self,
        data_source: Any,
        num_samples: int,
        domain: str = "site",
        alpha: float = 0.0,
        label: str | None = None,
        seed: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if alpha < 0:
            raise InputError(f"alpha is {alpha}", hint="0 draws domains equally, 1 by their size")
        self.data_source, self.num_samples = data_source, int(num_samples)
        self.domain, self.alpha, self.label, self.seed = domain, float(alpha), label, seed
        self._rank, self._world_size, self.epoch = rank, world_size, 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch that ``seed`` is combined with."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        strata = self._strata()
        if self.seed is None and self.label is None and len(strata) == 1:
            yield from RandomSampler(self.data_source, replacement=True, num_samples=self.num_samples)
            return
        generator = torch.Generator()
        first = 0
        if self.seed is None:
            generator.manual_seed(int(torch.empty((), dtype=torch.int64).random_().item()))
        else:
            generator.manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
            first = self._place() * self.num_samples
        sizes = [float(sum(map(len, classes))) for classes in strata]
        sites = _shared(torch.tensor(sizes) ** self.alpha, generator)
        inside = [_shared(torch.ones(len(classes)), generator) for classes in strata]
        cases = [[_shuffled(indices, generator) for indices in classes] for classes in strata]
        for n in range(first + self.num_samples):
            site = next(sites)
            index = next(cases[site][next(inside[site])])
            if n >= first:
                yield index

    def _place(self) -> int:
        """This process's place in the common sequence: consecutive parts, so that each is balanced by itself."""
        there = dist.is_available() and dist.is_initialized()
        rank = self._rank if self._rank is not None else (dist.get_rank() if there else 0)
        size = self._world_size if self._world_size is not None else (dist.get_world_size() if there else 1)
        if not 0 <= rank < size:
            raise InputError(
                f"rank {rank} of {size} processes", hint="count ranks from 0, and give num_replicas with rank"
            )
        return rank

    def _strata(self) -> list[list[list[int]]]:
        """Indices by domain and class."""
        found: dict[str, dict[str, list[int]]] = {}
        for index, item in enumerate(items_of(self.data_source)):
            if not isinstance(item, Mapping):
                raise InputError(f"an item is a {type(item).__name__}", hint="give a data list of dictionaries")
            kind = str(item.get(self.label)) if self.label is not None else ""
            found.setdefault(str(item.get(self.domain)), {}).setdefault(kind, []).append(index)
        if not found:
            raise InputError("no case to draw from", hint="look at the sites and the split that the list was made for")
        return [[found[site][kind] for kind in sorted(found[site])] for site in sorted(found)]


def items_of(source: Any) -> Sequence[Any]:
    """The data list behind a dataset, a ``Subset`` of one, or a list itself.

    Args:
        source: a dataset with ``data``, a ``Subset`` of one, or a list.

    >>> from monai.data import Dataset
    >>> items = [{"case": "a"}, {"case": "b"}, {"case": "c"}]
    >>> items_of(Subset(Dataset(items), [2, 0]))  # in the subset's order
    [{'case': 'c'}, {'case': 'a'}]
    """
    if isinstance(source, Subset):
        items = items_of(source.dataset)
        return [items[i] for i in source.indices]
    return getattr(source, "data", source)


def _shared(weights: torch.Tensor, generator: torch.Generator) -> Iterator[int]:
    """Endless indices in the given shares: where the golden ratio's multiples, from a random start, fall in [0, 1)."""
    edges = (weights.double() / weights.sum()).cumsum(0)[:-1].contiguous()
    place = float(torch.rand((), generator=generator, dtype=torch.float64))
    while True:
        yield int(torch.searchsorted(edges, place, right=True))
        place = (place + _GOLDEN) % 1.0


def _shuffled(indices: list[int], generator: torch.Generator) -> Iterator[int]:
    """All indices in random order, endlessly."""
    while True:
        for place in torch.randperm(len(indices), generator=generator).tolist():
            yield indices[place]
