"""The target's batches, whatever form they have: dictionaries under any keys, tuples, tensors, or a user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from monai_transfer.errors import InputError
from monai_transfer.networks.tap import first_tensor

__all__ = ["TargetBatches", "batch_keys"]

KEYS = ("image", "label", "strong", "order")


def batch_keys(keys: Mapping[str, str] | None) -> dict[str, str]:
    """What image, label, strong view and order are called in a batch: by these names, or as ``keys`` says.

    Args:
        keys: our names to those of the batches; None: the same.

    Raises:
        InputError: ``keys`` names something else.

    >>> batch_keys({"image": "img"})["image"], batch_keys({"image": "img"})["label"]
    ('img', 'label')
    """
    if unknown := set(keys or {}) - set(KEYS):
        raise InputError(f"keys={dict(keys or {})} names {sorted(unknown)}", hint=f"what can be named is {list(KEYS)}")
    return {**{key: key for key in KEYS}, **(keys or {})}


class TargetBatches:
    """Endless batches of the target loader, each a dictionary of plain tensors by our names.

    A batch may be a dictionary, a tuple (image, label, ...) or a tensor (the image). Where the trainer has a
    ``prepare_batch`` of its own, it takes the target's batches apart as well, unless ``keys`` says where things stand.

    Args:
        loader: any iterable with a length of any size.
        keys: our names to the batch's, for those that differ.

    >>> batches = TargetBatches([(torch.ones(2, 1, 4), torch.zeros(2))])
    >>> batch, arguments, options = batches.next(torch.device("cpu"), {"image"})
    >>> {name: tuple(tensor.shape) for name, tensor in batch.items()}
    {'image': (2, 1, 4)}
    """

    def __init__(self, loader: Iterable[Any] | None, keys: Mapping[str, str] | None = None) -> None:
        self.loader, self.given = loader, keys is not None
        self.keys = batch_keys(keys)
        self.prepare: Callable[[Any, torch.device, bool], Any] | None = None
        self._iterator: Iterator | None = None

    def restart(self) -> None:
        """The next batch is the first of a new pass: after an epoch's reseeding, so that resuming is exact."""
        self._iterator = None

    def next(
        self, device: torch.device, wanted: set[str], non_blocking: bool = False
    ) -> tuple[dict[str, Tensor], tuple, dict[str, Any]]:
        """The next batch: its tensors by our names, and what else the network takes.

        Raises:
            InputError: the loader is empty, or a batch has no image that could be found.
        """
        batch = self._draw()
        arguments: tuple = ()
        options: dict[str, Any] = {}
        if self.prepare is not None and not self.given:
            found, arguments, options = self._prepared(batch, device, non_blocking)
        elif isinstance(batch, Mapping):
            found = {key: batch.get(self.keys[key]) for key in KEYS}
        elif isinstance(batch, (tuple, list)) and batch:
            found = dict(zip(("image", "label"), batch, strict=False))
        else:
            found = {"image": batch}
        tensors = {
            key: first_tensor(found[key]).to(device, non_blocking=non_blocking)
            for key in sorted(wanted)
            if isinstance(found.get(key), Tensor)
        }
        if "image" not in tensors and "strong" not in tensors and wanted:
            raise InputError(
                f"the target loader's batches hold no tensor under {self.keys['image']!r}, but {_described(batch)}",
                hint='say what it is called: keys={"image": "..."}',
            )
        return tensors, arguments, options

    def _draw(self) -> Any:
        assert self.loader is not None
        for _attempt in range(2):
            if self._iterator is None:
                self._iterator = iter(self.loader)
            try:
                return next(self._iterator)
            except StopIteration:
                self._iterator = None
        raise InputError("the target loader is empty", hint="check the target site's unlabelled cases")

    def _prepared(self, batch: Any, device: torch.device, non_blocking: bool) -> tuple[dict[str, Any], tuple, dict]:
        assert self.prepare is not None
        try:
            image, label, *more = self.prepare(batch, device, non_blocking)
        except Exception as error:
            raise InputError(
                f"the trainer's prepare_batch does not take the target's batches ({type(error).__name__}: {error})",
                hint='make it do without a label, or pass Adapt(..., keys={"image": "..."})',
            ) from error
        others = {key: batch.get(self.keys[key]) for key in KEYS[2:]} if isinstance(batch, Mapping) else {}
        arguments, options = more if len(more) == 2 else ((), {})
        return {"image": image, "label": label, **others}, arguments, options


def _described(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"the keys {', '.join(map(repr, batch)) or 'none'}"
    return f"a {type(batch).__name__}"
