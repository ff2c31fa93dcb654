"""Writing so that nothing is lost."""

from __future__ import annotations

import json

import pytest

from monai_transfer.files import atomic_path, sha256_file, write_json, write_text


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_the_temporary_name_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "scan.nii.gz") as temporary:
        assert temporary.name.endswith(".tmp.nii.gz") and temporary.parent == tmp_path
        temporary.write_bytes(b"x")
    assert (tmp_path / "scan.nii.gz").read_bytes() == b"x"


def test_json_and_hash(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"ä": 1})
    assert json.loads((tmp_path / "new" / "a.json").read_text(encoding="utf-8")) == {"ä": 1}
    (tmp_path / "b").write_bytes(b"abc")
    assert sha256_file(tmp_path / "b") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
