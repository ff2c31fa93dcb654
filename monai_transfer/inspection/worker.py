"""A process that inspects cases: one JSON job per line on standard input, one JSON result per line on standard output.

A process of its own survives what a decoder's C++ code does to the parent (a crash becomes a finding), and unlike
``multiprocessing`` it needs no guarded main module in the user's script.
"""

from __future__ import annotations

import json
import os
import sys

from monai_transfer.stopping import die_with_parent


def main(parent: int) -> None:
    """Serve until standard input ends, or process ``parent`` does. Whatever libraries print goes to standard error."""
    die_with_parent(parent)  # before the imports, which take seconds: a parent may be killed meanwhile
    from monai_transfer.inspection.case import inspect_case
    from monai_transfer.inspection.facts import CaseJob

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(inspect_case(CaseJob.from_dict(json.loads(line))).to_dict()) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
