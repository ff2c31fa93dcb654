"""Limits of the reader of bundles, each with its reason. Beyond one, something is refused within about a second."""

from __future__ import annotations

__all__ = [
    "MAX_ELEMENTS", "MAX_EXPRESSION", "MAX_EXPRESSION_STEPS", "MAX_INTEGER", "MAX_ITEMS", "MAX_LAYERS", "MAX_MODULES",
    "MAX_RESOLVED", "MAX_SECONDS", "MAX_TEXT", "MAX_WINDOW",
]  # fmt: skip

MAX_EXPRESSION = 1000
"""Characters of an expression that is read: the longest arithmetic in the model zoo has 110."""
MAX_EXPRESSION_STEPS = 10_000
"""Operations in one expression: a list over 132 classes takes some 300."""
MAX_ITEMS = 10_000
"""Items of a list or tuple: 132 classes, 124 layers; a list of names of files is no argument of a network."""
MAX_TEXT = 10_000
"""Characters of a text that an expression makes."""
MAX_INTEGER = 1 << 40
"""Magnitude of a whole number: what a shape times a shape may be; larger ones only cost time."""
MAX_RESOLVED = 200_000
"""Values in a config with every reference written out: references to references multiply as YAML aliases do."""
MAX_ELEMENTS = 1_000_000_000
"""Elements of all tensors that making one object may create (4 GB as float32): VISTA3D has 220 million."""
MAX_LAYERS = 1000
"""Any argument that counts layers or blocks: the deepest networks have some 250."""
MAX_MODULES = 20_000
"""Layers of one network: the largest of MONAI have some 3,000."""
MAX_SECONDS = 60.0
"""Making one object: the largest networks take some 10 s on one slow core, for their random weights."""
MAX_WINDOW = 1 << 30
"""Voxels of a sliding window or a resized image: 1024 x 1024 x 1024."""
