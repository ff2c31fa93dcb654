"""Averaging a fine-tuned network with the source it came from (WiSE-FT), as a handler that acts when training ends.

    w = (1 - a) w_source + a w_tuned    over the parameters that came from the source;  a = .5 unless chosen

Paper: Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022, arXiv:2109.01903

It helps where source and target are near and hurts where they are far (nuclei, .70 against .84, from a source that knew
nothing of them): an arm, never a silent default. Without a coefficient a rule chooses it, by how well the untouched
source does on the labelled target cases, which it has never seen: the source's weights count ``min(1/2, score)``, where
``score`` is 0 at chance and 1 at best (Dice; 2 AUC - 1). A source that knows nothing of the target has no say then.

BatchNorm's running statistics of an average belong to neither network. With ``statistics`` they are re-estimated on
target images (cumulative average, as AdaBN), which the arms of ``study`` and ``auto`` do: without it an average can
lose .17 Dice to the tuned network (``docs/fine_tuning.md``). What is new, such as a fresh class head, is taken from the
tuned network alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from monai_transfer.engine.checkpoint import export_state, save_checkpoint
from monai_transfer.engine.processes import process_rank
from monai_transfer.engine.state import bare_network
from monai_transfer.errors import InputError
from monai_transfer.files import write_json
from monai_transfer.networks.wrappers import unwrap
from monai_transfer.testtime.adabn import Adabn
from monai_transfer.testtime.base import has_statistics
from monai_transfer.weights.report import WeightReport

__all__ = ["AverageWithSource", "average_states", "tuned_share"]

logger = logging.getLogger(__name__)


def average_states(
    source: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float, fresh: Iterable[str] = ()
) -> dict[str, Tensor]:
    """(1 - share) source + share tuned, over floating-point tensors of equal name and shape; all others are the tuned.

    Args:
        source, tuned: state dicts.
        share: of the tuned weights, in [0, 1].
        fresh: names that did not come from the source.

    Raises:
        InputError: a share outside [0, 1], or nothing that could be averaged.

    >>> average_states({"w": torch.zeros(2)}, {"w": torch.ones(2), "head": torch.ones(3)}, 0.25)
    {'w': tensor([0.2500, 0.2500]), 'head': tensor([1., 1., 1.])}
    """
    if not 0 <= share <= 1:
        raise InputError(f"the tuned weights' share lies between 0 and 1, not at {share}", hint="such as 0.5")
    new = set(fresh)
    out, count = {}, 0
    for key, value in tuned.items():
        first = source.get(key)
        if key not in new and first is not None and first.shape == value.shape and value.is_floating_point():
            out[key] = torch.lerp(first.to(value), value, share)
            count += 1
        else:
            out[key] = value.clone()
    if not count:
        raise InputError(
            "the source and the tuned network share no weights to average",
            hint="start the training from this source's weights",
        )
    return out


def tuned_share(score: float, chance: float = 0.0) -> float:
    """The rule: how much the tuned weights count, by the untouched source's score on labelled target cases.

    Args:
        score: of the source, at most 1: Dice, AUC, balanced accuracy.
        chance: what guessing scores: 0 for Dice, .5 for AUC.

    >>> tuned_share(0.85), tuned_share(0.0), tuned_share(0.6, chance=0.5)
    (0.5, 1.0, 0.8)
    """
    if not math.isfinite(score):
        return 1.0
    return round(1.0 - min(0.5, max(0.0, (score - chance) / (1.0 - chance))), 6)


class AverageWithSource:
    """Average the tuned network with its source when training ends; write the average as ``models/model.pt``.

    Stands behind ``Checkpoint`` in a trainer's list, which leaves the chosen epoch's weights in the network; these are
    kept as ``models/fine_tuned.pt``. A resumed run ends as an uninterrupted one, since the source is the network as it
    was when this handler was made.

    Args:
        network: the network with its source's weights, before training.
        output_dir: the run folder; ``None`` writes nothing.
        share: of the tuned weights; ``None``: the rule above.
        evaluator: what scores the source on labelled target cases, for the rule; its key metric is read.
        chance: as in ``tuned_share``.
        statistics: batches of target images (dictionaries with ``image``), to re-estimate running statistics on; of a
            network that has none, such as one with InstanceNorm, nothing is re-estimated.
        report: what was loaded from the source; what stayed fresh is the tuned network's. ``None``: all was loaded.

    Attributes:
        share: the share that was used, once it is known.
        score: the source's score, for the rule.

    Raises:
        InputError: a share outside [0, 1]; neither a share nor an evaluator.

    >>> AverageWithSource(nn.Linear(1, 1), share=0.5).share
    0.5
    """

    def __init__(
        self,
        network: nn.Module,
        output_dir: str | Path | None = None,
        share: float | None = 0.5,
        evaluator: Any = None,
        chance: float = 0.0,
        statistics: Iterable[Any] | None = None,
        report: WeightReport | None = None,
    ) -> None:
        if share is not None and not 0 <= share <= 1:
            raise InputError(f"the tuned weights' share lies between 0 and 1, not at {share}", hint="such as 0.5")
        if share is None and evaluator is None:
            raise InputError("a share chosen by the rule needs the source's score", hint="give share, or an evaluator")
        self.source = {key: value.detach().cpu().clone() for key, value in unwrap(network).state_dict().items()}
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.share, self.evaluator, self.chance, self.statistics = share, evaluator, chance, statistics
        self.fresh = [] if report is None else [*report.missing, *report.skipped]
        self.score: float | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer, behind its ``Checkpoint``."""
        engine.add_event_handler(Events.COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Any) -> None:
        """Average, re-estimate, write."""
        network = bare_network(engine)
        tuned = {key: value.detach().clone() for key, value in network.state_dict().items()}
        if self.share is None:
            network.load_state_dict(self.source)
            self.evaluator.run()
            value = self.evaluator.state.metrics.get(self.evaluator.state.key_metric_name)
            self.score = float("nan") if value is None else float(value)
            self.share = tuned_share(self.score, self.chance)
            logger.info(
                "the untouched source scores %.3f on the labelled target cases: its weights count %.2f, the tuned %.2f",
                self.score, 1 - self.share, self.share,
            )  # fmt: skip
        network.load_state_dict(average_states(self.source, tuned, self.share, self.fresh))
        if self.statistics is not None and has_statistics(network):
            Adabn().fit(network, self.statistics)
        if self.output_dir is None or process_rank() != 0:
            return
        models = self.output_dir / "models"
        models.mkdir(parents=True, exist_ok=True)
        averaged = {key: value.detach().clone() for key, value in network.state_dict().items()}
        network.load_state_dict(tuned)
        save_checkpoint(export_state(network), models / "fine_tuned.pt")
        network.load_state_dict(averaged)
        save_checkpoint(export_state(network), models / "model.pt")
        write_json(
            self.output_dir / "weight_average.json",
            {
                "tuned_share": self.share,
                "source_score": self.score,
                "statistics": self.statistics is not None and has_statistics(network),
            },
        )
