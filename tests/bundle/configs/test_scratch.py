"""What the arm scratch trains where there is a source: the network and preprocessing planned for the data."""

from __future__ import annotations

import json

import pytest
import torch
from monai.networks.nets import UNet

from monai_transfer.bundle.command_line import best_weights
from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.errors import InputError
from monai_transfer.safe_parse import read_mapping
from monai_transfer.study.arms import DEFAULT_ARMS, PRESETS, parse_arms
from monai_transfer.study.run_arms import arms_on
from tests.bundle.test_new import SHORT, SMALL


def test_scratch_is_planned_for_the_data(tiny_set, tmp_path):
    torch.save(UNet(3, 1, 2, (4, 8), (2,)).state_dict(), tmp_path / "w.pt")
    given = {"source": tmp_path / "w.pt", "network": "UNet", "network_args": {"channels": [4, 8], "strides": [2]}}
    bundle, data = tmp_path / "b", tiny_set("segmentation", 3)
    spec = new_bundle(bundle, data, **given, **SMALL)
    alone = new_bundle(tmp_path / "alone", data, **SMALL)
    overlay, train = (read_mapping(bundle / "configs" / f"{name}.yaml") for name in ("scratch", "train"))
    own = read_mapping(tmp_path / "alone" / "configs" / "train.yaml")
    assert overlay["network_def"] == own["network_def"] != train["network_def"]
    assert spec.scratch is not None and spec.scratch.network == alone.network
    merged = {**train, **overlay}
    ends = ("pretrained", "ckpt", "workflow", "arm", "joint", "run", "run_folder", "manifest", "source_site")
    assert {key for key in own if key not in ends and merged[key] != own[key]} == set()
    run = run_workflow(bundle, "scratch", SHORT, log=False)
    record = json.loads((run / "run.json").read_text())
    assert (run.name, record["arm"], record["status"]) == ("scratch-0", "scratch", "finished")
    shapes = {k: v.shape for k, v in torch.load(run / "models" / "model.pt", weights_only=True).items()}
    assert shapes != {k: v.shape for k, v in torch.load(bundle / "models" / "model.pt", weights_only=True).items()}
    with pytest.raises(InputError, match="another network with other preprocessing"):
        best_weights(bundle, "scratch-0")
    arms = {arm.name: arm for arm in arms_on(bundle, parse_arms(DEFAULT_ARMS))}
    assert list(arms)[:3] == ["scratch", "scratch_same", "source"]
    assert arms["scratch"].workflow == "scratch" and "pretrained" not in arms["scratch"].overrides
    assert arms["scratch_same"] == PRESETS["scratch_same"] and arms["scratch_same"].overrides["pretrained"] == "none"
    assert [arm.name for arm in arms_on(tmp_path / "alone", parse_arms(DEFAULT_ARMS))] == DEFAULT_ARMS.split(",")
    with pytest.raises(InputError, match="scratch_same is of bundles made from a source"):
        arms_on(tmp_path / "alone", parse_arms("scratch_same"))
