"""What a training step needs in memory, and what would make it fit: said before or after it did not.

The need is found by a dry run on PyTorch's ``meta`` device, where tensors have shapes but no storage: what autograd
keeps for backward is added up, in the network's own blocks. Workspaces of the convolution kernels and the framework's
own memory are not in it, so it is a lower bound: what exceeds the memory certainly fails, what is under it may.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from monai_transfer.engine.activation_checkpointing import checkpointable_blocks
from monai_transfer.engine.state import bare_network
from monai_transfer.errors import InputError, is_out_of_memory
from monai_transfer.free_memory import free_memory
from monai_transfer.networks.copying import meta_copy

__all__ = ["MemoryAdvice", "MemoryNeed", "free_bytes", "memory_need", "what_would_fit"]

logger = logging.getLogger("monai_transfer")
_GIB = 2**30


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that one training step needs at least.

    Attributes:
        parameters: weights and buffers.
        training: gradients of what learns, and Adam's two moments of it.
        activations: what autograd keeps between forward and backward.
        checkpointed: the same with ``checkpoint_activations``.

    >>> need = MemoryNeed(parameters=100, training=300, activations=1000, checkpointed=200)
    >>> need.total(), need.total(checkpointed=True)
    (1400, 600)
    """

    parameters: int
    training: int
    activations: int
    checkpointed: int

    def total(self, checkpointed: bool = False) -> int:
        """All of it, in bytes."""
        return self.parameters + self.training + (self.checkpointed if checkpointed else self.activations)


def memory_need(network: nn.Module, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> MemoryNeed:
    """Least memory of one training step, from a dry run of a copy on the ``meta`` device.

    Args:
        network: the bare network, with its ``requires_grad`` as it will train; it is not touched.
        shape: of a batch of images, B x C x spatial.
        dtype: of the activations: ``torch.bfloat16`` for autocast.

    Returns:
        The need, in bytes. ``activations`` is exact for what autograd saves, as far as the network runs on ``meta``.

    Raises:
        Exception: whatever the network raises on ``meta`` tensors, e.g. where it looks at values.

    >>> from monai.networks.nets import UNet
    >>> from monai_transfer.engine.memory import memory_need
    >>> need = memory_need(UNet(2, 1, 2, (4, 8), (2,)), (1, 1, 64, 64))
    >>> need.total() > 0
    True
    """
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    sizes = {name: value.numel() * value.element_size() for name, value in state.items()}
    learning = sum(sizes[name] for name, value in network.named_parameters() if value.requires_grad)
    dry = meta_copy(network, dtype).train()
    weights = {value.untyped_storage()._cdata for value in (*dry.parameters(), *dry.buffers())}
    blocks = set(checkpointable_blocks(network))
    inside: list[str] = []
    kept: dict[int, tuple[str | None, int]] = {}
    alive: list[Tensor] = []  # storages are told apart by address: none may be freed and reused meanwhile
    entries: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights and storage._cdata not in kept:
            kept[storage._cdata] = (inside[-1] if inside else None, storage.nbytes())
            alive.append(tensor)
        return tensor

    def enter(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple) -> None:
            inside.append(name)
            for tensor in inputs:
                if isinstance(tensor, Tensor):
                    storage = tensor.untyped_storage()
                    entries[storage._cdata] = storage.nbytes()
                    alive.append(tensor)

        return hook

    def leave(*_: Any) -> None:
        inside.pop()

    for name, module in dry.named_modules():
        if name in blocks:
            module.register_forward_pre_hook(enter(name))
            module.register_forward_hook(leave)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        dry(torch.empty(tuple(shape), device="meta", dtype=dtype))
    activations = sum(size for _, size in kept.values())
    per_block: dict[str, int] = {}
    outside = 0
    for key, (block, size) in kept.items():
        if block is None:
            outside += 0 if key in entries else size
        else:
            per_block[block] = per_block.get(block, 0) + size
    checkpointed = outside + sum(entries.values()) + max(per_block.values(), default=0)
    return MemoryNeed(sum(sizes.values()), 3 * learning, activations, min(checkpointed, activations))


def what_would_fit(network: nn.Module, shape: Sequence[int], free: int) -> list[str]:
    """Changes that bring a training step under ``free`` bytes, as config words with their estimate; mildest first.

    Args:
        network: the bare network.
        shape: of the batch that does not fit, B x C x spatial.
        free: bytes.

    A step that needs more than a tenth of a GiB, on two volumes of 64 x 64 x 64:

    >>> from monai.networks.nets import UNet
    >>> network = UNet(3, 1, 2, channels=(8, 16), strides=(2,))
    >>> ways = what_would_fit(network, [2, 1, 64, 64, 64], free=2**27)
    >>> ways[-1].partition(" (")[0]
    'patches of 32 x 32 x 32, batch_size: 1, dtype: bfloat16 and checkpoint_activations: true'
    """
    batch, channels, *spatial = shape
    halved = [max(size // 2, 16) // 16 * 16 if size >= 32 else size for size in spatial]
    one = f"batch_size: 1 with accumulation_steps: {batch}"
    tries: list[tuple[str, Sequence[int], torch.dtype, bool]] = [
        ("dtype: bfloat16", shape, torch.bfloat16, False),
        ("checkpoint_activations: true", shape, torch.float32, True),
        ("dtype: bfloat16 and checkpoint_activations: true", shape, torch.bfloat16, True),
    ]
    if batch > 1:
        tries.insert(0, (one, [1, channels, *spatial], torch.float32, False))
        tries.append((f"{one}, dtype: bfloat16 and checkpoint_activations: true", [1, channels, *spatial],
                      torch.bfloat16, True))  # fmt: skip
    if halved != spatial:
        tries.append((f"patches of {' x '.join(map(str, halved))}", [batch, channels, *halved], torch.float32, False))
        tries.append((f"patches of {' x '.join(map(str, halved))}, batch_size: 1, dtype: bfloat16 and "
                      "checkpoint_activations: true", [1, channels, *halved], torch.bfloat16, True))  # fmt: skip
    fits = []
    for words, size, dtype, checkpointed in tries:
        try:
            need = memory_need(network, size, dtype).total(checkpointed)
        except Exception:
            continue  # this network does not run so; the other ways are still worth naming
        if need < free:
            fits.append(f"{words} (about {need / _GIB:.1f} GiB)")
    return fits


def free_bytes(device: torch.device) -> int:
    """Memory that a new tensor could take on a device, in bytes.

    Args:
        device: the CPU or a GPU.

    >>> free_bytes(torch.device("cpu")) > 2**20  # more than a MiB
    True
    """
    if device.type == "cuda":
        return (
            torch.cuda.mem_get_info(device)[0]
            + torch.cuda.memory_reserved(device)
            - torch.cuda.memory_allocated(device)
        )
    return free_memory()


class MemoryAdvice:
    """Refuse a training step that cannot fit before it is tried, and explain one that ran out of memory.

    Add it to a MONAI trainer's handlers. It looks at the first batch; a network that cannot be run dry is let through.

    Raises:
        InputError: (in the first iteration, or in place of an out-of-memory error) how much is needed, how much is
            there, and which changes would fit.
    """

    def __init__(self) -> None:
        self._looked = False

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._before)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._after)

    def _before(self, engine: Any) -> None:
        if self._looked:
            return
        self._looked = True
        shape = _shape(engine)
        if shape is None:
            return
        try:
            need = memory_need(bare_network(engine), shape).total()
        except Exception as error:  # a dry run is a courtesy
            logger.debug("no dry run of the memory: %s", error)
            return
        # parameters lie in memory already; those of the optimizer and everything else do not
        free = free_bytes(torch.device(engine.state.device))
        reduced = getattr(engine, "amp", False) or hasattr(engine.inferer, "dtype")
        if need > free and not reduced:
            raise _too_large(engine, shape, free, need)

    def _after(self, engine: Any, error: BaseException) -> None:
        if not is_out_of_memory(error):
            raise error
        shape = _shape(engine)
        if shape is None:
            raise error
        device = torch.device(engine.state.device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise _too_large(engine, shape, free_bytes(device), None) from error


def _too_large(engine: Any, shape: Sequence[int], free: int, need: int | None) -> InputError:
    network = bare_network(engine)
    size = " x ".join(map(str, shape))
    at_least = "" if need is None else f" needs at least {need / _GIB:.1f} GiB;"
    fits = what_would_fit(network, shape, free)
    return InputError(
        f"a training step of {type(network).__name__} on {size} does not fit in memory:{at_least} "
        f"{free / _GIB:.1f} GiB are free",
        hint="would fit: " + "; or ".join(fits) if fits else "nothing that was tried would fit: take a smaller network",
    )


def _shape(engine: Any) -> tuple[int, ...] | None:
    batch = engine.state.batch
    image = batch.get("image") if isinstance(batch, dict) else None
    return tuple(image.shape) if isinstance(image, Tensor) else None
