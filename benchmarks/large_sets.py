"""How time and memory of manifest, check, new and the first training step grow with the number of cases.

    python benchmarks/large_sets.py [--quick] [--record] [--cases 1000,10000,100000] [--commands manifest,check,new,run]

Cases are small volumes (16 x 16 x 4, 16 bits) with masks, all different, in nnU-Net's folders, two per patient. Every
command is a process of its own. Peak memory is the command's largest process; times are by the clock, and by processor
seconds with those of its workers. ``run`` is a training of two epochs of two steps: measured is the time until the
first epoch's row stands in ``metrics.csv``, validation included, and the whole is stopped then.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _measure
import nibabel
import numpy as np

SHAPE = (16, 16, 4)
COMMAND = [sys.executable, "-m", "monai_transfer"]


def write_cases(folder: Path, count: int) -> None:
    """The bytes of the header once, and other voxels for each."""
    header = {}
    for kind, dtype in (("imagesTr", np.int16), ("labelsTr", np.uint8)):
        (folder / kind).mkdir(parents=True)
        header[kind] = nibabel.Nifti1Image(np.zeros(SHAPE, dtype), np.diag([2, 2, 4, 1])).to_bytes()[:352]
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:12, 4:12, 1:3] = 1
    rng = np.random.default_rng(0)
    for n in range(count):
        name = f"p{n // 2:06d}_{n % 2}"
        image = rng.integers(0, 200, SHAPE, dtype=np.int16) + np.int16(300) * mask
        (folder / "imagesTr" / f"{name}_0000.nii").write_bytes(header["imagesTr"] + image.tobytes("F"))
        label = np.roll(mask, (n % 4, n // 4 % 4), (0, 1))
        (folder / "labelsTr" / f"{name}.nii").write_bytes(header["labelsTr"] + label.tobytes("F"))
    (folder / "dataset.json").write_text(
        '{"channel_names": {"0": "MR"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii", '
        f'"name": "many", "numTraining": {count}}}'
    )


def measured(words: list[object], until: str = "") -> tuple[float, float, float]:
    """Run to the end, or until it says something; seconds by the clock, of the processors, and peak bytes."""
    since = time.monotonic()
    with tempfile.NamedTemporaryFile("w+") as log:
        process = subprocess.Popen([*COMMAND, *map(str, words)], stdout=log, stderr=subprocess.STDOUT)
        done = 0
        while until and not done:
            if until in Path(log.name).read_text():
                process.send_signal(signal.SIGTERM)
                break
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            time.sleep(0.05)
        took = time.monotonic() - since
        if not done:
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != (143 if until else 0):
            log.seek(0)
            raise SystemExit(f"{words[0]}: status {process.returncode}\n{log.read()[-3000:]}")
    took = took if until else time.monotonic() - since
    return took, usage.ru_utime + usage.ru_stime, 1024 * usage.ru_maxrss


def commands(folder: Path) -> dict[str, tuple[list[object], str]]:
    """What is run, in this order."""
    manifest, bundle, run = folder / "m.json", folder / "many_segmentation", folder / "run"
    sizes = ["--size", "small", "--patch", "16,16,4", "--batch-size", "2", "--budget", "quick"]
    short = ["--max_epochs", 2, "--steps_per_epoch", 20, "--output_dir", run]
    return {
        "manifest": (["manifest", folder / "many", "-o", manifest, "--patient-regex", r"(p\d+)_\d"], ""),
        "check": (["check", manifest, "--jobs", 2], ""),
        "new": (["new", bundle, "--data", manifest, *sizes], ""),
        "run": (["run", bundle, "pretrain", *short], "s per step"),
    }


def main() -> None:
    words = sys.argv[1:]

    def option(name: str, default: str) -> list[str]:
        if name not in words:
            return default.split(",")
        at = words.index(name)
        value = words[at + 1]
        del words[at : at + 2]
        return value.split(",")

    counts = [int(n) for n in option("--cases", "1000,10000,100000")]
    chosen = option("--commands", "manifest,check,new,run")
    sys.argv[1:] = words
    options = _measure.arguments(__doc__)
    rows = []
    for count in [24] if options.quick else counts:
        with tempfile.TemporaryDirectory(prefix="large_sets_") as name:
            folder = Path(name)
            write_cases(folder / "many", count)
            for command, (line, until) in commands(folder).items():
                if command not in chosen:
                    continue
                took, spent, peak = measured(line, until)
                what = "until seven steps are done" if until else "in all"
                rows += [
                    (f"{command}, {count} cases: seconds by the clock {what}", took),
                    (f"{command}, {count} cases: processor seconds", spent),
                    (f"{command}, {count} cases: peak memory, MB", peak / 1e6),
                ]
                for row in rows[-3:]:
                    print(f"{row[0]}: {row[1]:.1f}", flush=True)
    _measure.report(__file__, rows, options.record)


if __name__ == "__main__":
    main()
