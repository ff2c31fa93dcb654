"""bfloat16, channels-last and recomputed activations against a plain float32 training step: ratios measured in one run.

    python benchmarks/precision.py [--quick] [--record] [--device cuda]

The same 3D U-Net and batches in MONAI's trainer; only the inferer, the weights' layout or the blocks differ. The kept
bytes are those that autograd holds between forward and backward, read off the tensors that it saves.
"""

from __future__ import annotations

from collections.abc import Callable

import _measure
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet

from monai_transfer.engine.activation_checkpointing import checkpoint_activations
from monai_transfer.engine.precision import AutocastInferer, channels_last


def network(device: str) -> UNet:
    torch.manual_seed(0)
    net = UNet(3, 1, 3, channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=1, norm="BATCH")
    return net.to(device)


def loss_of(prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(prediction, label[:, 0])


def batches(steps: int, size: int) -> DataLoader:
    item = {"image": torch.rand(1, size, size, size), "label": torch.randint(0, 3, (1, size, size, size))}
    return DataLoader(Dataset([item] * (2 * steps)), batch_size=2)


def seconds(net: UNet, device: str, steps: int, size: int, bfloat16: bool) -> float:
    engine = SupervisedTrainer(
        device=torch.device(device), max_epochs=1, train_data_loader=batches(steps, size), network=net, decollate=False,
        optimizer=torch.optim.AdamW(net.parameters(), lr=1e-3), loss_function=loss_of,
        inferer=AutocastInferer(enabled=bfloat16),
    )  # fmt: skip
    since = _measure.now(device)
    engine.run()
    return _measure.now(device) - since


def kept(net: UNet, device: str, size: int, bfloat16: bool) -> float:
    infer, image = AutocastInferer(enabled=bfloat16), torch.rand(2, 1, size, size, size, device=device)
    return _measure.kept_for_backward(lambda: infer(image, net.train()))[0]


def main() -> None:
    options = _measure.arguments(__doc__)
    steps, size, rounds = (1, 16, 1) if options.quick else (5, 64, 5) if options.device == "cpu" else (10, 96, 5)
    device = options.device
    variants: dict[str, tuple[Callable[[], UNet], bool]] = {
        "float32": (lambda: network(device), False),
        "bfloat16": (lambda: network(device), True),
        "channels last": (lambda: channels_last(network(device)), False),
        "bfloat16 and channels last": (lambda: channels_last(network(device)), True),
        "recomputed activations": (lambda: checkpoint_activations(network(device)), False),
    }
    took = _measure.medians(
        {
            name: lambda build=build, low=low: seconds(build(), device, steps, size, low)
            for name, (build, low) in variants.items()
        },
        rounds,
    )
    memory = {name: kept(build(), device, size, low) for name, (build, low) in variants.items()}
    rows = [
        (f"float32 / {name}, time of a step", took["float32"] / took[name]) for name in variants if name != "float32"
    ]
    rows += [
        (f"{name} / float32, bytes kept for backward", memory[name] / memory["float32"])
        for name in ("bfloat16", "recomputed activations")
    ]
    _measure.report(__file__, rows, options.record, device)


if __name__ == "__main__":
    main()
