"""Names of the ways of training: each stock arm has one, and a name with a comma would read as two in a list."""

from __future__ import annotations

import pytest

from monai_transfer.arm_names import ARM_ORDER, arm_name, arm_note
from monai_transfer.selection.auto_rule import ORDER


@pytest.mark.parametrize("arm", sorted({*ARM_ORDER, *ORDER} - {"auto"}))
def test_stock_arms_are_named_and_described(arm):
    assert arm_note(arm)
    assert "_" not in arm_name(arm) and "," not in arm_name(arm)


def test_an_arm_of_the_users_own():
    assert (arm_name("my_arm"), arm_note("my_arm")) == ("my arm", "")
