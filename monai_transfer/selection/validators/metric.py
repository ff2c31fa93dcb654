"""A validator as an ignite metric: ``key_val_metric`` of a stock MONAI evaluator whose batches have no label."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import ignite.distributed as idist
import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from monai.data import MetaTensor
from monai.utils import CommonKeys
from torch import Tensor

from monai_transfer.errors import InputError
from monai_transfer.selection.validators.clusters import class_clustering
from monai_transfer.selection.validators.collapse import Collapse, collapse
from monai_transfer.selection.validators.entropies import entropy, information_maximisation
from monai_transfer.selection.validators.neighbourhood import snd
from monai_transfer.selection.validators.nuclear_norm import bnm
from monai_transfer.selection.validators.summary import PredictionSummary
from monai_transfer.tasks import get_task

__all__ = ["DEFAULT_SCORES", "SCORES", "UnlabelledValidator"]

SCORES: dict[str, Callable[[PredictionSummary], float]] = {
    "entropy": entropy,
    "information_maximisation": information_maximisation,
    "snd": snd,
    "bnm": bnm,
    "class_clustering": class_clustering,
}

DEFAULT_SCORES = ("entropy", "information_maximisation", "bnm")
"""Those that chose well where it could be checked (``docs/choosing_without_labels.md``): what a choice goes by where
nobody names one. ``snd`` and ``class_clustering`` did worse there than drawing an arm blindly."""

logger = logging.getLogger(__name__)


class UnlabelledValidator(Metric):
    """Score of a checkpoint by its predictions alone; higher is better.

    Usable as ``key_val_metric={"im": UnlabelledValidator("information_maximisation", task="segmentation")}``. A
    collapse (see ``collapse``) is logged as a warning and kept in ``alarm``; the value is then pressed below every
    value of a checkpoint that has not collapsed, and never NaN, so a collapsed checkpoint cannot become the best.

    Args:
        name: ``entropy``, ``information_maximisation``, ``snd``, ``bnm`` or ``class_clustering``.
        task: one whose outputs are classes that exclude each other: ``classification`` (B x C), ``segmentation`` or
            ``localization`` (B x C x spatial).
        activation: what turns the network's output into probabilities: ``softmax``, ``sigmoid`` (a single channel, seen
            as two classes), ``none``; ``auto`` takes what already sums to one as it is, else softmax or, for one
            channel, sigmoid.
        expected, class_names: see ``collapse``.
        veto: what counts as a collapse for the value: ``constant`` predictions, or also a ``vanished`` class.
        rows: size of the sample for ``snd``, ``bnm`` and ``class_clustering``.
        output_transform: picks the predictions from ``engine.state.output``; by default the key ``pred`` of a dict or
            of a list of (decollated) dicts.

    Raises:
        InputError: unknown name or task; at the end of an epoch, predictions that are already discretised.

    >>> sure = torch.tensor([[4.5, 0.0], [0.0, 4.5]] * 8)
    >>> def score(logits):
    ...     validator = UnlabelledValidator("information_maximisation")
    ...     validator.update(logits)
    ...     return validator.compute()
    >>> score(sure) > score(sure / 10)  # surer answers, as balanced
    True
    """

    required_output_keys = None
    _skip_unrolling = True

    def __init__(
        self,
        name: str = "information_maximisation",
        task: str = "classification",
        *,
        activation: Literal["auto", "softmax", "sigmoid", "none"] = "auto",
        expected: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
        veto: Sequence[str] = ("constant", "vanished"),
        rows: int = 2048,
        output_transform: Callable[[Any], Any] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if name not in SCORES:
            hint = "use the functions `dev` and `ist` with source features" if name in ("dev", "ist") else None
            raise InputError(f"validator {name!r} is not one of {', '.join(SCORES)}", hint=hint)
        kind = get_task(task)
        if not kind.exclusive:
            raise InputError(
                f"validators judge class probabilities that exclude each other, and {kind.name!r} has none",
                hint="choose the checkpoint by a labelled validation set",
            )
        self.name, self.dense, self.activation = name, kind.dense, activation
        self.expected, self.class_names, self.veto = expected, class_names, frozenset(veto)
        self.summary = PredictionSummary(rows=rows)
        self.alarm = Collapse(False, (), ())
        super().__init__(output_transform=output_transform or _predictions, device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Start an epoch anew."""
        self.summary.reset(stream=idist.get_rank())
        self._discrete = True  # until something else than whole numbers was seen
        self._resolved: str | None = None if self.activation == "auto" else self.activation

    @reinit__is_reduced
    def update(self, output: Any) -> None:
        """Add predictions: a B x C [x spatial] tensor, or a list of C [x spatial] tensors of any sizes."""
        batches = [output] if isinstance(output, Tensor) else [torch.as_tensor(one)[None] for one in output]
        for batch in batches:
            self.summary.update(self._probabilities(batch.detach()))

    def _probabilities(self, output: Tensor) -> Tensor:
        output = (output.as_tensor() if isinstance(output, MetaTensor) else output).float()
        if not self.dense and output.ndim > 2:
            output = output.flatten(1)
        self._discrete = self._discrete and bool((output == output.round()).all())
        single = output.shape[1] == 1
        if self._resolved is None:
            # decided once an epoch: a single case's logits can sum to one by chance
            total = output if single else output.sum(1)
            sums_to_one = (total <= 1).all() if single else (total - 1).abs().max() < 1e-2
            known = bool((output >= 0).all() and sums_to_one)
            self._resolved = "none" if known else ("sigmoid" if single else "softmax")
        if self._resolved == "softmax":
            if single:
                raise InputError("softmax over a single channel is always 1", hint="use activation='sigmoid'")
            return output.softmax(1)
        if self._resolved == "sigmoid":
            if not single:
                raise InputError("sigmoid gives no probabilities over several classes", hint="use activation='softmax'")
            output = output.sigmoid()
        return torch.cat([1 - output, output], 1) if single else output

    def scores(self) -> dict[str, float]:
        """What each validator of ``SCORES`` says of everything this process has seen, without any veto."""
        return {name: score(self.summary) for name, score in SCORES.items()}

    def look(self) -> Collapse:
        """The collapse alarm for everything this process has seen."""
        return collapse(self.summary, expected=self.expected, class_names=self.class_names)

    def compute(self) -> float:
        """The score over everything seen on all processes."""
        summary, discrete = self.summary, self._discrete
        if idist.get_world_size() > 1:
            states: list[Any] = [None] * idist.get_world_size()
            torch.distributed.all_gather_object(states, (summary.state(), discrete))
            summary, discrete = PredictionSummary(rows=summary.rows), all(state[1] for state in states)
            summary.merge([state[0] for state in states])
        if not summary.cases:
            raise NotComputableError("UnlabelledValidator saw no prediction")
        if discrete:
            raise InputError(
                "predictions are discretised (all whole numbers), which leaves nothing to judge",
                hint="let the metric see probabilities or logits: take AsDiscreted out of the postprocessing",
            )
        self.alarm = collapse(summary, expected=self.expected, class_names=self.class_names)
        for message in self.alarm.messages:
            logger.warning("%s: %s", self.name, message)
        score = SCORES[self.name](summary)
        vetoed = ("constant" in self.veto and self.alarm.constant) or ("vanished" in self.veto and self.alarm.vanished)
        if vetoed or not math.isfinite(score):
            # below every sound score (the least is -1), keeping the order among the collapsed ones
            return -2.0 + 0.5 * math.tanh(score if math.isfinite(score) else -10.0)
        return score


def _predictions(output: Any) -> Any:
    """``pred`` from the output of a MONAI evaluator: a dict of batched tensors, or a list of decollated dicts."""
    if isinstance(output, Mapping):
        return output[CommonKeys.PRED]
    if isinstance(output, (list, tuple)) and output and isinstance(output[0], Mapping):
        return [one[CommonKeys.PRED] for one in output]
    return output
