"""The feature cache as a config has it: used where it is valid, the ordinary way where it is not, and the log says why.

    feature_cache:
      _target_: monai_transfer.engine.auto_cache.FeatureCache
      network: '@network'
      loader: '@train#dataloader'
    train:
      trainer: {train_data_loader: $@feature_cache.loader, inferer: $@feature_cache.inferer, ...}

Nothing is computed when a config is parsed. The features are made when the trainer first asks for a batch, and made
anew when the frozen weights have changed since, as in a federated round or after resuming.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monai_transfer.engine.feature_cache import CachedFeatures, NotCached, cache_features
from monai_transfer.errors import InputError
from monai_transfer.networks.split import Run
from monai_transfer.networks.wrappers import unwrap

__all__ = ["FeatureCache"]

logger = logging.getLogger("monai_transfer")


class FeatureCache:
    """A loader and an inferer for a trainer, which turn to cached features by themselves.

    Args:
        network: after its strategy was applied, on its device.
        loader: the trainer's loader; see ``cache_features``.
        inferer: the trainer's inferer; default ``SimpleInferer``.
        views: with random augmentation, how many views of each case to keep; ``None``: augmented cases are not cached.
        seed: of the views.
        enabled: ``"auto"``: where valid; ``True``: or else an error; ``False``: never.
        max_bytes: memory for the features; by default half of what is free.

    Raises:
        InputError: ``enabled`` is something else, or ``True`` where features cannot be cached.

    A head alone learns, so what the frozen layers give is kept and they run once per case:

    >>> import torch
    >>> from monai_transfer.strategies import HeadOnly
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> network = HeadOnly().apply(network)
    >>> items = [{"image": torch.rand(1, 8, 8), "label": n % 2} for n in range(4)]
    >>> cache = FeatureCache(network, DataLoader(items, batch_size=2))
    >>> next(iter(cache.loader))["image"].shape  # what enters the head
    torch.Size([2, 4])
    """

    def __init__(
        self,
        network: nn.Module,
        loader: DataLoader,
        inferer: Run | None = None,
        views: int | None = None,
        seed: int = 0,
        enabled: bool | str = "auto",
        max_bytes: int | None = None,
    ) -> None:
        if enabled not in (True, False, "auto"):
            raise InputError(f"enabled is {enabled!r}", hint="choose auto, true or false")
        self.network, self.source, self.views, self.seed = network, loader, views, seed
        self.enabled, self.max_bytes = enabled, max_bytes
        self.plain_inferer: Run = SimpleInferer() if inferer is None else inferer
        self.loader, self.inferer = _Loader(self), _Inferer(self)
        self.result: CachedFeatures | NotCached | None = None if enabled else NotCached("it is switched off")
        self._weights: list[tuple[int, int]] = []
        self._batches: DataLoader | None = None

    @property
    def reason(self) -> str | None:
        """What was cached, or why not, in one clause; ``None`` before the first batch."""
        return None if self.result is None else self.result.reason

    def decide(self) -> None:
        """Cache, or find out why not; again where the frozen weights are no longer those that the features are of.

        Raises:
            InputError: ``enabled`` is ``True`` and the cache is not valid.
        """
        if isinstance(self.result, NotCached) or (self.result is not None and self._weights == self._frozen()):
            return
        if self.enabled == "auto" and all(parameter.requires_grad for parameter in self.network.parameters()):
            self.result = NotCached("the whole network learns")  # the usual case: nothing that the user could fix
            logger.info("no feature cache: %s", self.result.reason)
            return
        self.result = cache_features(
            self.network,
            self.source,
            views=self.views,
            seed=self.seed,
            inferer=self.plain_inferer,
            max_bytes=self.max_bytes,
        )
        if isinstance(self.result, CachedFeatures):
            self._weights, self._batches = self._frozen(), self.result.loader()
            logger.info("feature cache: %s", self.result.reason)
        elif self.enabled is True:
            raise InputError(f"features cannot be cached: {self.result.reason}", hint="set enabled to auto")
        else:
            logger.info("no feature cache: %s", self.result.reason)

    @property
    def batches(self) -> DataLoader:
        """The loader in use."""
        return self.source if self._batches is None else self._batches

    def _frozen(self) -> list[tuple[int, int]]:
        """Where the frozen weights lie and how often they were written to: cheap, and changes with any change."""
        core = unwrap(self.network)
        inside = set(self.result.head.modules()) if isinstance(self.result, CachedFeatures) else set()
        return [
            (tensor.data_ptr(), tensor._version)
            for module in core.modules()
            if module not in inside
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
        ]


class _Loader:
    """Iterates over features or cases, whichever was decided; asks at the start of each epoch."""

    def __init__(self, cache: FeatureCache) -> None:
        self._cache = cache

    def __iter__(self) -> Iterator[Any]:
        self._cache.decide()
        return iter(self._cache.batches)

    def __len__(self) -> int:
        return len(self._cache.source)

    @property
    def dataset(self) -> Any:
        return self._cache.batches.dataset

    @property
    def sampler(self) -> Any:
        return self._cache.source.sampler

    @property
    def batch_size(self) -> int | None:
        return self._cache.source.batch_size


class _Inferer(Inferer):
    def __init__(self, cache: FeatureCache) -> None:
        super().__init__()
        self._cache = cache

    @property
    def dtype(self) -> Any:
        """That of autocast, where the trainer's own inferer has it switched on (``engine.memory`` asks)."""
        if not getattr(self._cache.plain_inferer, "enabled", True):
            raise AttributeError("dtype")
        return self._cache.plain_inferer.dtype  # type: ignore[attr-defined]

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = self._cache.result
        run = result.inferer if isinstance(result, CachedFeatures) else self._cache.plain_inferer
        return run(inputs, network, *args, **kwargs)
