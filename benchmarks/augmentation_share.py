"""What each augmentation preset costs of a training step: per batch, over the step of a small network without any.

    python benchmarks/augmentation_share.py [--quick] [--record] [--device cuda]

Patches of 48 x 48 x 48 (3D) and 128 x 128 (2D, RGB for `colour`) out of images of twice the volume, batches of 4 and
8. On a GPU the intensity part runs on the batch there (`engine.batch_augmentation`), the geometry part on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import _measure
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.networks.nets import UNet

from monai_transfer.data.augmentation import as_transforms, preset

SIZES = {3: ([48, 48, 48], [60, 60, 60], 4), 2: ([128, 128], [180, 180], 8)}


def step(dims: int, channels: int, device: str) -> Callable[[], float]:
    patch, _, batch = SIZES[dims]
    widths = (8, 16, 32) if device == "cpu" else (32, 64, 128)
    network = UNet(dims, channels, 2, widths, (2, 2), num_res_units=1, norm="BATCH").to(device)
    optimizer = torch.optim.AdamW(network.parameters())
    image = torch.rand(batch, channels, *patch, device=device)
    label = torch.randint(0, 2, (batch, *patch), device=device)

    def run() -> float:
        since = _measure.now(device)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(image), label).backward()
        optimizer.step()
        return _measure.now(device) - since

    return run


def augmented(name: str, dims: int, channels: int, device: str) -> Callable[[], float]:
    patch, size, batch = SIZES[dims]
    spacing = [1.0] * dims
    cut = as_transforms(preset(name, dims, spacing, patch, [0], foreground=0.33, parts="geometry"))
    change = as_transforms(preset(name, dims, spacing, patch, [0], parts="intensity"))
    case = {"image": MetaTensor(torch.rand(channels, *size)), "label": MetaTensor((torch.rand(1, *size) > 0.8).byte())}

    def run() -> float:
        since = _measure.now(device)
        made = list_data_collate([cut(case) for _ in range(batch)])
        cases = decollate_batch({key: value.to(device) for key, value in made.items()}, detach=False)
        list_data_collate([change(one) for one in cases])
        return _measure.now(device) - since

    return run


def main() -> None:
    words = _measure.arguments(__doc__)
    rounds = 1 if words.quick else 30
    rows = []
    for dims in (2,) if words.quick else (3, 2):
        channels = 1 if dims == 3 else 3
        names = ["light", "standard", "randomised"] + (["colour"] if dims == 2 else [])
        names = names[:1] if words.quick else names
        peers = {"step": step(dims, channels, words.device)}
        peers |= {name: augmented(name, dims, channels, words.device) for name in names}
        took = dict.fromkeys(peers, 0.0)
        for run in peers.values():
            run()  # warm
        for _ in range(rounds):
            for name, run in peers.items():
                took[name] += run()  # means: most draws of a preset do little, a few do much
        rows += [(f"{dims}D, {name} / a step without augmentation", took[name] / took["step"]) for name in names]
    _measure.report(__file__, rows, words.record, words.device)


if __name__ == "__main__":
    main()
