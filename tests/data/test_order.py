import numpy as np
import pytest

from monai_transfer.data.order import with_order
from monai_transfer.errors import InputError


def test_order_from_a_column():
    items = [{"image": n, "acquired": day} for n, day in enumerate((30, 0, 400, 30, 90))]
    ordered = with_order(items)
    assert [item["order"] for item in ordered] == [0.375, 0.0, 1.0, 0.375, 0.75]
    assert "order" not in items[0]
    assert with_order([{"z": 5}], "z")[0]["order"] == 0
    with pytest.raises(InputError, match="no number under 'acquired'"):
        with_order([{"case": "a", "acquired": None}])
    for broken in (float("nan"), float("inf"), True, "3"):
        with pytest.raises(InputError, match="case 'a' has no number"):
            with_order([{"case": "a", "acquired": broken}, {"case": "b", "acquired": 1}])
    assert [i["order"] for i in with_order([{"z": np.int64(4)}, {"z": np.float32(2)}], "z")] == [1.0, 0.0]


def test_order_of_named_domains():
    items = [{"case": n, "site": site} for n, site in enumerate("bcabd")]
    assert [i["order"] for i in with_order(items, "site", near_to_far="abcde")] == [0.25, 0.5, 0.0, 0.25, 0.75]
    with pytest.raises(InputError, match="case 4 has site 'd', which has no place .* among a, b, c"):
        with_order(items, "site", near_to_far=["a", "b", "c"])
