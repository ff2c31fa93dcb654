"""Shares hold in every block, which case is changed is random, and reseeding repeats it."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from monai_transfer.data.augmentation import Mixed
from monai_transfer.errors import InputError


def drawn(mixed, n):
    return [mixed(0) for _ in range(n)]


@pytest.mark.parametrize(("share", "block"), [(0.5, 2), (0.25, 4), (1 / 3, 3), (0.0, 2), (1.0, 2)])
def test_each_block_holds_its_share(share, block):
    mixed = Mixed([lambda x: 1], share).set_random_state(0)
    assert mixed.block == block
    taken = iter(drawn(mixed, 60 * block))
    blocks = [list(islice(taken, block)) for _ in range(60)]
    assert {sum(b) for b in blocks} == {round(share * block)}
    if share == 0.5:
        assert 0.3 < np.mean([b[0] for b in blocks]) < 0.7, "which of two is changed follows no other alternation"


def test_a_share_that_no_block_divides_holds_on_average():
    assert np.mean(drawn(Mixed([lambda x: 1], 0.3, block=4).set_random_state(0), 4000)) == pytest.approx(0.3, abs=0.03)


def test_reseeded_it_begins_a_block():
    mixed = Mixed([lambda x: 1])
    first = drawn(mixed.set_random_state(3), 11)
    assert drawn(mixed.set_random_state(3), 11) == first != drawn(mixed.set_random_state(4), 11)


def test_configs_and_refusals():
    mixed = Mixed([{"_target_": "monai.transforms.ShiftIntensity", "offset": 2.0}], share=1.0)
    assert float(mixed(np.zeros(1))[0]) == 2
    with pytest.raises(InputError, match="share"):
        Mixed([], 1.2)
