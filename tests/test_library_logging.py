"""MONAI's notices are not heard, also where MONAI is imported after they were silenced and sets its levels anew."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from monai_transfer.library_logging import heard_from

CODE = """
from monai_transfer.library_logging import silence_libraries
silence_libraries()
silence_libraries()
import logging
import monai.bundle.workflows as workflows
workflows.logger.warning("Logging file is set to False, skipping logging.")
workflows.logger.error("something is wrong")
print(len(logging.getLogger("monai.bundle.workflows").filters))
"""


def test_a_notice_is_not_heard_and_an_error_is():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    said = done.stdout + done.stderr
    assert "skipping logging" not in said and "something is wrong" in said
    assert done.stdout.strip().splitlines()[-1] == "1"


def test_levels_come_back_after_an_error_too(caplog):
    logger = logging.getLogger("a.library")
    logger.setLevel(logging.INFO)
    with pytest.raises(RuntimeError), heard_from({"a.library": logging.ERROR, "another.library": logging.ERROR}):
        logger.warning("not heard")
        raise RuntimeError
    logger.info("heard")
    assert caplog.messages == ["heard"] and logging.getLogger("another.library").level == logging.NOTSET
