"""The recorder on stock MONAI evaluators: files, values, pictures, refusals, two ranks."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted, Compose, Invertd, Spacingd
from PIL import Image

import monai_transfer
from monai_transfer.errors import InputError
from monai_transfer.evaluation.recorder import CaseRecorder

LABELS = {"0": "background", "1": "core", "2": "rim"}


class Threshold(torch.nn.Module):
    """Sees the truth in the intensities: background 0, core 1, rim 2."""

    def forward(self, x):
        return -torch.cat([(x - value) ** 2 for value in (0.0, 1.0, 2.0)], dim=1)


class Nan(torch.nn.Module):
    def forward(self, x):
        return torch.full((x.shape[0], 3, *x.shape[2:]), float("nan"))


def volumes(n=3):
    items = []
    for i in range(n):
        truth = torch.zeros(1, 24, 20, 12)
        truth[:, 4:14, 5:15, 2:8] = 2
        truth[:, 6:12, 7:13, 3:7] = 1
        affine = torch.diag(torch.tensor([1.0, 1.0, 3.0, 1.0]))
        image = MetaTensor(truth.clone(), affine=affine)
        label = MetaTensor(truth.clone(), affine=affine)
        items.append({"image": image, "label": label, "case": f"c{i}", "patient": f"p{i // 2}", "site": "B"})
    items[-1]["label"] = MetaTensor(torch.zeros(1, 24, 20, 12), affine=affine)  # nothing there: a false positive
    return items


def run(items, network, recorder, postprocessing=None, preprocessing=None, batch=2):
    loader = DataLoader(Dataset(items, preprocessing), batch_size=batch, num_workers=0)
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader,
        network=network,
        postprocessing=postprocessing,
        val_handlers=[recorder],
    )
    engine.run()
    return engine


def read(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_segmentation_leaves_cases_summary_and_pictures(tmp_path):
    recorder = CaseRecorder(tmp_path, "segmentation", LABELS)
    engine = run(volumes(), Threshold(), recorder, AsDiscreted(keys="pred", argmax=True))
    rows = read(tmp_path / "cases.csv")
    assert [row["case"] for row in rows] == ["c0", "c1", "c2"]
    assert [row["patient"] for row in rows] == ["p0", "p0", "p1"]
    assert [float(row["dice"]) for row in rows] == [1, 1, 0]
    assert [float(row["false_positive_core"]) for row in rows] == [0, 0, 1]
    assert float(rows[0]["volume_true_ml_core"]) == pytest.approx(6 * 6 * 4 * 3 / 1000)
    assert float(rows[2]["hd95_rim"]) == pytest.approx(np.sqrt(24**2 + 20**2 + 36**2))
    assert engine.state.metrics["dice"] == pytest.approx(2 / 3)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["primary_metric"] == "dice"
    assert summary["patients"] == 2
    assert summary["metrics"]["dice"]["mean"] == pytest.approx(2 / 3)
    for i in range(3):
        picture = np.asarray(Image.open(tmp_path / "figures" / f"c{i}.png"))
        assert picture.shape[2] == 3
        assert (picture == (255, 140, 0)).all(axis=-1).any(), "the prediction's contour is drawn"


def test_a_resampled_network_space_is_measured_in_the_original_grid(tmp_path):
    pre = Spacingd(keys="image", pixdim=(1.0, 1.0, 1.5), mode="nearest")
    post = Compose(
        [
            Invertd(keys="pred", orig_keys="image", transform=pre, nearest_interp=False, to_tensor=True),
            AsDiscreted(keys="pred", argmax=True),
        ]
    )
    run(volumes(2)[:1], Threshold(), CaseRecorder(tmp_path, "segmentation", LABELS), post, pre, batch=1)
    row = read(tmp_path / "cases.csv")[0]
    assert float(row["dice"]) > 0.9
    assert (tmp_path / "figures" / "c0.png").is_file()


def test_nan_is_refused_before_argmax_hides_it(tmp_path):
    with pytest.raises(InputError, match=r"NaN.*c0"):
        run(volumes(), Nan(), CaseRecorder(tmp_path, "segmentation", LABELS), AsDiscreted(keys="pred", argmax=True))
    assert not (tmp_path / "cases.csv").exists()


def pictures(n=8):
    torch.manual_seed(0)
    return [
        {"image": torch.rand(1, 16, 16) * 0.2 + (i % 2), "label": i % 2, "case": f"x{i}", "patient": f"p{i}"}
        for i in range(n)
    ]


class Mean(torch.nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, x):
        level = 8 * (x.mean(dim=(1, 2, 3)) - 0.6)
        return torch.stack([-level, level], dim=1) if self.outputs == 2 else level[:, None]


@pytest.mark.parametrize(("outputs", "activation"), [(2, "softmax"), (2, "sigmoid"), (1, "sigmoid")])
def test_classification(tmp_path, outputs, activation):
    recorder = CaseRecorder(tmp_path, "classification", {0: "normal", 1: "lesion"}, activation=activation)
    engine = run(pictures(), Mean(outputs), recorder, batch=3)
    rows = read(tmp_path / "cases.csv")
    assert [row["label"] for row in rows] == ["normal", "lesion"] * 4
    assert all(row["label"] == row["prediction"] for row in rows)
    assert engine.state.metrics["auc"] == 1.0
    assert engine.state.metrics["accuracy"] == 1.0
    assert len(list((tmp_path / "figures").iterdir())) == 8


def test_probabilities_are_not_taken_for_logits(tmp_path):
    recorder = CaseRecorder(tmp_path, "classification", {0: "normal", 1: "lesion"}, activation=None)
    with pytest.raises(InputError, match="case x0: prediction is no distribution"):
        run(pictures(), Mean(2), recorder)


def test_regression_and_an_unknown_label(tmp_path):
    items = [{**item, "label": float(i)} for i, item in enumerate(pictures(4))]
    items[3]["label"] = float("nan")
    engine = run(items, Mean(1), CaseRecorder(tmp_path, "regression"))
    rows = read(tmp_path / "cases.csv")
    errors = [abs(float(r["label"]) - float(r["prediction"])) for r in rows[:3]]
    assert rows[3]["absolute_error"] == ""
    assert engine.state.metrics["mae"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_pictures_are_of_the_same_cases_in_any_order(tmp_path):
    items = pictures(60)
    for name, order in (("a", items), ("b", items[::-1])):
        run(order, Mean(2), CaseRecorder(tmp_path / name, "classification", {0: "n", 1: "l"}, figures=10))
    drawn = [sorted(p.name for p in (tmp_path / name / "figures").iterdir()) for name in "ab"]
    assert drawn[0] == drawn[1]
    assert 3 <= len(drawn[0]) <= 20


def test_an_item_without_a_case_is_refused(tmp_path):
    items = [{k: v for k, v in item.items() if k != "case"} for item in pictures(2)]
    with pytest.raises(InputError, match="no 'case'"):
        run(items, Mean(2), CaseRecorder(tmp_path, "classification", {0: "n", 1: "l"}))


def test_two_ranks_write_one_table(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys, torch, torch.distributed as dist
            sys.path.insert(0, {str(Path(monai_transfer.__file__).parents[1])!r})
            from monai.data import DataLoader, Dataset, DistributedSampler
            from monai.engines import SupervisedEvaluator
            from monai_transfer.evaluation.recorder import CaseRecorder
            class Level(torch.nn.Module):
                def forward(self, x):
                    level = x.mean(dim=(1, 2, 3))
                    return torch.stack([-level, level], dim=1)
            dist.init_process_group("gloo")
            level = [torch.full((1, 4, 4), (i % 2) - 0.5) for i in range(5)]
            items = [{{"image": level[i], "label": i % 2, "case": f"x{{i}}"}} for i in range(5)]
            data = Dataset(items)
            sampler = DistributedSampler(data, even_divisible=True, shuffle=False)
            loader = DataLoader(data, batch_size=1, sampler=sampler)
            recorder = CaseRecorder({str(tmp_path / "run")!r}, "classification", {{0: "n", 1: "l"}}, figures=0)
            engine = SupervisedEvaluator(torch.device("cpu"), loader, Level(), val_handlers=[recorder])
            engine.run()
            assert engine.state.metrics["accuracy"] == 1.0
            dist.destroy_process_group()
            """
        )
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [row["case"] for row in read(tmp_path / "run" / "cases.csv")] == [f"x{i}" for i in range(5)]


def test_localization_leaves_boxes_in_millimetres(tmp_path):
    items = volumes()
    for item in items:
        item["label"] = MetaTensor((item["label"].as_tensor() > 0).float(), affine=item["label"].affine)
    recorder = CaseRecorder(
        tmp_path, "localization", {0: "background", 1: "lesion"}, boxes={"min_size": 50.0, "score": "max"}, figures=3
    )

    def two_classes(item):  # core and rim are one lesion
        p = torch.softmax(1e3 * item["pred"], 0)
        return {**item, "pred": torch.stack([p[0], p[1:].sum(0)])}

    engine = run(items, Threshold(), recorder, postprocessing=two_classes)
    rows = list(csv.DictReader((tmp_path / "cases.csv").open()))
    assert [row["found"] for row in rows] == ["1", "1", "0"]
    assert [row["false_positives"] for row in rows] == ["0.0", "0.0", "1.0"]  # the last truth is empty
    assert float(rows[0]["box_iou"]) == pytest.approx(1) and rows[2]["box_iou"] == ""
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["primary_metric"] == "froc" and engine.state.metrics["sensitivity"] == 1
    content = json.loads((tmp_path / "boxes.json").read_text())
    assert [case["case"] for case in content["cases"]] == ["c0", "c1", "c2"]
    (box,), (lesion,) = content["cases"][0]["boxes"], content["cases"][0]["lesions"]
    assert box["label"] == lesion["label"] == "lesion" and box["score"] == 1
    assert box["world_low"] == [3.5, 4.5, 4.5] and box["world_high"] == [13.5, 14.5, 22.5]
    assert content["cases"][2]["lesions"] == [] and "_boxes" not in rows[0]
    assert len(list((tmp_path / "figures").glob("*.png"))) == 3
