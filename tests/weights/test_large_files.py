"""large_files.yml: MONAI's own file read and written, a local file taken where it fits, and what to download said."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import download_large_files
from monai.networks.nets import UNet

from monai_transfer.errors import InputError
from monai_transfer.weights import Source, load_weights
from monai_transfer.weights.large_files import LargeFile, find_file, read_large_files, write_large_files

URL = "https://example.org/weights/v1/unet_big.pt?download=true"


def unet(seed: int) -> UNet:
    torch.manual_seed(seed)
    return UNet(2, 1, 2, (4, 8), (2,))


@pytest.fixture
def published(tmp_path) -> Path:
    """The file as its publisher calls it, in a folder of downloads."""
    path = tmp_path / "downloads" / "deep" / "unet_big.pt"
    path.parent.mkdir(parents=True)
    torch.save(unet(1).state_dict(), path)
    return path


def zoo(folder: Path, file: Path, kind: str = "md5", **more) -> Path:
    """A bundle of the model zoo that does not carry its weights."""
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps({"name": "Organ", "version": "0.1.2"}))
    value = hashlib.new(kind, file.read_bytes()).hexdigest()
    entry = {"path": "models/model.pt", "url": URL, "hash_val": value, "hash_type": kind, **more}
    (folder / "large_files.yml").write_text(yaml.safe_dump({"large_files": [entry]}))
    return folder


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha256"])
def test_a_local_file_with_the_right_checksum_is_taken(tmp_path, published, monkeypatch, kind):
    bundle = zoo(tmp_path / "organ", published, kind)
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path / "downloads"))
    network = unet(2)
    report = load_weights(network, bundle)
    assert report.coverage == 1 and report.source == "bundle Organ 0.1.2 unet_big.pt"
    assert report.source_sha256 == hashlib.sha256(published.read_bytes()).hexdigest()
    assert torch.equal(network.model[0].conv.weight, unet(1).model[0].conv.weight)
    assert not (bundle / "models").exists()  # taken where it is: nothing is copied, nothing is downloaded


def test_what_to_download_and_where_is_one_line(tmp_path, published, monkeypatch):
    bundle = zoo(tmp_path / "organ", published, "sha256")
    monkeypatch.delenv("WEIGHTS_DIR", raising=False)
    with pytest.raises(InputError) as caught:
        Source.load(bundle)
    text = str(caught.value)
    assert text.startswith(f"{bundle}/models/model.pt: is not there; download {URL} (sha256 ") and "\n" not in text
    assert "whose licence the bundle does not say" in text and text.endswith("a folder named by WEIGHTS_DIR")
    torch.save(unet(3).state_dict(), published)  # another file under the same name
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path / "downloads"))
    with pytest.raises(InputError, match="unet_big.pt has another checksum"):
        Source.load(bundle)


def test_other_weights_in_the_place_are_refused(tmp_path, published):
    bundle = zoo(tmp_path / "organ", published)
    (bundle / "models").mkdir()
    torch.save(unet(3).state_dict(), bundle / "models" / "model.pt")
    with pytest.raises(InputError, match="its md5 is not the one in the bundle's large_files"):
        load_weights(unet(2), bundle)


def test_what_is_written_is_read_by_us_and_by_monai(tmp_path, published):
    bundle = tmp_path / "organ"
    (bundle / "models").mkdir(parents=True)
    (bundle / "models" / "source.pt").write_bytes(published.read_bytes())
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    entries = [
        LargeFile("models/model.pt", URL, "sha256", digest, "CC BY-NC 4.0", "what Organ was trained from"),
        LargeFile("models/source.pt", URL, "sha256", digest, None, "carried", "ab" * 32),
        LargeFile("models/other.pt", description="nobody says where"),
    ]
    write_large_files(bundle, entries)
    assert sorted(read_large_files(bundle), key=lambda e: e.path) == sorted(entries, key=lambda e: e.path)
    content = yaml.safe_load((bundle / "large_files.yml").read_text())
    assert [e["path"] for e in content["large_files"]] == ["models/model.pt"]
    (bundle / "models" / "model.pt").write_bytes(published.read_bytes())
    download_large_files(str(bundle))  # MONAI finds the file in its place and its checksum right: no network
    assert find_file(bundle, entries[0]) == bundle / "models" / "model.pt"


def test_licence_and_origin_follow_the_file(tmp_path, published):
    """Also of a single file of the bundle; the bundle's own LICENSE speaks of the bundle."""
    bundle = tmp_path / "organ"
    (bundle / "models").mkdir(parents=True)
    (bundle / "LICENSE").write_text("Apache License, Version 2.0")
    (bundle / "models" / "model.pt").write_bytes(published.read_bytes())
    assert load_weights(unet(2), bundle).licence == "Apache-2.0"
    write_large_files(bundle, [LargeFile("models/model.pt", URL, licence="CC BY-NC 4.0", description="a challenge")])
    for path in (bundle, bundle / "models" / "model.pt"):
        report = load_weights(unet(2), path)
        assert report.licence == "CC BY-NC 4.0" and report.non_commercial and report.url == URL
        assert report.source.endswith("(a challenge)")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("large_files: [", "is no readable YAML"),
        ("large_files: 3", "is no list"),
        ("large_files: [model.pt]", "is no list of entries"),
        ("large_files: [{url: x}]", "the path 'None'"),
        ("large_files: [{path: ../../etc/passwd}]", "'../../etc/passwd'"),
        ("large_files: [{path: /etc/passwd}]", "'/etc/passwd'"),
        ("large_files: [{path: a.pt, hash_val: 1, hash_type: crc}]", "hash of type 'crc'"),
    ],
)
def test_bad_lists_are_named(tmp_path, text, fault):
    (tmp_path / "large_files.yml").write_text(text)
    with pytest.raises(InputError, match=fault) as caught:
        read_large_files(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "large_files.yml"))


def test_bundles_of_other_layouts(tmp_path, published):
    """One file under another name is the one; of several the user has to choose; TorchScript is a program."""
    bundle = tmp_path / "organ"
    (bundle / "models").mkdir(parents=True)
    (bundle / "models" / "autoencoder.pt").write_bytes(published.read_bytes())
    assert load_weights(unet(2), bundle).source == "bundle organ autoencoder.pt"
    (bundle / "models" / "diffusion.pth").write_bytes(published.read_bytes())
    with pytest.raises(InputError, match="several weights.*autoencoder.pt, diffusion.pth; name one"):
        Source.load(bundle)
    for path in (bundle / "models").iterdir():
        path.unlink()
    (bundle / "models" / "model.ts").write_bytes(b"PK")
    with pytest.raises(InputError, match="TorchScript alone"):
        Source.load(bundle)
