"""Cells are split right by any reader, and none is a formula."""

from __future__ import annotations

import csv

import pytest

from monai_transfer.errors import InputError
from monai_transfer.tables import plain_cell, read_table, safe_cell, write_table


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "\rx", "'=already", "''=twice"]
)
def test_formulas_are_marked_and_come_back(text):
    assert safe_cell(text) == f"'{text}" and plain_cell(f"'{text}") == text


@pytest.mark.parametrize("value", ["-0.5", "+1e3", -0.5, 3, "liver", "it's", "'quoted'", "a=b"])
def test_other_cells_are_left(value):
    assert safe_cell(value) == value
    if isinstance(value, str):
        assert plain_cell(value) == value


def test_a_table_round(tmp_path):
    path = tmp_path / "t.csv"
    rows = [{"case": 'a,"b"\nc', "dice": 0.5}, {"case": "=x", "dice": float("nan"), "note": None}]
    write_table(path, rows)
    assert list(csv.reader(path.open(newline="")))[2] == ["'=x", "", ""]
    assert read_table(path) == [
        {"case": 'a,"b"\nc', "dice": "0.5", "note": ""},
        {"case": "=x", "dice": "", "note": ""},
    ]
    path.write_text("a,b\n1\n")
    with pytest.raises(InputError, match=r"t\.csv: not a readable table"):
        read_table(path)
