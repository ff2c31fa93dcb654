"""A class joins those of a source: what keeps the old one. Drawn pictures, in which both organs are known everywhere.

    python benchmarks/kept_classes.py [--seeds 5] [--steps 200] [--labelled 4] [--out DIR]

The north marks the liver alone and trains the source; the south, of less contrast, a brighter bottom and more noise,
marks the spleen alone; the source still finds most of the livers there. Every arm starts from the same source and takes
the same steps on the same few southern cases; arms with source cases see half northern ones in each batch. Dice is that
of written predictions with the drawn truth on test patients, mean over seeds, lowest and highest seed in brackets.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.manifest.label_mapping import LabelMapping
from monai_transfer.predict.images import predict_images

LIVER, SPLEEN = 1, 2
SIZE = 48
ARMS: dict[str, dict[str, Any]] = {
    "source, untouched": {"data": "south", "workflow": "evaluate"},
    "fine-tuned, `--no-keep-classes`": {"data": "south", "keep_classes": False},
    "fine-tuned, unmarked taken for background": {"data": "south-both"},
    "fine-tuned, unmarked may be liver": {"data": "south", "run": {"regulariser": None}},
    "distillation (default)": {"data": "south"},
    "source cases": {"data": "sites", "run": {"regulariser": None}},
    "source cases and distillation": {"data": "sites"},
}


def draw(rng: np.random.Generator, site: str) -> tuple[np.ndarray, np.ndarray]:
    """Image and true mask: a large liver, a small spleen, a kidney that looks like either, in a body."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)

    def ellipse(cy: float, cx: float, ry: float, rx: float) -> np.ndarray:
        jitter = rng.normal(0, 1.5, 2)
        stretch = rng.uniform(0.85, 1.15, 2)
        return ((y - cy - jitter[0]) / (ry * stretch[0])) ** 2 + ((x - cx - jitter[1]) / (rx * stretch[1])) ** 2 < 1

    body, kidney = ellipse(24, 24, 21, 22), ellipse(33, 25, 4, 4)
    liver, spleen = ellipse(21, 14, 9, 7), ellipse(22, 36, 6, 4)
    grey = 40.0 + 60 * body + 60 * liver + 35 * spleen + 45 * kidney
    grey = grey if site == "north" else 30 + 0.7 * grey + 0.5 * y
    mask = np.where(liver, LIVER, np.where(spleen, SPLEEN, 0))
    noise = rng.normal(0, 9 if site == "north" else 14, grey.shape)
    return (grey + noise).clip(0, 255).astype(np.uint8), mask.astype(np.uint8)


def write_data(folder: Path, seed: int, patients: int = 24) -> dict[str, Path]:
    """The manifests by name; a site's mask holds its own organ, ``truth/`` both."""
    rng = np.random.default_rng(seed)
    (folder / "truth").mkdir(parents=True)
    splits: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for site, mine in (("north", LIVER), ("south", SPLEEN)):
        splits[site] = {"training": [], "validation": [], "test": []}
        for i in range(patients):
            image, mask = draw(rng, site)
            name = f"{site}{i:02d}"
            masks = {"": image, "_mask": np.where(mask == mine, mask, 0), "_both": mask}
            for ending, array in masks.items():
                Image.fromarray(array.astype(np.uint8)).save(folder / f"{name}{ending}.png")
            split = "test" if i >= patients - 8 else "validation" if i >= patients - 10 else "training"
            item = {"image": f"{name}.png", "label": f"{name}_mask.png", "case": name, "patient": name, "site": site}
            splits[site][split].append(item)

    def save(name: str, labels: dict[str, str], *sites: str, **more: Any) -> Path:
        joined = {split: [item for site in sites for item in splits[site][split]] for split in splits[sites[0]]}
        path = folder / f"{name}.json"
        path.write_text(json.dumps({"name": name, "task": "segmentation", "labels": labels, **joined, **more}))
        return path

    liver, spleen = {"0": "background", "1": "liver"}, {"0": "background", "2": "spleen"}
    told = {"north": ["liver"], "south": ["spleen"]}
    return {
        "north": save("north", liver, "north"),
        "south": save("south", spleen, "south"),
        "south-both": save("south-both", liver | spleen, "south"),
        "sites": save("sites", liver | spleen, "north", "south", annotated=told),
    }


def true_dice(bundle: Path, run: Path | None, mapping: LabelMapping, data: Path, site: str, out: Path) -> list[float]:
    """Of liver and spleen, mean over the site's test pictures; NaN for a class that the network has no output for."""
    images = sorted(path for path in data.glob(f"{site}??.png"))[-8:]
    predict_images(bundle, images, out, run=run)
    found = []
    for name, value in (("liver", LIVER), ("spleen", SPLEEN)):
        values = []
        for path in images:
            written = np.asarray(Image.open(next(out.rglob(f"{path.stem}*.png"))))
            truth = np.asarray(Image.open(data / f"{path.stem}_both.png")) == value
            guess = written == mapping.classes[name][0] if name in mapping.classes else np.zeros_like(truth)
            values.append(2 * (guess & truth).sum() / (guess.sum() + truth.sum()))
        found.append(float(np.mean(values)))
    return found


def one_seed(root: Path, seed: int, steps: int, n_labelled: int) -> dict[str, dict[str, float]]:
    """Every arm's numbers."""
    manifests = write_data(root / "data", seed)
    budget = {"epochs": max(steps // 10, 1), "steps_per_epoch": 10, "batch_size": 4, "val_interval": 1000}
    given: dict[str, Any] = {"n_labelled": n_labelled, **budget}
    new_bundle(root / "north", manifests["north"], size="small", pretrain_epochs=max(steps // 5, 1), **budget)
    home = run_workflow(root / "north", "pretrain", {"seed": seed}, log=False)
    results = {}
    for number, (arm, how) in enumerate(ARMS.items()):
        bundle = root / f"arm{number}"
        sites = {"source_site": "north", "target_site": "south"} if how["data"] == "sites" else {}
        spec = new_bundle(
            bundle, manifests[how["data"]], source=home, keep_classes=how.get("keep_classes"), **sites, **given
        )
        wanted = {"seed": seed, "lr": 0.002, **how.get("run", {})}
        workflow = how.get("workflow", "train")
        run = run_workflow(bundle, workflow, wanted, log=False)
        mapping = LabelMapping.from_dict(spec.mapping or {"labels": {str(k): v for k, v in spec.labels.items()}})
        trained = run if workflow == "train" else None
        liver, spleen = true_dice(bundle, trained, mapping, root / "data", "south", root / f"south{number}")
        home_liver, _ = true_dice(bundle, trained, mapping, root / "data", "north", root / f"north{number}")
        scores = json.loads((run / "summary.json").read_text())["metrics"]
        own = (scores.get("source_dice_liver") or {}).get("mean")
        same = float("nan") if own is None else float(own)
        results[arm] = {"liver": liver, "spleen": spleen, "home_liver": home_liver, "with_source": same}
        print(f"seed {seed}, {arm}: " + ", ".join(f"{k} {v:.3f}" for k, v in results[arm].items()), flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200, help="of fine-tuning; the source takes twice as many")
    parser.add_argument("--labelled", type=int, default=4, help="southern cases that are trained on")
    parser.add_argument("--out", type=Path, help="keeps the runs")
    parser.add_argument("--quick", action="store_true", help="the smallest size: one seed of few steps")
    given = parser.parse_args()
    if given.quick:
        given.seeds, given.steps = 1, 1
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        root = given.out or Path(temporary)
        seeds = [one_seed(root / f"seed{seed}", seed, given.steps, given.labelled) for seed in range(given.seeds)]
    print(
        "\n| arm | liver, south | spleen, south | liver, north | liver, Dice with the source |\n|---|---|---|---|---|"
    )
    for arm in ARMS:
        cells = []
        for key in ("liver", "spleen", "home_liver", "with_source"):
            values = [one[arm][key] for one in seeds]
            none = np.isnan(values).any()
            cells.append("" if none else f"{np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})")
        print(f"| {arm} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
