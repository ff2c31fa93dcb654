"""``--budget`` of a run or a study: a name, steps, or a time, which is turned into epochs once, by timed steps."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from ignite.engine import Events

from monai_transfer.bundle.planning.budget import BUDGETS, asked_for
from monai_transfer.bundle.run import open_workflow
from monai_transfer.engine.time_estimate import in_words
from monai_transfer.errors import InputError
from monai_transfer.runs.record import read_record

__all__ = ["Timed", "budget_overrides", "time_steps"]

_WARM, _TIMED = 2, 10
# what only looks at a run, and would cost more than the steps that are timed
_WITHOUT = {"domain_picture": False, "unlabelled_scores": False, "average": None, "patience": None, "budget": None}


@dataclass(frozen=True)
class Timed:
    """What was measured.

    Attributes:
        seconds_per_step: the median of ten, loading included.
        seconds_per_validation: of one pass over the validation cases.
    """

    seconds_per_step: float
    seconds_per_validation: float


def budget_overrides(
    bundle: str | Path,
    workflow: str,
    budget: str,
    overrides: Mapping[str, Any],
    *,
    before: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ids that a budget sets (``max_epochs`` and, for the record, ``budget``), and what is recorded.

    A time is turned into epochs once, by ten timed steps and one validation of this very workflow in a folder that is
    thrown away; a run that is continued under the same words keeps its epochs. A name means twice as many steps for
    ``pretrain``, as in ``new``.

    Args:
        bundle, workflow, overrides: as for ``run_workflow``; they do not say ``max_epochs``.
        budget: see ``planning.budget.asked_for``.
        before: what was recorded when it was asked for before; default: what the run's own record says.

    Raises:
        InputError: the words mean nothing, the workflow does not train by epochs, or the time is below one epoch.
    """
    steps, seconds = asked_for(budget)
    if "max_epochs" in overrides:
        raise InputError("--budget and --max_epochs say the same thing", hint="leave one of them out")
    flow = open_workflow(bundle, workflow, overrides, log=False)
    config, content = flow.parser.config, flow.parser.get_parsed_content
    if not {"max_epochs", "steps_per_epoch"} <= config.keys():
        raise InputError("this bundle's configs count no steps per epoch", path=bundle, hint="use --max_epochs")
    each, every = int(content("steps_per_epoch")), max(1, int(content("val_interval")))
    if before is None and not overrides.get("fresh"):
        before = (read_record(content("output_dir")) or {}).get("budget")
    if before and before.get("asked") == budget and before.get("steps_per_epoch") == each:
        known = dict(before)
    elif steps is not None:
        steps = 2 * steps if workflow == "pretrain" and budget in BUDGETS else steps
        known = {"asked": budget, "epochs": -(-steps // each), "steps_per_epoch": each}
    else:
        assert seconds is not None
        timed = time_steps(bundle, workflow, overrides)
        known = {"asked": budget, "epochs": _epochs(seconds, timed, each, every), "steps_per_epoch": each}
        known |= asdict(timed)
    return {"max_epochs": known["epochs"]} | ({"budget": known} if "budget" in config else {}), known


def _epochs(seconds: float, timed: Timed, each: int, every: int) -> int:
    epoch = each * timed.seconds_per_step + timed.seconds_per_validation / every
    if seconds < epoch:
        raise InputError(
            f"a budget of {in_words(seconds)} holds no epoch: one of {each} steps takes about {in_words(epoch)}",
            hint="give more time, or --steps_per_epoch",
        )
    return int(seconds // epoch)


def time_steps(bundle: str | Path, workflow: str, overrides: Mapping[str, Any]) -> Timed:
    """Time some steps and one validation of a workflow; nothing of it is kept.

    Raises:
        InputError: whatever the run itself would refuse; or it does not train.
    """
    with tempfile.TemporaryDirectory() as folder:
        given = {**overrides, "output_dir": str(Path(folder) / "timed"), "fresh": False}
        flow = open_workflow(bundle, workflow, given, log=False)
        config = flow.parser.config
        short = {"max_epochs": 1, "steps_per_epoch": _WARM + _TIMED, "val_interval": 1, **_WITHOUT}
        for key, value in short.items():
            if key in config:
                flow.parser[key] = value
        if not any("train#trainer" in str(step).replace("::", "#") for step in config.get("run", [])):
            raise InputError(f"its {workflow} does not train by steps", path=bundle, hint="leave --budget out")
        flow.initialize()
        content = flow.parser.get_parsed_content
        if "prepared" in config and hasattr(content("prepared"), "require"):
            content("prepared").require()
        trainer, validator = content("train#trainer"), content("validate#evaluator")
        steps: list[float] = []
        spans: list[float] = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: steps.append(time.perf_counter()))
        validator.add_event_handler(Events.STARTED, lambda: spans.append(-time.perf_counter()))
        validator.add_event_handler(Events.COMPLETED, lambda: spans.append(spans.pop() + time.perf_counter()))
        trainer.run()
        taken = [b - a for a, b in zip(steps[_WARM - 1 :], steps[_WARM:], strict=False)]
        del trainer, validator, flow, content
        gc.collect()
        with suppress(AttributeError, RuntimeError):
            torch.cuda.empty_cache()
        if not taken:
            raise InputError(
                "no step could be timed: the training ended at once",
                path=bundle,
                hint="give the budget in steps: --budget 500",
            )
        return Timed(round(median(taken), 5), round(max(spans, default=0.0), 4))
