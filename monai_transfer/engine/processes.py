"""Several processes, one training: each its device, a group that averages gradients, the network wrapped for it."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["distributed", "local_device", "process_rank", "start", "stop"]


def local_device() -> torch.device:
    """This process's GPU (``LOCAL_RANK``, as ``torchrun`` sets it); the CPU where there is none.

    >>> local_device().type in ("cpu", "cuda")
    True
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def process_rank() -> int:
    """This process's number among those that train together; 0 where it is alone. Rank 0 writes the files.

    >>> process_rank()
    0
    """
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def start(device: str | torch.device) -> None:
    """Join the processes that ``torchrun`` started: nccl on CUDA, gloo on the CPU.

    Args:
        device: of this process; by it the backend is chosen, not by what the machine has.
    """
    device = torch.device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if device.type == "cuda":
        torch.cuda.set_device(device if device.index is not None else local_device())


def distributed(network: nn.Module, device: str | torch.device) -> DistributedDataParallel:
    """The network, its gradients averaged over the processes.

    Args:
        network: on ``device`` already.
        device: of this process.
    """
    device = torch.device(device)
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


def stop() -> None:
    """Leave the group, if one was joined."""
    if dist.is_initialized():
        dist.destroy_process_group()
