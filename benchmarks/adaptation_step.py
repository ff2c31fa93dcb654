"""What a method costs beyond the forward and backward passes that it needs: ratios measured in one run.

    python benchmarks/adaptation_step.py [--quick] [--record]

Each method runs through Adapt in MONAI's trainer. Its peer is a bare loop with exactly the passes that the method asks
for, and a backward pass through all of them, but no term: whatever is above 1 is the handler's and the term's.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import _measure
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet

from monai_transfer.engine.adapt import Adapt
from monai_transfer.methods.advent import Advent
from monai_transfer.methods.base import Method
from monai_transfer.methods.cdan import Cdan
from monai_transfer.methods.coral import Coral
from monai_transfer.methods.dann import Dann
from monai_transfer.methods.l2_sp import L2Sp
from monai_transfer.methods.mean_teacher import MeanTeacher
from monai_transfer.methods.mmd import Mmd

METHODS = (Coral, Mmd, Dann, Cdan, Advent, MeanTeacher, L2Sp)


def network() -> UNet:
    torch.manual_seed(0)
    return UNet(3, 1, 3, channels=(16, 32, 64), strides=(2, 2), num_res_units=1, norm="BATCH")


def loader(steps: int, size: int) -> DataLoader:
    item = {"image": torch.rand(1, size, size, size), "label": torch.randint(0, 3, (1, size, size, size))}
    return DataLoader(Dataset([item] * (4 * steps)), batch_size=4)


def loss_of(prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(prediction, label[:, 0])


def passes(method: Method, steps: int, size: int) -> float:
    """A bare loop with the method's passes: source, target where asked for, a teacher's without gradient."""
    net, data = network(), loader(steps, size)
    targets = iter(loader(steps, size)) if any(name.startswith("target_") for name in method.needs) else None
    asked = {"target_logits", "target_features", "target_strong_logits", "target_strong_features"} & set(method.needs)
    teacher = copy.deepcopy(net) if isinstance(method, MeanTeacher) else None
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    since = time.process_time()
    for batch in data:
        net.train()
        optimizer.zero_grad()
        loss = loss_of(net(batch["image"]), batch["label"])
        if targets is not None:
            image = next(targets)["image"]
            if teacher is not None:
                with torch.no_grad():
                    teacher(image)
            for view in {"strong" in name for name in asked}:
                loss = loss + 0.0 * net(image + 0.01 * view).mean()
        loss.backward()
        optimizer.step()
    return time.process_time() - since


def adapted(method: Method, steps: int, size: int) -> float:
    net, data, target = network(), loader(steps, size), loader(steps, size)
    needs_target = any(name.startswith("target_") for name in method.needs)
    engine = SupervisedTrainer(
        device="cpu", max_epochs=1, train_data_loader=data, network=net, decollate=False,
        optimizer=torch.optim.AdamW(net.parameters(), lr=1e-3), loss_function=loss_of,
        train_handlers=[Adapt(method, target if needs_target else None)],
    )  # fmt: skip
    since = time.process_time()
    engine.run()
    return time.process_time() - since


def main() -> None:
    options = _measure.arguments(__doc__)
    steps, size, rounds = (2, 16, 1) if options.quick else (10, 48, 5)
    peers: dict[str, Callable[[], float]] = {}
    for kind in METHODS:
        peers[f"{kind.__name__} passes"] = lambda kind=kind: passes(kind(), steps, size)
        peers[kind.__name__] = lambda kind=kind: adapted(kind(), steps, size)
    took = _measure.medians(peers, rounds)
    names = [kind.__name__ for kind in METHODS]
    rows = [(f"Adapt({name}) / bare loop with its passes", took[name] / took[f"{name} passes"]) for name in names]
    _measure.report(__file__, rows, options.record)


if __name__ == "__main__":
    main()
