"""What the untouched source predicts of a test case, beside what the evaluated network predicts.

Where nobody looked for a class in a test case, nothing says whether a prediction is right. What can be said is how far
it still is the source's; ``CaseRecorder`` measures that under names of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import nn

from monai_transfer.arrays import as_array

__all__ = ["SOURCE_PREDICTION", "SourceAnswers"]

SOURCE_PREDICTION = "source_pred"
"""The key of an output under which the source's prediction stands."""


class SourceAnswers:
    """A handler for ``monai.engines.SupervisedEvaluator`` (with ``decollate=True``), to stand before ``CaseRecorder``.

    Batches in which every case was looked at for every class are not passed through the source.

    Args:
        network: the source, with the outputs of the evaluated network; ``None``: nothing is done.
        inferer: how it is applied to an image, as the evaluator applies its own.
        postprocessing: the evaluator's, from ``pred`` to what is scored.
        image_key, pred_key: of the batch and the output.
    """

    def __init__(
        self,
        network: nn.Module | None,
        inferer: Callable[..., Any],
        postprocessing: Callable[[Any], Any],
        image_key: str = "image",
        pred_key: str = "pred",
    ) -> None:
        self.network, self.inferer, self.postprocessing = network, inferer, postprocessing
        self.image_key, self.pred_key = image_key, pred_key

    def attach(self, engine: Engine) -> None:
        """To an evaluator, whose own postprocessing comes first."""
        if self.network is not None:
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._predict)
            engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._finish)

    def _predict(self, engine: Engine) -> None:
        batch, output = engine.state.batch, engine.state.output
        told = batch.get("annotated") if isinstance(batch, Mapping) else None
        if told is not None and bool(as_array(told).all()):
            return
        with torch.no_grad():
            output[SOURCE_PREDICTION] = self.inferer(output[self.image_key], self.network)

    def _finish(self, engine: Engine) -> None:
        for given, made in zip(engine.state.batch, engine.state.output, strict=True):
            if SOURCE_PREDICTION in made:
                done = self.postprocessing({**given, **made, self.pred_key: made[SOURCE_PREDICTION]})
                made[SOURCE_PREDICTION] = done[self.pred_key]
