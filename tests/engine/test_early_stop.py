"""Stops after so many validations without a new best, and not before; resumes; refuses too few patients."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events

from monai_transfer.engine.early_stop import EarlyStop
from monai_transfer.engine.state import stateful_of
from monai_transfer.errors import InputError

CASES = [{"patient": f"p{n}"} for n in range(8)]


class Record:
    def __init__(self):
        self.facts = {}

    def note(self, **facts):
        self.facts.update(facts)


def engines(scores, patience=2, mode="max", record=None):
    """A trainer of one step per epoch, and a validator that reports the given score of each epoch."""
    trainer, validator = Engine(lambda e, b: None), Engine(lambda e, b: None)
    validator.state.key_metric_name = "dice"

    @validator.on(Events.COMPLETED)
    def _score(engine):
        engine.state.key_metric_name = "dice"
        engine.state.metrics["dice"] = scores[trainer.state.epoch - 1]

    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: validator.run([0]))
    EarlyStop(patience, validator, CASES, mode, run_folder=record).attach(trainer)
    return trainer


@pytest.mark.parametrize(
    ("scores", "mode", "epochs"),
    [
        ([0.1, 0.2, 0.2, 0.1, 0.9], "max", 4),
        ([0.1, 0.2, 0.1, 0.3, 0.2], "max", 5),
        ([3.0, 2.0, 2.5, 2.0, 1.0], "min", 4),
        ([float("nan"), 0.2, float("nan"), float("nan"), 0.9], "max", 4),
    ],
)
def test_it_stops_where_the_score_stands_still(scores, mode, epochs):
    record = Record()
    trainer = engines(scores, mode=mode, record=record)
    trainer.run([0], max_epochs=5)
    assert trainer.state.epoch == epochs
    assert record.facts == ({"stopped_early_at": epochs, "steps": epochs} if epochs < 5 else {})


def test_a_resumed_run_counts_on_and_one_that_had_stopped_stays_so():
    trainer = engines([0.5, 0.4, 0.3, 0.2])
    trainer.run([0], max_epochs=2)
    state = stateful_of(trainer)["early_stop"].state_dict()
    assert state["counter"] == 1
    for counter, last in ((1, 3), (2, 2)):
        again = engines([0.5, 0.4, 0.3, 0.2])
        stateful_of(again)["early_stop"].load_state_dict({**state, "counter": counter, "epochs": 4})
        again.state.epoch, again.state.max_epochs, again.state.epoch_length = 2, 4, 1
        again.run([0], max_epochs=4)
        assert again.state.epoch == last
    torch.save(state, "/dev/null")


@pytest.mark.parametrize(
    ("patience", "cases", "message"),
    [
        (0, CASES, "a patience of 0"),
        (3, CASES[:7], "at least 8 validation patients, and there are 7"),
        (3, CASES[:4] * 4, "there are 4"),
    ],
)
def test_what_is_refused(patience, cases, message):
    with pytest.raises(InputError, match=message):
        EarlyStop(patience, Engine(lambda e, b: None), cases)
