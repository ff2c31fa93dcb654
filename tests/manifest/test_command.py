"""`monai-transfer manifest` as a command, on the layouts of real public sets where they are at hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from monai.data import load_decathlon_datalist
from PIL import Image
from typer.testing import CliRunner

from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest
from monai_transfer.manifest.command import manifest

app = typer.Typer()
app.command()(manifest)


def run(*args) -> str:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_it_says_what_it_saw_counts_and_writes(tmp_path):
    for name in ("ill", "well"):
        for i in range(8):
            (tmp_path / "d" / name).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(hash((name, i)) % 2**32).integers(0, 256, (5, 5), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "d" / name / f"{i}.png")
    (tmp_path / "d" / "readme.txt").write_text("hello")
    output = run(tmp_path / "d", "-o", tmp_path / "m.json", "--site", "north", "--labels", "ill,well")
    assert "read as classes (16 cases)" in output and "1 file of another kind left out" in output
    assert f"wrote {tmp_path / 'm.json'}" in output
    lines = [line.split() for line in output.splitlines() if "north" in line]
    cells = {line[1]: [int(cell) for cell in line if cell.isdecimal()] for line in lines}
    made = Manifest.load(tmp_path / "m.json")
    for split in ("training", "validation", "test"):
        cases = made.cases(split)
        by_class = [sum(case.label == k for case in cases) for k in (0, 1)]
        assert cells[split] == [len(cases), len(cases), len(cases), *by_class]


@pytest.mark.parametrize(("option", "value"), [("--fractions", "most"), ("--labels", "0=a,b"), ("--layout", "dicmo")])
def test_bad_options_are_input_errors(tmp_path, option, value):
    (tmp_path / "d").mkdir()
    with pytest.raises(InputError, match=value):
        run(tmp_path / "d", "-o", tmp_path / "m.json", option, value)


SETS = {
    "hippocampus": (["hippocampus", "--table", "hippocampus/sites.csv"], ["float32", "uint8"], 180),
    "nuclei": (["nuclei", "--binarize", "--labels", "background,nucleus"], ["fluorescence", "histology"], 441),
    "sarcoma mr": (["sarcoma/mr", "--table", "sarcoma/sites.csv"], ["GE", "Philips"], 26),
    "sarcoma modalities": (["sarcoma", "--layout", "pairs"], ["ct", "mr", "pet"], 62),
    "chest": (
        ["chest_xray/adult", "chest_xray/paediatric", "--site", "adult", "--site", "paediatric"]
        + ["--labels", "normal,pneumonia"],
        ["adult", "paediatric"],
        6846,
    ),
    "mednist": (["mednist"], ["unknown"], 4200),
}


LARGE = ("mednist", "chest")  # thousands of files


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in SETS])
def test_real_sets(real_data, tmp_path, name):
    args, sites, n_cases = SETS[name]
    args = [real_data / arg if (real_data / arg).exists() else arg for arg in args]
    run(*args, "-o", tmp_path / "m.json", "--no-checksums")
    made = Manifest.load(tmp_path / "m.json")
    cases = [case for split in ("training", "validation", "test") for case in made.cases(split)]
    assert made.sites == sites and len(cases) == n_cases
    if name != "mednist":
        assert all(made.cases(split, site=site) for split in ("training", "validation", "test") for site in sites)
    segmentation = made.task == "segmentation"
    items = load_decathlon_datalist(tmp_path / "m.json", is_segmentation=segmentation)
    assert Path(items[0]["image"]).is_file() and (not segmentation or Path(items[0]["label"]).is_file())
    content = json.loads((tmp_path / "m.json").read_text())
    if name == "chest":
        adult = [case for case in cases if case.site == "adult"]
        assert len({case.patient for case in adult}) == 682
        assert all(("Pneumonia" in case.image) == (case.label == 1) for case in adult)
        assert content["labels"] == {"0": "normal", "1": "pneumonia"}
    if name == "hippocampus":
        assert content["labels"] == {"0": "background", "1": "Anterior", "2": "Posterior"}
        assert content["licence"] == "CC-BY-SA 4.0"
    if name == "sarcoma modalities":  # the modalities share one contour: a patient's three stay together
        assert len(made.patients) == 26
