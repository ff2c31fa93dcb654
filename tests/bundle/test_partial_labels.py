"""One site annotates the liver, the other the spleen; values with gaps and an ignored band: from manifest to report.

The true Dice of both organs is known everywhere, since the images are drawn.
"""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from monai_transfer import compare_runs
from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.predict.images import predict_images

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
LIVER, SPLEEN, IGNORED = 128, 255, 7


def write_sites(folder, *, annotated=True, patients=10):
    """Pictures with a bright liver and a darker spleen; only one of them is marked at each site."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    (folder / "truth").mkdir()
    splits: dict[str, list] = {"training": [], "validation": [], "test": []}
    for site, mine in (("north", LIVER), ("south", SPLEEN)):
        for i in range(patients):
            whole = np.zeros((32, 32), dtype=np.uint8)
            a, b = rng.integers(6, 14, 2)
            whole[a : a + 11, 3:13] = LIVER
            whole[b : b + 11, 18:28] = SPLEEN
            image = rng.normal(40, 6, (32, 32)) + 140.0 * (whole == LIVER) + 70.0 * (whole == SPLEEN)
            mask = np.where(whole == mine, whole, 0)
            mask[:3] = IGNORED
            name = f"{site}{i}"
            pictures = {f"{name}.png": image.clip(0, 255), f"{name}_mask.png": mask, f"truth/{name}.png": whole}
            for path, array in pictures.items():
                Image.fromarray(array.astype(np.uint8)).save(folder / path)
            split = "test" if i >= 8 else "validation" if i >= 6 else "training"
            item = {"image": f"{name}.png", "label": f"{name}_mask.png", "case": name, "patient": name, "site": site}
            splits[split].append(item)
    content = {"name": "organs", "task": "segmentation", "ignore": [IGNORED], **splits}
    content["labels"] = {"0": "background", str(LIVER): "liver", str(SPLEEN): "spleen"}
    if annotated:
        content["annotated"] = {"north": ["liver"], "south": ["spleen"]}
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder / "manifest.json"


def dice(a, b, value):
    return 2 * ((a == value) & (b == value)).sum() / max((a == value).sum() + (b == value).sum(), 1)


def organs(bundle, run, out):
    """True Dice of liver and spleen on the southern test pictures, of files that `predict` wrote."""
    data = bundle.parent / "data"
    images = sorted(data.glob("south[89].png"))
    predict_images(bundle, images, out, run=run)
    written = [np.asarray(Image.open(next(out.rglob(f"{path.stem}*.png")))) for path in images]
    pairs = list(zip(written, (np.asarray(Image.open(data / "truth" / path.name)) for path in images), strict=True))
    return [float(np.mean([dice(p, t, value) for p, t in pairs])) for value in (LIVER, SPLEEN)]


def tuned(root, annotated, **more):
    """Pretrained at the north, where only the liver is marked, and tuned at the south, where only the spleen is."""
    manifest = write_sites(root / "data", annotated=annotated)
    budget = {"epochs": 5, "pretrain_epochs": 10, "steps_per_epoch": 8, "batch_size": 4, "val_interval": 5}
    new_bundle(root / "abdomen", manifest, source_site="north", target_site="south", size="small", **budget)
    bundle = root / "abdomen"
    run_workflow(bundle, "pretrain", {}, log=False)
    source = run_workflow(bundle, "evaluate", {"arm": "source"}, log=False)
    return bundle, source, run_workflow(bundle, "train", {"lr": 0.002, **more}, log=False)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tuned(tmp_path_factory.mktemp("kept"), annotated=True)


def test_an_organ_that_nobody_marked_is_kept(kept, tmp_path):
    bundle, _, run = kept
    liver, spleen = organs(bundle, run, tmp_path / "out")
    assert liver > 0.4, "not marked at this site, and yet not learned to be background"
    assert spleen > 0.7


def test_what_nobody_looked_for_is_not_scored(kept):
    _, source, run = kept
    with (run / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert all(row["dice_liver"] == "" and row["dice_spleen"] != "" for row in rows)
    assert all(float(row["dice"]) == float(row["dice_spleen"]) for row in rows), "the mean is of what was looked for"
    assert all(float(row["area_pred_px_liver"]) > 0 for row in rows), "the predicted size needs no truth"
    report = compare_runs([source, run])
    assert report.arms["joint"].mean > 0.7
    assert report.judgements["joint"].lost == []


def test_a_liver_that_nobody_declared_as_unmarked_is_lost_aloud(tmp_path):
    """The manifest says nothing of what was looked for, so that tuning at the south teaches the liver away."""
    bundle, source, run = tuned(tmp_path, annotated=False, joint=False, arm="fine_tuned")
    liver, spleen = organs(bundle, run, tmp_path / "out")
    assert liver < 0.1 and spleen > 0.7
    report = compare_runs([source, run])
    assert report.conclusion.startswith("Fine-tuned no longer predicts liver (predicted in 100 % of the cases by the")
