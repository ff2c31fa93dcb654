"""Labelled patients in parts, and data lists that hold a part out."""

from __future__ import annotations

import pytest

from monai_transfer.data.held_out import deal_patients
from monai_transfer.data.lists import DataLists
from monai_transfer.errors import InputError


def test_every_part_gets_its_share_of_classes_and_no_patient_is_split():
    items = [{"patient": f"p{n // 2}", "label": (n // 2) % 2, "image": str(n)} for n in range(24)]
    parts = deal_patients(items, 3, seed=1)
    patients = [{item["patient"] for item in part} for part in parts]
    assert sum(map(len, patients)) == 12 and len(set.union(*patients)) == 12
    assert [sum(item["label"] for item in part) for part in parts] == [4, 4, 4]
    assert deal_patients(items, 3, seed=1) == parts != deal_patients(items, 3, seed=2)


def test_lists_hold_out_labelled_patients_and_never_test_cases(tiny_set):
    manifest = tiny_set("classification", 2)
    plain = DataLists(manifest, "north", "south", 4)
    known = {item["case"] for item in plain.target_training + plain.target_validation}
    tested = {item["case"] for item in plain.target_test}
    assert len(plain.labelled_patients) == 6
    seen = []
    for part in (0, 1):
        lists = DataLists(manifest, "north", "south", 4, held_out=(part, 2))
        train, test = ({item["case"] for item in items} for items in (lists.target_training, lists.target_test))
        assert train | test == known and not train & test and not test & tested
        assert lists.target_validation == [] and len(lists.joint_training) == 4 + len(train)
        seen += sorted(test)
    assert sorted(seen) == sorted(known), "each is tested on once"
    every = DataLists(manifest, "north", "south", 4, held_out=(0, 1))
    assert {item["case"] for item in every.target_test} == known and every.target_training == []
    with pytest.raises(InputError, match="held_out"):
        DataLists(manifest, held_out=(2, 2))
