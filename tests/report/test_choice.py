"""Choosing among arms without labels: the score's best, never a collapsed one, with what it cost."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from monai.data import Dataset
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.evaluation.unlabelled_scores import UnlabelledScores
from monai_transfer.report import compare_runs
from monai_transfer.report.choice import choose_arm
from monai_transfer.selection.validators import entropy

MEANS = {"source": 0.5, "coral": 0.6, "dann": 0.7, "mmd": 0.55}


def report_with(study, scores: dict[str, float], collapsed: tuple[str, ...] = ()):
    runs = study.write(MEANS, seeds=2)
    for folder in runs:
        arm, seed = folder.name.rsplit("-", 1)
        if arm in scores:
            alarm = ["predictions have collapsed"] if arm in collapsed and seed == "1" else []
            content = {"cases": 9, "scores": {"snd": scores[arm] + 0.01 * int(seed)}, "alarm": alarm}
            (folder / "validators.json").write_text(json.dumps(content))
    return compare_runs(runs)


def test_the_best_score_is_chosen_and_its_cost_said(study):
    report = report_with(study, {"coral": 2.0, "dann": 1.0, "mmd": 0.5})
    choice = choose_arm(report, "snd")
    assert choice.chosen == "coral"
    assert choice.best == "dann"
    assert choice.gap == pytest.approx(report.arms["dann"].mean - report.arms["coral"].mean)
    assert choice.scores["coral"] == pytest.approx(2.005)
    assert choice.left_out == ["source"]
    assert "The test labels would have chosen dann: the choice is 0.0" in choice.sentence
    assert choice.rank_correlation == pytest.approx(0.5)


def test_a_collapsed_arm_is_not_chosen(study):
    report = report_with(study, {"coral": 2.0, "dann": 1.0, "mmd": 9.0}, ("mmd", "coral"))
    choice = choose_arm(report, "snd")
    assert "COLLAPSE in 1 of 2 runs of mmd: predictions have collapsed." in report.warnings
    assert choice.chosen == "dann"
    assert "would have chosen the same" in choice.sentence
    assert "Collapsed predictions: coral, mmd" in choice.sentence


def test_refusals(study):
    report = report_with(study, {"coral": 2.0})
    with pytest.raises(InputError, match="1 arm with validator scores"):
        choose_arm(report, "snd")
    with pytest.raises(InputError, match="'sdn' is not one of"):
        choose_arm(report, "sdn")


class Fixed(nn.Module):
    """Logits that grow with the image's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        mean = self.scale * x.flatten(1).mean(1, keepdim=True)
        return torch.cat([mean, -mean], 1)


def test_the_handler_scores_the_final_network(tmp_path):
    images = [torch.full((1, 4, 4), v) for v in (-2.0, 0.1, 1.0)]
    network = Fixed()
    handler = UnlabelledScores(tmp_path, Dataset([{"image": i} for i in images]), task="classification")
    handler._finish(SimpleNamespace(network=network, state=SimpleNamespace(device="cpu")))
    content = json.loads((tmp_path / "validators.json").read_text())
    p = torch.cat([network(i[None]).softmax(1) for i in images]).detach()
    assert content["scores"]["entropy"] == pytest.approx(entropy(p))
    assert content["cases"] == 3
    assert content["alarm"] == []
