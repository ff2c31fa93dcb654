"""Kinds of the fields of a bundle's ``metadata.json`` that are read here: MONAI's, and what this package adds."""

from __future__ import annotations

from typing import Any

from monai_transfer.content_kinds import without_odd_fields

__all__ = ["METADATA", "usable_metadata"]

_SITES = (str, [str])
_FORMAT = {
    **dict.fromkeys(("type", "format", "modality", "dtype"), str),
    "num_channels": int,
    "spatial_shape": [(int, str)],  # the model zoo has "*", and formulas such as "2**n"
    "is_patch_data": bool,
    "channel_def": {"*": str},
}
_SET: dict[str, Any] = {
    **dict.fromkeys(("task", "modality", "orientation"), str),
    **dict.fromkeys(("dims", "channels", "n_images", "n_patients"), int),
    **dict.fromkeys(("channel_names", "labels"), [str]),
    **dict.fromkeys(("shape", "spacing", "field_of_view"), [float]),
    **dict.fromkeys(("intensity", "prevalence", "size"), {"*": float}),
    "spacing_range": [[float]],
    "site": _SITES,
}
_STATISTICS = _SET | {"other_sites": {"*": _SET}}
_WEIGHTS = dict.fromkeys(("description", "source", "sha256", "origin_sha256", "licence", "url"), str)
METADATA: dict[str, Any] = {
    **dict.fromkeys(("name", "version", "task", "description", "licence", "license", "modality"), str),
    "network_data_format": {"inputs": {"*": _FORMAT}, "outputs": {"*": _FORMAT}},
    "data_statistics": _STATISTICS,
    "transfer": {
        "task": str,
        "spacing": [float],
        "orientation": str,
        "label_mapping": {"*": object},
        "channels_may_be_missing": bool,
        "source_site": _SITES,
        "target_site": _SITES,
        "data_statistics": _STATISTICS,
        "weights": _WEIGHTS,
    },
}
"""By field; ``content_kinds`` says what a kind is."""


def usable_metadata(content: Any) -> dict[str, Any]:
    """Metadata without the fields of another kind, so that what reads a field relies on it; ``{}`` for no mapping.

    >>> usable_metadata({"network_data_format": [1], "transfer": {"task": "segmentation", "spacing": 3}})
    {'transfer': {'task': 'segmentation'}}
    """
    return without_odd_fields(content, METADATA) if isinstance(content, dict) else {}
