"""Stop at the first loss that is not a number, instead of training on and saving what it made of the weights."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents

__all__ = ["NonFiniteLossError", "StopOnNonFiniteLoss"]


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the last checkpoint is from before.

    >>> from ignite.engine import Engine
    >>> issubclass(NonFiniteLossError, RuntimeError)  # so a loop that handles torch's own errors handles it
    True
    """


class StopOnNonFiniteLoss:
    """Raise ``NonFiniteLossError`` before the optimizer steps when the loss is NaN or infinite.

    It looks after backward, when every method's term has been added. Under CUDA AMP an overflow of the scaled
    gradients is the scaler's business: only the forward loss is judged.

    >>> from ignite.engine import Engine
    >>> engine = Engine(lambda engine, batch: {"loss": torch.tensor(float("nan"))})
    >>> _ = engine.run([0], max_epochs=1)
    >>> StopOnNonFiniteLoss()(engine)
    Traceback (most recent call last):
    monai_transfer.engine.guard.NonFiniteLossError: ...
    """

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Look at ``engine.state.output['loss']``."""
        loss = engine.state.output["loss"]
        if not torch.isfinite(loss.detach()).all():
            state = engine.state
            raise NonFiniteLossError(
                f"the loss is {float(loss.detach().sum())} in epoch {state.epoch}, iteration {state.iteration}; lower "
                "the learning rate, or look for NaN voxels with `monai-transfer check`"
            )
