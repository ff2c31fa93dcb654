"""Boxes in world coordinates: millimetres along Right, Anterior, Superior, by an image's affine."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from monai_transfer.localization.boxes import Boxes

__all__ = ["box_records", "boxes_to_world", "has_physical_size"]


def boxes_to_world(voxels: Any, affine: Any) -> np.ndarray:
    """Voxel boxes (N, 2 d) to the smallest world boxes (N, 2 d) around their outer edges, mm.

    A voxel reaches half a step to either side of its centre, where its index lies. On an oblique grid the world box is
    larger than the tilted one that it surrounds.

    Args:
        voxels: half-open boxes, see :mod:`monai_transfer.localization.boxes`.
        affine: voxel index to RAS mm, (d + 1, d + 1), or (4, 4) for 2D as well; a ``MetaTensor``'s.

    Voxels 1 and 2 of 2 mm each reach from 1 to 5 mm, since the index is the voxel's centre:

    >>> import numpy as np
    >>> boxes_to_world([[1, 1, 3, 3]], np.diag([2.0, 2.0, 1.0])).tolist()
    [[1.0, 1.0, 5.0, 5.0]]
    """
    boxes = np.asarray(voxels, dtype=float)
    dims = boxes.shape[1] // 2
    matrix = np.asarray(affine, dtype=float)
    edges = np.stack([boxes[:, :dims], boxes[:, dims:]]) - 0.5
    corners = np.stack(
        [edges[list(choice), :, range(dims)].T for choice in itertools.product((0, 1), repeat=dims)], axis=1
    )
    placed = corners @ matrix[:dims, :dims].T + matrix[:dims, -1]
    return np.concatenate([placed.min(axis=1), placed.max(axis=1)], axis=1)


def has_physical_size(image: Any) -> bool:
    """Whether a ``MetaTensor``'s affine is one of millimetres: pictures have pixels of no known size.

    Args:
        image: a ``MetaTensor`` as a reader gave it.

    >>> import torch
    >>> from monai.data import MetaTensor
    >>> has_physical_size(MetaTensor(torch.zeros(1, 4, 4), affine=torch.diag(torch.tensor([0.5, 0.5, 1.0]))))
    True
    """
    affine = np.asarray(image.affine, dtype=float)
    said = np.shape(image.meta.get("original_affine", ()))  # readers of pictures give none, or a flat one
    return said == (4, 4) or not np.allclose(affine, np.eye(len(affine)))


def box_records(
    boxes: Boxes, affine: Any, names: Mapping[int, str] | None = None, *, physical: bool = True
) -> list[dict[str, Any]]:
    """One plain dictionary per box, for JSON.

    ``label`` (name), ``score``, ``size`` (of the lesion itself) and ``size_unit`` (mm3, in 2D mm2; pixels or voxels
    where nothing physical is known), ``voxel_low``, ``voxel_high`` (one past the last), and in physical images
    ``world_low``, ``world_high`` (mm).

    Args:
        boxes: of one image.
        affine: voxel index to RAS mm.
        names: of the labels.
        physical: the affine is one of millimetres; see ``has_physical_size``.

    A lesion of 2 x 3 pixels of half a millimetre:

    >>> from monai_transfer.localization.boxes import boxes_from_labels
    >>> lesion = np.zeros((8, 8), int)
    >>> lesion[2:4, 2:5] = 1
    >>> record = box_records(boxes_from_labels(lesion, [0.5, 0.5]), np.diag([0.5, 0.5, 1, 1.0]), {1: "nodule"})[0]
    >>> record["label"], float(record["size"]), record["size_unit"], record["voxel_high"]
    ('nodule', 1.5, 'mm2', [4, 5])
    """
    world = boxes_to_world(boxes.voxels, affine)
    dims = boxes.voxels.shape[1] // 2
    unit = f"mm{dims}" if physical else {2: "pixels"}.get(dims, "voxels")
    records = []
    for voxel, score, label, size, place in zip(*boxes, world, strict=True):
        record = {
            "label": (names or {}).get(int(label), str(int(label))),
            "score": round(float(score), 4),
            "size": round(float(size), 2),
            "size_unit": unit,
            "voxel_low": voxel[:dims].tolist(),
            "voxel_high": voxel[dims:].tolist(),
        }
        if physical:
            record["world_low"] = np.round(place[:dims], 3).tolist()
            record["world_high"] = np.round(place[dims:], 3).tolist()
        records.append(record)
    return records
