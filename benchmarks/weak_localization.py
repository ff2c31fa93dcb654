"""How well case labels alone point at lesions: attention MIL and Grad-CAM, against the centre of the head and chance.

    python benchmarks/weak_localization.py --seeds 5 --out DIR

Trains on the slices of the embedded classification set at site_a, which say "lesion" or "no lesion" and nothing of
where, by the packaged bundle's own ``pretrain``, with MIL in place of its network and the packaged weights as the
start of MIL's backbone (``--from-scratch``: also without them). Grad-CAM looks into the packaged weights, which that
workflow made from the same labels. Then looks where the maps point in the test slices that hold a lesion. The truth
comes from the generator; no training sees it.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from sklearn.metrics import roc_auc_score

from bundles.packaged import packaged_specs
from monai_transfer.bundle.run import open_workflow, run_workflow
from monai_transfer.bundle.write import write_bundle
from monai_transfer.data.phantom import SITES, Scan, scan_patient
from monai_transfer.data.phantom.sets import SEED, write_set
from monai_transfer.engine.run_folder import read_status
from monai_transfer.localization import boxes_from_labels, boxes_from_probabilities, match_boxes
from monai_transfer.localization.froc import Detections, sensitivity_at
from monai_transfer.localization.maps import activation_map, attention_map
from monai_transfer.localization.matching import pointing_game

MIL = {
    "_target_": "monai_transfer.networks.mil.Mil",
    "spatial_dims": 2,
    "in_channels": 1,
    "num_classes": 2,
    "instances": "patches",
    # the packaged classifier's layers up to denseblock2; their weights are found by name
    "backbone": "$monai.networks.nets.DenseNet("
    "2, 1, 2, init_features=16, growth_rate=8, block_config=[2, 4, 4], bn_size=2).features[:7]",
    "features": 48,
    "embedding": 64,
    "hidden": 32,
}
EPOCHS = 20  # of 10 steps
PIXEL_MM = 3.0
PACKAGED = Path(__file__).parents[1] / "bundles" / "head_mr_slice_classification" / "models" / "model.pt"


@lru_cache(maxsize=4)  # the slices of a patient follow each other
def _scan(site_name: str, number: int) -> Scan:
    return scan_patient(SITES[site_name], number, seed=SEED)


def lesion_mask(case: str) -> np.ndarray:
    """Where the lesion is in a slice of the classification set; axes as MONAI's reader gives them: (column, row)."""
    site_name, number, index = case[:6], int(case[7:10]), int(case.split("slice")[1])
    scan = _scan(site_name, number)
    count = len(scan.lesion_mm2)
    height = (index - (count - 1) / 2) * SITES[site_name].spacing[2]
    steps = (np.arange(64) - 31.5) * PIXEL_MM
    y, x = np.meshgrid(-steps, -steps, indexing="ij")
    points = np.stack([x, y, np.full_like(x, height), np.ones_like(x)]).reshape(4, -1)
    inside = map_coordinates((scan.label == 2).astype(float), (np.linalg.inv(scan.affine) @ points)[:3], order=1)
    return (inside.reshape(64, 64) >= 0.5).T


def train(bundle: Path, out: Path, seed: int, pretrained: str, given: dict[str, Any]) -> Path:
    """The weights of one seed of MIL; a finished run is used again."""
    run = out / f"mil{'-scratch' if pretrained == 'none' else ''}-{seed}"
    if read_status(run) != "finished":
        overrides: dict[str, Any] = {"output_dir": str(run), "seed": seed, "fresh": True, "network_def": MIL}
        overrides |= {"pretrained": pretrained, "max_epochs": EPOCHS, **given}
        run_workflow(bundle, "pretrain", overrides, log=False)
    return run / "models" / "model.pt"


Maps = dict[str, list[tuple[str, np.ndarray, np.ndarray]]]


def maps(bundle: Path, weights: Path, mil: bool, site: str, dataset_dir: str) -> tuple[Maps, float]:
    """(case, image, map) of every test slice of the site that holds a lesion, by kind of map; and the AUC of all."""
    overrides: dict[str, Any] = {"ckpt": str(weights), "target_site": site, "dataset_dir": dataset_dir}
    if mil:
        overrides["network_def"] = MIL
    parser = open_workflow(bundle, "evaluate", overrides, log=False).parser
    network = parser.get_parsed_content("prepared").network.eval()
    found: Maps = {}
    truth, scores = [], []
    for item in parser.get_parsed_content("test#dataset"):
        image = item["image"].as_tensor()[None]
        with torch.no_grad():
            scores.append(float(network(image).softmax(1)[0, 1]))
        truth.append(int(item["label"]))
        if truth[-1] != 1:
            continue
        if mil:
            kinds = {"evidence": attention_map(network, image, 1), "attention": attention_map(network, image)}
        else:
            kinds = {"grad_cam": activation_map(network, image, "features.denseblock2", 1)}
        for kind, heat in kinds.items():
            found.setdefault(kind, []).append((str(item["case"]), np.asarray(image[0, 0]), np.asarray(heat[0, 0])))
    return found, float(roc_auc_score(truth, scores))


def centred(image: np.ndarray) -> np.ndarray:
    """A map that points at the middle of the head, whatever the image shows."""
    head = np.argwhere(image > np.median(image))
    middle = head.mean(axis=0)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in image.shape], indexing="ij"), axis=-1)
    return -np.linalg.norm(grid - middle, axis=-1)


def measure(slices: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Pointing game (exact, and within 6 mm) and FROC of boxes around what is above half of a map's maximum."""
    exact = [pointing_game(heat, mask) for heat, mask in slices]
    near = [pointing_game(heat, mask, margin=2) for heat, mask in slices]
    matches = [
        match_boxes(boxes_from_probabilities(np.clip(heat, 0, 1)[None], score="max"), boxes_from_labels(mask))
        for heat, mask in slices
    ]
    found = Detections([m.lesion_scores for m in matches], [m.false_scores for m in matches])
    return {
        "pointing": float(np.mean(exact)),
        "within_6_mm": float(np.mean(near)),
        "boxes_found": float(sensitivity_at(found, [8.0])[0, 0]),
        "false_per_slice": float(np.mean([len(m.false_scores) for m in matches])),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="keeps the runs; a finished one is used again")
    parser.add_argument("--from-scratch", action="store_true", help="MIL without the packaged weights as well")
    parser.add_argument("--quick", action="store_true", help="smallest size, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out = Path(tempfile.mkdtemp()) if arguments.out is None else arguments.out
    try:
        _compare(out, 1 if arguments.quick else arguments.seeds, arguments.quick, arguments.from_scratch)
    finally:
        if arguments.out is None:
            shutil.rmtree(out)


def _compare(out: Path, seeds: int, quick: bool, from_scratch: bool) -> None:
    spec = next(spec for spec in packaged_specs() if spec.task == "classification")
    bundle = write_bundle(spec, out / "bundle")
    data = out / "set"
    if not data.is_dir():
        write_set("classification", data, patients=2 if quick else None)
    given: dict[str, Any] = {"dataset_dir": str(data)}
    if quick:
        given |= {"max_epochs": 1, "steps_per_epoch": 2}
    starts = {"mil": str(PACKAGED)} | ({"mil from scratch": "none"} if from_scratch else {})
    arms = [("", PACKAGED)]
    arms += [(arm, train(bundle, out, seed, start, given)) for arm, start in starts.items() for seed in range(seeds)]
    masks: dict[str, np.ndarray] = {}
    rows: dict[str, list[dict[str, float]]] = {}
    for arm, weights in arms:
        for site in ("site_a", "site_b"):
            found, auc = maps(bundle, weights, bool(arm), site, str(data))
            for kind, slices in found.items():
                for case, _, _ in slices:
                    masks[case] = masks[case] if case in masks else lesion_mask(case)
                measured = {"auc": auc, **measure([(heat, masks[case]) for case, _, heat in slices])}
                rows.setdefault(f"{arm} {kind}, {site}".strip(), []).append(measured)
            if not arm:
                images = [(image, masks[case]) for case, image, _ in found["grad_cam"]]
                middle = measure([(centred(image), mask) for image, mask in images])
                rows[f"centre of the head, {site}"] = [{k: middle[k] for k in ("pointing", "within_6_mm")}]
                chance = [mask[image > np.median(image)].mean() for image, mask in images]
                rows[f"chance within the head, {site}"] = [{"pointing": float(np.mean(chance))}]
                print(f"{site}: {len(images)} test slices with a lesion")
    for name, found in rows.items():
        told = []
        for key in found[0]:
            values = [row[key] for row in found]
            spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
            told.append(f"{key} {np.mean(values):.2f}{spread}")
        print(f"{name}: {', '.join(told)}")


if __name__ == "__main__":
    main()
