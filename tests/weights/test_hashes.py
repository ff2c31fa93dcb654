"""Hashes beside files are verified before the files are used, in every form that a hash has."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import UNet

from monai_transfer.errors import InputError
from monai_transfer.files import sha256_file
from monai_transfer.weights import Source, load_weights
from monai_transfer.weights.hashes import changed_files, verify_file, write_hashes
from monai_transfer.weights.large_files import LargeFile, write_large_files


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "bundle" / "models" / "model.pt"
    path.parent.mkdir(parents=True)
    torch.save(UNet(2, 1, 2, (4, 8), (2,)).state_dict(), path)
    return path


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def beside(weights):
    weights.with_name("model.pt.sha256").write_text(f"{sha256_file(weights)}  model.pt\n")


def listed(weights):
    write_large_files(weights.parents[1], [LargeFile("models/model.pt", hash_val=sha256_file(weights))])


def released(weights):
    write_hashes(weights.parents[1])


@pytest.mark.parametrize("record", [beside, listed, released])
def test_a_flipped_bit_is_refused_by_every_door(weights, record):
    record(weights)
    verify_file(weights)
    assert load_weights(UNet(2, 1, 2, (4, 8), (2,)), weights).coverage == 1
    flip(weights)
    for use in (verify_file, Source.load, lambda p: load_weights(UNet(2, 1, 2, (4, 8), (2,)), p)):
        with pytest.raises(InputError, match="model.pt: is damaged or another file") as error:
            use(weights)
        assert error.value.hint and "\n" not in str(error.value)


def test_without_a_hash_a_file_passes(weights):
    verify_file(weights)


def test_what_changed_in_a_released_bundle(weights):
    bundle = weights.parents[1]
    (bundle / "configs").mkdir()
    (bundle / "configs" / "train.yaml").write_text("lr: 1")
    assert changed_files(bundle) == []
    write_hashes(bundle)
    assert changed_files(bundle) == []
    (bundle / "configs" / "train.yaml").write_text("lr: 2")
    (bundle / "configs" / "new.yaml").write_text("")
    (bundle / "runs").mkdir()
    (bundle / "runs" / "x").touch()
    weights.unlink()
    assert changed_files(bundle) == [
        "configs/train.yaml has changed",
        "models/model.pt is gone",
        "configs/new.yaml is new",
    ]
