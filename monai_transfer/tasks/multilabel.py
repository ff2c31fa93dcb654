"""Several findings for every image, each present, absent or unknown. Manifests of it are classifications with findings.

The outputs do not exclude each other: a sigmoid each, and what is unknown has no part in loss or metrics. Methods that
work on probabilities of classes that exclude each other do not fit; those that a regression can use do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_transfer.arrays import as_array
from monai_transfer.config_text import expr
from monai_transfer.errors import closest
from monai_transfer.metrics.findings import FINDING_METRICS, difference_from_source, findings_case, has_finding
from monai_transfer.metrics.training import TRAINING_FINDINGS
from monai_transfer.tasks.base import Config, Outputs, Task
from monai_transfer.tasks.cases import CaseInput, CaseResult
from monai_transfer.tasks.labels import Fault, LabelKind

__all__ = ["FINDINGS", "MULTILABEL"]


def _fault(label: Any, names: Mapping[str, int]) -> Fault | None:
    if not isinstance(label, Mapping):
        hint = 'write {"oedema": 1, "mass": 0, "nodule": null}, or null where there is no label'
        return f"label {label!r} is no set of findings, as those of other cases are", hint
    for name, value in label.items():
        if name not in names:
            return f"finding {name!r} is no class of this manifest", closest(str(name), names)
        if value not in (0, 1, None):
            return f"finding {name!r} is {value!r}", "write 1, 0, or null where it is unknown"
    return None


def _read(label: Any, names: Mapping[str, int]) -> dict[str, int | None]:
    return {str(name): value if value is None else int(value) for name, value in label.items()}


def _strata(labels: Sequence[Any]) -> list[Any]:
    return [None if label is None else "|".join(sorted(n for n, v in label.items() if v == 1)) for label in labels]


FINDINGS = LabelKind("findings", False, False, False, _fault, _read, _strata)
"""Several of the manifest's classes, each 1, 0 or unknown."""


def _masked_bce(outputs: Outputs) -> Config:
    return {"_target_": "monai_transfer.losses.masked_bce.MaskedBCELoss"}


def _auc(outputs: Outputs) -> Config:
    return {
        "_target_": "monai_transfer.metrics.validation.FindingAuc",
        "output_transform": expr("monai.handlers.from_engine(['pred', 'label'])"),
    }


def _probabilities(outputs: Outputs) -> list[Config]:
    return [{"_target_": "monai.transforms.Activationsd", "keys": "pred", "sigmoid": True}]


def _logits(outputs: Outputs) -> list[Config]:
    return [{"_target_": "monai.transforms.EnsureTyped", "keys": "pred"}]


def _case(case: CaseInput) -> CaseResult:
    """The prediction is a vector of F logits (probabilities with the option ``activation: None``)."""
    p = as_array(case.prediction).astype(float).reshape(-1)
    if case.options.get("activation", "sigmoid") == "sigmoid":
        p = 1 / (1 + np.exp(-p))
    names = list(case.labels.values())
    row = findings_case(p, case.truth, names)
    if kept := case.options.get("kept"):
        source = None if case.source is None else 1 / (1 + np.exp(-as_array(case.source).astype(float).reshape(-1)))
        row |= difference_from_source(row, source, names, kept)
    said = [f"{name} {value:.2f}" for name, value in zip(names, p, strict=True) if value > 0.5]
    return CaseResult(row, f"truth: {row['label'] or 'unknown'}   predicted: {', '.join(said[:3]) or 'no finding'}")


def _several(logits: Any, label: Any) -> bool:
    if logits.ndim != 2 or logits.shape[1] < 2 or label.shape != logits.shape or not label.is_floating_point():
        return False
    whole = bool(((label == 0) | (label == 1) | (label == -1)).all())
    return whole and not bool((label.sum(1) == 1).all())  # else they may be one-hot classes


MULTILABEL = Task(
    name="multilabel",
    description="several findings for every image, present or absent",
    label=FINDINGS,
    dense=False,
    activation="sigmoid",
    metrics=FINDING_METRICS,
    primary_metric="auc",
    example_metric="log_loss",
    class_metric="auc",
    case=_case,
    known=has_finding,
    training_score=TRAINING_FINDINGS,
    key_metric="val_auc",
    key_metric_config=_auc,
    loss=_masked_bce,
    validation=_probabilities,
    scored=_logits,
    predicted=_probabilities,
    saved_as="table",
    output_type="probabilities",
    output_format="classes",
    needs_names=True,
    class_zero="class",
    seen_in=_several,
    trained_as="regression",
    in_manifest=False,
    form_of="classification",
    applies=lambda manifest: bool(getattr(manifest, "multi_label", False)),
)
