"""One writer per folder: a second one is told who the first is, and a dead one keeps nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from monai_transfer.errors import InputError
from monai_transfer.runs.lock import LOCK_NAME, STALE, FolderLock, holder

HOLD = """
import sys, time
from monai_transfer.runs.lock import FolderLock
FolderLock(sys.argv[1]).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock on ``tmp_path``."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_writer_is_refused_and_a_killed_one_keeps_nothing(tmp_path, other):
    found = holder(tmp_path)
    assert found is not None and found.process == other.pid
    with pytest.raises(InputError, match=f"is being written by process {other.pid} on this machine; wait for it"):
        FolderLock(tmp_path).acquire()
    other.kill()
    other.wait()
    assert holder(tmp_path) is None
    with FolderLock(tmp_path) as lock:
        assert lock.held and holder(tmp_path).process == os.getpid()
    assert not (tmp_path / LOCK_NAME).exists() and holder(tmp_path) is None


def test_a_later_lock_of_the_same_process_takes_over(tmp_path):
    first = FolderLock(tmp_path).acquire()
    second = FolderLock(tmp_path).acquire()
    assert second.held and not first.held
    first.release()
    assert holder(tmp_path) is not None
    second.release()
    assert holder(tmp_path) is None


def test_a_writer_on_another_host_is_dead_after_ten_minutes_of_silence(tmp_path):
    path = tmp_path / LOCK_NAME
    path.write_text(json.dumps({"host": "elsewhere", "process": 7, "since": 0.0}))
    with pytest.raises(InputError, match="process 7 on host elsewhere; .*after 600 s it counts as dead"):
        FolderLock(tmp_path).acquire()
    os.utime(path, (time.time() - STALE - 5,) * 2)
    with FolderLock(tmp_path):
        assert holder(tmp_path).process == os.getpid()


def test_an_empty_lock_file_of_nobody_is_no_lock(tmp_path):
    (tmp_path / LOCK_NAME).touch()
    assert holder(tmp_path) is None
    FolderLock(tmp_path).acquire().release()
