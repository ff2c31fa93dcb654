"""Features of a frozen backbone computed once per case; the head trains on them, to the same weights.

Where all that learns lies at the network's end (strategy ``head_only``), every epoch repeats the same forward pass
through the rest. ``cache_features`` runs it once and gives a dataset of features, a loader that draws them in the very
order in which the original would draw its cases, and an inferer that runs the head alone. The trainer keeps the whole
network: checkpoints, validation and the optimizer do not notice.

    cached = cache_features(network, loader)
    if cached:
        trainer = SupervisedTrainer(..., train_data_loader=cached.loader(), network=network, inferer=cached.inferer)
    else:
        print(cached.reason)

Whether it is valid is tested, never assumed (``networks.split``). Random augmentation is only allowed when asked for:
``views=4`` caches four augmented views of each case and draws one of them per epoch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist
from monai.data import SmartCacheDataset
from monai.data.utils import set_rnd
from monai.inferers import Inferer, SimpleInferer
from monai.transforms import Compose, RandomizableTrait, RandomOrder, SomeOf
from monai.transforms.compose import OneOf
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset

from monai_transfer.networks.split import Cut, Head, NoCut, Run, cut_network
from monai_transfer.networks.tap import first_tensor
from monai_transfer.networks.wrappers import unwrap

__all__ = ["CachedFeatures", "FeatureDataset", "HeadInferer", "NotCached", "cache_features"]


@dataclass(frozen=True)
class NotCached:
    """Why features cannot be cached, in one clause; false in a condition.

    Args:
        reason: in one clause.

    >>> bool(NotCached("every case is augmented at random")), NotCached("every case is augmented at random").reason
    (False, 'every case is augmented at random')
    """

    reason: str

    def __bool__(self) -> bool:
        return False


class FeatureDataset(Dataset):
    """Cached features as a dataset of the same items, in the same order, as the one that they were computed from.

    Args:
        views: for each view its items; all views have the same length. With several, each access draws one, from
            torch's own random stream, which ``EpochSeed`` sets in each epoch.

    >>> dataset = FeatureDataset([[{"image": "first view"}], [{"image": "second view"}]])
    >>> len(dataset), {dataset[0]["image"] for _ in range(50)} == {"first view", "second view"}
    (1, True)
    """

    def __init__(self, views: Sequence[Sequence[Any]]) -> None:
        self.views = views

    def __len__(self) -> int:
        return len(self.views[0])

    def __getitem__(self, index: int) -> Any:
        view = int(torch.randint(len(self.views), ())) if len(self.views) > 1 else 0
        item = self.views[view][index]
        return dict(item) if isinstance(item, Mapping) else item


class HeadInferer(Inferer):
    """Runs the head on features, inside whatever inferer the trainer has; images still go through the whole network.

    Args:
        head: from the cut.
        features: an example of one case's features, F or F x spatial; what has another number of axes or of channels
            is an image, e.g. one of a target domain that was not cached.
        inferer: the trainer's own, e.g. one with autocast.

    >>> whole = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> infer = HeadInferer(whole[3], features=torch.zeros(4))
    >>> features, images = torch.zeros(3, 4), torch.zeros(3, 1, 8, 8)
    >>> [tuple(infer(inputs, whole).shape) for inputs in (features, images)]
    [(3, 2), (3, 2)]
    """

    def __init__(self, head: Head, features: Tensor, inferer: Run | None = None) -> None:
        super().__init__()
        self.head, self.like = head, (features.ndim, features.shape[0])
        self.inferer = SimpleInferer() if inferer is None else inferer

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Scores for a batch of features (or of images)."""
        inside = (inputs.ndim - 1, inputs.shape[1]) == self.like
        return self.inferer(inputs, self.head if inside else network, *args, **kwargs)


@dataclass
class CachedFeatures:
    """What stands in for a loader and an inferer; true in a condition.

    Attributes:
        dataset: items whose image is replaced by its features.
        inferer: to be the trainer's ``inferer``.
        head: the trained part, sharing its parameters with the network.
        layers: its modules' names in the network.
        views: how many views of each case are cached.
        nbytes: memory that the features take.
    """

    dataset: FeatureDataset
    inferer: HeadInferer
    head: Head
    layers: tuple[str, ...]
    views: int
    nbytes: int
    source: DataLoader

    @property
    def reason(self) -> str:
        """What was cached, in one clause."""
        views = "" if self.views == 1 else f" in {self.views} augmented views"
        return (
            f"features of {len(self.dataset)} cases{views} before {self.layers[0]} are kept ({_size(self.nbytes)}); "
            "the frozen part runs once"
        )

    def loader(self) -> DataLoader:
        """Batches of features, drawn by the original loader's sampler: same order, same batches, same random draws."""
        source = self.source
        options: dict[str, Any] = {"batch_sampler": source.batch_sampler}
        if type(source.batch_sampler) is BatchSampler:
            options = {"batch_size": source.batch_size, "sampler": source.sampler, "drop_last": source.drop_last}
        return DataLoader(self.dataset, collate_fn=source.collate_fn, generator=source.generator, **options)


def cache_features(
    network: nn.Module,
    loader: DataLoader,
    *,
    views: int | None = None,
    seed: int = 0,
    inferer: Run | None = None,
    image_key: str = "image",
    max_bytes: int | None = None,
) -> CachedFeatures | NotCached:
    """Compute the features of every case of ``loader`` once, where that is the same as computing them in every epoch.

    The random streams of torch, numpy and Python are left as they were.

    Args:
        network: after its strategy was applied, on its device.
        loader: of dictionaries with ``image_key`` and whatever else, or of (image, label) pairs.
        views: with random augmentation, how many augmented views of each case to keep.
        seed: of the views: the same seed gives the same views.
        inferer: the trainer's, when it is not ``SimpleInferer``.
        image_key: the images' key.
        max_bytes: memory for the features; by default half of what is free.

    Returns:
        The cache, or ``NotCached`` with the reason.

    >>> from monai_transfer.strategies import Full, HeadOnly
    >>> def network():
    ...     return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> loader = DataLoader([{"image": torch.rand(1, 8, 8), "label": 0}] * 3, batch_size=3)
    >>> found = cache_features(HeadOnly().apply(network()), loader)
    >>> found.layers, found.nbytes  # three cases of four features in float32
    (('3',), 48)
    >>> bool(cache_features(Full().apply(network()), loader))  # every layer learns: there is nothing to keep
    False
    """
    fault = _fault(loader, views)
    if fault:
        return NotCached(fault)
    core = unwrap(network)
    if core is not network and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return NotCached("the head would run outside of DistributedDataParallel, which would not average its gradients")
    device = next((p.device for p in core.parameters()), torch.device("cpu"))
    filling = _Filling(
        network=core,
        loader=loader,
        views=max(views or 1, 1),
        seed=seed,
        run=SimpleInferer() if inferer is None else inferer,
        key=image_key,
        limit=psutil.virtual_memory().available // 2 if max_bytes is None else max_bytes,
        device=device,
    )
    modes = {module: module.training for module in core.modules()}
    with _own_random_streams(device):
        core.train()  # as the trainer does; what the strategy keeps in eval stays there
        try:
            return filling.run_once()
        finally:
            for module, training in modes.items():
                module.training = training


@dataclass
class _Filling:
    """One pass over all cases and views."""

    network: nn.Module
    loader: DataLoader
    views: int
    seed: int
    run: Run
    key: str
    limit: int
    device: torch.device

    def run_once(self) -> CachedFeatures | NotCached:
        dataset: Any = self.loader.dataset
        size = max(self.loader.batch_size or 1, 2)
        cut: Cut | None = None
        kept: list[list[Any]] = []
        nbytes = 0
        shape: torch.Size | None = None
        for view in range(self.views):
            kept.append([])
            for batch in self.batches(size, view):
                if not all(_is_case(item, self.key) for item in batch):
                    return NotCached(
                        f"an item of the dataset is neither a dictionary with a tensor {self.key!r} nor a pair of "
                        "image and label (several patches per case, perhaps)"
                    )
                shapes = {_image(item, self.key).shape for item in batch}
                shape = shape or next(iter(shapes))
                if shapes != {shape} and self.loader.batch_size != 1:
                    return NotCached(
                        "images differ in size, and what a case is padded to depends on the others in its batch"
                    )
                image = self.image(batch)
                if cut is None:
                    found = self.cut(batch, image)
                    if not isinstance(found, Cut):
                        return NotCached(found.reason)
                    cut, features = found, found.first[: len(image)]
                    nbytes = features[0].nbytes * len(dataset) * self.views
                    if nbytes > self.limit:
                        return NotCached(
                            f"the features would take {_size(nbytes)}, and {_size(self.limit)} are to be had: cache "
                            "fewer views or smaller patches"
                        )
                else:
                    features = cut.features(image, self.run)
                kept[-1] += [_replaced(x, self.key, f.clone()) for x, f in zip(batch, features.cpu(), strict=True)]
        assert cut is not None
        return CachedFeatures(
            dataset=FeatureDataset(kept),
            inferer=HeadInferer(cut.head, cut.first[0], self.run),
            head=cut.head,
            layers=cut.layers,
            views=self.views,
            nbytes=nbytes,
            source=self.loader,
        )

    def batches(self, size: int, view: int) -> Iterator[list[Any]]:
        """The cases of one view in their order, in batches; where each is a batch in training, those of a size."""
        dataset: Any = self.loader.dataset
        for start in range(0, len(dataset), size):
            batch = [_item(dataset, index, self.seed, view) for index in range(start, min(start + size, len(dataset)))]
            cases = self.loader.batch_size == 1 and all(_is_case(item, self.key) for item in batch)
            if cases and len({_image(item, self.key).shape for item in batch}) > 1:
                yield from ([item] for item in batch)
            else:
                yield batch

    def image(self, batch: list[Any]) -> Tensor:
        collated = self.loader.collate_fn(batch)
        return first_tensor(collated[self.key if isinstance(batch[0], Mapping) else 0]).to(self.device)

    def cut(self, batch: list[Any], image: Tensor) -> Cut | NoCut | NotCached:
        if self.views == 1 and not _same(batch[0], _item(self.loader.dataset, 0, self.seed, 1), self.key):
            return NotCached(f"case 0 is not the same when loaded twice: {_ASK}")
        return cut_network(self.network, image if len(image) > 1 else torch.cat([image, image]), self.run)


_ASK = "give the number of views to cache (views=4), or leave the augmentation out"


def _fault(loader: Any, views: int | None) -> str | None:
    """What can be told without running anything."""
    dataset = getattr(loader, "dataset", None)
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        return "the loader is no torch DataLoader with batches"
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        return "the dataset is a stream, its cases cannot be looked up"
    if isinstance(dataset, SmartCacheDataset):
        return "a SmartCacheDataset changes its cases from epoch to epoch"
    if len(dataset) == 0:  # type: ignore[arg-type]
        return "the dataset is empty"
    if views is None:
        name = next((type(t).__name__ for root in _transforms(dataset) for t in _random_ones(root)), None)
        if name:
            return f"the cases are augmented at random ({name}): {_ASK}"
    return None


def _transforms(dataset: Any) -> list[Any]:
    """The transforms of a dataset and of those that it wraps (``Subset`` and the like)."""
    found = []
    while dataset is not None:
        if getattr(dataset, "transform", None) is not None:
            found.append(dataset.transform)
        dataset = getattr(dataset, "dataset", None)
    return found


def _random_ones(transform: Any) -> Iterator[Any]:
    if isinstance(transform, Compose) and not isinstance(transform, OneOf | SomeOf | RandomOrder):
        for inner in transform.transforms:
            yield from _random_ones(inner)
    elif isinstance(transform, RandomizableTrait):
        yield transform


def _item(dataset: Any, index: int, seed: int, view: int) -> Any:
    """One case in one view: the same whatever was loaded before it."""
    state = int(np.random.SeedSequence([seed, view, index]).generate_state(1)[0]) % 2**31
    torch.manual_seed(state)
    np.random.seed(state)
    random.seed(state)
    for transform in _transforms(dataset):
        set_rnd(transform, state)
    return dataset[index]


def _is_case(item: Any, key: str) -> bool:
    if isinstance(item, Mapping):
        return isinstance(item.get(key), Tensor)
    return isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], Tensor)


def _image(item: Any, key: str) -> Tensor:
    return item[key] if isinstance(item, Mapping) else item[0]


def _same(a: Any, b: Any, key: str) -> bool:
    first, second = (first_tensor(_image(x, key)) for x in (a, b))
    return first.shape == second.shape and bool(torch.equal(first, second))


def _replaced(item: Any, key: str, features: Tensor) -> Any:
    """The item with features for its image; other tensors without meta data, which would slow down every batch."""
    if isinstance(item, Mapping):
        bare = {k: first_tensor(v) if isinstance(v, Tensor) else v for k, v in item.items()}
        return {**bare, key: features}
    return features, first_tensor(item[1]) if isinstance(item[1], Tensor) else item[1]


@contextmanager
def _own_random_streams(device: torch.device) -> Iterator[None]:
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _size(nbytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} GiB"
