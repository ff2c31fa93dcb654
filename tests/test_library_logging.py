"""MONAI's notices are not heard, also where MONAI is imported after they were silenced and sets its levels anew."""

from __future__ import annotations

import subprocess
import sys

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
