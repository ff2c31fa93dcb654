"""MONAI transforms around :class:`~monai_transfer.manifest.label_mapping.LabelMapping`: encode, expand, write back.

``EncodeLabelsd`` stands behind loading: class numbers in one channel, compact and fit for every spatial transform and
cache. ``LabelTargetsd`` stands last, behind the crop: one channel per output, -1 where the case cannot tell. It is
needed only where there are regions, or where sites were not annotated for every class. ``DecodeLabelsd`` turns a
prediction into the file's own values.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from monai_transfer.errors import InputError
from monai_transfer.manifest.label_mapping import LabelMapping

__all__ = ["DecodeLabelsd", "EncodeLabelsd", "LabelTargetsd"]


def _mapping(given: LabelMapping | Mapping[str, Any]) -> LabelMapping:
    return given if isinstance(given, LabelMapping) else LabelMapping.from_dict(given)


class EncodeLabelsd(MapTransform):
    """Class numbers from a file's values (-1: ignored); of several findings a vector; ``annotated`` as a vector.

    A mask (1, spatial) keeps its shape, dtype and geometry. Findings ``{name: 1, 0 or None}`` become a float32 tensor
    (F,) of 1, 0 and -1 (unknown). A class number stays. The names under ``annotated`` become a bool tensor (C,), one
    for each output; an item without them is left without.

    Args:
        keys: labels.
        mapping: a ``LabelMapping``, or the part of a manifest that defines one (``labels``, ``regions``, ``ignore``).
        annotated_key: where the names of the classes that were looked for stand.
        allow_missing_keys: leave an item without the key alone.

    Raises:
        InputError: a mask holds a value that is not declared, naming its file.

    Example:
        >>> item = {"label": torch.tensor([[[0.0, 2.0, 4.0]]]), "annotated": ["oedema"]}
        >>> labels = {"0": "background", "2": "oedema", "4": "tumour"}
        >>> item = EncodeLabelsd("label", {"labels": labels})(item)
        >>> item["label"].tolist(), item["annotated"].tolist()
        ([[[0.0, 1.0, 2.0]]], [False, True, False])
    """

    def __init__(
        self,
        keys: KeysCollection,
        mapping: LabelMapping | Mapping[str, Any],
        annotated_key: str = "annotated",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mapping, self.annotated_key = _mapping(mapping), annotated_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with its labels encoded."""
        item = dict(data)
        names = item.get(self.annotated_key)
        if isinstance(names, (list, tuple, set)):
            item[self.annotated_key] = torch.tensor(self.mapping.annotated(names))
        for key in self.key_iterator(item):
            label = item[key]
            if isinstance(label, Mapping):
                known = names if isinstance(names, (list, tuple, set)) else None
                item[key] = torch.tensor(self.mapping.encode_findings(label, known), dtype=torch.float32)
            elif isinstance(label, (torch.Tensor, np.ndarray)) and label.ndim > 1:
                try:
                    item[key] = convert_to_dst_type(self.mapping.encode(label), label)[0]
                except InputError as error:
                    raise InputError(error.fault, path=_file(label), hint=error.hint) from None
        return item


class LabelTargetsd(MapTransform):
    """One channel per output from class numbers: 1, 0, or -1 where this case cannot tell. Stands last in training.

    Args:
        keys: encoded labels, (1, spatial) each.
        mapping: as in ``EncodeLabelsd``.
        annotated_key: where ``EncodeLabelsd`` left the classes that were looked for; without it all were.
        allow_missing_keys: leave an item without the key alone.

    Example:
        >>> item = {"label": torch.tensor([[0, 1, 2]]), "annotated": torch.tensor([False, True, False])}
        >>> labels = {"0": "background", "1": "liver", "2": "spleen"}
        >>> LabelTargetsd("label", {"labels": labels})(item)["label"].tolist()
        [[-1, 0, -1], [0, 1, 0], [-1, 0, -1]]
    """

    def __init__(
        self,
        keys: KeysCollection,
        mapping: LabelMapping | Mapping[str, Any],
        annotated_key: str = "annotated",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mapping, self.annotated_key = _mapping(mapping), annotated_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with its labels expanded."""
        item = dict(data)
        annotated = item.get(self.annotated_key)
        known = annotated.cpu().numpy() if isinstance(annotated, torch.Tensor) else annotated
        for key in self.key_iterator(item):
            targets = self.mapping.targets(item[key], known)
            item[key] = convert_to_dst_type(targets, item[key], dtype=targets.dtype)[0]
        return item


class DecodeLabelsd(MapTransform):
    """A prediction in the values that the files of the set hold, as uint8 where they fit.

    Args:
        keys: predictions: class numbers (1, spatial); or, with ``from_outputs``, (C, spatial): one-hot, probabilities
            or logits of the classes (the largest counts), probabilities of regions (above one half counts).
        mapping: as in ``EncodeLabelsd``.
        from_outputs: the prediction has a channel per output; ``None``: where it has as many channels as outputs.
        allow_missing_keys: leave an item without the key alone.

    Example:
        >>> labels = {"0": "background", "1": "core", "4": "enhancing"}
        >>> DecodeLabelsd("pred", {"labels": labels})({"pred": torch.tensor([[0, 1, 2]])})["pred"].tolist()
        [[0, 1, 4]]
    """

    def __init__(
        self,
        keys: KeysCollection,
        mapping: LabelMapping | Mapping[str, Any],
        from_outputs: bool | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mapping, self.from_outputs = _mapping(mapping), from_outputs

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with its predictions in the files' own values."""
        item = dict(data)
        for key in self.key_iterator(item):
            pred = item[key]
            expand = self.from_outputs
            if expand is None:
                expand = len(pred) == len(self.mapping.outputs) and (self.mapping.overlapping or len(pred) > 1)
            indices = self.mapping.from_targets(pred) if expand else pred
            whole = indices.long() if isinstance(indices, torch.Tensor) else np.asarray(indices).astype(np.int64)
            values = self.mapping.decode(whole)
            item[key] = convert_to_dst_type(values, pred, dtype=values.dtype)[0]
        return item


def _file(label: Any) -> str | None:
    meta = label.meta if isinstance(label, MetaTensor) else {}
    name = meta.get("filename_or_obj")
    return str(name) if name else None
