"""rank_sources end to end on sources of known order, and the two commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import typer
from monai.transforms import LoadImage
from torch import nn
from typer.testing import CliRunner

from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest
from monai_transfer.selection.command import gap, rank
from monai_transfer.selection.rank import rank_sources


class Knows(nn.Module):
    """Features: the image's local mean (what the label depends on), and its square."""

    def __init__(self, dims):
        super().__init__()
        self.pool = (nn.AvgPool3d if dims == 3 else nn.AvgPool2d)(3, 1, 1)
        self.head = (nn.Conv3d if dims == 3 else nn.Conv2d)(2, 3, 1)

    def forward(self, x):
        x = self.pool(x) / 100
        return self.head(torch.cat([x, x**2], 1))


class Blind(Knows):
    """Features: the image's parity pattern, from which the label cannot be told."""

    def forward(self, x):
        x = torch.sin(1000 * x)
        return self.head(torch.cat([x, x**2], 1))


def raw(item):
    return {"image": LoadImage(ensure_channel_first=True)(item["image"]).float()}


@pytest.mark.filterwarnings("ignore:H-score")
@pytest.mark.parametrize("task", ["segmentation", "classification", "regression"])
def test_a_source_that_knows_ranks_above_one_that_is_blind(task, volumes, pictures):
    dims = 3 if task == "segmentation" else 2
    manifest = Manifest.load(volumes if task == "segmentation" else pictures)
    if task == "regression":
        content = manifest.to_dict()
        content.pop("labels")
        for item, case in zip(content["training"], manifest.training, strict=True):
            item["label"] = float(LoadImage()(case.image).mean())
        manifest = Manifest.from_dict(content | {"task": "regression"}, manifest.folder)
    ranking = rank_sources(manifest, [Blind(dims), Knows(dims)], preprocessing=raw, permutations=19)
    assert [row.source for row in ranking.rows] == ["Knows", "Blind"]
    best, worst = ranking.rows
    assert best.probe > 0.9
    assert worst.probe < best.probe - 0.2
    for name in ("LogME", "TransRate", "GBC", "H-score"):
        name = name if task != "regression" or name == "LogME" else f"{name} (thirds)"
        assert best.scores[name].score > worst.scores[name].score
        assert best.scores[name].p_value <= 0.1
    assert worst.scores["LogME"].p_value > 0.05
    assert ("CC-FV" in best.scores) == (task == "segmentation")
    text = str(ranking)
    assert "no score ranks medical sources reliably" in text.replace("No transferability", "no")
    assert "linear probe" in text


def test_bundles_from_the_command_line_with_json_and_gap(volumes, unet_bundle, densenet_bundle):
    app = typer.Typer()
    app.command("rank")(rank)
    app.command("gap")(gap)
    run = CliRunner().invoke(
        app,
        ["rank", str(volumes), "--sources", str(unet_bundle), str(densenet_bundle), "--permutations", "19", "--json"],
        catch_exceptions=False,
    )
    assert run.exit_code == 0
    found = json.loads(run.stdout)
    first, second = found["rows"]
    assert first["source"] == "ball_unet"
    assert first["fault"] is None
    assert {"LogME", "H-score", "GBC", "TransRate", "LEEP", "NCE", "CC-FV"} == set(first["scores"])
    assert second["fault"] is not None
    assert "2308.07444" in found["caveat"]
    # the bundle names its own data, which is this very set: no gap
    assert first["gap"]
    assert not any(row["differs"] for row in first["gap"])
    with pytest.raises(InputError, match="no source can be used"):
        CliRunner().invoke(app, ["rank", str(volumes), "--sources", str(densenet_bundle)], catch_exceptions=False)
    with pytest.raises(InputError, match="--sources"):
        CliRunner().invoke(app, ["rank", str(volumes)], catch_exceptions=False)


def test_gap_from_the_command_line(volumes, pictures, unet_bundle, tmp_path):
    app = typer.Typer()
    app.command("gap")(gap)
    app.command("rank")(rank)
    arguments = ["gap", str(volumes), str(volumes), "--source", str(unet_bundle), "-o", str(tmp_path / "gap.html")]
    run = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert run.exit_code == 0
    assert "features of ball_unet" in run.stdout
    assert "half against half" in run.stdout
    assert not [line for line in run.stdout.splitlines() if line.startswith("*")]
    assert (tmp_path / "gap.html").stat().st_size > 10_000
    run = CliRunner().invoke(app, ["gap", str(pictures), str(pictures), "--json"], catch_exceptions=False)
    rows = json.loads(run.stdout)["rows"]
    assert all(row["low"] <= 0 <= row["high"] for row in rows)
    assert {"prevalence of normal", "prevalence of sick"} <= {row["name"] for row in rows}


def test_ranking_is_repeatable(pictures, densenet_bundle):
    one, two = (
        rank_sources(pictures, [densenet_bundle], permutations=9, n_labelled=16, seed=3).to_dict() for _ in range(2)
    )
    assert json.dumps(one, default=str) == json.dumps(two, default=str)
    assert one["cases"] == 16
    assert not np.isnan(one["rows"][0]["probe"])


def test_of_a_gap_that_was_not_asked_for_nothing_is_said(pictures, densenet_bundle):
    found = rank_sources(pictures, [densenet_bundle], permutations=3, n_labelled=12, gap=False)
    assert found.rows[0].gap is None and "gap to its own data" not in str(found)
    found.rows[0].gap = []
    assert "gap to its own data: not measured, the source names no data" in str(found)


def test_a_target_without_enough_labels_is_refused(volumes):
    manifest = Manifest.load(volumes)
    with pytest.raises(InputError, match="at least four"):
        rank_sources(manifest, [Knows(3)], n_labelled=3)
    with pytest.raises(InputError, match="no source"):
        rank_sources(manifest, [])
