"""One line that names the file, the fault and the hint; errors cross process borders."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import monai_transfer
from monai_transfer.errors import InputError


def test_message_and_pickle():
    error = InputError("is empty", path="a.nii", hint="export it again")
    assert str(error) == "a.nii: is empty; export it again"
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.hint == error.hint
    assert str(InputError("no")) == "no"


def test_every_refusal_says_what_to_do():
    """Each ``InputError`` that the package raises carries a hint."""
    package, silent, count = Path(monai_transfer.__file__).parent, [], 0
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "InputError":
                count += 1
                if not {word.arg for word in node.keywords} & {"hint", None}:
                    silent.append(f"{path.relative_to(package)}:{node.lineno}")
    assert count > 1000 and silent == []
