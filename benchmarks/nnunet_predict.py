"""``nnUNetv2_predict`` itself beside ``predict`` of the bundle that ``new`` makes, and beside the bundle fine-tuned.

    python benchmarks/nnunet_predict.py --models DIR --nnunet ENVIRONMENT/bin [--kinds spacing,two] [--untouched]

``--models`` is what ``nnunet_models.py`` wrote, ``--nnunet`` the folder of nnU-Net's commands, in an environment of
its own. For each model, without and with mirrored views:

- *untouched*: ``monai-transfer new --source RESULTS_FOLDER``, then ``monai-transfer predict`` (``--tta flips``), beside
  ``nnUNetv2_predict`` with the same folder;
- *fine-tuned*: ``monai-transfer run train`` (two cases, twelve steps), ``export --to bundle`` and plain
  ``python -m monai.bundle run`` on it, beside ``nnUNetv2_predict`` with what ``export --to nnunet`` wrote.

Printed is the mean Dice over foreground values, then cases, the least of a case, and how many foreground voxels nnU-Net
found: two empty masks agree without saying anything.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

TRAINER = "nnUNetTrainer__nnUNetPlans__3d_fullres"


def shell(*words: str, **variables: str) -> None:
    """A command, quietly.

    Raises:
        SystemExit: it failed, with the end of what it said.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **variables})
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout[-1500:]}\n{done.stderr[-2500:]}")


def theirs(given: argparse.Namespace, results: Path, number: str, images: Path, out: Path, mirror: bool) -> None:
    """``nnUNetv2_predict`` with all folds that are there."""
    places = {name: str(given.work) for name in ("nnUNet_raw", "nnUNet_preprocessed")}
    folds = [
        path.name.removeprefix("fold_") for path in sorted(next(results.glob(f"Dataset{number}_*")).rglob("fold_*"))
    ]
    words = ["-i", str(images), "-o", str(out), "-d", number, "-c", "3d_fullres", "-device", "cpu", "-f", *folds]
    words += ["-npp", "1", "-nps", "1"] + ([] if mirror else ["--disable_tta"])
    shell(str(given.nnunet / "nnUNetv2_predict"), *words, nnUNet_results=str(results), **places)


def masks(folder: Path, cases: list[str]) -> list[np.ndarray]:
    """The label maps of these cases, whatever their names go on with."""
    found = [next(folder.rglob(f"{case}*.nii.gz")) for case in cases]
    return [np.asarray(nib.load(path).dataobj) for path in found]


def agreement(ours: list[np.ndarray], others: list[np.ndarray]) -> tuple[float, float, int]:
    """Mean Dice over foreground values and cases, the least of a case, foreground voxels of the others."""
    cases = []
    for a, b in zip(ours, others, strict=True):
        values = [value for value in np.union1d(a, b) if value]
        scores = [2 * ((a == v) & (b == v)).sum() / ((a == v).sum() + (b == v).sum()) for v in values]
        if scores:
            cases.append(float(np.mean(scores)))
    return float(np.mean(cases)), min(cases), int(sum((mask > 0).sum() for mask in others))


def manifest(folder: Path, kind: str) -> dict[str, Any]:
    """Two cases to fine-tune on, the five that are predicted as the test."""
    told = json.loads(next(folder.parent.glob(f"results/*_{kind.capitalize()}/*/dataset.json")).read_text("utf-8"))
    names = list(told["channel_names"].values())

    def items(part: str, count: int) -> list[dict[str, Any]]:
        cases = sorted({path.name[: -len("_0000.nii.gz")] for path in (folder / part).glob("*_0000.nii.gz")})
        found = []
        for case in cases[:count]:
            images = [f"{part}/{case}_{n:04d}.nii.gz" for n in range(len(names))]
            image = images if len(images) > 1 else images[0]
            found.append({"image": image, "label": f"labels/{case}.nii.gz", "case": case, "patient": case, "site": "a"})
        return found

    train = items("train", 3)
    made = {"name": kind, "task": "segmentation", "modality": "MR", "channel_names": told["channel_names"]}
    made |= {"labels": {"0": "background", "1": "anterior", "2": "posterior"}}
    made |= {"regions": {"whole": [1, 2], "posterior": [2]}} if "regions_class_order" in told else {}
    return made | {"training": train[:2], "validation": train[2:], "test": items("test", 5), "root": str(folder)}


def compare(given: argparse.Namespace, kind: str) -> None:
    """All rows of one model."""
    folder, results = given.models / kind, given.models / "results"
    source = next(results.glob(f"*_{kind.capitalize()}")) / TRAINER
    number = source.parent.name[7:10]
    cases = sorted({path.name[: -len("_0000.nii.gz")] for path in (folder / "test").glob("*_0000.nii.gz")})
    home = given.work / kind
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / "manifest.json").write_text(json.dumps(manifest(folder, kind)), encoding="utf-8")
    tool, bundle = (sys.executable, "-m", "monai_transfer"), str(home / f"{kind}_segmentation")
    budget = ("--epochs", "2", "--steps-per-epoch", "6", "--batch-size", "2")
    shell(*tool, "new", bundle, "--source", str(source), "--data", str(home / "manifest.json"), *budget)
    ours = home / "predict_in"  # files of a case are told apart by the names of channels
    ours.mkdir()
    names = list(json.loads((source / "dataset.json").read_text(encoding="utf-8"))["channel_names"].values())
    for case in cases:
        for n, name in enumerate(names):
            tail = f"_{name}" if len(names) > 1 else ""
            (ours / f"{case}{tail}.nii.gz").symlink_to(folder / "test" / f"{case}_{n:04d}.nii.gz")
    deploy, back = home / "deploy", home / "results" / f"Dataset{number}_Tuned" / TRAINER
    if not given.untouched:
        shell(*tool, "run", bundle, "train", "--lr", "0.003")
        run = str(Path(bundle) / "runs" / "train-0")
        shell(*tool, "export", bundle, "--run", run, "-o", str(deploy))
        shell(*tool, "export", bundle, "--to", "nnunet", "--run", run, "-o", str(back))
    for mirror in (False, True):
        word = "mirrored" if mirror else "plain"
        theirs(given, results, number, folder / "test", home / f"theirs_{word}", mirror)
        flips = ("--tta", "flips") if mirror else ()
        shell(*tool, "predict", bundle, str(ours), "-o", str(home / f"ours_{word}"), *flips)
        tell(home, kind, "untouched", word, "", cases)
        if given.untouched:
            continue
        theirs(given, home / "results", number, folder / "test", home / f"theirs_tuned_{word}", mirror)
        pattern = f"*{f'_{names[0]}' if len(names) > 1 else ''}.nii.gz"
        images = [[str(ours / f"{case}_{name}.nii.gz") for name in names] for case in cases]
        several = ("--dataset::data", json.dumps([{"image": image} for image in images])) if len(names) > 1 else ()
        axes = ("--inferer::mirror_axes", "[0,1,2]") if mirror else ()
        shell(
            sys.executable, "-m", "monai.bundle", "run", "--config_file", str(deploy / "configs" / "inference.yaml"),
            "--meta_file", str(deploy / "configs" / "metadata.json"), "--bundle_root", str(deploy),
            "--dataset_dir", str(ours), "--pattern", pattern, "--output_dir", str(home / f"ours_tuned_{word}"),
            *several, *axes,
        )  # fmt: skip
        tell(home, kind, "fine-tuned", word, "_tuned", cases)


def tell(home: Path, kind: str, row: str, word: str, part: str, cases: list[str]) -> None:
    """One row."""
    found = agreement(masks(home / f"ours{part}_{word}", cases), masks(home / f"theirs{part}_{word}", cases))
    print(f"{kind}, {row}, {word}: {found[0]:.4f} (least {found[1]:.4f}), {found[2]} voxels", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--nnunet", type=Path, required=True)
    parser.add_argument("--kinds", default="spacing,thick,regions,two,residual")
    parser.add_argument("--work", type=Path, default=Path("nnunet_predictions"))
    parser.add_argument("--untouched", action="store_true", help="leave the fine-tuned rows out")
    given = parser.parse_args()
    given.models, given.nnunet, given.work = (p.absolute() for p in (given.models, given.nnunet, given.work))
    given.work.mkdir(parents=True, exist_ok=True)
    for kind in given.kinds.split(","):
        compare(given, kind)


if __name__ == "__main__":
    main()
