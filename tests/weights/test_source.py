"""Source: files and MONAI bundle folders, and what they say about their weights."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from monai.networks.nets import UNet
from safetensors.torch import save_file

from monai_transfer.errors import CoverageError, InputError
from monai_transfer.weights import Source, load_weights

NETWORK = {
    "_target_": "monai.networks.nets.UNet",
    "spatial_dims": 3,
    "in_channels": "@channels",
    "out_channels": 3,
    "channels": [8, 16, 32],
    "strides": [2, 2],
}
METADATA = {
    "name": "Spleen and liver",
    "version": "0.2.0",
    "network_data_format": {
        "inputs": {"image": {"channel_def": {"0": "CT"}}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "spleen", "2": "liver"}}},
    },
}


def unet(classes: int = 3, channels: int = 1) -> UNet:
    return UNet(3, channels, classes, (8, 16, 32), (2, 2))


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "spleen_bundle"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    torch.save(unet().state_dict(), folder / "models" / "model.pt")
    config = {
        "channels": 1,
        "device": "$torch.device('cuda:0')",
        "network_def": NETWORK,
        "network": "$@network_def.to(@device)",
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    (folder / "LICENSE").write_text("Apache License\n  Version 2.0, January 2004\n")
    return folder


def test_a_bundle_says_what_it_is(bundle):
    source = Source.load(bundle)
    assert source.classes == ["background", "spleen", "liver"] and source.channels == ["CT"]
    assert source.description == "bundle Spleen and liver 0.2.0" and source.licence == "Apache-2.0"
    assert source.sha256 == hashlib.sha256((bundle / "models" / "model.pt").read_bytes()).hexdigest()
    assert source.metadata["version"] == "0.2.0" and source.path == bundle


def test_classes_of_a_bundle_are_mapped_by_name(bundle):
    network = unet(2)
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    report = load_weights(network, bundle, target_classes=["background", "LIVER"])
    assert torch.equal(network.model[2].conv.bias, state["model.2.conv.bias"][[0, 2]])
    assert report.coverage == 1 and report.licence == "Apache-2.0" and report.source_sha256
    assert "dropped: spleen" in report.notes["model.2.conv.bias"]


def test_names_of_the_user_stand_over_those_of_a_bundle(bundle):
    assert Source.load(bundle, classes=["a", "b", "c"]).classes == ["a", "b", "c"]
    network = unet(2)
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    load_weights(network, str(bundle), source_classes=["x", "y", "z"], target_classes=["z", "x"])
    assert torch.equal(network.model[2].conv.bias, state["model.2.conv.bias"][[2, 0]])


def test_odd_channel_names_of_a_bundle_are_no_error(bundle):
    odd = json.loads(json.dumps(METADATA))
    odd["network_data_format"]["outputs"]["pred"]["channel_def"] = {"0": "a", "1": "b", "2": "c", "3": "d"}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(odd))
    assert load_weights(unet(2), bundle, target_classes=["a", "b"]).skipped
    assert load_weights(unet(2), bundle, source_classes=list("abcd"), target_classes=["a", "b"]).skipped
    odd["network_data_format"]["outputs"]["pred"]["channel_def"] = {"0": "x", "7": "x"}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(odd))
    assert Source.load(bundle).classes is None


def test_the_network_of_a_bundle(bundle):
    network = Source.load(bundle).network()
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert not network.training and next(network.parameters()).device.type == "cpu"
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    other = Source.load(bundle).network(out_channels=5, in_channels=2)
    assert other(torch.zeros(1, 2, 16, 16, 16)).shape == (1, 5, 16, 16, 16)


def test_weights_that_are_not_the_bundles(bundle):
    torch.save(UNet(3, 1, 3, (4, 8), (2,)).state_dict(), bundle / "models" / "model.pt")
    with pytest.raises(CoverageError):
        Source.load(bundle).network()


def test_broken_bundles(bundle, tmp_path):
    (bundle / "configs" / "inference.json").write_text("{")
    with pytest.raises(InputError, match="inference.json.*is not JSON"):
        Source.load(bundle).network()
    (bundle / "configs" / "inference.json").write_text(
        json.dumps({"network_def": {"_target_": "monai.networks.nets.Nothing"}})
    )
    with pytest.raises(InputError, match="needs code of its own.*Nothing"):
        Source.load(bundle).network()
    (bundle / "configs" / "inference.json").unlink()
    with pytest.raises(InputError, match="no network_def"):
        Source.load(bundle).network()
    (bundle / "models" / "model.pt").unlink()
    with pytest.raises(InputError, match="the bundle's weights models/model.pt are not there"):
        Source.load(bundle)
    (bundle / "configs" / "metadata.json").write_text("no json")
    with pytest.raises(InputError, match="metadata.json"):
        Source.load(bundle)
    with pytest.raises(InputError, match="no MONAI bundle"):
        Source.load(tmp_path)


def test_a_plain_file_has_no_network_and_bundles_may_hold_safetensors(bundle, tmp_path):
    path = bundle / "models" / "model.pt"
    with pytest.raises(InputError, match="without a network"):
        Source.load(path).network()
    save_file(torch.load(path, weights_only=True), bundle / "models" / "model.safetensors")
    path.unlink()
    assert load_weights(unet(), bundle).coverage == 1
    assert load_weights(unet(), Source(unet().state_dict())).source == "a state dict"


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("MIT License\n\nCopyright", "MIT"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International", "CC BY-NC-SA 4.0"),
        ("NVIDIA Source Code License: non-commercial use only", "a non-commercial licence"),
        ("\n  All rights reserved by X\n", "All rights reserved by X"),
    ],
)
def test_licences(bundle, text, licence):
    (bundle / "LICENSE").write_text(text)
    report = load_weights(unet(), bundle)
    assert report.licence == licence
    assert report.non_commercial == ("commercial" in text.lower())
    assert ("NON-COMMERCIAL" in str(report)) == report.non_commercial
