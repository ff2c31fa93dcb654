"""The data set that ``predict`` puts into a bundle: a file that cannot be read is noted, and the next one is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from monai.transforms import apply_transform
from monai.utils import ImageMetaKey
from torch.utils.data import IterableDataset

from monai_transfer.data.missing import ZeroMissingd
from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError, first_cause

__all__ = ["Given", "ReadableItems"]


class Given:
    """A list that a config carries unread: names of files that begin with ``$`` or ``@`` are no expressions."""

    def __init__(self, items: Sequence[dict[str, Any]]) -> None:
        self.items = list(items)


class ReadableItems(IterableDataset):
    """Yields what could be read and prepared, one after the other; without workers, so that faults are known here.

    The image's file name in the metadata becomes the output's name below ``root``, by which MONAI's savers go.

    Args:
        data: dictionaries with ``image`` (path or paths), ``name``, ``shown``, and ``missing``, the numbers of channels
            that are to be zeros.
        transform: the bundle's preprocessing.
        root: of the outputs' names.
        channels, dims: what the network takes; ``None`` where the bundle does not say.

    Attributes:
        faults: by position in ``data``.
        current: position of what was yielded last.
        sample: what was yielded last, as prepared.
        finished: positions that the engine has gone through.
        done: called with the position when the next one is asked for, so after all of the engine's handlers.
    """

    def __init__(
        self,
        data: Given | Sequence[dict[str, Any]],
        transform: Callable[[Any], Any],
        root: str,
        channels: int | None = None,
        dims: int | None = None,
    ) -> None:
        super().__init__()
        self.data = list(data.items if isinstance(data, Given) else data)
        self.transform, self.root = transform, root
        self.channels, self.dims = channels, dims
        self.faults: dict[int, InputError] = {}
        self.finished: set[int] = set()
        self.current: int | None = None
        self.sample: dict[str, Any] = {}
        self._zero = ZeroMissingd("image")
        self.done: Callable[[int], None] = lambda position: None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for position, item in enumerate(self.data):
            if position in self.faults or position in self.finished:
                continue
            try:
                sample = self._prepare(item)
            except InputError as error:
                self.faults[position] = error
                continue
            self.current, self.sample = position, sample
            yield sample
            self.finished.add(position)
            self.done(position)

    def _prepare(self, item: dict[str, Any]) -> dict[str, Any]:
        try:
            sample = apply_transform(self.transform, {"image": item["image"]})
        except Exception as error:  # transforms raise many kinds
            cause = first_cause(error)
            if isinstance(cause, InputError):
                raise cause from None
            self._check(*self._as_read(item), item)
            text = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
            raise InputError(
                f"cannot be prepared for this model ({text})", path=item["shown"], hint="run monai-transfer check on it"
            ) from error
        image = sample["image"]
        if item.get("missing"):  # the last step before the network, as in training
            image = sample["image"] = self._zero({"image": image, "missing": item["missing"]})["image"]
        self._check(int(image.shape[0]), image.ndim - 1, item)
        image.meta[ImageMetaKey.FILENAME_OR_OBJ] = str(Path(self.root) / f"{item['name']}.nii.gz")
        return sample

    def _as_read(self, item: dict[str, Any]) -> tuple[int, int]:
        paths = [item["image"]] if isinstance(item["image"], str) else item["image"]
        volumes = [SafeReader().read_volume(path) for path in paths]
        return sum(volume.channels for volume in volumes), len(volumes[0].spatial_shape)

    def _check(self, channels: int, dims: int, item: dict[str, Any]) -> None:
        if self.dims is not None and dims != self.dims:
            raise InputError(
                f"is a {dims}D image, and the model takes {self.dims}D",
                path=item["shown"],
                hint=f"take a model of {dims}D images",
            )
        if self.channels is not None and channels != self.channels:
            hint = (
                "call the files CASE_0000, CASE_0001, ... or CASE_CHANNEL, by the names of the bundle's channels; or "
                "`monai-transfer manifest FOLDER -o FILE`, then predict FILE"
            )
            fault = f"holds {channels} channel{'s' if channels > 1 else ''}, and the model takes {self.channels}"
            raise InputError(fault, path=item["shown"], hint=hint if self.channels > 1 else None)
