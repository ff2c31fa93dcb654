"""Stop at the first batch when a network's probabilities are given to a loss that wants logits."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine
from monai.engines.utils import IterationEvents

from monai_transfer.engine.state import bare_network
from monai_transfer.networks.output_check import check_logits
from monai_transfer.networks.tap import plain

__all__ = ["RefuseProbabilities"]


class RefuseProbabilities:
    """``networks.output_check.check_logits`` on the first batch of a run, before anything has been learned.

    Raises:
        InputError: (in the first iteration) naming the network's end, the loss and the mend.
    """

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        self._looked = False  # ignite's own event filters do not count MONAI's events
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Look at ``engine.state.output['pred']``, once."""
        if self._looked:
            return
        self._looked = True
        prediction = plain(engine.state.output["pred"])
        check_logits(bare_network(engine), engine.loss_function, prediction)
