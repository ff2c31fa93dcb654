"""MNIST to USPS, our methods beside TLlib's own code: one loop, only the method's term differs.

    python benchmarks/mnist_usps.py --mnist DIR --usps FILE [--tllib DIR] [--seeds 3] [--methods dann,mcc] [--steps 400]

DIR holds MNIST's four idx files (``train-images-idx3-ubyte`` ..., gzipped or not), FILE is USPS as ``usps.h5`` (groups
train and test, each with data and target) or the same four arrays as ``.npz`` (``train_data``, ``train_target``,
``test_data``, ``test_target``). ``--tllib`` is a checkout of thuml/Transfer-Learning-Library, whose modules run with
the settings of its scripts; without it ours run alone.

Each seed's source network learns 600 steps; every method, ours and theirs, goes on from it for ``--steps``, as ``run
BUNDLE adapt`` does. Both sides have the same weights, source and target batches of 64, strong views and optimizer:
TLlib's LeNet with its bottleneck of 256, 28 x 28, SGD 0.01 / (1 + 0.001 step)^0.75 with Nesterov momentum 0.9, weight
decay 1e-3. Ours are at their defaults with ``statistics="target"``, ``adapt``'s. The accuracy is that of the last step
on USPS's test images, of the network that learns (the student of a teacher; MCD of TLlib: its first head).

What differs from TLlib's scripts, on both sides: they run 50,000 steps of 128, most from random weights. Their gradient
reversal grows over 1,000 steps whatever the run's length, of which so short a run would see next to nothing: here that
of DANN and CDAN grows with the share of the run, as in the papers (ADDA's, twice as strong, lost all classes so).
``shot`` stands beside its authors' formula, with their rates, written anew here. ``--out FILE`` keeps each run, so that
a stopped comparison goes on.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import math
import statistics
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _tllib import BATCH, CLASSES, LR, PEERS, WIDTH, Peer, open_tllib, shot_by_formula
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer import MethodStep
from monai_transfer.methods.adda import Adda
from monai_transfer.methods.base import Method
from monai_transfer.methods.cdan import Cdan
from monai_transfer.methods.coral import Coral
from monai_transfer.methods.dann import Dann
from monai_transfer.methods.fixmatch import Fixmatch
from monai_transfer.methods.mcc import Mcc
from monai_transfer.methods.mcd import Mcd
from monai_transfer.methods.mean_teacher import MeanTeacher
from monai_transfer.methods.mmd import Mmd
from monai_transfer.methods.pseudo_label import PseudoLabel
from monai_transfer.methods.self_training import SelfTraining
from monai_transfer.testtime import Adabn, Shot

WEIGHT_DECAY, SOURCE_STEPS = 1e-3, 600
OURS: dict[str, Callable[[], Method]] = {
    "dann": Dann,
    "cdan_e": Cdan,
    "mcd": Mcd,
    "mmd": Mmd,
    "coral": Coral,
    "adda": Adda,
    "mcc": Mcc,
    "fixmatch": Fixmatch,
    "mean_teacher": MeanTeacher,
    "pseudo_label": PseudoLabel,
    "self_training": SelfTraining,
}


# ---------------------------------------------------------------------- data
def idx(path: Path) -> np.ndarray:
    """An array of MNIST's own format: magic number, sizes, bytes."""
    if not path.exists():
        path = path.with_name(path.name + ".gz")
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    sizes = np.frombuffer(raw, ">i4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)


def usps_arrays(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        return dict(np.load(path))
    try:
        import h5py
    except ImportError:
        sys.exit(f"{path} needs h5py, which is not installed: pip install h5py, or give the four arrays as .npz")
    with h5py.File(path) as found:
        return {f"{part}_{key}": np.array(found[part][key]) for part in found for key in found[part]}


def as_images(values: np.ndarray) -> Tensor:
    """N x H x W in [0, 1] as N x 1 x 28 x 28 in [-1, 1], as TLlib resizes and normalises."""
    images = torch.tensor(np.asarray(values, np.float32))[:, None]
    if images.shape[-1] != 28:
        images = F.interpolate(images, size=(28, 28), mode="bilinear", align_corners=False)
    return (images * 2 - 1).contiguous(memory_format=torch.channels_last)


Data = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def digits(mnist: Path, usps: Path) -> Data:
    """Source images and labels, target images without, target test images and labels."""
    found = usps_arrays(usps)
    train, test = (found[f"{part}_data"].reshape(-1, 16, 16) for part in ("train", "test"))
    return (
        as_images(idx(mnist / "train-images-idx3-ubyte") / 255.0),
        torch.tensor(idx(mnist / "train-labels-idx1-ubyte").astype(np.int64)),
        as_images(train),
        as_images(test),
        torch.tensor(found["test_target"].astype(np.int64)),
    )


def small_digits() -> Data:
    """scikit-learn's 8 x 8 digits in the same form, for a smoke test."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images, labels = as_images(found.images / 16.0), torch.tensor(found.target)
    return images[:900], labels[:900], images[900:], images[900:], labels[900:]


class Batches:
    """The seed's batches: shuffled passes without the last incomplete one, as often as asked for."""

    def __init__(self, seed: int, *tensors: Tensor) -> None:
        self.seed, self.tensors = seed, tensors

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        draw = torch.Generator().manual_seed(self.seed)
        while True:
            order = torch.randperm(len(self.tensors[0]), generator=draw)
            for chosen in order[: len(order) // BATCH * BATCH].split(BATCH):
                yield tuple(t[chosen] for t in self.tensors)


class Target:
    """The same for the target, with a strong view: French et al.'s for digits, affine, shift and noise."""

    def __init__(self, seed: int, images: Tensor, strong: bool) -> None:
        self.seed, self.batches, self.strong = seed, Batches(seed, images), strong

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        draw = torch.Generator().manual_seed(self.seed + 1)
        for (image,) in self.batches:
            if not self.strong:
                yield {"image": image}
                continue
            affine = torch.zeros(len(image), 2, 3)
            affine[:, :, :2] = torch.eye(2) + 0.1 * torch.randn(len(image), 2, 2, generator=draw)
            affine[:, :, 2] = torch.randint(-2, 3, (len(image), 2), generator=draw) / 14  # up to two of 28 pixels
            grid = F.affine_grid(affine, list(image.shape), align_corners=False)
            strong = F.grid_sample(image + 1, grid, align_corners=False) - 1  # the ground is -1
            strong = strong + 0.1 * torch.randn(strong.shape, generator=draw)
            yield {"image": image, "strong": strong.contiguous(memory_format=torch.channels_last)}


# ---------------------------------------------------------------------- network
def network(seed: int) -> nn.Sequential:
    """LeNet as TLlib has it for digits, and its ``ImageClassifier`` without pooling: bottleneck, class head."""
    torch.manual_seed(seed)
    backbone = nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(20, 50, 5), nn.Dropout2d(0.5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Dropout(0.5),
    )  # fmt: skip
    bottleneck = nn.Sequential(nn.Linear(500, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU())
    parts = OrderedDict(backbone=backbone, bottleneck=bottleneck, head=nn.Linear(WIDTH, CLASSES))
    return nn.Sequential(parts).to(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(predict: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    """In percent."""
    found = torch.cat([predict(part).argmax(1) for part in images.split(256)])
    return 100 * (found == labels).float().mean().item()


# ---------------------------------------------------------------------- the loop
def train(
    data: Data, seed: int, steps: int, method: Method | None = None, peer: type[Peer] | None = None,
    start: dict[str, Tensor] | None = None, strong: bool = False,
) -> tuple[nn.Module, float, float]:  # fmt: skip
    """The trained network, its accuracy, and for ours the ratio of the term's gradient to the task's."""
    source, labels, target, test, test_labels = data
    net = network(seed)
    if start is not None:
        net.load_state_dict(start)
    theirs = peer(net, steps) if peer is not None else None
    learning = list(net.parameters())
    if theirs is not None:
        heads = {id(p) for p in net.head.parameters()} if theirs.freeze_head else set()
        learning = [p for p in learning if id(p) not in heads] + list(theirs.parts.parameters())
        theirs.parts.train()
    optimizer = torch.optim.SGD(learning, LR, momentum=0.9, weight_decay=WEIGHT_DECAY, nesterov=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + 0.001 * step) ** -0.75)
    there = Target(seed + 100, target, strong)
    ours = None
    if method is not None:
        ours = MethodStep(method, net, there, optimizer=optimizer, statistics="target", epochs=1, epoch_length=steps)
    of_target = iter(there)
    torch.manual_seed(seed)
    for image, label in islice(Batches(seed + (start is not None) * 50, source, labels), steps):
        net.train()
        if theirs is not None:
            theirs.update(optimizer, image, label, next(of_target))
        else:
            logits = net(image)
            loss = F.cross_entropy(logits, label)
            if ours is not None:
                loss = ours(image, label, logits, loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    if ours is not None:
        ours.finish()
    net.eval()
    reached = accuracy(theirs.predict if theirs is not None else net, test, test_labels)
    return net, reached, math.nan if ours is None else ours.ratio.median


class Records:
    """What each run gave, one JSON line each; a run that is there is not made again."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def run(self, key: dict[str, Any], make: Callable[[], tuple[float, float]]) -> float:
        for row in self.rows:
            if all(row.get(k) == v for k, v in key.items()):
                return row["accuracy"]
        since = time.process_time()
        reached, ratio = make()
        row = {**key, "accuracy": reached, "ratio": ratio, "seconds": round(time.process_time() - since, 1)}
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        if self.path is not None:
            with self.path.open("a") as out:
                out.write(json.dumps(row) + "\n")
        return reached

    def found(self, side: str, method: str, what: str = "accuracy") -> list[float]:
        return [row[what] for row in self.rows if row["side"] == side and row["method"] == method]


def table(records: Records) -> str:
    def shown(values: list[float]) -> str:
        return f"{statistics.mean(values):.1f} ({', '.join(f'{v:.1f}' for v in values)})" if values else ""

    lines = ["| method | ours, % | peer, % | difference | gradient of term / task |", "|---|---|---|---|---|"]
    names = dict.fromkeys(row["method"] for row in records.rows if row["side"] == "ours")
    for name in sorted(names, key=lambda name: -statistics.mean(records.found("ours", name))):
        ours, theirs = (records.found(side, name) for side in ("ours", "peer"))
        less = f"{statistics.mean(ours) - statistics.mean(theirs):+.1f}" if theirs else ""
        ratios = [r for r in records.found("ours", name, "ratio") if not math.isnan(r)]
        ratio = f"{statistics.median(ratios):.2g}" if ratios else ""
        lines.append(f"| {name} | {shown(ours)} | {shown(theirs)} | {less} | {ratio} |")
    return "\n".join(lines)


class Seed:
    """All that runs of one seed: its source network, made once, and what goes on from it."""

    def __init__(self, data: Data, seed: int, steps: int, source_steps: int = SOURCE_STEPS) -> None:
        self.data, self.seed, self.steps, self.source_steps = data, seed, steps, source_steps
        self._source: dict[str, Tensor] = {}

    @property
    def source(self) -> dict[str, Tensor]:
        if not self._source:
            net, _, _ = train(self.data, self.seed, self.source_steps)
            self._source = {k: v.clone() for k, v in net.state_dict().items()}
        return self._source

    def without_loop(self, name: str, side: str) -> tuple[float, float]:
        """The source itself, and what is fitted to the target after it."""
        _, _, target, test, labels = self.data
        net = network(self.seed)
        net.load_state_dict(self.source)
        torch.manual_seed(self.seed)
        if name == "adabn":
            Adabn().fit(net, [{"image": part} for part in target.split(BATCH)[:-1]])
        elif name == "shot" and side == "ours":
            Shot().fit(net, torch.utils.data.DataLoader(target, BATCH, shuffle=True, drop_last=True))  # type: ignore[arg-type]
        elif name == "shot":
            shot_by_formula(net, target, self.seed)
        return accuracy(net.eval(), test, labels), math.nan

    def run(self, name: str, side: str) -> tuple[float, float]:
        """Accuracy, and the ratio of the term's gradient to the task's."""
        if name not in OURS:
            return self.without_loop(name, side)
        what: dict[str, Any] = {"method": OURS[name]()} if side == "ours" else {"peer": PEERS[name]}
        strong = "target_strong_logits" in OURS[name]().needs
        return train(self.data, self.seed, self.steps, start=self.source, strong=strong, **what)[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, metavar="DIR")
    parser.add_argument("--usps", type=Path, metavar="FILE")
    parser.add_argument("--tllib", type=Path, metavar="DIR")
    parser.add_argument("--methods", default=",".join(["source", "adabn", "shot", *OURS]))
    parser.add_argument("--sides", default="ours,peer")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, help="one JSON line per run; runs that are there are not made again")
    parser.add_argument("--quick", action="store_true", help="a few steps on scikit-learn's digits, as a smoke test")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    if options.quick:
        options.methods, options.seeds, options.steps = "coral", 1, 3
        data = small_digits()
    elif options.mnist is None or options.usps is None:
        parser.error("--mnist and --usps are needed")
    else:
        data = digits(options.mnist, options.usps)
    if options.tllib is not None:
        open_tllib(options.tllib)
    peers = {"shot", *(PEERS if options.tllib is not None else ())}
    records = Records(options.out)
    seeds = [Seed(data, seed, options.steps, 3 if options.quick else SOURCE_STEPS) for seed in range(options.seeds)]
    for name in filter(None, options.methods.split(",")):
        for one in seeds:
            for side in options.sides.split(","):
                if side == "ours" or name in peers:
                    key = {"method": name, "side": side, "seed": one.seed, "steps": options.steps}
                    records.run(key, lambda name=name, side=side, one=one: one.run(name, side))
    print(table(records))
    print(f"\nmeasured: {options.seeds} seeds, {SOURCE_STEPS} + {options.steps} steps of {BATCH} images")


if __name__ == "__main__":
    main()
