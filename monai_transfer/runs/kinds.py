"""Kinds of the fields of a run folder's JSON files, on which whatever reads them relies; see ``content_kinds``."""

from __future__ import annotations

from typing import Any

__all__ = ["RECORD", "SUMMARY", "WEIGHTS"]

_COUNTS = (
    "steps", "labelled_train", "labelled_target", "labelled_validation", "labelled_patients", "unlabelled_target",
    "spatial_dims", "process",
)  # fmt: skip
_TEXTS = (
    "arm", "bundle", "workflow", "selected_by", "primary_metric", "about", "reason", "command", "pretrained",
    "manifest_sha256", "pretrained_sha256", "source_sha256", "config_sha256", "method", "started", "ended",
)  # fmt: skip
_DECISION = {
    **dict.fromkeys(("taken", "rule", "reason"), str),
    "scores": {"*": float},
    "source_level": float,
    "labelled_patients": int,
    "left_out": {"*": str},
}
RECORD: dict[str, Any] = {
    **dict.fromkeys(_COUNTS, int),
    **dict.fromkeys(_TEXTS, str),
    **dict.fromkeys(("source_site", "target_site"), (str, [str])),
    **dict.fromkeys(("joint", "higher_is_better"), bool),
    **dict.fromkeys(("versions", "machine", "trusted", "labels"), {"*": object}),
    **dict.fromkeys(("job", "budget"), {}),
    "auto": _DECISION,
    "status": str,
    "task": str,
    "seed": int,
    "n_labelled": int,
    "seconds": float,
    "resumed": [str],
    "prolonged": [{}],
}
"""Of ``run.json``, by field."""

_LISTS = ("loaded", "adapted", "skipped", "missing", "unused", "fresh_norms", "alternatives")
WEIGHTS: dict[str, Any] = {
    **dict.fromkeys(_LISTS, [str]),
    **dict.fromkeys(("source", "source_sha256", "dialect", "licence", "url"), str),
    "notes": {"*": str},
    "coverage": float,
}
"""Of ``weights.json``, by field."""

SUMMARY: dict[str, Any] = {
    **dict.fromkeys(("unit_of_length", "primary_metric", "split"), str),
    "metrics": {"*": dict.fromkeys(("mean", "low", "high"), float)},
    "guesses": {"*": {"*": float}},
}
"""Of ``summary.json``, by field."""
