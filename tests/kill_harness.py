"""Kills every command from outside, at random moments, and looks at what is left. Not part of the test suite.

    python tests/kill_harness.py [--minutes 15] [--seed 0] [--jobs 2]

A trial is one command of the list below, in a process of its own on tiny sets, and one signal (SIGINT, SIGTERM or
SIGKILL) at a random moment of its life. Then:

- SIGINT ends it with 130, SIGTERM with 143, within 5 s, without a traceback, saying that it was interrupted; a signal
  that finds Python itself still starting ends it in Python's way, which is counted apart;
- no process that it started is left after 5 s;
- after SIGINT and SIGTERM there is no temporary and no empty file; after SIGKILL there is none once the same command
  has run again;
- ``run.json`` says ``interrupted`` or ``finished``; a ``train`` or ``adapt`` that is started again and again until it
  is finished has the weights and test scores of an uninterrupted one, bit by bit.

Prints one line per fault, and a summary; the exit code is 1 where there was a fault.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
LIMIT = 5.0
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
SHORT = ["--max_epochs", "5", "--steps_per_epoch", "10", "--val_interval", "1", "--dataset_dir", "{data}"]
COMMANDS = {
    "train": ["run", "{bundle}", "train", *SHORT, "--n_labelled", "4", "--output_dir", "{out}/run"],
    "adapt": ["run", "{bundle}", "adapt", *SHORT, "--output_dir", "{out}/run"],
    "evaluate": ["run", "{bundle}", "evaluate", "--dataset_dir", "{data}", "--output_dir", "{out}/run"],
    "study": ["study", "{bundle}", "--arms", "source,scratch", "--seeds", "2", "--jobs", "2", "--out", "{out}/study",
              *SHORT, "--n_labelled", "2"],
    "predict": ["predict", "{bundle}", "{images}", "-o", "{out}/predictions"],
    "manifest": ["manifest", "{data}", "-o", "{out}/m.json", "--layout", "csv", "--table", "{table}"],
    "check": ["check", "{data}/manifest.json", "--fix-to", "{out}/fixed"],
    "gap": ["gap", "{data}/manifest.json", "--site-a", "site_a", "--site-b", "site_b", "-o", "{out}/gap.html"],
    "rank": ["rank", "{data}/manifest.json", "--sources", "{bundle}"],
    "new": ["new", "{out}/new_classification", "--data", "{data}/manifest.json", "--target-site", "site_b",
            "--source-site", "site_a", "--force"],
    "compare": ["compare", "{reference}/train", "{reference}/adapt", "-o", "{out}/report.html"],
    "export": ["export", "{bundle}", "--to", "bundle", "-o", "{out}/deploy"],
    "torchscript": ["export", "{bundle}", "--to", "torchscript", "-o", "{out}/m.ts"],
    "demo": ["demo", "--out", "{out}/demo", "--task", "classification"],
    "runs": ["runs", "{reference}"],
}  # fmt: skip
RESUMED = ("train", "adapt")
AGAIN_CODES = {0, 1}  # of the command that follows a kill: `check` finds problems


@dataclass
class Tally:
    """What came of all trials, shared by the threads."""

    trials: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        with self.lock:
            self.trials[what] += 1

    def fault(self, text: str) -> None:
        with self.lock:
            self.faults.append(text)
            print(f"FAULT {text}", flush=True)


def prepare(root: Path) -> dict[str, str]:
    """The tiny set, the bundle, images to predict on and the uninterrupted runs."""
    from monai_transfer.data.phantom.sets import write_set

    name = "head_mr_slice_classification"
    ignore = shutil.ignore_patterns("runs")
    bundle = Path(shutil.copytree(ROOT / "bundles" / name, root / name, ignore=ignore))
    write_set("classification", root / "data", patients=2)
    (root / "images").mkdir()
    sample = next((bundle / "sample").glob("*.png"))
    for number in range(200):
        shutil.copy(sample, root / "images" / f"image_{number}.png")
    images = sorted(path.name for path in (root / "data" / "images").iterdir())
    rows = [f"images/{image},p{n},{n % 2}" for n, image in enumerate(images)]
    (root / "t.csv").write_text("\n".join(["image,patient,label", *rows]))
    places = {
        "bundle": str(bundle), "data": str(root / "data"), "images": str(root / "images"), "table": str(root / "t.csv"),
        "reference": str(root / "reference"),
    }  # fmt: skip
    for name in RESUMED:
        out = root / "reference" / f"{name}.out"
        done = subprocess.run(words(name, places, out), capture_output=True, text=True, check=False, env=environment())
        if done.returncode:
            raise SystemExit(f"the uninterrupted {name} failed:\n{done.stderr}")
        (out / "run").rename(root / "reference" / name)
        out.rmdir()
    return places


def words(name: str, places: dict[str, str], out: Path) -> list[str]:
    out.mkdir(parents=True, exist_ok=True)
    return [sys.executable, "-m", "monai_transfer", *(w.format(**places, out=out) for w in COMMANDS[name])]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def leftovers(out: Path) -> list[str]:
    names = [p for p in out.rglob("*") if ".tmp" in p.name or p.name.startswith(".predicting")]
    return [str(p.relative_to(out)) for p in [*names, *(p for p in out.rglob("*") if p.is_file() and not size(p))]]


def size(path: Path) -> int:
    try:
        return path.stat().st_size or path.name in (".lock", "log.txt", "__init__.py")
    except OSError:
        return 1


def trial(name: str, places: dict[str, str], out: Path, dice: random.Random, life: float, tally: Tally) -> float:
    """One command, one signal; seconds that the command lives when nobody kills it, as far as is known now."""
    number = dice.choice(SIGNALS)
    wait = dice.uniform(0.0, life)
    told = f"{name}, {number.name} after {wait:.1f} s"
    since = time.monotonic()
    process = subprocess.Popen(
        words(name, places, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        _, err = process.communicate(timeout=wait)
        tally.count("ended before")
        if process.returncode not in AGAIN_CODES:
            tally.fault(f"{told}: ended by itself with {process.returncode}: {err[-300:]}")
        return time.monotonic() - since
    except subprocess.TimeoutExpired:
        pass
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        children = []
    sent = time.monotonic()
    process.send_signal(number)
    try:
        _, err = process.communicate(timeout=4 * LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        _, err = process.communicate()
        tally.fault(f"{told}: still there after {4 * LIMIT:.0f} s")
    took = time.monotonic() - sent
    tally.slowest = max(tally.slowest, took)
    _, alive = psutil.wait_procs(children, timeout=max(0.1, LIMIT - took))
    if alive:
        tally.fault(f"{told}: processes are left: {[' '.join(p.cmdline())[:80] for p in alive]}")
    tally.count(number.name)
    tally.count(name)
    judge(told, number, process.returncode, err, took, tally)
    left = leftovers(out)
    if number == signal.SIGKILL and left and name not in RESUMED:
        again = subprocess.run(words(name, places, out), capture_output=True, text=True, check=False, env=environment())
        if again.returncode not in AGAIN_CODES:
            tally.fault(f"{told}: the same command then ends with {again.returncode}: {again.stderr[-300:]}")
        left = leftovers(out)
    if left and (number != signal.SIGKILL or name not in RESUMED):
        tally.fault(f"{told}: left behind: {left[:5]}")
    from monai_transfer.runs.record import read_status

    for record in out.rglob("run.json"):
        status = read_status(record.parent)
        if status not in ("interrupted", "finished"):
            tally.fault(f"{told}: {record.parent.name} says {status}")
    return life


def judge(told: str, number: signal.Signals, code: int, err: str, took: float, tally: Tally) -> None:
    if number == signal.SIGKILL:
        if code != -9:
            tally.fault(f"{told}: status {code}")
        return
    if took > LIMIT:
        tally.fault(f"{told}: ended after {took:.1f} s")
    if code == 0:
        tally.count("ended just before")
    elif code == -number or "KeyboardInterrupt" in err and "import" in err and "monai_transfer/stopping" not in err:
        tally.count("Python was starting")
    elif code != 128 + number:
        tally.fault(f"{told}: status {code}: {err[:1500]} ... {err[-300:]}")
    elif "Traceback" in err or f"interrupted by {number.name}" not in err:
        tally.fault(f"{told}: says {err[-500:]!r}")


def compare(name: str, run: Path, reference: Path, tally: Tally) -> None:
    """The run that was killed and continued against the uninterrupted one."""
    import torch

    tally.count("continued runs")
    one, two = (torch.load(f / "models" / "model.pt", weights_only=True) for f in (run, reference))
    same = one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    tables = [(folder / "cases.csv").read_text() for folder in (run, reference)]
    if not same or tables[0] != tables[1]:
        tally.fault(f"{name}: the continued run differs from the uninterrupted one")
    elif left := leftovers(run):
        tally.fault(f"{name}: finished, and left behind: {left[:5]}")


def work(number: int, places: dict[str, str], root: Path, seed: int, until: float, tally: Tally) -> None:
    """One thread: trials until the time is over."""
    from monai_transfer.runs.record import read_status

    dice = random.Random(f"{seed}-{number}")
    life: dict[str, float] = dict.fromkeys(COMMANDS, 20.0)
    names: list[str] = []
    while time.monotonic() < until:
        names = names or dice.sample([*COMMANDS, *RESUMED], len(COMMANDS) + len(RESUMED))
        name = names.pop()
        out = root / f"work-{number}" / name
        try:
            life[name] = trial(name, places, out, dice, life[name], tally)
            if name in RESUMED and read_status(out / "run") == "finished":
                compare(name, out / "run", Path(places["reference"]) / name, tally)
                shutil.rmtree(out)
        except Exception as error:
            tally.fault(f"{name}: the harness itself: {type(error).__name__}: {error}")
        if name not in RESUMED:
            shutil.rmtree(out, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so its children
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="kill_harness_") as name:
        root = Path(name)
        os.environ["MONAI_TRANSFER_CACHE"] = str(root / "cache")
        places = prepare(root)
        until = time.monotonic() + 60 * options.minutes
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda n: work(n, places, root, options.seed, until, tally), range(options.jobs)))
    sent = sum(tally.trials[number.name] for number in SIGNALS)
    print(", ".join(f"{what} {count}" for what, count in sorted(tally.trials.items())))
    print(f"{sent} signals, slowest end {tally.slowest:.1f} s, {len(tally.faults)} faults")
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
