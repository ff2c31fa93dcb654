"""What an evaluation leaves behind: ``cases.csv``, ``summary.json`` and overlay pictures, from one MONAI handler."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.engines.utils import IterationEvents
from monai.transforms import SpatialResample

from monai_transfer.arrays import as_array
from monai_transfer.errors import InputError
from monai_transfer.evaluation.localization_metrics import localization_case
from monai_transfer.evaluation.metrics import (
    PRIMARY,
    classification_case,
    foreground,
    regression_case,
    segmentation_case,
)
from monai_transfer.evaluation.overlay import draw_case, draw_segmentation
from monai_transfer.evaluation.summary import summarise
from monai_transfer.files import atomic_path, write_json
from monai_transfer.localization.prediction import SPACE
from monai_transfer.localization.world import box_records

__all__ = ["CaseRecorder", "write_cases"]


class CaseRecorder:
    """A handler for ``monai.engines.SupervisedEvaluator`` (with ``decollate=True``): measures every test case.

    After each iteration it reads ``image, label, case, patient, site`` and ``pred`` of each item; when the epoch ends,
    rank 0 writes ``cases.csv`` (one row per case, with every metric) and ``summary.json`` (means with intervals over
    patients) into ``output_dir``, and the means become ``engine.state.metrics``. Pictures go to
    ``figures/<case>.png`` as the cases pass. Every file is written whole or not at all.

    Segmentation: ``pred`` and ``label`` are label maps (1, H, W) or (1, H, W, D) in the image's *original* grid, so the
    postprocessing inverts the resampling and the label is never resampled. The image of the picture is resampled onto
    that grid if need be.
    Classification: ``pred`` is a vector of C values, ``label`` the class index (a negative one or NaN: unknown).
    Regression: ``pred`` and ``label`` are one number.
    Localization: ``pred`` holds probabilities (C, spatial) and ``label`` is a label map, both in the original grid; the
    boxes of all cases, in mm, go to ``boxes.json``.

    Args:
        output_dir: the run folder.
        task: ``segmentation``, ``classification``, ``regression`` or ``localization``.
        labels: class names by value, as in a manifest (keys may be text). For regression: may be empty.
        figures: about how many cases get a picture, chosen by a hash of their names, so that all arms of a study draw
            the same ones; 0 for none.
        split: the name of this set, stored in ``summary.json``.
        activation: what turns a classifier's ``pred`` into probabilities: ``softmax``, ``sigmoid`` (one output: the
            second class; several: normalised to sum 1) or ``None`` if they are probabilities already.
        tolerance: of the surface Dice, mm.
        boxes: how boxes are made, arguments of ``monai_transfer.localization.boxes_from_probabilities``.
        iou: from which on a box has found a lesion.
        keys: names of image, label and prediction in the batch.

    Raises (while running):
        InputError: the network's output holds NaN, an item has no ``case``, shapes differ, or nothing was evaluated.
    """

    def __init__(
        self,
        output_dir: str | Path,
        task: str,
        labels: Mapping[Any, str] | None = None,
        figures: int = 40,
        split: str = "test",
        *,
        activation: str | None = "softmax",
        tolerance: float = 2.0,
        boxes: Mapping[str, Any] | None = None,
        iou: float = 0.1,
        keys: Sequence[str] = ("image", "label", "pred"),
    ) -> None:
        if task not in PRIMARY:
            raise InputError(f"task {task!r} is not one of {', '.join(PRIMARY)}")
        if activation not in ("softmax", "sigmoid", None):
            raise InputError(f"activation {activation!r} is not softmax, sigmoid or null")
        if task != "regression" and not labels:
            raise InputError(f"{task} needs the class names: labels is empty")
        self.output_dir, self.task, self.split = Path(output_dir), task, split
        self.labels = {int(k): str(v) for k, v in sorted((labels or {}).items(), key=lambda item: int(item[0]))}
        self.figures, self.activation, self.tolerance = figures, activation, tolerance
        self.boxes, self.iou = dict(boxes or {}), iou
        self.image_key, self.label_key, self.pred_key = keys
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator; attach it before handlers that read ``engine.state.metrics``."""
        engine.add_event_handler(Events.STARTED, self._start)
        if engine.has_registered_events(IterationEvents.FORWARD_COMPLETED):
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._refuse_nan)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._record)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self.rows = []
        dataset = getattr(engine.state.dataloader, "dataset", None)
        size = len(dataset) if dataset is not None and hasattr(dataset, "__len__") else self.figures
        self._share = self.figures / max(size, 1)

    def _refuse_nan(self, engine: Engine) -> None:
        """Before postprocessing: an argmax would turn NaN into a class without a word."""
        prediction = engine.state.output[self.pred_key]
        if isinstance(prediction, torch.Tensor) and not bool(torch.isfinite(prediction).all()):
            batch = engine.state.batch
            cases = batch.get("case", "?") if isinstance(batch, Mapping) else "?"
            raise InputError(
                f"the network's output holds NaN or infinite values at case {cases}",
                hint="the training diverged: look at its loss, or start from other weights",
            )

    def _record(self, engine: Engine) -> None:
        batch, output = engine.state.batch, engine.state.output
        if not isinstance(output, list):
            raise InputError("CaseRecorder reads single cases", hint="set decollate to true in the evaluator")
        for given, made in zip(batch, output, strict=True):
            item = {**given, **made}
            if not item.get("case"):
                raise InputError("a test item has no 'case'", hint="use the data lists of a manifest")
            case = str(item["case"])
            row = {"case": case, "patient": str(item.get("patient") or case), "site": str(item.get("site") or "")}
            try:
                row |= getattr(self, f"_{self.task}")(item)
            except InputError as error:
                raise InputError(f"case {case}: {error.fault}", path=error.path, hint=error.hint) from error
            self.rows.append(row)

    def _segmentation(self, item: dict[str, Any]) -> dict[str, Any]:
        prediction, truth = item[self.pred_key], item[self.label_key]
        affine, spacing = _grid(truth, prediction)
        values = segmentation_case(prediction, truth, self.labels, spacing, tolerance=self.tolerance)
        if self._wants_figure(item["case"]):
            image = self._on_grid(item.get(self.image_key), truth, affine)
            true, predicted = (as_array(t)[0] for t in (truth, prediction))
            draw_segmentation(self._figure(item["case"]), image, true, predicted, affine)
        return values

    def _localization(self, item: dict[str, Any]) -> dict[str, Any]:
        p, truth = (item[key].detach().cpu() for key in (self.pred_key, self.label_key))
        affine, spacing = _grid(item[self.label_key], item[self.pred_key])
        row, found, lesions = localization_case(p, truth, spacing, iou=self.iou, **self.boxes)
        names = foreground(self.labels)
        row["_boxes"] = {
            "case": str(item["case"]),
            "boxes": box_records(found, affine, names),
            "lesions": box_records(lesions, affine, names),
        }
        if self._wants_figure(item["case"]):
            image = self._on_grid(item.get(self.image_key), truth, affine)
            frames = np.zeros(truth.shape[1:], dtype=np.uint8)
            for box, label in zip(found.voxels[::-1], found.labels[::-1], strict=True):  # the surest on top
                frames[tuple(slice(*ends) for ends in box.reshape(2, -1).T)] = label
            draw_segmentation(self._figure(item["case"]), image, np.asarray(truth)[0], frames, affine)
        return row

    def _classification(self, item: dict[str, Any]) -> dict[str, Any]:
        p = torch.as_tensor(item[self.pred_key]).detach().cpu().double().reshape(-1)
        if self.activation == "softmax":
            p = p.softmax(0)
        elif self.activation == "sigmoid":
            p = p.sigmoid()
            p = p / p.sum() if len(p) > 1 else torch.cat([1 - p, p])
        label = _scalar(item[self.label_key])
        known = label is not None and label >= 0
        row = classification_case(p, int(label) if label is not None and known else None, list(self.labels.values()))
        if self._wants_figure(item["case"]):
            text = f"truth: {row['label'] or 'unknown'}   predicted: {row['prediction']} ({float(p.max()):.2f})"
            self._picture(item, text)
        return row

    def _regression(self, item: dict[str, Any]) -> dict[str, Any]:
        row = regression_case(item[self.pred_key], _scalar(item[self.label_key]))
        if self._wants_figure(item["case"]):
            self._picture(item, f"truth: {row['label']:.4g}   predicted: {row['prediction']:.4g}")
        return row

    def _picture(self, item: dict[str, Any], text: str) -> None:
        image = item.get(self.image_key)
        if image is not None:
            affine = np.asarray(image.affine, dtype=float) if isinstance(image, MetaTensor) else np.eye(image.ndim)
            draw_case(self._figure(item["case"]), _grey(image), affine, text)

    def _wants_figure(self, case: Any) -> bool:
        """The same cases in every run on this set, whatever the order, the arm or the rank."""
        place = int.from_bytes(hashlib.sha256(str(case).encode()).digest()[:8], "big") / 2**64
        return place < self._share

    def _figure(self, case: Any) -> Path:
        return self.output_dir / "figures" / f"{case}.png"

    @staticmethod
    def _on_grid(image: Any, truth: torch.Tensor, affine: np.ndarray) -> np.ndarray | None:
        """The image as the picture's background, on the label's grid; None if it cannot be brought there."""
        if image is None:
            return None
        size = tuple(truth.shape[1:])
        if tuple(image.shape[1:]) != size:
            if not isinstance(image, MetaTensor) or image.ndim != truth.ndim:
                return None
            image = SpatialResample(mode="bilinear", padding_mode="zeros")(
                image.cpu(), dst_affine=affine, spatial_size=size
            )
        return _grey(image)

    def _finish(self, engine: Engine) -> None:
        rows = _gather(self.rows)
        if not rows:
            raise InputError(f"no {self.split} case was evaluated", hint="the split is empty: see the manifest")
        self.rows = rows = list({row["case"]: row for row in rows}.values())  # samplers pad ranks with repeated cases
        rows.sort(key=lambda row: row["case"])
        boxes = [row.pop("_boxes") for row in rows if "_boxes" in row]
        summary = summarise(rows, self.task)
        engine.state.metrics.update({name: estimate.mean for name, estimate in summary.items()})
        if _rank() == 0:
            write_cases(self.output_dir / "cases.csv", rows)
            if boxes:
                write_json(self.output_dir / "boxes.json", {"space": SPACE, "cases": boxes})
            metrics = {
                name: {"mean": _or_none(e.mean), "low": _or_none(e.low), "high": _or_none(e.high), "patients": e[3]}
                for name, e in summary.items()
            }
            primary, larger = PRIMARY[self.task]
            content = {"task": self.task, "split": self.split, "cases": len(rows)}
            content |= {"patients": len({row["patient"] for row in rows}), "primary_metric": primary}
            content |= {"higher_is_better": larger, "interval": "95 %, bootstrap over patients", "metrics": metrics}
            write_json(self.output_dir / "summary.json", content)


def write_cases(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, atomically: one line per case, a missing value is an empty cell."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()})


def _scalar(value: Any) -> float | None:
    """A label as a number; None, NaN and an empty tensor are no label."""
    array = as_array(value)
    if array.size != 1 or array.dtype == object or math.isnan(float(array.reshape(-1)[0])):
        return None
    return float(array.reshape(-1)[0])


def _grid(*tensors: torch.Tensor) -> tuple[np.ndarray, list[float]]:
    """Affine and spacing (mm) of the first that has geometry; steps of 1 mm where none has."""
    dims = tensors[0].ndim - 1
    grid = next((t for t in tensors if isinstance(t, MetaTensor)), None)
    affine = np.eye(dims + 1) if grid is None else np.asarray(grid.affine, dtype=float)
    return affine, affine_to_spacing(affine, r=dims).tolist()


def _grey(image: Any) -> np.ndarray:
    """(C, ...) -> (...): the mean of an RGB image, else the first channel."""
    array = as_array(image).astype(np.float32, copy=False)
    return array.mean(axis=0) if array.shape[0] == 3 else array[0]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _rank() -> int:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() if distributed else 0


def _gather(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all ranks, on every rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    parts: list[list[dict[str, Any]]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, rows)
    return [row for part in parts for row in part]
