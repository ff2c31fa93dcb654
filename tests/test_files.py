"""Writing so that nothing is lost."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys

import pytest

from monai_transfer.errors import InputError
from monai_transfer.files import (
    atomic_folder,
    atomic_path,
    clear_leftovers,
    sha256_file,
    write_bytes,
    write_json,
    write_text,
)


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


def test_what_cannot_be_written_is_named_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file: is a file, and a folder is needed"):
        write_text(tmp_path / "file" / "a.txt", "x")
    with (
        pytest.raises(
            InputError, match=r"gone\.txt: cannot be written .no such file or directory.; its folder has gone"
        ),
        atomic_path(tmp_path / "sub" / "gone.txt") as temporary,
    ):
        temporary.write_text("x")
        shutil.rmtree(tmp_path / "sub")


@pytest.fixture
def small_files():
    """No file may grow beyond 4096 bytes (``ulimit -f``), as a full disk or quota would have it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_is_too_large_is_refused_and_the_old_one_kept(tmp_path, small_files):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(InputError, match=r"a\.bin: cannot be written .file too large.; raise the limit"):
        write_bytes(path, bytes(10000))
    with pytest.raises(InputError, match=r"cannot be written .file too large"), atomic_path(path) as temporary:
        temporary.write_bytes(bytes(4096))
        raise RuntimeError("writer failed")  # as C++ writers say it
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_check_keeps_what_is_broken_out(tmp_path):
    def refuse(temporary):
        raise InputError("is broken", path=temporary)

    with pytest.raises(InputError, match="is broken"), atomic_path(tmp_path / "a", check=refuse) as temporary:
        temporary.write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_of_dead_writers_go_and_those_of_living_ones_stay(tmp_path):
    code = "import os, sys; from monai_transfer.files import atomic_path; from pathlib import Path\n"
    code += "with atomic_path(Path(sys.argv[1])) as t:\n    t.write_text('half'); print(flush=True); sys.stdin.read()"
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a.txt")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None and writer.stdout.readline()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".b.99999999.tmp.json").touch()  # of version 0.1
    (tmp_path / "sub" / ".mine.tmp.txt").touch()  # nobody of ours is called so
    assert [p.name for p in clear_leftovers(tmp_path)] == [".b.99999999.tmp.json"]
    writer.kill()
    writer.wait()
    write_text(tmp_path / "c.txt", "x")  # the next writer in the folder clears it
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.txt", "sub"]


def test_a_folder_is_whole_or_not_there(tmp_path, small_files):
    with (
        pytest.raises(InputError, match="out: cannot be written .file too large"),
        atomic_folder(tmp_path / "out") as f,
    ):
        (f / "a").write_bytes(bytes(10000))
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("x")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "a"]


def test_a_long_name_is_no_problem(tmp_path):
    write_text(tmp_path / ("ä" * 120 + ".json"), "x")
    assert len(list(tmp_path.iterdir())) == 1
