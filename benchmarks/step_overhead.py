"""What MONAI's trainer with our handlers costs over a bare PyTorch loop: ratios measured in one run.

    python benchmarks/step_overhead.py [--quick] [--record]

The same network, data and steps for a bare loop, MONAI's SupervisedTrainer alone, that with the handlers of our
bundles, and both with a training Dice: MONAI's own (postprocessing, decollation, MeanDice) and ours (TrainingMetrics).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import _measure
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.handlers import MeanDice, from_engine
from monai.networks.nets import UNet
from monai.transforms import AsDiscreted

from monai_transfer.engine.checkpoint import Checkpoint
from monai_transfer.engine.epoch_seed import EpochSeed
from monai_transfer.engine.guard import StopOnNonFiniteLoss
from monai_transfer.engine.metrics_log import MetricsLog
from monai_transfer.engine.progress import ProgressLine
from monai_transfer.engine.training_metrics import TrainingMetrics


def network() -> UNet:
    torch.manual_seed(0)
    return UNet(3, 1, 3, channels=(8, 16, 32), strides=(2, 2), num_res_units=1, norm="BATCH")


def loader(steps: int, size: int) -> DataLoader:
    item = {"image": torch.rand(1, size, size, size), "label": torch.randint(0, 3, (1, size, size, size))}
    return DataLoader(Dataset([item] * (4 * steps)), batch_size=4)


def loss_of(prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(prediction, label[:, 0])


def bare(steps: int, size: int) -> float:
    net, data = network(), loader(steps, size)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    since = time.process_time()
    for batch in data:
        net.train()
        optimizer.zero_grad()
        loss_of(net(batch["image"]), batch["label"]).backward()
        optimizer.step()
    return time.process_time() - since


def trained(steps: int, size: int, handlers: Callable[[Path], list], metric: bool = False) -> float:
    net, data = network(), loader(steps, size)
    dice = {"dice": MeanDice(include_background=False, output_transform=from_engine(["pred", "label"]))}
    onehot = AsDiscreted(keys=["pred", "label"], argmax=(True, False), to_onehot=3)
    with tempfile.TemporaryDirectory() as folder:
        engine = SupervisedTrainer(
            device="cpu", max_epochs=1, train_data_loader=data, network=net, decollate=metric,
            optimizer=torch.optim.AdamW(net.parameters(), lr=1e-3), loss_function=loss_of,
            postprocessing=onehot if metric else None, key_train_metric=dice if metric else None,
            train_handlers=handlers(Path(folder)),
        )  # fmt: skip
        since = time.process_time()
        engine.run()
        return time.process_time() - since


def ours(folder: Path) -> list:
    return [EpochSeed(0), StopOnNonFiniteLoss(), ProgressLine(), MetricsLog(folder), Checkpoint(folder)]


def with_training_dice(folder: Path) -> list:
    return [EpochSeed(0), TrainingMetrics("segmentation"), *ours(folder)[1:]]


def main() -> None:
    options = _measure.arguments(__doc__)
    steps, size, rounds = (2, 16, 1) if options.quick else (40, 40, 5)
    peers: dict[str, Callable[[], float]] = {
        "bare": lambda: bare(steps, size),
        "monai": lambda: trained(steps, size, lambda _: []),
        "ours": lambda: trained(steps, size, ours),
        "monai with a metric": lambda: trained(steps, size, lambda _: [], metric=True),
        "ours with a metric": lambda: trained(steps, size, with_training_dice),
    }
    took = _measure.medians(peers, rounds)
    rows = [
        ("MONAI trainer / bare loop", took["monai"] / took["bare"]),
        ("MONAI trainer with our handlers / bare loop", took["ours"] / took["bare"]),
        ("MONAI trainer with MONAI's training Dice / bare loop", took["monai with a metric"] / took["bare"]),
        ("MONAI trainer with our handlers and training Dice / bare loop", took["ours with a metric"] / took["bare"]),
    ]
    _measure.report(__file__, rows, options.record)


if __name__ == "__main__":
    main()
