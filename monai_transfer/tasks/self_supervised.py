"""Self-supervised pretraining: masked blocks of the image itself are filled in; no label is read."""

from __future__ import annotations

from typing import Any, NoReturn

from monai_transfer.errors import InputError
from monai_transfer.metrics.base import Metric, table_of
from monai_transfer.tasks.base import Outputs, Task
from monai_transfer.tasks.cases import CaseInput, CaseResult
from monai_transfer.tasks.labels import NONE

__all__ = ["SELF_SUPERVISED"]


def _no_labels(outputs: Outputs) -> NoReturn:
    raise InputError(
        "self-supervised pretraining learns from images alone: nothing is compared with a label",
        hint="its bundle has configs of its own, with their loss and metric",
    )


def _as_it_is(outputs: Outputs) -> list[dict[str, Any]]:
    return []


def _no_cases(case: CaseInput) -> CaseResult:
    return _no_labels(Outputs([]))


SELF_SUPERVISED = Task(
    name="self_supervised",
    description="the masked parts of the image itself",
    label=NONE,
    dense=True,
    activation=None,
    metrics=table_of(
        [
            Metric(
                "masked_error",
                "error of the masked parts",
                "How far what was filled in is from what was there: 0 is perfect.",
                better=-1,
                low=0.0,
            )
        ]
    ),
    primary_metric="masked_error",
    example_metric="masked_error",
    case=_no_cases,
    known=lambda row: True,
    training_score=None,
    key_metric="val_masked_error",
    key_metric_config=_no_labels,
    loss=_no_labels,
    validation=_as_it_is,
    scored=_as_it_is,
    predicted=_as_it_is,
    saved_as="features",
    output_type="image",
    output_format=None,
    in_manifest=False,
)
