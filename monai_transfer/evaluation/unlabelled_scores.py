"""``UnlabelledScores``: what every validator says of a run's final network on unlabelled target images.

Kept in the run folder, so that runs (methods, hyper-parameters) can be chosen from without a target label:
``compare --choose-by``. The images are those of the target's training, never its test cases: choosing on the test set
flatters even without its labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_transfer.engine.state import bare_network
from monai_transfer.files import write_json
from monai_transfer.networks.output_forms import main_output
from monai_transfer.networks.tap import first_tensor
from monai_transfer.selection.validators.metric import SCORES, UnlabelledValidator

__all__ = ["UnlabelledScores"]


class UnlabelledScores:
    """A handler for a trainer: as the run ends, writes ``validators.json`` (scores, cases, collapse alarm).

    Attach it after ``Adapt`` and ``Checkpoint``. Under DDP rank 0 looks.

    Args:
        output_dir: the run folder.
        dataset: target images, without random transforms; labels in it are not read.
        task: one whose outputs are classes that exclude each other.
        inferer: as the evaluator's; None: the whole image at once.
        class_names: for the alarm's words.
    """

    def __init__(
        self,
        output_dir: str | Path,
        dataset: Any,
        *,
        task: str,
        inferer: Callable[..., Any] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.path, self.dataset, self.inferer = Path(output_dir) / "validators.json", dataset, inferer
        self.task, self.class_names = task, class_names

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        engine.add_event_handler(Events.COMPLETED, self._finish)

    @torch.no_grad()
    def _finish(self, engine: Engine) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if (distributed and torch.distributed.get_rank()) or not len(self.dataset):
            return
        network, device = bare_network(engine), torch.device(engine.state.device)
        training = network.training
        network.eval()
        validator = UnlabelledValidator("entropy", self.task, class_names=self.class_names)
        try:
            for index in range(len(self.dataset)):
                image = first_tensor(torch.as_tensor(self.dataset[index]["image"]))[None].to(device)
                output = self.inferer(image, network) if self.inferer is not None else network(image)
                validator.update(main_output(output, image.ndim - 2, network))
        finally:
            network.train(training)
        found, alarm = validator.scores(), validator.look()
        scores = {name: found[name] if math.isfinite(found[name]) else None for name in SCORES}
        write_json(self.path, {"cases": len(self.dataset), "scores": scores, "alarm": list(alarm.messages)})
