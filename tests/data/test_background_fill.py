"""A large cache does not keep a training waiting, a small one is there at once, and memory is not overdrawn."""

from __future__ import annotations

import logging
import os
import time

import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, Lambda, RandLambda

from monai_transfer.data.background_fill import BackgroundFill, byte_size
from monai_transfer.data.content_cache import ContentCacheDataset


def slow(seconds):
    def load(number):
        time.sleep(seconds)
        return {"image": torch.full((1, 10, 10), float(number))}

    return load


def settle(fill):
    for thread in fill._threads:
        thread.join(20)


def test_a_small_set_is_there_at_once():
    slots = [None] * 5
    BackgroundFill(slow(0.0), slots).start()
    assert [float(case["image"].max()) for case in slots] == [0, 1, 2, 3, 4]


def test_a_large_set_goes_on_behind_and_all_of_it_comes(caplog):
    caplog.set_level(logging.INFO, "monai_transfer")
    slots = [None] * 30
    fill = BackgroundFill(slow(0.05), slots, patience=0.2, workers=2)
    fill.start()
    assert 0 < fill.kept < 30
    assert "goes on behind the training" in caplog.text and "of 30 cases" in caplog.text
    settle(fill)
    assert all(case is not None for case in slots) and "all 30 cases are ready" in caplog.text


def test_memory_is_kept_to_and_the_rest_is_said(caplog):
    slots = [None] * 10
    fill = BackgroundFill(slow(0.0), slots, workers=1, limit=1000)
    fill.start()
    assert fill.full and fill.held <= 1000 and sum(case is not None for case in slots) == 2
    assert "memory holds 2 of 10 cases" in caplog.text and "--cache_dir" in caplog.text


def test_a_fault_is_told_before_the_training_or_at_the_next_case():
    def load(number):
        if number == 3:
            raise ValueError("case 3")
        return slow(0.05)(number)

    with pytest.raises(ValueError, match="case 3"):
        BackgroundFill(load, [None] * 6, workers=2).start()
    fill = BackgroundFill(load, [None] * 6, workers=1, patience=0.01)
    fill.start()
    settle(fill)
    with pytest.raises(ValueError, match="case 3"):
        fill.check()


def dataset(**options):
    transform = Compose([Lambda(lambda n: slow(0.02)(n)["image"]), RandLambda(lambda x: x + 0.5, prob=1.0)])
    return ContentCacheDataset(list(range(20)), transform, **options)


def test_what_is_drawn_before_it_is_ready_is_the_same():
    waited, behind = dataset(), dataset(patience=0.0, num_workers=1)
    assert behind._fill.kept < 20
    order, due = [19, 3, 19, 0, 11], [19.5, 3.5, 19.5, 0.5, 11.5]
    tight = dataset(max_bytes=900)
    assert tight._fill.full
    assert [float(case.max()) for case in waited] == [n + 0.5 for n in range(20)]
    for one in (waited, behind, tight):
        assert [float(one[n].max()) for n in order] == due
    behind._fill.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_forked_workers_of_a_loader_and_a_copy_in_another_process():
    behind = dataset(patience=0.0, num_workers=1)
    values = sorted(float(batch.max()) for batch in DataLoader(behind, batch_size=1, num_workers=2))
    assert values == [n + 0.5 for n in range(20)]
    assert "_fill" in behind.__getstate__() and behind.__getstate__()["_fill"] is None
    behind._fill.stop()
    assert not any(thread.is_alive() for thread in behind._fill._threads)


def test_bytes_of_a_case():
    assert byte_size({"a": torch.zeros(2, 3), "b": [torch.zeros(1, dtype=torch.int8)], "c": "text"}) == 25
