"""``UnlabelledScores``: what every validator says of a run's final network on unlabelled target images.

Kept in the run folder, so that runs (methods, hyper-parameters) can be chosen from without a target label:
``compare --choose-by``. The images are those of the target's training, never its test cases: choosing on the test set
flatters even without its labels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_transfer.engine.processes import process_rank
from monai_transfer.engine.state import bare_network
from monai_transfer.files import write_json
from monai_transfer.networks.output_forms import main_output
from monai_transfer.networks.tap import first_tensor
from monai_transfer.selection.validators.metric import SCORES, UnlabelledValidator

__all__ = ["UnlabelledScores"]

logger = logging.getLogger("monai_transfer")


class UnlabelledScores:
    """A handler for a trainer: as the run ends, writes ``validators.json`` (scores, cases, collapse alarm).

    Attach it after ``Adapt`` and ``Checkpoint``; where nothing is trained, call ``look``. Under DDP rank 0 looks.

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

    def _finish(self, engine: Engine) -> None:
        self.look(bare_network(engine), engine.state.device)

    @torch.no_grad()
    def look(self, network: nn.Module, device: torch.device | str | None = None) -> list[str]:
        """Score a network, and write it down; returns the alarms, which the log says as well.

        Args:
            network: as it is handed on; the layers' modes are left as they were.
            device: of the images; default: that of the network's parameters.
        """
        if process_rank() != 0 or not len(self.dataset):
            return []
        if device is None:
            device = next((p.device for p in network.parameters()), torch.device("cpu"))
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        validator = UnlabelledValidator("entropy", self.task, class_names=self.class_names)
        try:
            for index in range(len(self.dataset)):
                image = first_tensor(torch.as_tensor(self.dataset[index]["image"]))[None].to(device)
                output = self.inferer(image, network) if self.inferer is not None else network(image)
                validator.update(main_output(output, image.ndim - 2, network))
        finally:
            for module, training in modes:
                module.training = training
        found, alarm = validator.scores(), validator.look()
        scores = {name: found[name] if math.isfinite(found[name]) else None for name in SCORES}
        write_json(self.path, {"cases": len(self.dataset), "scores": scores, "alarm": list(alarm.messages)})
        for message in alarm.messages:
            logger.warning("collapse: %s", message)
        return list(alarm.messages)
