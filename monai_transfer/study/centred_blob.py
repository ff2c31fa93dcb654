"""What a centred ellipsoid would score: images are often cut about what is looked for, and then it scores well.

A network that is not above it has learned where the images were cut, and is of no use. For each class the ellipsoid has
the image's proportions; its size is the one that is best on labelled training cases. It is measured on the test cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_transfer.bundle.run import open_workflow
from monai_transfer.data.readers import SafeReader
from monai_transfer.evaluation.guesses import SIZES, blob_dice
from monai_transfer.files import write_json
from monai_transfer.report.centred_blob import BLOB
from monai_transfer.tasks import task_of

__all__ = ["blob_score", "write_blob"]

_LONGEST = 64  # voxels per axis that are looked at
_TRAINING = 20


def blob_score(training: Sequence[np.ndarray], test: Sequence[np.ndarray], classes: int) -> float:
    """Mean Dice of centred ellipsoids over the classes but the first, and the test cases.

    Args:
        training: class numbers of labelled cases, by which the sizes are chosen.
        test: class numbers of those that are scored.
        classes: how many, background (0) included.

    >>> box = np.zeros((21, 21), int)
    >>> box[5:16, 5:16] = 1
    >>> round(blob_score([box], [box], 2), 2)
    0.95
    """
    found = []
    for number in range(1, classes):
        size = int(np.argmax(np.nan_to_num(_by_size(training, number))))
        found.append(_by_size(test, number)[size])
    known = [value for value in found if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _by_size(masks: Sequence[np.ndarray], number: int) -> np.ndarray:
    """Mean Dice of a class with the ellipsoid of each size; NaN where no mask holds it."""
    found = [blob_dice(mask == number)[:-1] for mask in masks if (mask == number).any()]
    return np.mean(found, axis=0) if found else np.full(len(SIZES), np.nan)


def write_blob(bundle: str | Path, out: Path, overrides: Mapping[str, Any]) -> None:
    """Write ``blob.json`` into a study's folder, for a segmentation into classes that exclude one another.

    Args:
        bundle, overrides: as for ``run_study``.
        out: the study's folder.
    """
    if (out / BLOB).is_file():
        return
    flow = open_workflow(bundle, "train", dict(overrides), log=False)
    lists = flow.parser.get_parsed_content("lists")
    manifest = lists.manifest
    mapping = manifest.label_mapping
    kind = task_of(manifest)
    exclusive = kind.saved_as == "mask" and kind.exclusive
    if not exclusive or mapping.overlapping or mapping.multi_label or manifest.partly_annotated:
        return
    training = (lists.source_training if lists.source_site is not None else []) or lists.target_training
    classes = len(mapping.outputs) or len(manifest.labels)
    masks = {name: [_mask(i, mapping) for i in items] for name, items in
             (("training", training[:_TRAINING]), ("test", lists.target_test))}  # fmt: skip
    if not masks["training"] or not masks["test"]:
        return
    out.mkdir(parents=True, exist_ok=True)
    value = blob_score(masks["training"], masks["test"], classes)
    told = {
        "metric": "dice",
        "value": round(value, 4),
        "sized_on": len(masks["training"]),
        "tested": len(masks["test"]),
    }
    write_json(out / BLOB, told)


def _mask(item: Mapping[str, Any], mapping: Any) -> np.ndarray:
    values = SafeReader(palette="index").read_volume(item["label"]).array
    values = np.asarray(values[tuple(slice(None, None, max(1, n // _LONGEST)) for n in values.shape)])
    return values if mapping.is_identity else np.asarray(mapping.encode(values))
