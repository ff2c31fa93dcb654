"""The ellipsoid's score: its size is chosen on training cases, per class; written for a study, read by its report."""

from __future__ import annotations

import json

import numpy as np
import pytest

from monai_transfer import compare_runs
from monai_transfer.data.phantom import embedded_set
from monai_transfer.evaluation.recorder import write_cases
from monai_transfer.study.centred_blob import blob_score, write_blob

pytestmark = pytest.mark.filterwarnings("ignore")


def ball(shape, radius, centre=None):
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    centre = centre or [0.0] * len(shape)
    return (sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) <= radius**2).astype(int)


@pytest.mark.parametrize("shape", [(40, 32), (24, 30, 18)])
def test_a_centred_structure_is_found_and_one_in_a_corner_is_not(shape):
    masks = [ball(shape, 0.6)] * 3
    assert blob_score(masks, masks, 2) == pytest.approx(1.0, abs=0.03)
    assert blob_score(masks, [ball(shape, 0.2, [0.8] * len(shape))], 2) < 0.1
    two = ball(shape, 0.6) + ball(shape, 0.3)  # class 1 is a shell
    assert 0.7 < blob_score([two], [two], 3) < 0.99


def test_the_test_cases_do_not_choose_the_size():
    assert blob_score([ball((40, 40), 0.9)], [ball((40, 40), 0.3)], 2) < 0.3


def test_a_study_writes_it_and_the_report_says_it_first(packaged, tmp_path):
    folder = tmp_path / "study"
    given = {"dataset_dir": str(embedded_set("segmentation"))}
    write_blob(packaged / "head_mr_segmentation", folder, given)
    told = json.loads((folder / "blob.json").read_text())
    assert told["metric"] == "dice" and 0 < told["value"] < 0.9 and told["tested"] > 0
    write_blob(packaged / "head_mr_slice_classification", tmp_path / "none", {})
    assert not (tmp_path / "none" / "blob.json").exists(), "a class has no middle"
    runs = []
    for arm, dice in (("scratch", told["value"] - 0.1), ("source", 0.95), ("fine_tuned", told["value"] - 0.05)):
        for seed in range(2):
            out = folder / f"{arm}-{seed}"
            out.mkdir()
            rows = [
                {"case": f"c{n}", "patient": f"p{n}", "dice": dice + 0.001 * n, "dice_lesion": dice} for n in range(6)
            ]
            write_cases(out / "cases.csv", rows)
            record = {"status": "finished", "workflow": "train", "arm": arm, "seed": seed, "task": "segmentation"}
            (out / "run.json").write_text(json.dumps(record))
            runs.append(out)
    report = compare_runs(runs)
    assert report.centred_blob == told["value"]
    assert "useless here: an ellipsoid in the middle of every image has" in report.conclusion.split(".")[0] + "."
    assert report.judgements["fine_tuned"].sentence.startswith("Useless: fine-tuned (")
    (folder / "blob.json").unlink()
    assert "seless" not in compare_runs(runs).conclusion
