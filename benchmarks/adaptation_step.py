"""What the handler costs beside a loop written by hand around the same loss: ratios measured in one run.

    python benchmarks/adaptation_step.py [--quick] [--record] [--device cuda]

Each method runs through Adapt in MONAI's trainer. Its peer has the same forward and backward passes, the method's term
and the steps of its critic, called once each by hand: whatever is above 1 is the handler's and the trainer's.
"""

from __future__ import annotations

from collections.abc import Callable

import _measure
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet

from monai_transfer.engine.adapt import Adapt
from monai_transfer.methods.advent import Advent
from monai_transfer.methods.base import Fields, Method
from monai_transfer.methods.cdan import Cdan
from monai_transfer.methods.coral import Coral
from monai_transfer.methods.dann import Dann
from monai_transfer.methods.l2_sp import L2Sp
from monai_transfer.methods.mean_teacher import MeanTeacher
from monai_transfer.methods.mmd import Mmd
from monai_transfer.networks.outputs import pool_features
from monai_transfer.networks.tap import Tap

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


def by_hand(method: Method, device: str, steps: int, size: int) -> float:
    """The loop that someone would write around the same loss, once: passes, term, the critic's step, the step."""
    net, data = network(device), loader(steps, size)
    targets = iter(loader(steps, size)) if any(name.startswith("target_") for name in method.needs) else None
    twice = any("strong" in name for name in method.needs)
    tap = Tap(net) if any("features" in name for name in method.needs) else None
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    own: torch.optim.Optimizer | None = None
    since = _measure.now(device)
    for number, batch in enumerate(data):
        net.train()
        optimizer.zero_grad()
        fields = Fields(source_image=batch["image"].to(device), source_label=batch["label"].to(device))
        fields["source_logits"] = net(fields["source_image"])
        if tap is not None:
            fields["source_features"] = pool_features(tap.take())
        loss = loss_of(fields["source_logits"], fields["source_label"])
        if targets is not None:
            fields["target_image"] = fields["target_strong"] = next(targets)["image"].to(device)
            name = "target_strong_logits" if twice else "target_logits"
            fields[name] = net(fields["target_image"])
            if tap is not None:
                fields["target_features"] = pool_features(tap.take())
        detached = Fields({key: value.detach() for key, value in fields.items()})
        if number == 0:
            method.setup(net, detached)
            own = method.make_optimizer()
        if own is not None and type(method).critic_step is not Method.critic_step:
            own.zero_grad()
            method.critic_step(detached).backward()
            own.step()
        (loss + method(fields, number / steps)).backward()
        optimizer.step()
        method.after_step(net, number / steps)
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
    steps, size, rounds = (2, 16, 1) if options.quick else (4, 48, 7) if options.device == "cpu" else (8, 96, 5)
    rows = []
    for kind in METHODS:
        peers: dict[str, Callable[[], float]] = {
            "by hand": lambda kind=kind: by_hand(kind(), options.device, steps, size),
            "adapted": lambda kind=kind: adapted(kind(), options.device, steps, size),
        }
        ratio = _measure.paired(peers, "by hand", rounds)["adapted"]
        rows.append((f"Adapt({kind.__name__}) / the same by hand", ratio))
    _measure.report(__file__, rows, options.record, options.device)


if __name__ == "__main__":
    main()
