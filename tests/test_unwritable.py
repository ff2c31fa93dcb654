"""Every command that writes: where no file may grow, one line that names the file, exit code 2, nothing half left."""

from __future__ import annotations

import contextlib
import resource
import shutil
from pathlib import Path

import pytest

from monai_transfer.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")
BUNDLES = Path(__file__).parents[1] / "bundles"
OLD_RUN = Path(__file__).parent / "fixtures" / "version_0_1" / "run"
SLICES = BUNDLES / "head_mr_slice_classification"


@pytest.fixture
def data(embedded_set_of_two, tmp_path) -> Path:
    return Path(shutil.copytree(embedded_set_of_two("classification"), tmp_path / "set"))


@contextlib.contextmanager
def files_of_at_most(size: int):
    """As a full disk or a quota would have it; the limit of ``ulimit -f``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


COMMANDS = {
    "manifest": ["manifest", "{data}", "-o", "{out}/m.json", "--layout", "csv", "--table", "{data}/t.csv"],
    "check": ["check", "{data}/manifest.json", "--fix-to", "{out}/fixed"],
    "gap": ["gap", "{data}/manifest.json", "--site-a", "site_a", "--site-b", "site_b", "-o", "{out}/gap.html"],
    "new": ["new", "{out}/b", "--data", "{data}/manifest.json", "--target-site", "site_b", "--source-site", "site_a"],
    "run": ["run", "{bundle}", "train", "--max_epochs", "1", "--steps_per_epoch", "2", "--dataset_dir", "{data}",
            "--n_labelled", "2", "--output_dir", "{out}/run"],
    "predict": ["predict", "{bundle}", "{bundle}/sample", "-o", "{out}/predictions"],
    "export": ["export", "{bundle}", "--to", "bundle", "-o", "{out}/deploy"],
    "torchscript": ["export", "{bundle}", "--to", "torchscript", "-o", "{out}/m.ts"],
    "onnx": ["export", "{bundle}", "--to", "onnx", "-o", "{out}/m.onnx"],
    "study": ["study", "{bundle}", "--arms", "source", "--seeds", "1", "--jobs", "1", "--out", "{out}/study"],
    "demo": ["demo", "--out", "{out}/demo"],
    "compare": ["compare", str(OLD_RUN), "-o", "{out}/report.html"],
}  # fmt: skip
SLOW = ("check", "gap", "torchscript", "onnx", "study", "demo", "compare")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in COMMANDS]
)
def test_where_no_file_may_grow(name, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MONAI_TRANSFER_CACHE", str(tmp_path / "out" / "cache"))
    bundle = shutil.copytree(SLICES, tmp_path / "bundle", ignore=shutil.ignore_patterns("runs"))
    (tmp_path / "out").mkdir()
    images = sorted(path.name for path in (data / "images").iterdir())
    rows = [f"images/{image},p{n},{n % 2}" for n, image in enumerate(images)]
    (data / "t.csv").write_text("\n".join(["image,patient,label", *rows]))
    places = {"data": str(data), "out": str(tmp_path / "out"), "bundle": str(bundle)}
    with files_of_at_most(60 if name == "predict" else 100), pytest.raises(SystemExit) as stop:
        main([word.format(**places) for word in COMMANDS[name]])
    err = capsys.readouterr().err
    assert stop.value.code == 2, err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert errors and all("cannot be written (file too large)" in line for line in errors), err
    assert all(str(tmp_path / "out") in line for line in errors) and "Traceback" not in err
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and ".tmp" in path.name]
    assert left == []


def test_a_folder_that_is_not_ours_is_named(tmp_path, data, capsys):
    (tmp_path / "file").write_text("")
    for words in (
        [
            "manifest",
            str(data),
            "-o",
            str(tmp_path / "file" / "m.json"),
            "--layout",
            "images",
            "--task",
            "classification",
            "--labels",
            "a,b",
        ],
        [
            "run",
            str(SLICES),
            "train",
            "--output_dir",
            str(tmp_path / "file" / "run"),
            "--dataset_dir",
            str(data),
            "--n_labelled",
            "2",
        ],
        ["predict", str(SLICES), str(SLICES / "sample"), "-o", str(tmp_path / "file" / "out")],
    ):
        with pytest.raises(SystemExit) as stop:
            main(words)
        err = capsys.readouterr().err
        assert stop.value.code == 2 and str(tmp_path / "file") in err, err
