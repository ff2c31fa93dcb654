"""``monai-transfer check`` from outside: exit codes, one line per finding, JSON, corrected copies."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from monai_transfer.errors import InputError
from monai_transfer.inspection.command import check

BUNDLE = Path(__file__).parents[2] / "bundles" / "head_mr_segmentation"


@pytest.fixture
def app():
    app = typer.Typer()
    app.command()(check)
    return app


@pytest.fixture
def folder(tmp_path):
    """Eighteen sound cases in a folder with a long name, and their manifest."""
    folder = tmp_path / ("a_rather_long_name_" * 8)
    folder.mkdir()
    content: dict = {"name": "set", "task": "segmentation", "labels": {"0": "background", "1": "tumour"}}
    for n, split in enumerate(["training"] * 6 + ["validation"] * 6 + ["test"] * 6):
        mask = np.zeros((12, 10, 8), np.uint8)
        mask[3:7, 3:7, 2:6] = 1
        image = np.random.default_rng(n).normal(100, 9, mask.shape).astype(np.float32)
        for name, array in ((f"i{n}.nii.gz", image), (f"l{n}.nii.gz", mask)):
            nib.Nifti1Image(array, np.diag([1, 1, 2, 1.0])).to_filename(folder / name)
        item = {"image": f"i{n}.nii.gz", "label": f"l{n}.nii.gz", "case": f"c{n}", "patient": f"p{n}", "site": "A"}
        content.setdefault(split, []).append(item)
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def damage(folder):
    (folder / "i0.nii.gz").write_bytes((folder / "i0.nii.gz").read_bytes()[:-5])
    nib.Nifti1Image(np.full((12, 10, 8), 255, np.uint8), np.diag([1, 1, 2, 1.0])).to_filename(folder / "l1.nii.gz")
    nib.Nifti1Image(np.zeros((12, 10, 8), np.uint8), np.diag([1, 1, 2, 1.0])).to_filename(folder / "l2.nii.gz")


def test_sound_set_exits_0(app, folder):
    result = CliRunner().invoke(app, [str(folder / "manifest.json")])
    assert result.exit_code == 0 and "18 cases checked: 0 errors, 0 warnings; nothing is wrong" in result.stdout


def test_one_unwrapped_line_per_finding(app, folder):
    damage(folder)
    result = CliRunner().invoke(app, [str(folder / "manifest.json")])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(f"{folder / 'i0.nii.gz'}: error: damaged gzip data")
    assert lines[1].startswith(f"{folder / 'l1.nii.gz'}: error: the label holds 255")
    assert lines[2].startswith(f"{folder / 'l2.nii.gz'}: warning: the label is empty")
    assert "(case c0, training)" in lines[0] and lines[3].startswith("18 cases checked: 2 errors, 1 warnings")


def test_many_warnings_of_one_kind_are_shortened(app, folder):
    for n in range(18):
        nib.Nifti1Image(np.zeros((12, 10, 8), np.uint8), np.diag([1, 1, 2, 1.0])).to_filename(folder / f"l{n}.nii.gz")
    text = CliRunner().invoke(app, [str(folder / "manifest.json")]).stdout
    assert text.count("[label-empty]") == 11 and "... and 8 more warnings [label-empty]" in text
    result = CliRunner().invoke(app, [str(folder / "manifest.json"), "--json"])
    assert len([f for f in json.loads(result.stdout)["findings"] if f["code"] == "label-empty"]) == 18


def test_warnings_exit_0(app, folder):
    nib.Nifti1Image(np.zeros((12, 10, 8), np.uint8), np.diag([1, 1, 2, 1.0])).to_filename(folder / "l2.nii.gz")
    assert CliRunner().invoke(app, [str(folder / "manifest.json")]).exit_code == 0


def test_json(app, folder):
    damage(folder)
    result = CliRunner().invoke(app, [str(folder / "manifest.json"), "--json"])
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert content["errors"] == 2 and content["warnings"] == 1 and content["cases"] == 18
    assert {"severity", "fault", "code", "file", "case", "split", "hint"} <= set(content["findings"][0])


def test_fix_to(app, folder, tmp_path):
    damage(folder)
    out = tmp_path / "fixed"
    result = CliRunner().invoke(app, [str(folder / "manifest.json"), "--fix-to", str(out)])
    assert result.exit_code == 1  # the truncated image cannot be fixed
    assert "corrected: " in result.stdout and "the label holds 255" not in result.stdout
    assert "what is an error above is not corrected" in result.stdout
    assert np.asarray(nib.load(out / "labels" / "c1.nii.gz").dataobj).max() == 1
    again = CliRunner().invoke(app, [str(folder / "manifest.json"), "--fix-to", str(out)])
    assert isinstance(again.exception, InputError)  # never over something


def test_source(app, folder):
    result = CliRunner().invoke(app, [str(folder / "manifest.json"), "--source", str(BUNDLE)])
    assert result.exit_code == 1 and "no class is known to the model" in result.stdout
    wrong = CliRunner().invoke(app, [str(folder / "manifest.json"), "--source", str(folder)])
    assert isinstance(wrong.exception, InputError)


def test_table_on_a_terminal(folder):
    """A real pseudo-terminal: a table, progress, and the full words even where they wrap."""
    damage(folder)
    program = (
        "import typer; from monai_transfer.inspection.command import check; "
        "app = typer.Typer(); app.command()(check); app()"
    )
    parent, child = pty.openpty()
    environment = os.environ | {"COLUMNS": "160", "TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder / "manifest.json")], stdout=child, stderr=child, env=environment
    )
    os.close(child)
    output = b""
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:
            break
        if not chunk:
            break
        output += chunk
    assert process.wait() == 1
    text = output.decode()
    assert "error" in text and "c0" in text and "hint" in text and "2 errors, 1 warnings" in text
    assert "Traceback" not in text
