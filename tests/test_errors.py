"""One line that names the file, the fault and the mend; errors cross process borders."""

from __future__ import annotations

import pickle

from monai_transfer.errors import InputError


def test_message_and_pickle():
    error = InputError("is empty", path="a.nii", mend="export it again")
    assert str(error) == "a.nii: is empty; export it again"
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.mend == error.mend
    assert str(InputError("no")) == "no"
