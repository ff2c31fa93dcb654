"""The processes of a group know each other's numbers, see a death, and take nobody else for one of them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import psutil
import pytest

from monai_transfer.runs.ranks import Rank, count, first_ended, own


@pytest.fixture
def other():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process, Rank(1, own(0).host, process.pid, psutil.Process(process.pid).create_time())
    process.kill()
    process.wait()


def test_a_killed_process_has_ended_before_and_after_its_parent_has_noticed(other):
    process, rank = other
    assert not rank.ended and first_ended([own(0), rank]) is None
    process.kill()
    assert first_ended([own(0), rank], patience=5.0) is rank  # a zombie
    process.wait()
    assert rank.ended


def test_a_number_that_was_given_out_again_is_another_process_and_of_other_hosts_nothing_is_known(other):
    _, rank = other
    assert dataclasses.replace(rank, began=rank.began - 100).ended
    assert not dataclasses.replace(rank, host="elsewhere", process=2**22 + 1).ended


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, (1, 2)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, (0, 1)),
        ({"RANK": "a", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, (0, 1)),
    ],
)
def test_the_environment_says_which_one_this_is(monkeypatch, given, expected):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert count() == expected
