"""nnU-Net v2 on a committed split: from scratch and with its own fine-tuning, at a given processor time.

    pip install nnunetv2==2.8.1        # in an environment of its own; torch beside it; this package is not needed
    python benchmarks/nnunet_rival.py --data Task04_Hippocampus --split benchmarks/splits/hippocampus.json --out DIR \
        --seconds 1500 [--arms home,scratch,fine_tuned] [--labelled 2,10,all] [--seed 0]

``--data`` is a Decathlon folder. The arms: ``home`` trains on the source's cases and is tested at the source and,
untouched, at the target; ``scratch`` trains on the target's labelled cases; ``fine_tuned`` starts from ``home`` by
nnU-Net's own way (the source's plans moved over, ``-pretrained_weights``). nnU-Net's training runs as it is, on one
thread, all cases of an arm in its one fold; only the number of epochs and of iterations in them is set, so that its
schedule ends after about ``--seconds`` of processor time, by timed iterations: both numbers are printed. The final
checkpoint is tested, without and with mirroring. Dice is that of the images' own grid, a mean over classes, then cases.
Each arm's result is a file in ``--out``; the same command goes on where it was interrupted. ``--quick``: three cases,
seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _label_dice import mean_dice

PATIENCE = 20  # epochs at least: nnU-Net's learning rate falls from epoch to epoch
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")  # the variables by which nnU-Net finds its files
LONG_EPOCH = 250  # its own iterations per epoch


# ----------------------------------------------------------------------------------------------------------- the data
def write_raw(root: Path, number: int, name: str, data: Path, cases: list[str]) -> str:
    """A dataset in nnU-Net's raw format, of some cases of a Decathlon folder."""
    told = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    folder = root / f"Dataset{number:03d}_{name}"
    for part in ("imagesTr", "labelsTr"):
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)
    for case in cases:
        shutil.copy(data / "imagesTr" / f"{case}.nii.gz", folder / "imagesTr" / f"{case}_0000.nii.gz")
        shutil.copy(data / "labelsTr" / f"{case}.nii.gz", folder / "labelsTr" / f"{case}.nii.gz")
    channels = told.get("channel_names") or told.get("modality") or {"0": "MR"}
    labels = {value: int(key) for key, value in told["labels"].items()}
    content = {"channel_names": channels, "labels": labels, "numTraining": len(cases), "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder.name


def command(name: str, *words: str) -> None:
    """One of nnU-Net's commands, from this environment."""
    path = Path(sys.executable).with_name(name)
    given = {**os.environ, "nnUNet_n_proc_DA": "1"}  # planning takes it for a number of threads
    done = subprocess.run([str(path), *words], capture_output=True, text=True, check=False, env=given)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def prepare(number: int, plans_of: int | None) -> str:
    """Plans of its own, or those of another dataset (nnU-Net's way of fine-tuning); preprocessed. The plans' name."""
    d, configuration = str(number), ("-c", "3d_fullres", "-np", "1")
    if plans_of is None:
        command("nnUNetv2_plan_and_preprocess", "-d", d, *configuration, "-npfp", "1")
        return "nnUNetPlans"
    name = f"nnUNetPlans_of_{plans_of}"
    command("nnUNetv2_extract_fingerprint", "-d", d, "-np", "1")
    raw = next(Path(os.environ[FOLDERS[0]]).glob(f"Dataset{number:03d}_*"))
    shutil.copy(raw / "dataset.json", Path(os.environ[FOLDERS[1]]) / raw.name)  # planning would do it
    command(
        "nnUNetv2_move_plans_between_datasets", "-s", str(plans_of), "-t", d, "-sp", "nnUNetPlans", "-tp", name
    )  # fmt: skip
    command("nnUNetv2_preprocess", "-d", d, "-plans_name", name, *configuration)
    return name


# --------------------------------------------------------------------------------------------------------- training
def trainer(number: int, plans: str, epochs: int, iterations: int, seed: int) -> Any:
    """nnU-Net's own trainer; the schedule is set before it builds its optimizer."""
    import numpy as np
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    torch.manual_seed(seed)
    np.random.seed(seed)
    made = get_trainer_from_args(str(number), "3d_fullres", "all", "nnUNetTrainer", plans, device=torch.device("cpu"))
    made.num_epochs, made.num_iterations_per_epoch = epochs, iterations
    made.num_val_iterations_per_epoch = max(1, iterations // 5)  # its own proportion
    return made


def schedule(seconds: float, each: float) -> tuple[int, int]:
    """Epochs and iterations per epoch that end after about so many seconds, validation in the epochs included.

    >>> schedule(1500, 0.5), schedule(1e6, 0.5)
    ((20, 140), (7476, 250))
    """
    whole = max(1, int(seconds / (each * 1.07)))  # a validation iteration has no backward pass: about a third of one
    if whole >= PATIENCE * LONG_EPOCH:
        return whole // LONG_EPOCH, LONG_EPOCH
    epochs = min(PATIENCE, whole)
    return epochs, max(1, whole // epochs)


def timed(number: int, plans: str, seed: int, pretrained: Path | None) -> float:
    """Processor seconds of one iteration."""
    from nnunetv2.run.run_training import maybe_load_checkpoint

    made = trainer(number, plans, 1, 3, seed)
    maybe_load_checkpoint(made, False, False, str(pretrained) if pretrained else None)
    made.disable_checkpointing = True
    made.on_train_start()
    made.on_train_epoch_start()
    found = []
    for _ in range(4):
        since = time.process_time()
        made.train_step(next(made.dataloader_train))
        found.append(time.process_time() - since)
    return min(found[1:])


def fit(number: int, plans: str, seconds: float, seed: int, pretrained: Path | None) -> dict[str, Any]:
    """Train for about that long; what was spent, and where the weights are."""
    from nnunetv2.run.run_training import maybe_load_checkpoint

    each = timed(number, plans, seed, pretrained)
    epochs, iterations = schedule(seconds, each)
    print(f"{each:.2f} s per iteration: {epochs} epochs of {iterations} iterations end after about {seconds:.0f} s")
    made = trainer(number, plans, epochs, iterations, seed)
    maybe_load_checkpoint(made, False, False, str(pretrained) if pretrained else None)
    since = time.process_time()
    made.run_training()
    spent = time.process_time() - since
    told = {"epochs": epochs, "iterations": iterations, "seconds_per_iteration": round(each, 3)}
    return {"folder": made.output_folder_base, "seconds": round(spent, 1), **told}


# ------------------------------------------------------------------------------------------------------------ scores
def scores(folder: str, data: Path, cases: list[str], mirror: bool) -> list[float]:
    """Mean Dice over the classes, of each case, by nnU-Net's own predictor."""
    import numpy as np
    import torch
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=mirror, device=torch.device("cpu"), allow_tqdm=False, verbose=False)
    predictor.initialize_from_trained_model_folder(folder, ("all",), "checkpoint_final.pth")
    reader, found = SimpleITKIO(), []
    labels = sorted({int(v) for v in json.loads((data / "dataset.json").read_text(encoding="utf-8"))["labels"]} - {0})
    for case in cases:
        image, facts = reader.read_images([str(data / "imagesTr" / f"{case}.nii.gz")])
        truth = reader.read_seg(str(data / "labelsTr" / f"{case}.nii.gz"))[0][0]
        pred = np.asarray(predictor.predict_single_npy_array(image, facts, None, None, False))
        found.append(mean_dice(pred, truth, labels))
    return found


# -------------------------------------------------------------------------------------------------------------- arms
def run_arm(
    name: str, number: int, out: Path, data: Path, cases: list[str], tests: dict[str, list[str]], words: Any,
    plans_of: int | None = None, pretrained: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One arm, or its result where it is there."""
    path = out / f"{name}-{words.seed}.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    print(f"{name}: {len(cases)} cases")
    write_raw(out / "raw", number, name, data, cases)
    plans = prepare(number, plans_of)
    result: dict[str, Any] = {"arm": name, "cases": len(cases), "seed": words.seed}
    result |= fit(number, plans, words.seconds, words.seed, pretrained)
    for site, names in tests.items():
        for mirror in (False, True):
            key = site + (", mirrored" if mirror else "")
            result[key] = scores(result["folder"], data, names, mirror)
            print(f"{name}, {key}: Dice {sum(result[key]) / len(names):.3f} at {result['seconds']:.0f} s", flush=True)
    path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1500.0)
    parser.add_argument("--arms", default="home,scratch,fine_tuned")
    parser.add_argument("--labelled", default="2,10,all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    words = parser.parse_args()
    out = words.out.resolve()
    for variable in FOLDERS:
        folder = out / variable.removeprefix("nnUNet_")
        os.environ[variable] = str(folder)
        folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {"nnUNet_n_proc_DA": "0", "nnUNet_compile": "f", "OMP_NUM_THREADS": "1"}
    import torch  # behind the variables, which are read when nnU-Net is imported

    torch.set_num_threads(1)
    try:
        import nnunetv2  # noqa: F401
    except ImportError as error:
        raise SystemExit("nnU-Net is not here: pip install nnunetv2==2.8.1, in an environment of its own") from error
    split = json.loads(words.split.read_text(encoding="utf-8"))
    source, target = split["source"], split["target"]
    if words.quick:
        words.seconds, words.labelled = min(words.seconds, 10.0), "2"
        source, target = ({k: v[:3] for k, v in site.items()} for site in (source, target))
    tests = {"source": source["test"], "target": target["test"]}
    arms = words.arms.split(",")
    home = None
    if "home" in arms or "fine_tuned" in arms:
        home = run_arm("home", 501, out, words.data, source["training"], tests, words)
    for word in words.labelled.split(","):
        cases = target["training"][: None if word == "all" else int(word)]
        count = 0 if word == "all" else int(word)  # the same in each call: nnU-Net refuses two names of one number
        if "scratch" in arms:
            run_arm(f"scratch_{word}", 600 + count, out, words.data, cases, {"target": target["test"]}, words)
        if "fine_tuned" in arms:
            assert home is not None
            weights = Path(home["folder"]) / "fold_all" / "checkpoint_final.pth"
            start = {"plans_of": 501, "pretrained": weights}
            run_arm(f"fine_tuned_{word}", 800 + count, out, words.data, cases, tests, words, **start)


if __name__ == "__main__":
    main()
