"""Ten minutes on a GPU: our trainer's throughput, beside nnU-Net's loop at an equal network; how much of it is loading.

    python benchmarks/gpu_throughput.py --device cuda [--workers 8] [--seconds 60] [--write FILE]

One network (`DynUNet`, six levels, 32 to 320 channels, deep supervision, as nnU-Net plans it for an isotropic patch of
128 x 128 x 128), one batch size (2), made-up volumes. Measured by the clock, each for ``--seconds``:

- ``network alone``: nnU-Net's loop (mixed precision, Dice and cross entropy at all heads, gradients clipped at 12, SGD
  with Nesterov momentum) on a batch that lies on the device already: what the device can do at best;
- ``ours``: MONAI's `SupervisedTrainer` with the preset `standard` in the loader, and with its intensity part on the
  device (`engine.batch_augmentation`).

nnU-Net's own loader (batchgeneratorsv2) is not run, so its loop with loading is at most as fast as ``network alone``.
The share of loading is what ``ours`` lacks to it. Quality is not measured here: the labels are noise. ``--quick`` is a
smoke test on any device: a tiny network, three steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.engines import SupervisedTrainer
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet

from monai_transfer.data.augmentation import as_transforms, preset
from monai_transfer.engine.batch_augmentation import AugmentBatch
from monai_transfer.engine.epoch_seed import EpochSeed
from monai_transfer.files import write_text
from monai_transfer.networks.deep_supervision import HeadsLoss

BUDGETS = {"quick (200 steps)": 200, "standard (1000)": 1000, "full (5000)": 5000, "nnU-Net's (250000)": 250_000}
CLASSES, BATCH = 3, 2


class Bench:
    """The network, the data and the loops."""

    def __init__(self, words: argparse.Namespace) -> None:
        self.words, self.device = words, torch.device(words.device)
        edge, levels = (16, 3) if words.quick else (128, 6)
        self.patch, self.size = [edge] * 3, [edge + edge // 4] * 3
        self.filters = [4, 8, 16] if words.quick else [32, 64, 128, 256, 320, 320]
        self.strides = [[1] * 3] + [[2] * 3] * (levels - 1)
        self.loss = HeadsLoss(DiceCELoss(to_onehot_y=True, softmax=True, batch=True))
        torch.manual_seed(0)
        self.cases = [
            {"image": MetaTensor(torch.randn(1, *self.size)), "label": MetaTensor(self._label())} for _ in range(4)
        ]

    def _label(self) -> torch.Tensor:
        return torch.randint(0, CLASSES, (1, *self.size), dtype=torch.uint8)

    def network(self) -> DynUNet:
        torch.manual_seed(0)
        return DynUNet(
            3, 1, CLASSES, [[3] * 3] * len(self.strides), self.strides, self.strides[1:], filters=self.filters,
            norm_name="instance", deep_supervision=True, deep_supr_num=len(self.strides) - 2,
        ).to(self.device)  # fmt: skip

    def optimizer(self, network: DynUNet) -> torch.optim.Optimizer:
        return torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, weight_decay=3e-5, nesterov=True)

    def alone(self) -> float:
        """Steps per second of nnU-Net's loop on a batch that is there."""
        network = self.network()
        optimizer, scaler = self.optimizer(network), torch.GradScaler(self.device.type, enabled=self._amp)
        image = torch.randn(BATCH, 1, *self.patch, device=self.device)
        label = torch.randint(0, CLASSES, (BATCH, 1, *self.patch), device=self.device)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.device.type, enabled=self._amp):
                loss = self.loss(network(image), label)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
            scaler.step(optimizer)
            scaler.update()

        return self._rate(step)

    def ours(self, on_device: bool) -> float:
        """Steps per second of a stock trainer, loading and augmentation included."""
        network = self.network()
        parts = {"parts": "geometry"} if on_device else {}
        whole = preset("standard", 3, [1.0] * 3, self.patch, [0], foreground=0.33, **parts)
        change = AugmentBatch(preset("standard", 3, [1.0] * 3, self.patch, [0], parts="intensity") if on_device else [])
        steps = 3 if self.words.quick else 100_000
        data = CacheDataset(self.cases * (BATCH * min(steps, 250)), as_transforms(whole), cache_rate=0, progress=False)
        workers = self.words.workers
        loader = DataLoader(
            data, batch_size=BATCH, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0
        )
        trainer = SupervisedTrainer(
            device=self.device, max_epochs=steps, epoch_length=min(steps, 250), train_data_loader=loader,
            network=network, optimizer=self.optimizer(network), loss_function=self.loss, decollate=False,
            amp=self._amp, prepare_batch=change, train_handlers=[EpochSeed(0), change],
        )  # fmt: skip
        seen: list[float] = []

        @trainer.on(Events.ITERATION_COMPLETED)
        def _clock(engine: Any) -> None:
            self._wait()
            seen.append(time.perf_counter())
            if len(seen) >= (3 if self.words.quick else 20) and seen[-1] - seen[0] > self.words.seconds:
                engine.terminate()

        trainer.run()
        warm = 1 if self.words.quick else 10
        return (len(seen) - 1 - warm) / (seen[-1] - seen[warm])

    @property
    def _amp(self) -> bool:
        return self.device.type == "cuda"

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _rate(self, step: Callable[[], None]) -> float:
        for _ in range(1 if self.words.quick else 10):
            step()
        self._wait()
        since, count = time.perf_counter(), 0
        while count < 2 or (time.perf_counter() - since < self.words.seconds):
            step()
            count += 1
            self._wait()
        return count / (time.perf_counter() - since)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--write", type=Path, help="Markdown file that the table is written to")
    parser.add_argument("--quick", action="store_true")
    words = parser.parse_args()
    if words.quick:
        words.seconds, words.workers = 0.0, 0
        torch.set_num_threads(1)
    bench = Bench(words)
    if words.device == "cuda":
        torch.backends.cudnn.benchmark = True
    rates = {"network alone": bench.alone(), "ours, all in the loader": bench.ours(False)}
    rates["ours, intensities on the device"] = bench.ours(True)
    where = torch.cuda.get_device_name() if words.device == "cuda" else "CPU"
    patches = "a smoke test, no measurement; " if words.quick else ""
    lines = [
        f"{patches}{where}, {words.workers} workers, batch {BATCH} of {bench.patch}; {date.today()}, "
        f"torch {version('torch')}, MONAI {version('monai')}. Quality: not measured.",
        "",
        f"| loop | steps per s | share of loading | {' | '.join(f'h for {name}' for name in BUDGETS)} |",
        "|" + "---|" * (3 + len(BUDGETS)),
    ]
    for name, rate in rates.items():
        share = max(0.0, 1 - rate / rates["network alone"])
        hours = " | ".join(f"{steps / rate / 3600:.2f}" for steps in BUDGETS.values())
        lines.append(f"| {name} | {rate:.2f} | {share:.2f} | {hours} |")
    print("\n".join(lines))
    if words.write:
        write_text(words.write, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
