"""What LoRA saves against full fine-tuning: bytes counted on the tensors themselves, in one run.

    python benchmarks/lora_memory.py [--quick] [--record]

After one real training step of each: weights, gradients and optimizer state together, what autograd keeps between
forward and backward, and the file that has to be stored for each target site (adapters alone, against all weights).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import _measure
import torch
from monai.networks.nets import SegResNet
from torch import nn

from monai_transfer.strategies.full import Full
from monai_transfer.strategies.lora import Lora, lora_state_dict


def step(strategy: Full | Lora, size: int, folder: Path) -> tuple[float, float, float]:
    """Bytes of the training state, of what is kept for backward, and of the file to store."""
    torch.manual_seed(0)
    network: nn.Module = strategy.apply(SegResNet(3, init_filters=16, in_channels=1, out_channels=3)).train()
    optimizer = torch.optim.AdamW(strategy.param_groups(network), lr=1e-3)
    image = torch.rand(1, 1, size, size, size)
    kept, output = _measure.kept_for_backward(lambda: network(image), network.parameters())
    output.square().mean().backward()
    optimizer.step()
    tensors = list(network.parameters())
    tensors += [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    tensors += [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    held = float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
    path = folder / "stored.pt"
    if isinstance(strategy, Lora):
        torch.save(lora_state_dict(network), path)
    else:
        torch.save(network.state_dict(), path)
    return held, kept, float(path.stat().st_size)


def main() -> None:
    options = _measure.arguments(__doc__)
    size = 16 if options.quick else 64
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        full = step(Full(), size, Path(folder))
        for rank in (4,) if options.quick else (4, 16):
            lora = step(Lora(rank=rank), size, Path(folder))
            for what, ours, peer in zip(
                ("weights, gradients and Adam's state", "kept for backward", "stored file"), lora, full, strict=True
            ):
                rows.append((f"LoRA rank {rank} / full fine-tuning, {what}", ours / peer))
    _measure.report(__file__, rows, options.record)


if __name__ == "__main__":
    main()
