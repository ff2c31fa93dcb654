"""How strong a term is: the size of its gradient beside that of the task, measured once per run.

A term whose gradient is a hundredth of the task's or less changes nothing; one of several times the task's drowns it.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["GradientRatio", "gradient_ratio"]

logger = logging.getLogger(__name__)

USEFUL = (0.01, 3.0)
"""Ratios between which a term acts and leaves the task its say."""


def gradient_ratio(term: Tensor, task: Tensor, parameters: Iterable[nn.Parameter]) -> float:
    """||d term|| / ||d task|| over the parameters that both reach; NaN where there is none, or a graph is gone.

    Args:
        term, task: two scalars with a graph, which is kept.
        parameters: of the network.

    >>> w = nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> gradient_ratio(0.5 * w.sum(), w.square().sum(), [w])  # ||(.5, .5)|| / ||(6, 8)||
    0.0707...
    """
    learning = [p for p in parameters if p.requires_grad]
    if not (term.requires_grad and task.requires_grad and learning):
        return math.nan
    of_term = torch.autograd.grad(term, learning, retain_graph=True, allow_unused=True)
    of_task = torch.autograd.grad(task, learning, retain_graph=True, allow_unused=True)
    both = [(a, b) for a, b in zip(of_term, of_task, strict=True) if a is not None and b is not None]
    if not both:
        return math.nan
    norms = [
        math.sqrt(sum(float(g.detach().double().square().sum()) for g in side)) for side in zip(*both, strict=True)
    ]
    return norms[0] / norms[1] if norms[1] > 0 else math.nan


class GradientRatio:
    """Measures ``steps`` ratios from half of the run on, and says their median once.

    Args:
        name: of the method, for the log.
        weight: the factor of its term, from which a warning says another; at 0, of a control, nothing is measured.
        steps: how many batches are measured; each costs a further backward pass through term and task.

    Attributes:
        median: the result; NaN until it is known.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> ratio = GradientRatio("coral", steps=1)
    >>> ratio.measure(0.5 * weight.sum(), 2 * weight.sum(), [weight])
    >>> ratio.finish()
    >>> ratio.median  # of the term's gradient to the task's
    0.25
    """

    def __init__(self, name: str, weight: float = 1.0, steps: int = 5) -> None:
        self.name, self.weight, self.steps = name, weight, steps
        self.median = math.nan
        self._seen: list[float] = []
        self._over = weight == 0

    def due(self, progress: float) -> bool:
        """Whether this batch is to be measured."""
        return not self._over and progress >= 0.5

    def measure(self, term: Tensor, task: Tensor, parameters: Iterable[nn.Parameter]) -> None:
        """Measure one batch; ``term`` is weighted, without the ramp by which it grows over the run."""
        try:
            with torch.autocast(term.device.type, enabled=False):
                self._seen.append(gradient_ratio(term, task, parameters))
        except RuntimeError as error:  # a network whose graph cannot be walked twice, e.g. reentrant checkpointing
            logger.info("the strength of %s's term cannot be measured here: %s", self.name, str(error).splitlines()[0])
            self._over = True
            return
        if len(self._seen) >= self.steps:
            self.finish()

    def finish(self) -> None:
        """Say what was found, if anything was."""
        found = [ratio for ratio in self._seen if math.isfinite(ratio)]
        if self._over or not found:
            return
        self._over, self.median = True, statistics.median(found)
        line = f"the gradient of {self.name}'s term is {self.median:.2g} of the task's (median of {len(found)} steps)"
        if USEFUL[0] <= self.median <= USEFUL[1]:
            logger.info("%s", line)
            return
        if self.median < USEFUL[0]:
            fault = f"below {USEFUL[0]:g} it changes nothing; raise its weight"
        else:
            fault = f"above {USEFUL[1]:g} it drowns the task; lower its weight"
        equal = (
            f" ({self.weight / self.median:.2g} in place of {self.weight:g} makes them equal)" if self.median else ""
        )
        logger.warning("%s: %s%s", line, fault, equal)
