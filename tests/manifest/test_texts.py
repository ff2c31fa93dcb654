"""What several sets say of one thing."""

from __future__ import annotations

import pytest

from monai_transfer.manifest.texts import joined_texts

CHANNELS = {"0": "PET", "1": "CT"}


@pytest.mark.parametrize(
    ("values", "joined"),
    [
        ([], None),
        ([None, ""], None),
        (["CT", "CT"], "CT"),
        (["MR", None, "CT", "MR"], "MR; CT"),
        ([CHANNELS, dict(CHANNELS)], CHANNELS),
        ([CHANNELS, "MR"], "PET, CT; MR"),
    ],
)
def test_each_different_value_once(values, joined):
    assert joined_texts(values) == joined
