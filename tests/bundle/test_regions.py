"""Regions from the manifest through pretraining and fine-tuning to predictions in the files' own values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from monai_transfer import compare_runs
from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.predict.images import predict_images

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


def test_regions_from_manifest_to_prediction(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    splits: dict[str, list] = {"training": [], "validation": [], "test": []}
    for site in ("north", "south"):
        for i in range(10):
            mask = np.zeros((32, 32), dtype=np.uint8)
            a, b = rng.integers(4, 12, 2)
            mask[a : a + 14, b : b + 14] = 2
            mask[a + 3 : a + 10, b + 3 : b + 10] = 4
            image = (rng.normal(40, 6, (32, 32)) + 70.0 * (mask == 2) + 140.0 * (mask == 4)).clip(0, 255)
            name = f"{site}{i}"
            Image.fromarray(image.astype(np.uint8)).save(data / f"{name}.png")
            Image.fromarray(mask).save(data / f"{name}_mask.png")
            split = "test" if i >= 8 else "validation" if i >= 6 else "training"
            item = {"image": f"{name}.png", "label": f"{name}_mask.png", "case": name, "patient": name, "site": site}
            splits[split].append(item)
    content = {"name": "tumour", "task": "segmentation", "regions": {"whole": [2, 4], "core": [4]}, **splits}
    content["labels"] = {"0": "background", "2": "oedema", "4": "enhancing"}
    (data / "manifest.json").write_text(json.dumps(content))
    budget = {"epochs": 2, "pretrain_epochs": 10, "steps_per_epoch": 8, "batch_size": 4, "val_interval": 2}
    bundle = tmp_path / "tumour"
    options = {"source_site": "north", "target_site": "south", "size": "small", "method": "coral"}
    new_bundle(bundle, data / "manifest.json", **options, **budget)
    home = run_workflow(bundle, "pretrain", {}, log=False)
    runs = [
        run_workflow(bundle, "train", {}, log=False),
        run_workflow(bundle, "evaluate", {"arm": "source"}, log=False),
    ]
    summary = json.loads((runs[0] / "summary.json").read_text())
    assert summary["task"] == "regions" and summary["metrics"]["dice_whole"]["mean"] > 0.7
    assert compare_runs(runs).measure.heading == "Dice"
    images = sorted(data.glob("south[89].png"))
    predict_images(bundle, images, tmp_path / "out", run=home)
    overlaps = []
    for path in images:
        written = np.asarray(Image.open(next((tmp_path / "out").rglob(f"{path.stem}*.png"))))
        truth = np.asarray(Image.open(data / f"{path.stem}_mask.png"))
        assert set(np.unique(written)) <= {0, 2, 4}
        for a, b in ((written > 0, truth > 0), (written == 4, truth == 4)):
            overlaps.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert np.mean(overlaps[::2]) > 0.6 and np.mean(overlaps[1::2]) > 0.3, "whole and core, after 80 short steps"
