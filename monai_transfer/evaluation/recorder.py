"""What an evaluation leaves behind: ``cases.csv``, ``summary.json`` and overlay pictures, from one MONAI handler."""

from __future__ import annotations

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
from monai_transfer.engine.processes import process_rank
from monai_transfer.errors import InputError
from monai_transfer.evaluation.guesses import Guesses
from monai_transfer.evaluation.overlay import draw_case, draw_segmentation
from monai_transfer.evaluation.source_answers import SOURCE_PREDICTION
from monai_transfer.evaluation.summary import summarise
from monai_transfer.files import write_json
from monai_transfer.localization.prediction import SPACE
from monai_transfer.localization.world import has_physical_size
from monai_transfer.metrics.base import LENGTH
from monai_transfer.tables import write_table
from monai_transfer.tasks import Task, get_task, judged_tasks
from monai_transfer.tasks.cases import CaseInput, Maps

__all__ = ["CaseRecorder", "write_cases"]


class CaseRecorder:
    """A handler for ``monai.engines.SupervisedEvaluator`` (with ``decollate=True``): measures every test case.

    After each iteration it reads ``image, label, case, patient, site`` and ``pred`` of each item; when the epoch ends,
    rank 0 writes ``cases.csv`` (one row per case, with every metric) and ``summary.json`` (means with intervals over
    patients, and of a segmentation what guessing is worth) into ``output_dir``, and the means become
    ``engine.state.metrics``. Pictures go to ``figures/<case>.png`` as the cases pass. Every file is written whole or
    not at all.

    What ``pred`` and ``label`` are is the task's. Segmentation: label maps (1, H, W) or (1, H, W, D) in the image's
    *original* grid, so the postprocessing inverts the resampling and the label is never resampled; the image of the
    picture is resampled onto that grid if need be. Localization: probabilities (C, spatial) and a label map; the boxes
    of all cases go to ``boxes.json``. Classification: a vector of C values and the class index (a negative one
    or NaN: unknown). Regression: one number each.

    Args:
        output_dir: the run folder.
        task: a task that manifests may be of, or its name.
        labels: class names by value, as in a manifest (keys may be text); may be empty where there are no classes.
        figures: about how many cases get a picture, chosen by a hash of their names, so that all arms of a study draw
            the same ones; 0 for none.
        split: the name of this set, stored in ``summary.json``.
        activation: what turns a classifier's ``pred`` into probabilities: ``softmax``, ``sigmoid`` (one output: the
            second class; several: normalised to sum 1) or ``None`` if they are probabilities already.
        tolerance: of the surface Dice, mm (pixels of pictures); or by class name, then 2 for the others.
        boxes: how boxes are made, arguments of ``monai_transfer.localization.boxes_from_probabilities``.
        iou: from which on a box has found a lesion.
        object_iou: from which on a predicted object (a connected part of a class) has found a true one.
        keys: names of image, label and prediction in the batch.
        kept: classes that the untouched source knows; where nobody looked for one of them in a case, the prediction is
            compared with the source's (``SourceAnswers``).

    Raises:
        InputError: the task is not judged, has classes and no ``labels``, or ``activation`` is something else; while
            running: the network's output holds NaN, an item has no ``case``, shapes differ, or nothing was evaluated.

    A handler for an evaluator; what it keeps of a case is what its task and metrics say:

    >>> import tempfile
    >>> from monai_transfer.evaluation.recorder import CaseRecorder
    >>> recorder = CaseRecorder(tempfile.mkdtemp(), "segmentation", labels={0: "background", 1: "tumour"}, figures=0)
    >>> recorder.task.primary_metric, recorder.rows
    ('dice', [])
    """

    def __init__(
        self,
        output_dir: str | Path,
        task: str | Task,
        labels: Mapping[Any, str] | None = None,
        figures: int = 40,
        split: str = "test",
        *,
        activation: str | None = "softmax",
        tolerance: float | Mapping[str, float] = 2.0,
        boxes: Mapping[str, Any] | None = None,
        iou: float = 0.1,
        object_iou: float = 0.1,
        keys: Sequence[str] = ("image", "label", "pred"),
        kept: Sequence[str] = (),
    ) -> None:
        self.task = get_task(task)
        if self.task.name not in judged_tasks():
            raise InputError(f"{self.task.name} has no test cases to judge", hint=f"one of {', '.join(judged_tasks())}")
        if activation not in ("softmax", "sigmoid", None):
            raise InputError(
                f"activation {activation!r} is not softmax, sigmoid or null",
                hint="null where the postprocessing has applied one",
            )
        if self.task.has_classes and not labels:
            raise InputError(
                f"{self.task.name} needs the class names: labels is empty",
                hint='such as labels={0: "background", 1: "liver"}',
            )
        self.output_dir, self.split, self.figures = Path(output_dir), split, figures
        self.labels = {int(k): str(v) for k, v in sorted((labels or {}).items(), key=lambda item: int(item[0]))}
        self.options: dict[str, Any] = {"activation": activation, "tolerance": tolerance, "boxes": dict(boxes or {})}
        self.options |= {"iou": iou, "object_iou": object_iou, "kept": list(kept)}
        self.image_key, self.label_key, self.pred_key = keys
        self.rows: list[dict[str, Any]] = []
        self._guesses = self._new_guesses()

    def _new_guesses(self) -> Guesses | None:
        """For label maps whose classes exclude each other; other tasks have no Dice to be read beside them."""
        masks = self.task.label.is_path and self.task.exclusive and self.task.primary_metric == "dice"
        return Guesses(self.labels) if masks else None

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator; attach it before handlers that read ``engine.state.metrics``."""
        engine.add_event_handler(Events.STARTED, self._start)
        if engine.has_registered_events(IterationEvents.FORWARD_COMPLETED):
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._refuse_nan)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._record)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self.rows, self._guesses = [], self._new_guesses()
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
                row |= self._measure(item)
            except InputError as error:
                raise InputError(f"case {case}: {error.fault}", path=error.path, hint=error.hint) from error
            self.rows.append(row)

    def _measure(self, item: dict[str, Any]) -> dict[str, Any]:
        prediction, truth = item[self.pred_key], item[self.label_key]
        maps = (truth, prediction) if self.task.label.is_path else (item.get(self.image_key),)
        affine, spacing, unit = _grid(*maps)
        flags = item.get("annotated")  # of each output, whether it was looked for
        known = [True] * len(self.labels) if flags is None else as_array(flags).astype(bool).tolist()
        unknown = [name for name, told in zip(self.labels.values(), known, strict=True) if not told]
        source = item.get(SOURCE_PREDICTION)
        case = CaseInput(prediction, truth, self.labels, affine, spacing, unit, unknown, self.options, source)
        found = self.task.case(case)
        if self._guesses is not None:
            self._guesses.add(truth, item.get(self.image_key))
        if found.picture is not None and self._wants_figure(item["case"]):
            if isinstance(found.picture, Maps):
                image = self._on_grid(item.get(self.image_key), truth, affine)
                draw_segmentation(
                    self._figure(item["case"]), image, found.picture.truth, found.picture.prediction, affine
                )
            else:
                self._picture(item, found.picture)
        boxes = {} if found.boxes is None else {"_boxes": {"case": str(item["case"]), **found.boxes}}
        return found.row | boxes | {"_unit": unit}

    def _picture(self, item: dict[str, Any], text: str) -> None:
        image = item.get(self.image_key)
        if image is not None:
            affine = np.asarray(image.affine, dtype=float) if isinstance(image, MetaTensor) else np.eye(image.ndim)
            draw_case(self._figure(item["case"]), _shown(image), affine, text)

    def _wants_figure(self, case: Any) -> bool:
        """The same cases in every run on this set, whatever the order, the arm or the rank."""
        place = int.from_bytes(hashlib.sha256(str(case).encode()).digest()[:8], "big") / 2**64
        return place < self._share

    def _figure(self, case: Any) -> Path:
        return self.output_dir / "figures" / f"{case}.png"

    @staticmethod
    def _on_grid(image: Any, truth: torch.Tensor, affine: np.ndarray) -> np.ndarray | list[np.ndarray] | None:
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
        return _shown(image)

    def _finish(self, engine: Engine) -> None:
        rows = _gather(self.rows)
        if not rows:
            raise InputError(f"no {self.split} case was evaluated", hint="the split is empty: see the manifest")
        self.rows = rows = list({row["case"]: row for row in rows}.values())  # samplers pad ranks with repeated cases
        rows.sort(key=lambda row: row["case"])
        boxes = [row.pop("_boxes") for row in rows if "_boxes" in row]
        units = sorted({row.pop("_unit") for row in rows})
        summary = summarise(rows, self.task)
        engine.state.metrics.update({name: estimate.mean for name, estimate in summary.items()})
        if process_rank() == 0:
            write_cases(self.output_dir / "cases.csv", rows)
            if boxes:
                write_json(self.output_dir / "boxes.json", {"space": SPACE, "cases": boxes})
            metrics = {
                name: {"mean": _or_none(e.mean), "low": _or_none(e.low), "high": _or_none(e.high), "patients": e[3]}
                for name, e in summary.items()
            }
            content = {"task": self.task.name, "split": self.split, "cases": len(rows)}
            content |= {"patients": len({row["patient"] for row in rows}), "primary_metric": self.task.primary_metric}
            content |= {"higher_is_better": self.task.higher_is_better, "interval": "95 %, bootstrap over patients"}
            content |= {"unit_of_length": " or ".join(units), "metrics": metrics}
            if self._guesses is not None and (guesses := self._guesses.to_dict()):  # of this process's cases
                content["guesses"] = guesses
            write_json(self.output_dir / "summary.json", content)


def write_cases(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, atomically: one line per case, a missing value is an empty cell.

    Args:
        path: of the file.
        rows: one per case, columns by name.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "cases.csv"
    >>> write_cases(path, [{"case": "c1", "dice": 0.8}, {"case": "c2", "dice": float("nan")}])
    >>> path.read_text().splitlines()
    ['case,dice', 'c1,0.8', 'c2,']
    """
    write_table(path, rows)


def _grid(*tensors: Any) -> tuple[np.ndarray, list[float], str]:
    """Affine, spacing and unit of length of the first that has geometry; steps of one pixel where none has."""
    grid = next((t for t in tensors if isinstance(t, MetaTensor) and t.ndim > 1), None)
    if grid is None:
        dims = max(int(getattr(tensors[0], "ndim", 0)) - 1, 0)
        return np.eye(dims + 1), [1.0] * dims, "px"
    dims = grid.ndim - 1
    affine = np.asarray(grid.affine, dtype=float)
    return affine, affine_to_spacing(affine, r=dims).tolist(), LENGTH if has_physical_size(grid) else "px"


def _shown(image: Any) -> np.ndarray | list[np.ndarray]:
    """(C, ...): the three channels of a colour picture, else the first channel (of three, their mean)."""
    array = as_array(image).astype(np.float32, copy=False)
    if array.shape[0] == 3 and array.ndim == 3:
        return list(array)
    return array.mean(axis=0) if array.shape[0] == 3 else array[0]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _gather(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all ranks, on every rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    parts: list[list[dict[str, Any]]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, rows)
    return [row for part in parts for row in part]
