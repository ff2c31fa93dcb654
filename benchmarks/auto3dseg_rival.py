"""MONAI's Auto3DSeg (its SegResNet recipe) on a committed split, at a given processor time, beside ``nnunet_rival.py``.

    git clone https://github.com/Project-MONAI/research-contributions      # the recipes; their code is run
    pip install fire tensorboard psutil                                    # beside MONAI
    python benchmarks/auto3dseg_rival.py --templates research-contributions/auto3dseg/algorithm_templates \\
        --data Task04_Hippocampus --split benchmarks/splits/hippocampus.json --out DIR --seconds 1500 \\
        [--arms home,scratch,fine_tuned] [--labelled 2,10,all]

MONAI's ``DataAnalyzer`` and ``BundleGen`` make the bundle, its own scripts train and predict, on one thread. Changed
are the number of epochs, so that the schedule ends after about ``--seconds`` of processor time (by timed epochs; both
numbers are printed), the loader's processes (none), and that no case is kept for validation: all cases of an arm are
trained on and the last weights are tested, as in nnU-Net's arms. ``fine_tuned`` goes on from ``home`` by the recipe's
own ``finetune``. Dice is that of the images' own grid, a mean over classes, then cases. Each arm's result is a file in
``--out``; the same command goes on where it was interrupted. ``--quick``: three cases, one epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from _label_dice import mean_dice

RECIPE = "segresnet"


def listed(path: Path, training: list[str], testing: list[str]) -> str:
    """A datalist; every case in fold 1, so that none of fold 0 is left to validate on."""
    image, label = "imagesTr/{}.nii.gz", "labelsTr/{}.nii.gz"
    content = {
        "training": [{"image": image.format(c), "label": label.format(c), "fold": 1} for c in training],
        "testing": [{"image": image.format(c)} for c in testing],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def generate(folder: Path, data: Path, datalist: str, templates: Path) -> Path:
    """The recipe's bundle for these cases, by MONAI's own analyser and generator."""
    from monai.apps.auto3dseg import BundleGen, DataAnalyzer

    stats, told = folder / "stats.yaml", folder / "input.yaml"
    DataAnalyzer(datalist, str(data), output_path=str(stats), device="cpu", worker=0).get_all_case_stats()
    told.write_text(json.dumps({"modality": "MRI", "datalist": datalist, "dataroot": str(data)}), encoding="utf-8")
    made = BundleGen(
        algo_path=str(folder), data_stats_filename=str(stats), data_src_cfg_name=str(told), algos=[RECIPE],
        templates_path_or_url=str(templates),
    )  # fmt: skip
    made.generate(str(folder), num_fold=1)
    return folder / f"{RECIPE}_0"


def call(bundle: Path, name: str, **overrides: Any) -> float:
    """Run the bundle's script with these settings on top; the processor seconds that it took, its start among them."""
    path = bundle / f"{name}.json"
    path.write_text(json.dumps({"num_workers": 0, "cache_rate": 1.0, **overrides}), encoding="utf-8")
    configs = f"{bundle / 'configs' / 'hyper_parameters.yaml'},{path}"
    words = [sys.executable, str(bundle / "scripts" / "train.py"), "run", "--config_file", configs]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def epochs_for(bundle: Path, folder: Path, cases: list[str], seconds: float) -> tuple[int, float]:
    """How many epochs end after about so many seconds, and the seconds per case, of two timed runs on two cases."""
    few = cases[:2]
    short = {"data_list_file_path": listed(folder / "timed.json", few, few), "ckpt_path": str(folder / "timed")}
    one, five = (call(bundle, "timed", **short, num_epochs=n) for n in (1, 5))
    each = max(five - one, 1e-3) / (4 * len(few))
    start = max(0.0, one - each * len(few))
    return max(1, round((seconds - start) / (each * len(cases)))), each


def dice(folder: Path, data: Path, cases: list[str]) -> list[float]:
    """Mean Dice over the classes, of each case."""
    import nibabel
    import numpy as np

    found = []
    labels = sorted({int(v) for v in json.loads((data / "dataset.json").read_text(encoding="utf-8"))["labels"]} - {0})
    for case in cases:
        truth = np.asarray(nibabel.load(data / "labelsTr" / f"{case}.nii.gz").dataobj)
        (path,) = folder.rglob(f"{case}*.nii.gz")
        pred = np.asarray(nibabel.load(path).dataobj).reshape(truth.shape)
        found.append(mean_dice(pred, truth, labels))
    return found


def run_arm(
    name: str, words: Any, cases: list[str], tests: dict[str, list[str]], home: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One arm, or its result where it is there."""
    path = words.out / f"{name}.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    folder = words.out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    datalist = listed(folder / "list.json", cases, [case for site in tests.values() for case in site])
    more: dict[str, Any] = {"data_list_file_path": datalist}
    if home is None:
        bundle = generate(folder, words.data, datalist, words.templates)
    else:  # the recipe's plan is the source's, as its weights are
        bundle = folder / f"{RECIPE}_0"
        shutil.copytree(home["bundle"], bundle, ignore=shutil.ignore_patterns("model*", "prediction*"))
        more |= {"bundle_root": str(bundle), "ckpt_path": str(bundle / "model")}
        more["finetune"] = {"enabled": True, "ckpt_name": home["weights"]}
    epochs, each = (1, 0.0) if words.quick else epochs_for(bundle, folder, cases, words.seconds)
    print(f"{name}: {len(cases)} cases, {each:.2f} s per case: {epochs} epochs", flush=True)
    spent = call(bundle, "train", **more, num_epochs=epochs)
    weights = str(bundle / "model" / "model_final.pt")
    predicted = folder / "predicted"
    infer = {"enabled": True, "ckpt_name": weights, "output_path": str(predicted), "data_list_key": "testing"}
    call(bundle, "predict", **{**more, "finetune": {"enabled": False}}, infer=infer)
    result = {"arm": name, "cases": len(cases), "epochs": epochs, "seconds_per_case": round(each, 3)}
    result |= {"seconds": round(spent, 1), "bundle": str(bundle), "weights": weights}
    for site, names in tests.items():
        result[site] = found = dice(predicted, words.data, names)
        print(f"{name}, {site}: Dice {sum(found) / len(names):.3f} at {spent:.0f} s", flush=True)
    path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("templates", "data", "split", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1500.0)
    parser.add_argument("--arms", default="home,scratch,fine_tuned")
    parser.add_argument("--labelled", default="2,10,all")
    parser.add_argument("--quick", action="store_true")
    words = parser.parse_args()
    for name in ("templates", "data", "split", "out"):
        setattr(words, name, getattr(words, name).resolve())
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words.out.mkdir(parents=True, exist_ok=True)
    os.chdir(words.out)  # MONAI's runner logs into the working folder
    split = json.loads(words.split.read_text(encoding="utf-8"))
    source, target = split["source"], split["target"]
    if words.quick:
        words.labelled = "2"
        source, target = ({k: v[:3] for k, v in site.items()} for site in (source, target))
    tests = {"source": source["test"], "target": target["test"]}
    arms = words.arms.split(",")
    home = None
    if "home" in arms or "fine_tuned" in arms:
        home = run_arm("home", words, source["training"], tests)
    for word in words.labelled.split(","):
        cases = target["training"][: None if word == "all" else int(word)]
        if "scratch" in arms:
            run_arm(f"scratch_{word}", words, cases, {"target": target["test"]})
        if "fine_tuned" in arms:
            run_arm(f"fine_tuned_{word}", words, cases, tests, home)


if __name__ == "__main__":
    main()
