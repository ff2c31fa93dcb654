"""What inference does with a map of probabilities: its boxes, as a record and as a JSON file.

A bundle carries this file's classes, and the functions that they call, as ``scripts/boxes.py``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_transfer.localization.boxes import boxes_from_probabilities
from monai_transfer.localization.world import box_records, has_physical_size

__all__ = ["SPACE", "FindBoxes", "WriteBoxes"]

SPACE = "voxel: index, high is one past the last; world (not of pictures): mm to the right, anterior and superior"


class FindBoxes:
    """The boxes of one image, the surest first, as plain data for JSON.

    Args:
        boxes: how they are made, arguments of ``boxes_from_probabilities``.
        names: of the classes that get boxes, in the order of the channels behind the background's.
        root: folder that image names are told from.

    >>> import torch
    >>> from monai.data import MetaTensor
    >>> p = torch.zeros(2, 8, 8)
    >>> p[1, 2:4, 2:6] = 0.8
    >>> affine = torch.diag(torch.tensor([0.5, 0.5, 1.0]))
    >>> pred = MetaTensor(p, affine=affine, meta={"filename_or_obj": "/scans/a/b.nii.gz"})
    >>> found = FindBoxes({"threshold": 0.5}, ["lesion"], root="/scans")(pred)
    >>> found["image"], found["boxes"][0]["score"], found["boxes"][0]["size"], found["boxes"][0]["size_unit"]
    ('a/b.nii.gz', 0.8, 2.0, 'mm2')
    """

    def __init__(self, boxes: Mapping[str, Any], names: Sequence[str], root: str) -> None:
        self.boxes, self.names, self.root = dict(boxes), list(names), str(root)

    def __call__(self, pred: Any) -> dict[str, Any]:
        """``pred``: a ``MetaTensor`` of probabilities (C, spatial) on the image's own grid."""
        affine = np.asarray(pred.affine, dtype=float)
        dims = pred.ndim - 1
        spacing = np.linalg.norm(affine[:dims, :dims], axis=0).tolist()
        found = boxes_from_probabilities(np.asarray(pred), spacing, **self.boxes)
        return {
            "image": os.path.relpath(pred.meta["filename_or_obj"], self.root),
            "space": SPACE,
            "boxes": box_records(found, affine, dict(enumerate(self.names, start=1)), physical=has_physical_size(pred)),
        }


class WriteBoxes:
    """Writes each record to ``<output_dir>/<image>_boxes.json`` and gives it back.

    Args:
        output_dir: made if need be, with the images' own folders below it.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> _ = WriteBoxes(folder)({"image": "a/b.nii.gz", "space": SPACE, "boxes": []})
    >>> [str(path.relative_to(folder)) for path in Path(folder).rglob("*.json")]
    ['a/b_boxes.json']
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = str(output_dir)

    def __call__(self, found: dict[str, Any]) -> dict[str, Any]:
        """``found``: what ``FindBoxes`` gives."""
        image = Path(self.output_dir) / found["image"].removesuffix(".gz")
        path = image.with_name(f"{image.stem}_boxes.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".tmp")
        aside.write_text(json.dumps(found, indent=2), encoding="utf-8")
        aside.replace(path)
        return found
