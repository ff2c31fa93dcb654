"""``scripts/boxes.py`` of a localization bundle: this package's own functions, copied: they are written once."""

from __future__ import annotations

import inspect
import json

from monai_transfer.localization import boxes, prediction, world

__all__ = ["boxes_script"]

_HEAD = '''"""From a map of probabilities to boxes: one per connected component, with a score; numpy and scipy alone."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

SCORES = ({scores})
SPACE = {space}


class InputError(ValueError):
    """What is wrong, and what helps."""

    def __init__(self, fault, *, hint=None):
        super().__init__(f"{{fault}}: {{hint}}" if hint else fault)


def as_array(value):
    return np.asarray(value)
'''


def boxes_script() -> str:
    """The script's text."""
    parts = (
        boxes.Boxes,
        boxes.boxes_from_probabilities,
        boxes._collect,
        world.boxes_to_world,
        world.has_physical_size,
        world.box_records,
        prediction.FindBoxes,
        prediction.WriteBoxes,
    )
    head = _HEAD.format(scores=json.dumps(boxes.SCORES)[1:-1], space=json.dumps(prediction.SPACE))
    return "\n\n".join([head, *(inspect.getsource(part) for part in parts)])
