"""The estimate comes once, after a few steps, for what is left."""

from __future__ import annotations

import time

from ignite.engine import Engine

from monai_transfer.engine.time_estimate import TimeEstimate


def test_it_is_said_once_for_the_steps_that_are_left(caplog):
    engine = Engine(lambda _engine, _batch: time.sleep(0.01))
    TimeEstimate().attach(engine)
    with caplog.at_level("INFO", logger="monai_transfer"):
        engine.run(range(10), max_epochs=3)
    (line,) = [message for message in caplog.messages if "per step" in message]
    assert "for the 23 steps left" in line
    assert 0.01 <= engine.state.seconds_per_step < 1


def test_a_run_of_fewer_steps_says_nothing(caplog):
    engine = Engine(lambda _engine, _batch: None)
    TimeEstimate().attach(engine)
    with caplog.at_level("INFO", logger="monai_transfer"):
        engine.run(range(3), max_epochs=1)
    assert not caplog.messages
