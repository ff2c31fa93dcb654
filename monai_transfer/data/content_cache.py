"""Preprocessed cases kept on disk by what they were made of: computed once per content, not once per run.

MONAI's ``PersistentDataset`` keys its files by the paths and, at best, by the transforms' names. It returns old voxels
after a file was edited or a spacing changed, and drops the affine on the second read. Here the key is the SHA-256 of
the files' bytes, of the deterministic transforms with all their parameters and code, and of the libraries' versions.
Geometry survives, so predictions can be inverted.

The folder holds voxels of patients, without names or identifiers: keep it where such data may lie. It may be shared by
runs and processes, and deleted at any time; old entries are not removed by themselves.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from monai.data import CacheDataset
from monai.transforms import Compose, Transform
from monai.transforms.traits import RandomizableTrait

from monai_transfer.data.background_fill import BackgroundFill
from monai_transfer.data.cache_file import read_case, write_case
from monai_transfer.data.fingerprint import fingerprint_item, fingerprint_transforms
from monai_transfer.errors import InputError

__all__ = ["ContentCacheDataset"]

logger = logging.getLogger("monai_transfer")


class ContentCacheDataset(CacheDataset):
    """MONAI's ``CacheDataset``, whose deterministic part is looked up on disk first.

    Cases within ``cache_rate`` are then held in memory, and an edited file is noticed when the dataset is made or
    ``set_data`` is called; the others are looked up, and files compared, at each access.

    Args:
        data: data list items (dictionaries).
        transform: a ``Compose`` or a sequence; random transforms, and all behind the first of them, are not cached.
        cache_dir: folder of the cache, made where it is missing; ``None``: plain ``CacheDataset``.
        cache_rate: share of the cases to hold in memory.
        patience: seconds to wait until they are there; the rest is prepared behind the training.
        max_bytes: what they may take; by default half of the free memory. Others are prepared when they are drawn.
        options: further arguments of ``CacheDataset``, but ``hash_as_key``.

    Attributes:
        found, computed: how many cases were read from the folder, and how many were not there.

    Raises:
        InputError: the folder cannot be made, or an item or transform cannot be told from others.

    >>> import tempfile
    >>> import numpy as np
    >>> from monai.transforms import LoadImaged
    >>> folder = Path(tempfile.mkdtemp())
    >>> np.save(folder / "scan.npy", np.ones((4, 4)))
    >>> def dataset():
    ...     items = [{"image": str(folder / "scan.npy")}]
    ...     return ContentCacheDataset(items, LoadImaged("image"), folder / "cache", progress=False)
    >>> first = dataset()
    >>> again = dataset()
    >>> first.computed, again.found, again.computed  # preprocessed once
    (1, 1, 0)
    """

    def __init__(
        self,
        data: Sequence,
        transform: Sequence[Callable] | Callable | None = None,
        cache_dir: str | Path | None = None,
        cache_rate: float = 1.0,
        patience: float = 10.0,
        max_bytes: int | None = None,
        **options: Any,
    ) -> None:
        self.cache_dir = None if cache_dir is None or str(cache_dir).lower() in ("", "none") else Path(cache_dir)
        self.found = self.computed = 0
        self._transforms_key: str | None = None
        self._warned = False
        if self.cache_dir is not None:
            if options.get("hash_as_key"):
                raise InputError(
                    "hash_as_key and cache_dir exclude each other",
                    hint="leave hash_as_key out: a case on disk is found by its content",
                )
            try:
                self.cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"no folder for the cache ({error.strerror})",
                    path=self.cache_dir,
                    hint="name a folder that can be written to",
                ) from error
        self.patience, self.max_bytes = patience, max_bytes
        self._fill: BackgroundFill | None = None
        super().__init__(data, transform, cache_rate=cache_rate, **options)
        if self.cache_dir is not None and self.cache_num and all(case is not None for case in self._cache):
            logger.info("preprocessing: %d cases from the cache, %d computed", self.found, self.computed)

    def set_data(self, data: Sequence) -> None:
        """Set the items anew; see ``CacheDataset``."""
        if self.cache_dir is not None:
            # once, and before any thread runs: a transform may keep something of what it has seen
            self._transforms_key = fingerprint_transforms(self._deterministic)
        super().set_data(data)

    @property
    def _compose(self) -> Compose:
        assert isinstance(self.transform, Compose)
        return self.transform

    @property
    def _first_random(self) -> int | None:
        return self._compose.get_index_of_first(
            lambda t: isinstance(t, RandomizableTrait) or not isinstance(t, Transform)
        )

    @property
    def _deterministic(self) -> list[Any]:
        return list(self._compose.transforms[: self._first_random])

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list:
        """As in ``CacheDataset``, but no longer than ``patience`` and no more than memory holds.

        After a fault the cases that are under way end first: MONAI leaves their threads alone, and a thread that still
        computes when Python ends aborts the process.
        """
        if self._fill is not None:
            self._fill.stop()
            self._fill = None
        numbers = list(range(self.cache_num) if indices is None else indices)
        slots: list[Any] = [None] * len(numbers)
        if not numbers or self.hash_as_key:
            return super()._fill_cache(indices)
        self._fill = BackgroundFill(
            lambda n: self._load(numbers[n]), slots, self.patience, self.num_workers, self.max_bytes
        )
        self._fill.start()
        return slots

    def _load(self, idx: int) -> Any:
        if self.cache_dir is None:
            return super()._load_cache_item(idx)
        item = self.data[idx]
        content = fingerprint_item(item)
        path = self.cache_dir / f"{hashlib.sha256(f'{self._transforms_key} {content}'.encode()).hexdigest()}.case"
        case = read_case(path, item)
        if case is not None:
            self.found += 1
            return case
        case = super()._load_cache_item(idx)
        self.computed += 1
        if fingerprint_item(item) != content:  # edited while it was read
            return case
        try:
            write_case(path, case, item)
        except InputError as error:  # a full disk need not end the training
            if not isinstance(error.__cause__, OSError):
                raise
            if not self._warned:
                logger.warning("%s: cannot keep preprocessed cases: it %s", self.cache_dir, error.fault)
            self._warned = True
        return case

    def _transform(self, index: int) -> Any:
        if self.cache_dir is None and (self._fill is None or index % len(self) >= self.cache_num):
            return super()._transform(index)
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # which ends an iteration
        number, fill, first_random = index % len(self), self._fill, self._first_random
        case = self._cache[number] if number < self.cache_num else None
        if case is None:
            if fill is not None:
                fill.check()
            case = self._load(number)
            if fill is not None and number < self.cache_num:
                fill.put(number, case)
        if first_random is None:
            return case
        return self._compose(copy.deepcopy(case) if self.copy_cache else case, start=first_random)

    def __getstate__(self) -> dict[str, Any]:
        """Without the threads that fill it: a copy in another process has what is there now."""
        return {**self.__dict__, "_fill": None}
