"""From a map of probabilities to boxes: one per connected component, with a score; numpy and scipy alone."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

SCORES = ("mean", "max")
SPACE = "voxel: index, high is one past the last; world (not of pictures): mm to the right, anterior and superior"


class InputError(ValueError):
    """What is wrong, and what helps."""

    def __init__(self, fault, *, hint=None):
        super().__init__(f"{fault}: {hint}" if hint else fault)


def as_array(value):
    return np.asarray(value)


class Boxes(NamedTuple):
    """N boxes of one image, the highest score first.

    Attributes:
        voxels: (N, 2 d) integers, see the module.
        scores: (N,) from 0 to 1; 1 for the truth.
        labels: (N,) class of each, never 0.
        sizes: (N,) how much space the component itself fills, mm3 (mm2 in 2D).

    >>> label = np.zeros((8, 8), dtype=np.uint8)
    >>> label[1:3, 1:4] = 1
    >>> found = boxes_from_labels(label, spacing=[0.5, 0.5])
    >>> found.voxels.tolist(), found.sizes.tolist()  # rows 1 to 2, columns 1 to 3: six pixels of 0.25 mm2
    ([[1, 1, 3, 4]], [1.5])
    """

    voxels: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:  # of boxes, not of fields
        return len(self.voxels)


def boxes_from_probabilities(
    probabilities: Any,
    spacing: Sequence[float] | None = None,
    *,
    threshold: float = 0.5,
    min_size: float = 0.0,
    connectivity: int | None = None,
    score: str = "mean",
) -> Boxes:
    """The boxes of the places where a class is probable.

    Args:
        probabilities: (C, H, W) or (C, H, W, D). C > 1: channel 0 is the background, each other channel a class;
            C = 1: a map of the one class 1.
        spacing, min_size, connectivity: as in :func:`boxes_from_labels`.
        threshold: a component is where the probability is at least this.
        score: of a box: ``mean`` or ``max`` of the probability inside its component.

    Raises:
        InputError: a value is NaN, infinite or no probability, the axes or the kind of score do not fit.

    >>> import numpy as np
    >>> from monai_transfer.localization.boxes import boxes_from_probabilities
    >>> probabilities = np.zeros((2, 8, 8))
    >>> probabilities[1, 2:4, 2:4] = 0.8
    >>> found = boxes_from_probabilities(probabilities)
    >>> len(found), found.scores.round(2)
    (1, array([0.8]))
    """
    array = as_array(probabilities)
    if array.ndim not in (3, 4):
        raise InputError(
            f"probabilities of {array.ndim} axes: it takes a channel and 2 or 3 axes", hint="put the channel first"
        )
    if score not in SCORES:
        raise InputError(f"score {score!r} is not one of {', '.join(SCORES)}", hint="see boxes_from_probabilities")
    if not np.isfinite(array).all():
        raise InputError("the probabilities hold NaN or infinite values", hint="the network diverged")
    if array.size and (array.min() < -1e-3 or array.max() > 1 + 1e-3):
        raise InputError(
            f"values from {array.min():.3g} to {array.max():.3g} are no probabilities", hint="apply softmax or sigmoid"
        )
    first = 1 if len(array) > 1 else 0
    parts = [(c + 1 - first, array[c] >= threshold, array[c]) for c in range(first, len(array))]
    return _collect(parts, array.ndim - 1, spacing, min_size, connectivity, score)


def _collect(
    parts: Sequence[tuple[int, np.ndarray, np.ndarray | None]],
    dims: int,
    spacing: Sequence[float] | None,
    min_size: float,
    connectivity: int | None,
    score: str,
) -> Boxes:
    step = np.ones(dims) if spacing is None else np.asarray(spacing, dtype=float)
    if step.shape != (dims,) or not np.all(np.isfinite(step)) or np.any(step <= 0):
        raise InputError(
            f"spacing {np.asarray(spacing).tolist()} is not a positive number of mm for each of {dims} axes",
            hint="such as (1.0, 1.0, 3.0)",
        )
    connectivity = dims if connectivity is None else connectivity
    if not 1 <= connectivity <= dims:
        raise InputError(f"connectivity {connectivity} is not from 1 to {dims}", hint="1 joins by faces alone")
    structure = ndimage.generate_binary_structure(dims, connectivity)
    voxels, scores, labels, sizes = [], [], [], []
    for value, mask, weight in parts:
        components, count = ndimage.label(mask, structure)
        for index, place in enumerate(ndimage.find_objects(components, count), start=1):
            inside = components[place] == index
            size = float(np.count_nonzero(inside) * step.prod())
            if size < min_size:
                continue
            values = None if weight is None else weight[place][inside]
            voxels.append([s.start for s in place] + [s.stop for s in place])
            scores.append(1.0 if values is None else float(values.max() if score == "max" else values.mean()))
            labels.append(value)
            sizes.append(size)
    order = np.argsort([-s for s in scores], kind="stable")
    return Boxes(
        np.array(voxels, dtype=np.int64).reshape(-1, 2 * dims)[order],
        np.array(scores, dtype=float)[order],
        np.array(labels, dtype=np.int64)[order],
        np.array(sizes, dtype=float)[order],
    )


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
