"""Checkpoints: bitwise resume through the handlers, kill safety, damage, the best epoch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from ignite.metrics import Metric
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler
from monai.transforms import Compose, RandFlipd, RandGaussianNoised

from monai_transfer.engine.adapt import Adapt
from monai_transfer.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from monai_transfer.engine.epoch_seed import EpochSeed
from monai_transfer.errors import InputError
from monai_transfer.methods.dann import Dann


def data(shift: float, workers: int) -> DataLoader:
    generator = torch.Generator().manual_seed(3)
    items = [{"image": torch.randn(1, 8, 8, generator=generator) + shift, "label": i % 2} for i in range(8)]
    transform = Compose([RandFlipd("image", prob=0.5, spatial_axis=0), RandGaussianNoised("image", prob=0.7)])
    return DataLoader(CacheDataset(items, transform, progress=False), batch_size=4, shuffle=True, num_workers=workers)


def build(folder: Path, epochs: int, workers: int = 0, stop_after: int | None = None) -> SupervisedTrainer:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(144, 2),
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    target = data(1.0, workers)
    engine = SupervisedTrainer(
        device="cpu", max_epochs=epochs, train_data_loader=data(0.0, workers), network=network, optimizer=optimizer,
        loss_function=torch.nn.CrossEntropyLoss(), decollate=False,
        train_handlers=[
            EpochSeed(7, loaders=[target]),
            LrScheduleHandler(schedule, print_lr=False),
            Adapt(Dann(hidden=4), target),
            Checkpoint(folder, save={"schedule": schedule}),
        ],
    )  # fmt: skip
    if stop_after is not None:
        # the process dies in the middle of the following epoch: whatever it did then is lost
        def die(e):
            if e.state.epoch == stop_after + 1 and e.state.iteration % 2 == 1:
                raise KeyboardInterrupt

        engine.add_event_handler(Events.ITERATION_COMPLETED, die)
    return engine


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_is_bitwise(tmp_path, workers):
    whole = build(tmp_path / "whole", 5, workers)
    whole.run()
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "cut", 5, workers, stop_after=2).run()
    torch.manual_seed(99)  # what the new process's generators hold must not matter
    resumed = build(tmp_path / "cut", 5, workers)
    resumed.run()
    assert resumed.state.epoch == 5
    for name in ("model.pt", "last.pt"):
        a, b = (load_checkpoint(tmp_path / run / "models" / name) for run in ("whole", "cut"))
        _same(a, b, name)


def _same(a, b, where):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            _same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            _same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


class Scripted(Metric):
    """A validation metric that follows a script, to test the choice of the best epoch."""

    def __init__(self, values):
        self.values = iter(values)
        super().__init__()

    def reset(self):
        pass

    def update(self, output):
        pass

    def compute(self):
        return next(self.values)


def _best(tmp_path, values, mode="max"):
    network = torch.nn.Linear(2, 2)
    loader = DataLoader([{"image": torch.ones(2), "label": 0}], batch_size=1)
    evaluator = SupervisedEvaluator(
        device="cpu", val_data_loader=loader, network=network, key_val_metric={"score": Scripted(values)}
    )
    checkpoint = Checkpoint(tmp_path, validator=evaluator, mode=mode)
    weights = {}
    engine = SupervisedTrainer(
        device="cpu", max_epochs=len(values), train_data_loader=loader, network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1), loss_function=torch.nn.CrossEntropyLoss(),
        train_handlers=[ValidationHandler(1, evaluator), checkpoint], decollate=False,
    )  # fmt: skip
    engine.add_event_handler(
        Events.EPOCH_COMPLETED, lambda e: weights.update({e.state.epoch: network.weight.detach().clone()})
    )
    engine.run()
    kept = load_checkpoint(tmp_path / "models" / "model.pt")["weight"]
    assert torch.equal(network.weight, kept)  # the test that follows sees the best weights
    return next(epoch for epoch, value in weights.items() if torch.equal(value, kept))


@pytest.mark.parametrize(
    ("values", "mode", "epoch"),
    [
        ([0.1, 0.9, 0.5], "max", 2),
        ([0.9, 0.1, 0.5], "min", 2),
        ([float("nan"), 0.4, 0.3], "max", 2),  # MONAI's own comparison freezes at a first NaN
        ([0.4, float("nan"), 0.3], "max", 1),
        ([float("nan")] * 3, "max", 3),
    ],
)
def test_best_epoch(tmp_path, values, mode, epoch):
    assert _best(tmp_path, values, mode) == epoch


def test_best_score_survives_a_restart(tmp_path):
    assert _best(tmp_path, [0.2, 0.9, 0.1]) == 2
    state = load_checkpoint(tmp_path / "models" / "last.pt")
    assert state["best"] == {"score": 0.9, "epoch": 2}


def test_damage_is_found(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint({"a": torch.ones(1000)}, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(path)


def test_other_network_is_refused(tmp_path):
    build(tmp_path, 1).run()
    state = load_checkpoint(tmp_path / "models" / "last.pt")
    state["network"]["0.weight"] = torch.zeros(1)
    save_checkpoint(state, tmp_path / "models" / "last.pt")
    with pytest.raises(InputError, match="another network"):
        build(tmp_path, 2).run()


_WRITER = """
import sys, torch
from monai_transfer.engine.checkpoint import save_checkpoint
i = 0
print("go", flush=True)
while True:
    i += 1
    save_checkpoint({"i": i, "w": torch.full((200_000,), float(i))}, sys.argv[1])
"""


def test_kill_never_loses_the_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    for attempt in range(4):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        while not path.is_file():
            time.sleep(0.005)
        time.sleep(0.05 + 0.021 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        content = load_checkpoint(path)  # verifies the hash
        assert torch.equal(content["w"], torch.full((200_000,), float(content["i"])))
