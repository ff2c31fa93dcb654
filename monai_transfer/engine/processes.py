"""Several processes, one training: each its device, a group that averages gradients, the network wrapped for it.

They end together: a signal ends each of them by the way of ``stopping``, and so does the death of the ``torchrun`` that
started them, which else would leave them training, and writing, behind its back.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_transfer import stopping
from monai_transfer.errors import InputError, first_cause
from monai_transfer.runs.ranks import Rank, own

__all__ = ["distributed", "local_device", "process_rank", "ranks", "start", "stop", "when_failed"]

_left: list[object] = []
"""Groups that were left. Their last reference must not be a wrapped network's: torch then waits for gloo's threads with
the interpreter's lock held, for which they may be waiting themselves."""

when_failed: list[Callable[[BaseException], None]] = []
"""Called with the error that ends this process, under plain ``monai.bundle run`` by ``torchrun``."""


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
    ours = _end_with_the_others()
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if ours:
        _end_at_once()  # after torch has put its own hook, which names the rank
    if device.type == "cuda":
        torch.cuda.set_device(device if device.index is not None else local_device())


def _end_with_the_others() -> bool:
    """Whether signals are handled from now on; the command line has seen to that itself."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return False  # whoever else started this process has ways of its own to end it
    stopping.die_with_parent(os.getppid())
    if threading.current_thread() is not threading.main_thread() or stopping.installed():
        return False
    stopping.install(says=os.environ.get("RANK") == "0")
    return True


def _end_at_once() -> None:
    """After an error that nobody caught: Python's own end waits for the group, some of which may be dead.

    A user's error is one line, said by rank 0 where all have met it.
    """
    shown, rank = sys.excepthook, dist.get_rank()

    def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        with contextlib.suppress(stopping.Stopped):
            if rank:
                time.sleep(1.0)  # where it came of another rank's end, torchrun ends this one meanwhile
        stopping.leave_if_stopped()
        cause = first_cause(error)
        with contextlib.suppress(stopping.Stopped), stopping.deferred():
            if isinstance(cause, InputError):
                print(f"error: {cause}" if rank == 0 else f"error: rank {rank}: {cause}", file=sys.stderr)
            else:
                shown(kind, error, trace)
            for callback in when_failed:
                with contextlib.suppress(Exception):
                    callback(error)
        stopping.end_children()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(2 if isinstance(cause, InputError) else 1)

    sys.excepthook = end


def ranks() -> list[Rank]:
    """All processes of the group, by number; every one of them has to ask."""
    found: list[Rank] = [None] * dist.get_world_size()  # type: ignore[list-item]
    dist.all_gather_object(found, own(dist.get_rank()))
    return found


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
        _left.append(dist.group.WORLD)
        dist.destroy_process_group()
