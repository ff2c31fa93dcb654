"""A source bundle's weights in the new bundle: channels and heads find their places by name, in training too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.networks.nets import UNet

from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import open_workflow
from monai_transfer.bundle.source_head import head_facts
from monai_transfer.errors import InputError
from monai_transfer.tasks import get_task
from monai_transfer.weights.channels import adapt_channels
from tests.bundle.test_new import SMALL


def bundle_of(folder: Path, channels: list[str], labels: list[str], **config) -> tuple[Path, UNet]:
    """A bundle in the manner of the model zoo, with random weights."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    network = {"_target_": "UNet", "spatial_dims": 3, "in_channels": len(channels), "out_channels": len(labels),
               "channels": [4, 8], "strides": [2]}  # fmt: skip
    made = UNet(3, len(channels), len(labels), [4, 8], [2])
    torch.save(made.state_dict(), folder / "models" / "model.pt")
    image = {"type": "image", "modality": "MR", "num_channels": len(channels), "channel_def": dict(enumerate(channels))}
    pred = {"type": "image", "num_channels": len(labels), "channel_def": dict(enumerate(labels))}
    formats = {"inputs": {"image": image}, "outputs": {"pred": pred}}
    (folder / "configs" / "metadata.json").write_text(json.dumps({"name": "b", "network_data_format": formats}))
    (folder / "configs" / "inference.json").write_text(json.dumps({"network_def": network, **config}))
    return folder, made


def test_channels_find_their_places_by_name(tiny_set, tmp_path):
    source, made = bundle_of(tmp_path / "mri", ["c3", "C-0", "c2", "c1"], ["background", "lesion"])
    data = tiny_set("segmentation", 3, 4)
    spec = new_bundle(tmp_path / "b", data, source=source, preprocessing="data", **SMALL)
    assert spec.channel_names == ["c0", "c1", "c2", "c3"]
    stem = "model.0.conv.weight"
    expected = made.state_dict()[stem][:, [1, 3, 2, 0]]
    assert torch.equal(torch.load(tmp_path / "b" / "models" / "model.pt", weights_only=True)[stem], expected)
    trained = open_workflow(tmp_path / "b", "train", {}, log=False).parser.get_parsed_content("network")
    assert torch.equal(trained.state_dict()[stem], expected), "training adapts the source as it came once more"
    again = {"prepared::pretrained": str(tmp_path / "b" / "models" / "model.pt")}
    fitted = open_workflow(tmp_path / "b", "train", again, log=False).parser.get_parsed_content("network")
    assert torch.equal(fitted.state_dict()[stem], expected), "weights that were fitted before are not turned again"
    note = json.loads((tmp_path / "b" / "models" / "source.json").read_text())
    assert note["channels"] == ["c3", "C-0", "c2", "c1"]
    assert note["weights"]["notes"][stem] == "input channels by name: c0, c1, c2, c3"


def test_mr_sequences_by_their_usual_names():
    theirs, ours = ["T1c", "T1", "T2", "FLAIR"], ["FLAIR", "T1w", "T1gd", "T2w"]
    weight = torch.arange(4.0).reshape(1, 4, 1, 1)
    adapted, how = adapt_channels(weight, torch.zeros(1, 4, 1, 1), "auto", theirs, ours)
    assert adapted.flatten().tolist() == [3, 1, 0, 2] and how == "input channels by name: FLAIR, T1w, T1gd, T2w"


def test_what_the_source_gives_is_said(tiny_set, tmp_path, caplog):
    """From its activation or loss; where neither says it, the user is asked, and may say it."""
    sigmoid = {"postprocessing": [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}]}
    source, _ = bundle_of(tmp_path / "one", ["c0"], ["core", "whole"], **sigmoid)
    data, plain = tiny_set("segmentation", 3), {"preprocessing": "data", **SMALL}
    new_bundle(tmp_path / "b", data, source=source, **plain)
    note = json.loads((tmp_path / "b" / "models" / "source.json").read_text())
    assert note["head"] == {"source": "sigmoid", "by": "its activation or loss", "here": "softmax"}
    assert "labels that do not exclude each other (sigmoid)" in caplog.text
    caplog.clear()
    assert head_facts(None, "", None, get_task("segmentation")) == {"head": {"source": None, "here": "softmax"}}
    assert "--source-head says it otherwise" in caplog.text
    told = head_facts(None, "", "sigmoid", get_task("regions"))
    assert told == {"head": {"source": "sigmoid", "by": "as asked", "here": "sigmoid"}}
    with pytest.raises(InputError, match="no head is called 'tanh'; one of softmax, sigmoid, regression"):
        head_facts(None, "", "tanh", get_task("regions"))
