"""What a method costs beyond the forward and backward passes that it needs: ratios measured in one run.

    python benchmarks/adaptation_step.py [--quick] [--record] [--device cuda]

Each method runs through Adapt in MONAI's trainer. Its peer is a bare loop with exactly the passes that the method asks
for, and a backward pass through all of them, but no term: whatever is above 1 is the handler's and the term's.
"""

from __future__ import annotations

import copy
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


def network(device: str) -> UNet:
    torch.manual_seed(0)
    channels = (16, 32, 64) if device == "cpu" else (32, 64, 128)
    return UNet(3, 1, 3, channels=channels, strides=(2, 2), num_res_units=1, norm="BATCH").to(device)


def loader(steps: int, size: int) -> DataLoader:
    item = {"image": torch.rand(1, size, size, size), "label": torch.randint(0, 3, (1, size, size, size))}
    return DataLoader(Dataset([item] * (4 * steps)), batch_size=4)


def loss_of(prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(prediction, label[:, 0])


def passes(method: Method, device: str, steps: int, size: int) -> float:
    """A bare loop with the method's passes: source, target where asked for, a teacher's without gradient."""
    net, data = network(device), loader(steps, size)
    targets = iter(loader(steps, size)) if any(name.startswith("target_") for name in method.needs) else None
    asked = {"target_logits", "target_features", "target_strong_logits", "target_strong_features"} & set(method.needs)
    teacher = copy.deepcopy(net) if isinstance(method, MeanTeacher) else None
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    since = _measure.now(device)
    for batch in data:
        net.train()
        optimizer.zero_grad()
        loss = loss_of(net(batch["image"].to(device)), batch["label"].to(device))
        if targets is not None:
            image = next(targets)["image"].to(device)
            if teacher is not None:
                with torch.no_grad():
                    teacher(image)
            for view in {"strong" in name for name in asked}:
                loss = loss + 0.0 * net(image + 0.01 * view).mean()
        loss.backward()
        optimizer.step()
    return _measure.now(device) - since


def adapted(method: Method, device: str, steps: int, size: int) -> float:
    net, data, target = network(device), loader(steps, size), loader(steps, size)
    needs_target = any(name.startswith("target_") for name in method.needs)
    engine = SupervisedTrainer(
        device=torch.device(device), max_epochs=1, train_data_loader=data, network=net, decollate=False,
        optimizer=torch.optim.AdamW(net.parameters(), lr=1e-3), loss_function=loss_of,
        train_handlers=[Adapt(method, target if needs_target else None)],
    )  # fmt: skip
    since = _measure.now(device)
    engine.run()
    return _measure.now(device) - since


def main() -> None:
    options = _measure.arguments(__doc__)
    steps, size, rounds = (2, 16, 1) if options.quick else (5, 48, 9) if options.device == "cpu" else (8, 96, 5)
    rows = []
    for kind in METHODS:
        peers: dict[str, Callable[[], float]] = {
            "passes": lambda kind=kind: passes(kind(), options.device, steps, size),
            "adapted": lambda kind=kind: adapted(kind(), options.device, steps, size),
        }
        ratio = _measure.paired(peers, "passes", rounds)["adapted"]
        rows.append((f"Adapt({kind.__name__}) / bare loop with its passes", ratio))
    _measure.report(__file__, rows, options.record, options.device)


if __name__ == "__main__":
    main()
