"""What a training step costs beside its own forward and backward passes: ratios measured in one run.

    python benchmarks/step_overhead.py [--quick] [--record]

Peers, on the same network, data and steps: a bare PyTorch loop; MONAI's SupervisedTrainer without handlers; that with
the handlers of our bundles. For adaptation: a bare loop with a source and a target pass and the CORAL term, against
Adapt(Coral()) in the trainer. Rounds alternate between the peers; the median of each is compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet

from monai_transfer.engine.adapt import Adapt
from monai_transfer.engine.checkpoint import Checkpoint
from monai_transfer.engine.epoch_seed import EpochSeed
from monai_transfer.engine.guard import StopOnNonFiniteLoss
from monai_transfer.engine.metrics_log import MetricsLog
from monai_transfer.engine.progress import ProgressLine
from monai_transfer.methods.coral import Coral, coral_loss
from monai_transfer.networks.tap import Tap

RESULTS = Path(__file__).with_name("RESULTS.md")


def network() -> UNet:
    torch.manual_seed(0)
    return UNet(3, 1, 3, channels=(8, 16, 32), strides=(2, 2), num_res_units=1, norm="BATCH")


def loader(steps: int, size: int) -> DataLoader:
    item = {"image": torch.rand(1, size, size, size), "label": torch.randint(0, 3, (size, size, size))}
    return DataLoader(Dataset([item] * (4 * steps)), batch_size=4)


def bare(steps: int, size: int, adapt: bool) -> float:
    net, data = network(), loader(steps, size)
    target = iter(loader(steps, size)) if adapt else None
    tap = Tap(net) if adapt else None
    optimizer, loss_of = torch.optim.AdamW(net.parameters(), lr=1e-3), torch.nn.CrossEntropyLoss()
    since = time.perf_counter()
    for batch in data:
        net.train()
        optimizer.zero_grad()
        loss = loss_of(net(batch["image"]), batch["label"])
        if tap is not None and target is not None:
            source = tap.take().flatten(2).mean(-1)
            net(next(target)["image"])
            loss = loss + coral_loss(source, tap.take().flatten(2).mean(-1))
        loss.backward()
        optimizer.step()
    return time.perf_counter() - since


def trained(steps: int, size: int, handlers: Callable[[Path], list]) -> float:
    net, data = network(), loader(steps, size)
    with tempfile.TemporaryDirectory() as folder:
        engine = SupervisedTrainer(
            device="cpu", max_epochs=1, train_data_loader=data, network=net, decollate=False,
            optimizer=torch.optim.AdamW(net.parameters(), lr=1e-3), loss_function=torch.nn.CrossEntropyLoss(),
            train_handlers=handlers(Path(folder)),
        )  # fmt: skip
        since = time.perf_counter()
        engine.run()
        return time.perf_counter() - since


def ours(folder: Path) -> list:
    return [EpochSeed(0), StopOnNonFiniteLoss(), ProgressLine(), MetricsLog(folder), Checkpoint(folder)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test: too short to mean anything")
    parser.add_argument("--record", action="store_true", help="append the ratios to RESULTS.md")
    arguments = parser.parse_args()
    steps, size, rounds = (2, 16, 1) if arguments.quick else (20, 40, 5)
    torch.set_num_threads(1)
    peers: dict[str, Callable[[], float]] = {
        "bare loop": lambda: bare(steps, size, False),
        "MONAI trainer": lambda: trained(steps, size, lambda _: []),
        "MONAI trainer with our handlers": lambda: trained(steps, size, ours),
        "bare loop with CORAL": lambda: bare(steps, size, True),
        "Adapt(Coral)": lambda: trained(steps, size, lambda _: [Adapt(Coral(), loader(steps, size))]),
    }
    times: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, run in peers.items():
            times[name].append(run())
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = [
        ("MONAI trainer / bare loop", medians["MONAI trainer"] / medians["bare loop"]),
        ("our handlers / bare loop", medians["MONAI trainer with our handlers"] / medians["bare loop"]),
        ("our handlers / MONAI trainer", medians["MONAI trainer with our handlers"] / medians["MONAI trainer"]),
        ("Adapt(Coral) / bare loop with CORAL", medians["Adapt(Coral)"] / medians["bare loop with CORAL"]),
    ]
    for name, ratio in rows:
        print(f"{name}: {ratio:.3f}")
    if arguments.record:
        head = f"torch {version('torch').split('+')[0]}, MONAI {version('monai')}, 1 thread, shared CPU"
        with RESULTS.open("a", encoding="utf-8") as stream:
            for name, ratio in rows:
                stream.write(f"| {date.today()} | step_overhead | {name} | {ratio:.3f} | {head} |\n")


if __name__ == "__main__":
    main()
