"""The command line from outside: exit codes, one-line errors, and that each command does what it says."""

from __future__ import annotations

import ast
import csv
import inspect
import json
import os
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from monai_transfer import __version__
from monai_transfer.cli import COMMANDS, main
from monai_transfer.study.arms import PRESETS
from tests.tiny_sets import copied

pytestmark = pytest.mark.filterwarnings("ignore")
BUNDLES = Path(__file__).parents[1] / "bundles"
SLICES = BUNDLES / "head_mr_slice_classification"
TINY = ["--max_epochs", "1", "--steps_per_epoch", "2"]


@pytest.fixture(scope="module")
def data(embedded_set_of_two) -> Path:
    """Folder of a small two-site classification set with its manifest."""
    return embedded_set_of_two("classification")


@pytest.fixture
def bundle(tmp_path) -> Path:
    return copied(SLICES.name, tmp_path)


def call(capsys, *words: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of ``monai-transfer words``, in this process."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    out = capsys.readouterr()
    return int(stop.value.code or 0), out.out, out.err


def refused(capsys, *words: object) -> str:
    """The one line of a call that must exit with 2."""
    code, _, err = call(capsys, *words)
    assert code == 2, err
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
    return err.strip()


# ---------------------------------------------------------------------- starting
_LIGHT = """
import json, sys
from monai_transfer.cli import main
words, code = json.loads(sys.argv[1]), 0
try:
    main(words)
except SystemExit as stop:
    code = stop.code or 0
heavy = [name for name in ("torch", "monai", "itk") if name in sys.modules]
print(json.dumps([code, heavy]), file=sys.stderr)
"""


def lightly(*words: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of a call in a process of its own, which must not have imported torch, monai or itk."""
    call_ = [sys.executable, "-c", _LIGHT, json.dumps([str(word) for word in words])]
    done = subprocess.run(call_, capture_output=True, text=True, check=True)
    *err, last = done.stderr.splitlines()
    code, heavy = json.loads(last)
    assert heavy == []
    return code, done.stdout, "\n".join(err)


def test_help_and_version_without_torch():
    code, out, _ = lightly("--help")
    assert code == 0
    for name in [*COMMANDS, *PRESETS, "mean_teacher", "head_only", "pretrain"]:
        assert name in out
    assert lightly("--version")[:2] == (0, f"monai-transfer {__version__}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu"], "Did you mean 'run'?"),
        (["manifest", "gone", "-o", "x.json"], "gone: no such file"),
        (["check", "gone.json"], "gone.json: no such file"),
        (["gap", "gone.json", "gone.json"], "gone.json: no such file"),
        (["rank", "gone.json", "--sources", "a"], "gone.json: no such file"),
        (["new", "x", "--data", "gone.json"], "gone.json: no such file"),
        (["new", "x", "--data", __file__, "--method", "corla"], "did you mean coral?"),
        (["run", SLICES, "train", "--max_epoch", "1"], "did you mean max_epochs?"),
        (["run", SLICES, "train", "--manifest", "gone.json"], "gone.json: no such file"),
        (["predict", SLICES, "gone.png", "-o", "out"], "gone.png: no such file"),
        (["compare", "gone"], "gone: no such file"),
        (["study", SLICES, "--arms", "scrach"], "did you mean scratch?"),
        (["export", SLICES, "--to", "tflite"], "one of bundle, torchscript, onnx"),
        (["demo", "--task", "dance"], "no demo of 'dance'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wrong_word_is_answered_without_torch(words, message):
    code, _, err = lightly(*words)
    assert code == 2 and message in err and "\n" not in err


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("monai-transfer st", "study"),
        ("monai-transfer run b pre", "pretrain"),
        ("monai-transfer study b --arms scratch,so", "scratch,source"),
        ("monai-transfer new x --method mean", "mean_teacher"),
    ],
)
def test_the_shell_completes_commands_options_and_names(line, found):
    place = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    environment = {**os.environ, "_MONAI_TRANSFER_COMPLETE": "complete_bash", **place}
    words = [sys.executable, "-m", "monai_transfer"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert found in done.stdout.split()


def test_module_and_command_are_the_same():
    done = subprocess.run([sys.executable, "-m", "monai_transfer", "rnu"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: No such command 'rnu'. Did you mean 'run'?; see monai-transfer --help\n"
    script = Path(sys.executable).with_name("monai-transfer")
    if script.exists():
        again = subprocess.run([script, "rnu"], capture_output=True, text=True, check=False)
        assert (again.returncode, again.stderr) == (done.returncode, done.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is full")
def test_a_full_disk_behind_the_standard_output_is_said_once():
    with Path("/dev/full").open("wb") as full:
        words = [sys.executable, "-m", "monai_transfer", "--help"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: standard output: cannot be written (no space left on device)")


def test_no_words_print_the_help(capsys):
    code, out, _ = call(capsys)
    assert code == 0 and "Usage" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_a_light_module(name, capsys):
    code, out, _ = call(capsys, name, "--help")
    assert code == 0 and f"monai-transfer {name}" in out
    module = import_module(COMMANDS[name].module)
    first = (inspect.getdoc(getattr(module, name)) or "").split("\n")[0]
    assert first.startswith(COMMANDS[name].about.split(";")[0].rstrip(".").split(",")[0]), "help and docstring agree"
    assert ast.get_docstring(ast.parse(Path(module.__file__).read_text()))


# ---------------------------------------------------------------------- usage errors
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "Missing argument"),
        (["run", SLICES], "Missing argument"),
        (["new", "x"], "--data"),
        (["export", SLICES, "--tp", "onnx"], "No such option"),
        (["export", SLICES, "--to", "tflite"], "one of bundle, torchscript, onnx"),
        (["run", "nowhere", "train"], "nowhere: not a MONAI bundle"),
        (["run", SLICES, "trian"], "no workflow 'trian'"),
        (["run", SLICES, "train", "--max_epoch", "1"], "did you mean max_epochs"),
        (["run", SLICES, "train", "max_epochs"], "--key value"),
        (["run", SLICES, "train", "--run", "x"], "--pretrained"),
        (["run", SLICES, "infer", "--run", "x"], "no such run"),
        (["run", SLICES, "train", "--log", "paper"], "choose tensorboard or mlflow"),
        (["run", SLICES, "evaluate", "--log", "tensorboard"], "--log does not go with evaluate"),
        (["run", SLICES, "train", "--manifest", "gone.json", "--output_dir", "/nonexistent/x"], "gone.json"),
        (["predict", SLICES, "gone.png", "-o", "out"], "gone.png: no such file"),
        (["new", "x", "--data", "gone.json"], "gone.json"),
        (["new", "x", "--data", "gone.json", "--spacing", "a,b"], "--spacing"),
        (["check", "gone.json"], "gone.json"),
        (["gap", "gone.json", "gone.json"], "gone.json"),
        (["compare", "gone"], "gone"),
        (["manifest", "gone", "-o", "x.json"], "gone"),
        (["study", SLICES, "--arms", "scrach"], "did you mean scratch"),
        (["study", SLICES, "--seeds", "0"], "--seeds"),
        (["study", SLICES, "--source-per-seed", "--leave-one-site-out"], "--source-per-seed does not go with"),
        (["study", SLICES, "--fractions", "x"], "--fractions"),
        (["demo", "--task", "dance"], "no demo of 'dance'"),
    ],
    ids=lambda value: " ".join(map(str, value)).replace(str(SLICES), "BUNDLE") if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_and_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *words)
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_debug_shows_where(capsys, tmp_path):
    code, _, err = call(capsys, "run", tmp_path, "train", "--debug")
    assert code == 2 and "Traceback" in err and err.splitlines()[-1].startswith("error: ")


def test_a_diverging_run_is_1(bundle, data, capsys):
    words = ["run", bundle, "train", *TINY, "--dataset_dir", data, "--n_labelled", 2, "--lr", "1e30"]
    code, _, err = call(capsys, *words)
    assert code == 1 and "the loss is" in err and err.count("\n") == 1


# ---------------------------------------------------------------------- the commands
def test_from_manifest_to_prediction(bundle, data, capsys, tmp_path):
    target = ["--dataset_dir", str(data), "--n_labelled", "2"]
    code, out, err = call(capsys, "run", bundle, "train", *TINY, *target, "--log", "tensorboard")
    assert code == 0, err
    assert list((bundle / "runs" / "train-0" / "tensorboard").iterdir())
    run = bundle / "runs" / "train-0"
    assert "equal command: python -m monai.bundle run" in out and f"train done: {run}" in out and "auc" in out
    for noise in ("NvImgCodec", "nvImageCodec", "Logging file is set", "DeprecationWarning", "FutureWarning"):
        assert noise not in out + err
    line = refused(capsys, "run", bundle, "train", *TINY, *target)
    assert f"{run}: holds a finished run" in line and "--fresh" in line
    code, *_ = call(capsys, "run", bundle, "train", *TINY, *target, "--fresh")
    assert code == 0
    code, out, err = call(capsys, "run", bundle, "evaluate", *target[:2], "--run", "train-0")
    assert code == 0 and f"weights: {run / 'models' / 'model.pt'}" in out, err
    code, out, _ = call(capsys, "run", bundle, "infer", "--run", run)
    assert code == 0 and str(run / "models" / "model.pt") in out
    assert (bundle / "predictions" / "predictions.csv").is_file()
    code, out, _ = call(capsys, "predict", bundle, bundle / "sample", "-o", tmp_path / "out", "--run", run)
    assert code == 0 and f"wrote {tmp_path / 'out' / 'predictions.csv'}" in out
    code, out, _ = call(capsys, "export", bundle, "--to", "torchscript", "-o", tmp_path / "m.ts", "--run", run)
    assert code == 0 and f"wrote {tmp_path / 'm.ts'}" in out and (tmp_path / "m.ts").is_file()
    code, out, err = call(capsys, "compare", run, bundle / "runs" / "evaluate-0", "-o", tmp_path / "report.html")
    assert code == 0 and (tmp_path / "report.html").is_file(), err


def test_an_adaptation_says_how_to_see_its_price_at_home(bundle, data, capsys):
    code, out, err = call(capsys, "run", bundle, "adapt", *TINY, "--dataset_dir", data)
    assert code == 0, err
    [line] = [line for line in out.splitlines() if line.startswith("what it costs at the source's site: ")]
    code, out, err = call(capsys, *shlex.split(line.partition(": ")[2])[1:])
    assert code == 0, err
    with (bundle / "runs" / "adapt-0" / "at_home" / "cases.csv").open(encoding="utf-8") as stream:
        assert {row["site"] for row in csv.DictReader(stream)} == {"site_a"}
    assert f"weights: {bundle / 'runs' / 'adapt-0' / 'models' / 'model.pt'}" in out


def test_new_then_study(data, capsys, tmp_path):
    folder = tmp_path / "my_classification"
    words = ["--data", data / "manifest.json", "--source", SLICES, "--source-site", "site_a", "--target-site", "site_b"]
    code, out, err = call(capsys, "new", folder, *words, "--batch-size", 2)
    assert code == 0, err
    assert "2D classification" in out and "DenseNet" in out and "100% of the parameters" in out
    assert f"next: monai-transfer run {folder} train" in out
    assert "holds a bundle already" in refused(capsys, "new", folder, *words)
    study = ["study", folder, "--arms", "source,fine_tuned", "--seeds", 1, "--jobs", 1, "--out", tmp_path / "s", *TINY]
    code, out, err = call(capsys, *study)
    assert code == 0, err
    assert f"report: {tmp_path / 's' / 'report.html'}" in out


def test_manifest_check_gap(data, capsys, tmp_path):
    labelled = tmp_path / "pictures"
    for item in json.loads((data / "manifest.json").read_text())["training"]:
        name = labelled / item["label"].replace(" ", "_")
        name.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / item["image"], name / Path(item["image"]).name)
    path = labelled / "manifest.json"
    code, _, err = call(capsys, "manifest", labelled, "-o", path, "--task", "classification")
    assert code == 0, err
    assert json.loads(path.read_text())["labels"]
    code, out, err = call(capsys, "check", path, "--jobs", 1)
    assert code in (0, 1), err  # a tiny split may be a finding
    code, out, err = call(
        capsys,
        "gap",
        data / "manifest.json",
        data / "manifest.json",
        "--site-a",
        "site_a",
        "--site-b",
        "site_b",
        "--json",
    )
    assert code == 0 and json.loads(out), err
