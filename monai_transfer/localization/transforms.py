"""``BoxesFromMaskd``: a MONAI transform that adds boxes to an item, from its label map or its probabilities."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform

from monai_transfer.localization.boxes import boxes_from_labels, boxes_from_probabilities
from monai_transfer.localization.world import boxes_to_world

__all__ = ["BoxesFromMaskd"]


class BoxesFromMaskd(MapTransform):
    """Boxes of a mask's connected components, in voxels and in the world.

    For the key ``pred`` it adds ``pred_boxes`` (N, 2 d; MONAI's ``StandardMode``, voxels), ``pred_world`` (N, 2 d; RAS
    mm), ``pred_scores``, ``pred_labels`` and ``pred_sizes`` (N; mm3 or mm2, pixels of pictures) as
    tensors, the highest score first. Spacing and position come from a ``MetaTensor``'s affine; a plain tensor has
    voxels of 1 mm.

    Args:
        keys: masks; each (1, spatial), or with ``probabilities`` (C, spatial).
        probabilities: the masks hold probabilities (channel 0 the background, where there are several).
        min_size, connectivity: as in ``boxes_from_labels``.
        threshold, score: as in ``boxes_from_probabilities``.
        allow_missing_keys: leave an item without the key alone.

    >>> import torch
    >>> from monai_transfer.localization.transforms import BoxesFromMaskd
    >>> label = torch.zeros(1, 8, 8)
    >>> label[:, 1:3, 1:4] = 1
    >>> out = BoxesFromMaskd("label")({"label": label})
    >>> [key for key in out if "box" in key][0], out[[key for key in out if "box" in key][0]].tolist()
    ('label_boxes', [[1, 1, 3, 4]])
    """

    def __init__(
        self,
        keys: KeysCollection,
        probabilities: bool = False,
        *,
        threshold: float = 0.5,
        min_size: float = 0.0,
        connectivity: int | None = None,
        score: str = "mean",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.probabilities = probabilities
        self.size = {"min_size": min_size, "connectivity": connectivity}
        self.score = {"threshold": threshold, "score": score}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with its boxes."""
        item = dict(data)
        for key in self.key_iterator(item):
            mask = item[key]
            dims = mask.ndim - 1
            affine = np.asarray(mask.affine, dtype=float) if isinstance(mask, MetaTensor) else np.eye(dims + 1)
            spacing = affine_to_spacing(affine, r=dims).tolist()
            boxes = (
                boxes_from_probabilities(mask, spacing, **self.size, **self.score)  # type: ignore[arg-type]
                if self.probabilities
                else boxes_from_labels(mask, spacing, **self.size)  # type: ignore[arg-type]
            )
            item[f"{key}_boxes"] = torch.from_numpy(boxes.voxels)
            item[f"{key}_world"] = torch.from_numpy(boxes_to_world(boxes.voxels, affine))
            item[f"{key}_scores"] = torch.from_numpy(boxes.scores)
            item[f"{key}_labels"] = torch.from_numpy(boxes.labels)
            item[f"{key}_sizes"] = torch.from_numpy(boxes.sizes)
        return item
