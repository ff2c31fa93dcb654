"""Every classification method on small digits that look different in the target: accuracy, and how strong the term is.

    python benchmarks/digits.py [--methods mcc,dann] [--seeds 3] [--epochs 30]

The source is one half of scikit-learn's 8 x 8 digits, the target the other half turned by 25 degrees, blurred, noisy.
This is a smoke comparison on 1,797 tiny images, not the usual MNIST to USPS (``mnist_usps.py``): it tells a method that
acts from one that does not. All stand at their own defaults, with the same SGD and steps.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import numpy as np
import torch
from scipy import ndimage
from sklearn.datasets import load_digits
from torch import Tensor, nn

from monai_transfer import MethodStep
from monai_transfer.discovery import classes_in
from monai_transfer.methods.base import Method
from monai_transfer.testtime import Adabn, Shot

BATCH = 32


def sets() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Source images and labels, target images and labels; N x 1 x 8 x 8, standardised by the source."""
    found = load_digits()
    images, labels = found.images.astype(np.float32), torch.tensor(found.target)
    order = np.random.default_rng(0).permutation(len(images))
    here, there = order[:900], order[900:]
    turned = ndimage.rotate(images[there], 25, axes=(1, 2), reshape=False, order=1)
    blurred = ndimage.gaussian_filter(turned, (0, 0.6, 0.6))
    other = blurred + np.random.default_rng(1).normal(0, 1.5, blurred.shape).astype(np.float32)
    mean, spread = images[here].mean(), images[here].std()
    source, target = (torch.tensor((x - mean) / spread)[:, None] for x in (images[here], other))
    return source, labels[torch.tensor(here)], target, labels[torch.tensor(there)]


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


class Target:
    """Random target batches with a strong view (noise and a change of contrast) and an order that tells nothing."""

    def __init__(self, images: Tensor, length: int) -> None:
        self.images, self.length = images, length

    def __iter__(self):
        for _ in range(self.length):
            image = self.images[torch.randint(len(self.images), (BATCH,))]
            strong = image * (0.5 + torch.rand(BATCH, 1, 1, 1)) + 0.3 * torch.randn_like(image)
            yield {"image": image, "strong": strong, "order": torch.rand(BATCH)}


@torch.no_grad()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    return 100 * (net.eval()(images).argmax(1) == labels).float().mean().item()


def train(method: Method | None, seed: int, epochs: int, start: dict | None = None) -> tuple[nn.Module, float]:
    """A plain loop; the trained network, and the ratio of the term's gradient to the task's."""
    source, labels, target, _ = sets()
    net, length = network(seed), len(source) // BATCH
    if start is not None:
        net.load_state_dict(start)
    optimizer = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9, weight_decay=1e-3, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * length)
    step = None
    if method is not None:
        loader = Target(target, length)
        step = MethodStep(method, net, loader, optimizer=optimizer, epochs=epochs, epoch_length=length)
    for _ in range(epochs):
        for chosen in torch.randperm(len(source))[: length * BATCH].split(BATCH):
            image, label = source[chosen], labels[chosen]
            logits = net.train()(image)
            loss = nn.functional.cross_entropy(logits, label)
            if step is not None:
                loss = step(image, label, logits, loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    if step is not None:
        step.finish()
    return net, math.nan if step is None else step.ratio.median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = {n: k for n, k in classes_in("methods", Method).items() if "classification" in k.tasks}
    parser.add_argument("--methods", default=",".join(kinds))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="one method, one seed, one epoch")
    options = parser.parse_args()
    if options.quick:
        options.methods, options.seeds, options.epochs = "coral", 1, 1
    _, _, target, labels = sets()
    rows: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    since = time.monotonic()
    starts = {}
    for seed in range(options.seeds):
        net, _ = train(None, seed, options.epochs)
        starts[seed] = {k: v.clone() for k, v in net.state_dict().items()}
        rows.setdefault("source", []).append(accuracy(net, target, labels))
        batches = [{"image": part} for part in target.split(64)]
        rows.setdefault("adabn", []).append(accuracy(Adabn().fit(net, batches), target, labels))
        net.load_state_dict(starts[seed])
        rows.setdefault("shot", []).append(accuracy(Shot().fit(net, batches), target, labels))
    for name in filter(None, options.methods.split(",")):
        if all(not n.startswith("target_") for n in kinds[name]().needs):
            continue  # it looks at no target image
        for seed in range(options.seeds):
            alone = name in ("adda", "dsbn", "gradual_self_training")  # these go on from a trained source
            net, ratio = train(kinds[name](), seed, options.epochs, starts[seed] if alone else None)
            rows.setdefault(name, []).append(accuracy(net, target, labels))
            ratios.setdefault(name, []).append(ratio)
    print("| method | accuracy at the target, % | gradient of term / task |\n|---|---|---|")
    for name, found in sorted(rows.items(), key=lambda row: -statistics.mean(row[1])):
        ratio = statistics.median(ratios.get(name, [math.nan]))
        shown = "" if math.isnan(ratio) else f"{ratio:.2g}"
        print(f"| {name} | {statistics.mean(found):.1f} ({', '.join(f'{x:.1f}' for x in found)}) | {shown} |")
    print(f"\nmeasured: {options.seeds} seeds, {options.epochs} epochs of 28 steps, {time.monotonic() - since:.0f} s")


if __name__ == "__main__":
    main()
