"""Signals end every command with all its processes, with a true word and the right status; a killed parent too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from monai_transfer.runs.record import epochs_kept, read_record, read_status
from tests.tiny_sets import copied

BUNDLES = Path(__file__).parents[1] / "bundles"
SLICES = BUNDLES / "head_mr_slice_classification"
LONG = ["--max_epochs", "500", "--steps_per_epoch", "2", "--n_labelled", "2"]


@pytest.fixture(scope="module")
def data(embedded_set_of_two) -> Path:
    return embedded_set_of_two("classification")


@pytest.fixture
def bundle(tmp_path) -> Path:
    return copied(SLICES.name, tmp_path)


def start(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "monai_transfer", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "it did not come so far"
        time.sleep(0.05)


def caught(process: subprocess.Popen[str], number: int) -> bool:
    """Whether Python has started so far that the signal is handled."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1]
    return bool(int(mask, 16) >> (number - 1) & 1)


def stop(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Status and stderr of a process that got a signal and must have ended, with its children, within 5 s."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, err = process.communicate(timeout=5 if number != signal.SIGKILL else 30)
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    return process.returncode, err


def test_a_training_is_interrupted_keeps_its_epoch_and_continues(bundle, data):
    folder = bundle / "runs" / "train-0"
    process = start("run", bundle, "train", *LONG, "--dataset_dir", data)
    wait_for(lambda: epochs_kept(folder) > 0, process)
    second = subprocess.run(
        [sys.executable, "-m", "monai_transfer", "run", bundle, "train", *LONG, "--dataset_dir", data],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 2 and "train-0: is being written by process" in second.stderr
    assert second.stderr.count("\n") == 1
    code, err = stop(process, signal.SIGINT)
    kept = epochs_kept(folder)
    assert code == 130
    assert err == f"interrupted by SIGINT: epoch {kept} of 500 is kept; the same command continues from there\n"
    assert read_status(folder) == "interrupted"
    process = start("run", bundle, "train", *LONG, "--dataset_dir", data)
    wait_for(lambda: epochs_kept(folder) > kept, process)
    assert read_status(folder) == "running"
    code, err = stop(process, signal.SIGTERM)
    assert code == 143 and "interrupted by SIGTERM: epoch" in err
    record = read_record(folder)
    assert record is not None and record["status"] == "interrupted" and len(record["resumed"]) == 1
    assert [p.name for p in folder.rglob(".*")] == []


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGKILL))]
)
def test_a_study_ends_with_its_workers(bundle, data, tmp_path, number):
    out = tmp_path / "study"
    words = [
        "study",
        bundle,
        "--arms",
        "scratch",
        "--seeds",
        2,
        "--jobs",
        2,
        "--out",
        out,
        *LONG,
        "--dataset_dir",
        data,
    ]
    process = start(*words)
    runs = [out / f"scratch-{seed}" for seed in (0, 1)]
    wait_for(lambda: any(epochs_kept(run) > 0 for run in runs), process)
    code, err = stop(process, number)
    assert code == (-9 if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        assert err.splitlines()[-1].startswith(f"interrupted by {signal.Signals(number).name}: 0 runs are finished")
    assert {read_status(run) for run in runs} <= {"interrupted", None}


def test_a_dead_worker_fails_its_own_run_only(bundle, data, tmp_path):
    out = tmp_path / "study"
    tiny = ["--max_epochs", 3, "--steps_per_epoch", 2, "--n_labelled", 2, "--dataset_dir", data]
    process = start("study", bundle, "--arms", "scratch", "--seeds", 2, "--jobs", 1, "--out", out, *tiny)
    wait_for(lambda: (out / "scratch-0" / "run.json").is_file(), process)
    record = json.loads((out / "scratch-0" / "run.json").read_text())
    os.kill(record["process"], signal.SIGKILL)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 2 and "memory runs out" in err and err.count("\n") == 1
    assert read_status(out / "scratch-0") == "failed" and read_status(out / "scratch-1") == "finished"
    record = read_record(out / "scratch-0")
    assert record is not None and "was killed" in record["reason"]


def test_a_stop_while_libraries_load(bundle):
    process = start("predict", bundle, bundle / "sample", "-o", bundle / "out")
    if Path("/proc/self/status").is_file():
        wait_for(lambda: caught(process, signal.SIGTERM), process)
    time.sleep(1.5)
    assert stop(process, signal.SIGTERM)[0] == 143


def test_a_stop_within_an_import_ends_the_process_there(tmp_path):
    (tmp_path / "slow_library.py").write_text(
        "import os, signal, time\ntry:\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(5)\n"
        "except BaseException:\n    print('an exception came in the middle')\n"
    )
    code = "from monai_transfer import stopping; stopping.keeps('nothing'); stopping.install(); import slow_library"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(BUNDLES.parent)])},
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "interrupted by SIGTERM: nothing\n")


@pytest.mark.slow
def test_an_interrupted_adaptation_ends_as_an_uninterrupted_one(bundle, data, tmp_path):
    words = ["run", bundle, "adapt", "--max_epochs", 6, "--steps_per_epoch", 10, "--dataset_dir", data]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    _, err = start(*words, "--output_dir", straight).communicate(timeout=300)
    assert read_status(straight) == "finished", err
    process = start(*words, "--output_dir", stopped)
    wait_for(lambda: epochs_kept(stopped) > 1, process)
    code, err = stop(process, signal.SIGTERM)
    assert code == 143 and "the same command continues" in err and 1 < epochs_kept(stopped) < 6
    _, err = start(*words, "--output_dir", stopped).communicate(timeout=300)
    assert read_status(stopped) == "finished", err
    one, two = (torch.load(f / "models" / "model.pt", weights_only=True) for f in (straight, stopped))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    tables = [(folder / "cases.csv").read_text() for folder in (straight, stopped)]
    assert tables[0] == tables[1]


@pytest.fixture
def two_ranks(bundle, data):
    """Start a training of two ranks by ``torchrun``; ends what is left of it."""
    groups = []

    def begin(module: str = "monai_transfer", wait: bool = True) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
        files = "['configs/train.yaml','configs/multi_gpu_train.yaml']"
        words = (
            ["monai.bundle", "run", "--config_file", files]
            if module == "monai.bundle"
            else [module, "run", ".", "train"]
        )
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", *words]
        process = subprocess.Popen(
            [*launcher, *LONG, "--val_interval", "1", "--dataset_dir", str(data)],
            cwd=bundle,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(BUNDLES.parent)},
        )
        groups.append(process)
        if wait:
            wait_for(lambda: epochs_kept(bundle / "runs" / "train-0") > 0, process)
        return process, psutil.Process(process.pid).children(recursive=True) if wait else []

    yield begin
    for process in groups:
        for one in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            one.kill()
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_ranks_share_one_lock_and_others_are_refused_in_one_line(bundle, data, two_ranks):
    first, _ = two_ranks()
    ours = json.loads((bundle / "runs" / "train-0" / "run.json").read_text())["process"]
    for module in ("monai_transfer", "monai.bundle"):
        _, err = two_ranks(module, wait=False)[0].communicate(timeout=240)
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and f"train-0: is being written by process {ours} on this machine" in errors[0], err
    alone = subprocess.run(
        [sys.executable, "-m", "monai_transfer", "run", bundle, "train"], capture_output=True, text=True, check=False
    )
    assert alone.returncode == 2 and alone.stderr.count("\n") == 1 and "is being written by" in alone.stderr
    assert first.poll() is None and read_status(bundle / "runs" / "train-0") == "running"


@pytest.mark.slow
@pytest.mark.parametrize("module", ["monai_transfer", "monai.bundle"])
@pytest.mark.parametrize("who", ["rank 0", "rank 1", "torchrun", "torchrun, softly"])
def test_ranks_end_together_and_the_record_says_of_what(bundle, two_ranks, who, module):
    process, ranks = two_ranks(module)
    folder = bundle / "runs" / "train-0"
    first = json.loads((folder / "run.json").read_text())["process"]
    killed = next((rank for rank in ranks if (rank.pid == first) == (who == "rank 0")), None)
    assert killed is not None and len(ranks) == 2
    if who.startswith("rank"):
        killed.kill()
    else:
        process.send_signal(signal.SIGTERM if "softly" in who else signal.SIGKILL)
    _, alive = psutil.wait_procs(ranks, timeout=5)
    assert alive == []
    _, err = process.communicate(timeout=30)
    record = read_record(folder)
    assert record is not None
    if who.startswith("rank"):
        assert record["status"] == "failed" and record["reason"].startswith(f"{who} (process {killed.pid}) ended first")
    else:
        assert record["status"] == "interrupted"
        assert err.count("interrupted by SIGTERM: epoch") == 1
    assert not (folder / ".lock").exists() or who == "rank 0"


WORK = {
    "evaluate": ["run", "{bundle}", "evaluate", "--dataset_dir", "{data}", "--output_dir", "{out}/run"],
    "predict": ["predict", "{bundle}", "{images}", "-o", "{out}/predictions"],
    "export": ["export", "{bundle}", "--to", "torchscript", "-o", "{out}/m.ts"],
    "check": ["check", "{data}/manifest.json"],
    "gap": ["gap", "{data}/manifest.json", "--site-a", "site_a", "--site-b", "site_b", "-o", "{out}/gap.html"],
    "rank": ["rank", "{data}/manifest.json", "--sources", "{bundle}"],
    "demo": ["demo", "--out", "{out}/demo", "--task", "classification"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 3.0, 6.0, 9.0])
@pytest.mark.parametrize("name", WORK)
def test_every_command_ends_at_once_and_leaves_nothing_half(name, seconds, bundle, data, tmp_path):
    out, images = tmp_path / "out", tmp_path / "images"
    out.mkdir()
    images.mkdir()
    for number in range(200):
        sample = next((bundle / "sample").glob("*.png"))
        (images / f"image_{number}.png").write_bytes(sample.read_bytes())
    places = {"bundle": bundle, "data": data, "out": out, "images": images}
    process = start(*(word.format(**places) for word in WORK[name]))
    time.sleep(seconds)
    if process.poll() is None:
        code, err = stop(process, signal.SIGTERM)
        if code == -signal.SIGTERM:  # Python itself was starting: shells report 143 too
            assert seconds < 1 and err == ""
            return
        assert code == 143 and "Traceback" not in err, err
        assert err.splitlines()[-1].startswith("interrupted by SIGTERM"), err
    left = [path for path in out.rglob("*") if ".tmp" in path.name or path.name.startswith(".predicting")]
    assert left == [] and not [path for path in out.rglob("*") if path.is_file() and not path.stat().st_size]
