"""What MONAI's trainer with our handlers costs over a bare PyTorch loop: ratios measured in one run.

    python benchmarks/step_overhead.py [--quick] [--record] [--device cuda]

The same network, data and steps for a bare loop, MONAI's SupervisedTrainer alone, that with the handlers of our
bundles, and both with a training Dice: MONAI's own (postprocessing, decollation, MeanDice) and ours (TrainingMetrics).
"""

from __future__ import annotations

import tempfile
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


def network(device: str) -> UNet:
    torch.manual_seed(0)
    channels = (8, 16, 32) if device == "cpu" else (32, 64, 128)
    return UNet(3, 1, 3, channels=channels, strides=(2, 2), num_res_units=1, norm="BATCH").to(device)


def loader(steps: int, size: int) -> DataLoader:
    item = {"image": torch.rand(1, size, size, size), "label": torch.randint(0, 3, (1, size, size, size))}
    return DataLoader(Dataset([item] * (4 * steps)), batch_size=4)


def loss_of(prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(prediction, label[:, 0])


def bare(device: str, steps: int, size: int) -> float:
    net, data = network(device), loader(steps, size)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    since = _measure.now(device)
    for batch in data:
        net.train()
        optimizer.zero_grad()
        loss_of(net(batch["image"].to(device)), batch["label"].to(device)).backward()
        optimizer.step()
    return _measure.now(device) - since


def trained(device: str, steps: int, size: int, handlers: Callable[[Path], list], metric: bool = False) -> float:
    net, data = network(device), loader(steps, size)
    dice = {"dice": MeanDice(include_background=False, output_transform=from_engine(["pred", "label"]))}
    onehot = AsDiscreted(keys=["pred", "label"], argmax=(True, False), to_onehot=3)
    with tempfile.TemporaryDirectory() as folder:
        engine = SupervisedTrainer(
            device=torch.device(device), max_epochs=1, train_data_loader=data, network=net, decollate=metric,
            optimizer=torch.optim.AdamW(net.parameters(), lr=1e-3), loss_function=loss_of,
            postprocessing=onehot if metric else None, key_train_metric=dice if metric else None,
            train_handlers=handlers(Path(folder)),
        )  # fmt: skip
        since = _measure.now(device)
        engine.run()
        return _measure.now(device) - since


def ours(folder: Path) -> list:
    return [EpochSeed(0), StopOnNonFiniteLoss(), ProgressLine(), MetricsLog(folder), Checkpoint(folder)]


def with_training_dice(folder: Path) -> list:
    return [EpochSeed(0), TrainingMetrics("segmentation"), *ours(folder)[1:]]


def main() -> None:
    options = _measure.arguments(__doc__)
    steps, size, rounds = (2, 16, 1) if options.quick else (20, 40, 15) if options.device == "cpu" else (10, 96, 7)
    work = (options.device, steps, size)
    peers: dict[str, Callable[[], float]] = {
        "bare": lambda: bare(*work),
        "monai": lambda: trained(*work, lambda _: []),
        "ours": lambda: trained(*work, ours),
        "monai with a metric": lambda: trained(*work, lambda _: [], metric=True),
        "ours with a metric": lambda: trained(*work, with_training_dice),
    }
    took = _measure.paired(peers, "bare", rounds)
    rows = [
        ("MONAI trainer / bare loop", took["monai"]),
        ("MONAI trainer with our handlers / bare loop", took["ours"]),
        ("MONAI trainer with MONAI's training Dice / bare loop", took["monai with a metric"]),
        ("MONAI trainer with our handlers and training Dice / bare loop", took["ours with a metric"]),
    ]
    _measure.report(__file__, rows, options.record, options.device)


if __name__ == "__main__":
    main()
