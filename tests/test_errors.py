"""One line that names the file, the fault and the hint; errors cross process borders."""

from __future__ import annotations

import pickle

from monai_transfer.errors import InputError


def test_message_and_pickle():
    error = InputError("is empty", path="a.nii", hint="export it again")
    assert str(error) == "a.nii: is empty; export it again"
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.hint == error.hint
    assert str(InputError("no")) == "no"
