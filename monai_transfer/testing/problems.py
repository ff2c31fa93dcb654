"""Tiny problems that a contract is tried on: a network, batches of two sites and a loss for each task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet
from torch import nn

from monai_transfer.engine.adapt import Adapt
from monai_transfer.methods.base import Method
from monai_transfer.tasks import Task, get_task

__all__ = ["DEVICE", "batches_for", "loss_for", "network_for", "same", "trainer_for"]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def network_for(task: str, dims: int) -> nn.Module:
    """A network with BatchNorm and dropout for 1-channel images: 3 classes or findings, 2 for voxels, 1 number."""
    kind = get_task(task)
    if kind.dense:
        return UNet(dims, 1, 2, (4, 8), (2,), norm="batch", dropout=0.1)
    conv, norm, pool = {
        2: (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d),
        3: (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveAvgPool3d),
    }[dims]
    outputs = 3 if kind.has_classes else 1
    return nn.Sequential(
        conv(1, 6, 3), norm(6), nn.ReLU(), pool(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(6, outputs)
    )


def batches_for(task: str, dims: int, seed: int, labelled: bool, rank: int = 0) -> list[dict[str, torch.Tensor]]:
    """Three batches of one site; a labelled batch is of the source, but for its last case, a labelled target case."""
    g = torch.Generator().manual_seed(seed + 100 * rank)
    batches = []
    for _ in range(3):
        image = torch.randn(4, 1, *[8] * dims, generator=g) + seed
        if labelled:
            image[-1] += 1
        batch = {"image": image, "strong": image + 0.1 * torch.randn(image.shape, generator=g)}
        batch["order"] = torch.rand(4, generator=g)
        if labelled:
            batch["label"] = _label(get_task(task), image)
        batches.append(batch)
    return batches


def _label(kind: Task, image: torch.Tensor) -> torch.Tensor:
    if kind.independent:  # one inside the other
        shares = (0.0, 0.5) if kind.dense else (-0.1, 0.0, 0.1)
        seen = image if kind.dense else image.flatten(1).mean(1, keepdim=True)
        return torch.cat([(seen > image.mean() + share).float() for share in shares], 1)
    if kind.dense:
        return (image > image.mean()).float()
    return torch.tensor([0, 1, 2, 0]) if kind.has_classes else image.flatten(1).mean(1, keepdim=True)


def loss_for(task: str) -> Callable[[Any, Any], torch.Tensor]:
    """The supervised loss of a task."""
    kind = get_task(task)
    if kind.independent:
        return lambda pred, label: nn.functional.binary_cross_entropy_with_logits(pred.float(), label)
    if kind.dense:
        return lambda pred, label: nn.functional.cross_entropy(pred, label[:, 0].long())
    if not kind.has_classes:  # on CUDA, torch's has no backward pass for two dtypes
        return lambda pred, label: nn.functional.mse_loss(pred.float(), label)
    return nn.CrossEntropyLoss()


def trainer_for(
    method: Method,
    task: str,
    dims: int,
    network: nn.Module,
    *,
    epochs: int = 2,
    state: dict[str, Any] | None = None,
    handlers: Sequence[Any] = (),
    rank: int = 0,
    pool: str | None = "mean",
    **options: Any,
) -> tuple[Adapt, Engine]:
    """A stock MONAI trainer that accumulates over two batches, and its ``Adapt`` handler; nothing has run yet."""
    told = task if get_task(task).independent else None
    handler = Adapt(method, batches_for(task, dims, 1, False, rank), pool=pool, task=told)
    if state is not None:
        handler.load_state_dict(state)
    network = network.to(DEVICE)
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    wrapped = nn.parallel.DistributedDataParallel(network) if distributed else network
    trainer = SupervisedTrainer(
        device=DEVICE,
        max_epochs=epochs,
        train_data_loader=batches_for(task, dims, 0, True, rank),
        network=wrapped,
        optimizer=torch.optim.Adam(wrapped.parameters(), 1e-2),
        loss_function=loss_for(task),
        accumulation_steps=2,
        train_handlers=[*handlers, handler],
        **options,
    )
    return handler, trainer


def same(a: Any, b: Any, where: str = "state") -> None:
    """Whether two nested states are equal bit by bit.

    Raises:
        AssertionError: they are not; it says where.
    """
    if isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=lambda m: f"{where}: {m}")
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where
