"""What the digits are read from, and that both sides of the comparison see the same."""

from __future__ import annotations

import gzip
import runpy
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))  # as Python does for a script
    return runpy.run_path(str(FOLDER / "mnist_usps.py"))


def test_digits_are_read_as_they_come(script, tmp_path):
    images = np.arange(3 * 28 * 28, dtype=np.uint64).reshape(3, 28, 28).astype(np.uint8)
    header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in images.shape)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + images.tobytes())
    labels = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 0, 9]))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(labels)
    usps = {"train_data": np.zeros((5, 256)), "test_data": np.ones((4, 256)), "train_target": np.zeros(5)}
    np.savez(tmp_path / "usps.npz", test_target=np.arange(4), **usps)
    source, of_source, target, test, of_test = script["digits"](tmp_path, tmp_path / "usps.npz")
    np.testing.assert_allclose(source[:, 0].numpy(), images / 127.5 - 1, atol=1e-6)
    assert of_source.tolist() == [7, 0, 9] and of_test.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(target, -torch.ones(5, 1, 28, 28))
    torch.testing.assert_close(test, torch.ones(4, 1, 28, 28))


def test_a_seed_gives_the_same_batches_and_views(script):
    images = torch.rand(130, 1, 28, 28) * 2 - 1

    def first(seed, strong=True, count=3):
        return list(islice(script["Target"](seed, images, strong), count))

    for one, again, plain in zip(first(0), first(0), first(0, strong=False), strict=True):
        assert torch.equal(one["image"], again["image"]) and torch.equal(one["strong"], again["strong"])
        assert torch.equal(one["image"], plain["image"]) and not torch.equal(one["image"], one["strong"])
    assert not torch.equal(first(0)[0]["image"], first(1)[0]["image"])
    seen = torch.cat([batch["image"] for batch in first(0, count=2)])
    assert len(torch.unique(seen.flatten(1), dim=0)) == 128  # a pass shows no image twice


def test_a_run_that_is_recorded_is_not_made_again(script, tmp_path, capsys):
    made = []

    def make():
        made.append(1)
        return 90.0, 0.5

    for _ in range(2):
        records = script["Records"](tmp_path / "runs.jsonl")
        assert records.run({"method": "mcc", "side": "ours", "seed": 0}, make) == 90.0
    records.run({"method": "mcc", "side": "peer", "seed": 0}, lambda: (91.5, float("nan")))
    assert len(made) == 1
    assert "| mcc | 90.0 (90.0) | 91.5 (91.5) | -1.5 | 0.5 |" in script["table"](records)
