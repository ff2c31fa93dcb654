"""Checkpoint files: what is read, and how each kind of wrong file is named."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import time
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.weights.reading import read_checkpoint

WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3)}


class Trap:
    """A pickle that would leave a file behind if it were run."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def saved(folder, content, **more) -> pathlib.Path:
    torch.save(content, folder / "w.pt", **more)
    return folder / "w.pt"


@pytest.mark.parametrize("new_format", [True, False])
def test_state_dicts_with_numbers_of_numpy(tmp_path, new_format):
    numbers = {"a": np.float64(0.5), "b": np.float32(1), "c": np.int64(3), "d": np.bool_(True), "e": [np.uint8(1)]}
    path = saved(tmp_path, {"state_dict": WEIGHTS, **numbers}, _use_new_zipfile_serialization=new_format)
    with pytest.raises(Exception, match="weights_only"):  # what MONAI's CheckpointLoader meets
        torch.load(path, weights_only=True)
    content, _ = read_checkpoint(path)
    assert torch.equal(content["state_dict"]["w"], WEIGHTS["w"])
    assert {key: content[key] for key in numbers} == numbers


def test_the_list_of_allowed_types_does_not_leak(tmp_path):
    before = torch.serialization.get_safe_globals()
    read_checkpoint(saved(tmp_path, {"x": np.float64(1)}))
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_safetensors_and_their_metadata(tmp_path):
    save_file(WEIGHTS, tmp_path / "a.safetensors", metadata={"licence": "MIT"})
    content, metadata = read_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(content["w"], WEIGHTS["w"]) and metadata == {"licence": "MIT"}
    (tmp_path / "a.safetensors").rename(tmp_path / "renamed.pt")
    assert torch.equal(read_checkpoint(tmp_path / "renamed.pt")[0]["w"], WEIGHTS["w"])


@pytest.mark.parametrize("new_format", [True, False])
def test_what_training_scripts_leave_beside_the_weights(tmp_path, new_format):
    """As timm and MAE do their arguments, and others a score per class."""
    args = argparse.Namespace(lr=0.1, out=pathlib.Path("runs"), inner=argparse.Namespace(k=[1]))
    content = {"model": WEIGHTS, "args": args, "dice": np.array([[0.5, 1.0]]), "count": np.arange(3)}
    found, _ = read_checkpoint(saved(tmp_path, content, _use_new_zipfile_serialization=new_format))
    assert found["args"] == args and torch.equal(found["model"]["w"], WEIGHTS["w"])
    assert np.array_equal(found["dice"], content["dice"]) and np.array_equal(found["count"], content["count"])


THINGS = [
    nn.Linear(1, 1),
    collections.defaultdict(list),
    datetime.date(2020, 1, 1),
    np.array(["name"]),
    np.array([None]),
    argparse.Namespace(a=nn.Linear(1, 1)),
    np.array([nn.Linear(1, 1)]),
]


@pytest.mark.parametrize("thing", THINGS)
def test_objects_are_named_and_refused(tmp_path, thing):
    with pytest.raises(
        InputError, match=r"w\.pt: holds more than tensors and numbers: a '[\w.]+' object; .*state_dict"
    ):
        read_checkpoint(saved(tmp_path, {"state_dict": WEIGHTS, "thing": thing}))


@pytest.mark.parametrize("new_format", [True, False])
def test_nothing_in_a_file_is_run(tmp_path, new_format):
    mark = tmp_path / "was-run"
    path = saved(tmp_path, {"w": WEIGHTS, "t": Trap(mark)}, _use_new_zipfile_serialization=new_format)
    with pytest.raises(InputError, match=r"holds more than tensors and numbers: a '[\w.]+' object") as error:
        read_checkpoint(path)
    assert not mark.exists() and "weights_only" not in str(error.value), "no advice to run it after all"
    for where in (argparse.Namespace(x=Trap(mark)), np.array([Trap(mark)])):
        with pytest.raises(InputError):
            read_checkpoint(saved(tmp_path, {"w": WEIGHTS, "t": where}, _use_new_zipfile_serialization=new_format))
        assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "Git LFS pointer.*git lfs pull"),
        (b"\n <!DOCTYPE html><html>sign in</html>", "web page"),
        (b"\x1f\x8b\x08\x00rest", "gzip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"hello world\n" * 20, "damaged"),
        (np.random.default_rng(0).bytes(2000), "damaged"),
        (b"PK\x03\x04 and no more", "damaged"),
    ],
)
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_other_files_are_named_for_what_they_are(tmp_path, content, message, name):
    (tmp_path / name).write_bytes(content)
    if name.endswith("safetensors") and message == "damaged":
        message = "no readable safetensors"
    with pytest.raises(InputError, match=f"{name}: .*{message}") as caught:
        read_checkpoint(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_cut_off_anywhere_is_one_error(tmp_path, kind):
    path = tmp_path / f"w.{'safetensors' if kind == 'safetensors' else 'pt'}"
    if kind == "safetensors":
        save_file(WEIGHTS, path)
    else:
        torch.save({"state_dict": WEIGHTS}, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for length in {*range(1, len(whole) - 1, max(1, len(whole) // 40)), len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_checkpoint(path)


def test_a_flipped_bit_in_the_weights_is_found(tmp_path):
    weights = torch.randn(400)
    path = saved(tmp_path, {"w": weights})
    flipped = bytearray(path.read_bytes())
    at = flipped.index(weights.numpy().tobytes()) + 800
    flipped[at] ^= 1
    path.write_bytes(flipped)
    assert not torch.equal(torch.load(path, weights_only=True)["w"], weights)  # silently wrong elsewhere
    with pytest.raises(InputError, match="checksum"):
        read_checkpoint(path)


def test_other_archives(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "model.ts"))
    with pytest.raises(InputError, match="TorchScript archive.*torch.jit.load"):
        read_checkpoint(tmp_path / "model.ts")
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        archive.writestr("spleen/configs/metadata.json", "{}")
    with pytest.raises(InputError, match="zipped MONAI bundle.*unpack"):
        read_checkpoint(tmp_path / "bundle.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match="no PyTorch checkpoint"):
        read_checkpoint(tmp_path / "other.zip")
    with pytest.raises(InputError, match="no such file"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(InputError, match="is a folder"):
        read_checkpoint(tmp_path)


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, size in members:
            with archive.open(name, "w") as stream:
                for _ in range(size >> 20):
                    stream.write(bytes(1 << 20))
    return path


def test_archives_that_unpack_to_far_more_are_refused_at_once(tmp_path):
    bomb = zipped(tmp_path / "model.pt", [("archive/data.pkl", 1 << 20), ("archive/data/0", 1 << 30)])
    assert bomb.stat().st_size < 4 << 20
    start = time.monotonic()
    with pytest.raises(InputError, match="unpack to"):
        read_checkpoint(bomb)
    assert time.monotonic() - start < 1


def test_tensors_that_claim_more_than_the_file_holds(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(1).expand(1 << 40)}, path)
    with pytest.raises(InputError, match="larger than its data"):
        read_checkpoint(path)


def test_containers_that_hold_themselves_many_times(tmp_path):
    path, content = tmp_path / "model.pt", [1]
    for _ in range(30):
        content = [content] * 10
    torch.save(content, path)
    with pytest.raises(InputError, match="objects"):
        read_checkpoint(path)
    content = [1]
    for _ in range(150):
        content = [content]
    torch.save(content, path)
    with pytest.raises(InputError, match="levels deep"):
        read_checkpoint(path)
