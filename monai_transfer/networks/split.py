"""Cutting a network in two where it stops being frozen: ``network(x) == head(features(x))``, proved on a batch.

The remaining forward pass from an arbitrary layer cannot be had in general: skip connections, deep supervision and
resizing live in ``forward`` methods. So a cut is only believed after a test: the trained part is given random weights,
one batch runs through the whole network, and what the candidate head makes of its recorded input must be the network's
own output. Random weights, since a head that starts at zero would agree with anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monai_transfer.networks.output_forms import auxiliary_loss, output_heads

__all__ = ["Cut", "Head", "NoCut", "cut_network"]

Run = Callable[[Tensor, nn.Module], Any]
"""How a network is run on images: an inferer of MONAI, for instance."""


class Head(nn.Module):
    """The trained end of a network; its parameters are the network's own, so training one trains the other.

    Args:
        steps: the modules that follow each other from the cut to the output.
        entries: where the network gives a tuple (MONAI's ``ViT``: scores and hidden states), its length. The scores
            stand first; the other entries are ``None``.

    >>> pooling, scores = nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Flatten(), nn.Linear(8, 3))
    >>> Head([pooling, scores])(torch.rand(2, 8, 4, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(self, steps: Sequence[nn.Module], entries: int | None = None) -> None:
        super().__init__()
        self.steps, self.entries = nn.ModuleList(steps), entries

    def forward(self, features: Tensor) -> Any:
        """Scores from what enters the first step."""
        for step in self.steps:
            features = step(features)
        return features if self.entries is None else (features, *[None] * (self.entries - 1))


@dataclass(frozen=True)
class NoCut:
    """Why a network cannot be cut; false in a condition.

    Args:
        reason: in one clause.

    >>> bool(NoCut("every layer learns"))
    False
    """

    reason: str

    def __bool__(self) -> bool:
        return False


@dataclass
class Cut:
    """A proven cut.

    Attributes:
        network: the whole network.
        head: its trained end, sharing parameters.
        layers: names of the modules that the head consists of.
        first: the features of the batch that it was proved on, B x F or B x F x spatial.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> _ = network[1].requires_grad_(False)
    >>> image = torch.rand(3, 1, 4, 4)
    >>> cut = cut_network(network, image, lambda image, network: network(image))
    >>> features = cut.features(image, lambda image, network: network(image))
    >>> features.shape, bool(torch.allclose(cut.head(features), network(image)))
    (torch.Size([3, 8]), True)
    """

    network: nn.Module
    head: Head
    layers: tuple[str, ...]
    first: Tensor

    def features(self, image: Tensor, run: Run) -> Tensor:
        """What enters the head for a batch of images, detached; the network is run as it stands."""
        with torch.no_grad(), _listen(self.network, [self.layers[0]]) as heard:
            run(image, self.network)
        return heard[self.layers[0]][-1]


def cut_network(network: nn.Module, image: Tensor, run: Run) -> Cut | NoCut:
    """Cut ``network`` before the smallest part that holds every parameter that learns and ends in the output.

    The network is run in the mode that a trainer puts it in (``network.train()``); what must be frozen in effect is
    tested, not assumed: buffers of the frozen part unchanged, and a case's features the same alone and in its batch.
    Weights, buffers and modes are left as they were.

    Args:
        network: the bare network, after its strategy was applied.
        image: a batch of at least two different cases, B x C x spatial, on the network's device.
        run: how a trainer runs it, e.g. ``monai.inferers.SimpleInferer()``.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> _ = network[0].requires_grad_(False)
    >>> cut = cut_network(network, torch.rand(2, 1, 8, 8), lambda image, network: network(image))
    >>> cut.layers
    ('3',)
    """
    learning = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    if not learning:
        return NoCut("no parameter of the network learns")
    # a part that holds every parameter leaves nothing to compute beforehand
    everything = {id(p) for p in network.parameters()}
    found = [
        layers
        for layers in _candidates(network, learning)
        if everything - {id(p) for m in _modules(network, layers) for p in m.parameters(recurse=False)}
    ]
    if not found:
        tops = sorted({name.split(".")[0] for name in learning})
        return NoCut(f"what learns does not lie in one part at the network's end: {_some(tops)}")
    ending = _modules(network, found[-1])
    learned = {id(p) for p in network.parameters() if p.requires_grad}
    tied = [
        name
        for name, module in network.named_modules()
        if module not in ending and any(id(p) in learned for p in module.parameters(recurse=False))
    ]
    if tied:
        return NoCut(f"a parameter that learns is shared with the frozen part: {_some(tied)}")
    modes = {module: module.training for module in network.modules()}
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        network.train()
        for module in ending:
            module.training = False  # dropout in the head is random, and not what is tested
        with _shaken(network), torch.no_grad():
            return _prove(network, found, image, run)
    finally:
        for module, training in modes.items():
            module.training = training
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])


def _prove(network: nn.Module, found: list[list[str]], image: Tensor, run: Run) -> Cut | NoCut:
    inside = _modules(network, found[-1])
    frozen = {
        f"{prefix}.{name}": buffer
        for prefix, module in network.named_modules()
        if module not in inside
        for name, buffer in module.named_buffers(recurse=False)
    }
    before = {name: buffer.clone() for name, buffer in frozen.items()}
    with _listen(network, [layers[0] for layers in found]) as heard:
        output = run(image, network)
    moved = [name for name, buffer in frozen.items() if not torch.equal(buffer, before[name])]
    if moved:
        return NoCut(f"the frozen part is not in eval mode: the forward pass changes {_some(moved)}")
    dims = image.ndim - 2
    if isinstance(output, tuple | list | Tensor) and len(output_heads(output, dims, network)) > 1:
        return NoCut("the network has several heads while it trains")
    if auxiliary_loss(output) is not None:
        return NoCut("the network adds a loss of its own")
    entries = len(output) if isinstance(output, tuple | list) else None
    scores = output if entries is None else output[0]
    if not isinstance(scores, Tensor):
        return NoCut(f"the network's output is a {type(scores).__name__}, not a tensor")
    reason = ""
    for layers in found:
        entered = heard[layers[0]]
        if len(entered) != 1 or not isinstance(entered[0], Tensor):
            reason = f"{layers[0]} is called {len(entered)} times in a forward pass, or with more than one tensor"
            continue
        head = Head([network.get_submodule(layer) for layer in layers], entries)
        try:
            again = run(entered[0].clone(), head)
        except Exception as error:  # a module that wants more than its recorded input
            reason = f"{layers[0]} does not run alone ({type(error).__name__})"
            continue
        again = again if entries is None else again[0]
        if not isinstance(again, Tensor) or again.shape != scores.shape or not _close(again, scores, 1e-4):
            reason = f"the output is not what {' -> '.join(layers)} makes of its input: something comes after it"
            continue
        cut = Cut(network, head, tuple(layers), entered[0])
        # the same case, in a batch of itself: other neighbours, another draw of any dropout
        alone = cut.features(torch.stack([image[0]] * 2), run)[0]
        if not _close(alone, entered[0][0], 1e-3 if alone.dtype.itemsize >= 4 else 2e-2):
            return NoCut(
                "a case's features are not the same twice: in the frozen part dropout is on, or a norm layer uses its "
                "batch's statistics"
            )
        return cut
    return NoCut(reason)


def _candidates(network: nn.Module, learning: Sequence[str]) -> Iterator[list[str]]:
    """Parts that hold all that learns, smallest first; of an ``nn.Sequential``, its tail."""
    owners = [name.rpartition(".")[0].split(".") if "." in name else [] for name in learning]
    shared: list[str] = []
    for parts in zip(*owners, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    tail = _tail(network, shared, {owner[len(shared)] for owner in owners if len(owner) > len(shared)})
    if tail and all(len(owner) > len(shared) for owner in owners):
        yield tail
    while shared:
        yield [".".join(shared)]
        *shared, last = shared
        tail = _tail(network, shared, {last})
        if tail:
            yield tail


def _modules(network: nn.Module, layers: Sequence[str]) -> set[nn.Module]:
    return {module for layer in layers for module in network.get_submodule(layer).modules()}


def _tail(network: nn.Module, path: list[str], holding: set[str]) -> list[str]:
    """The children of a sequential module from the first of ``holding`` on; empty where that is none or all of it."""
    module = network.get_submodule(".".join(path))
    if type(module).forward is not nn.Sequential.forward or not holding:
        return []
    names = list(module._modules)
    first = min(names.index(name) for name in holding)
    return [".".join([*path, name]) for name in names[first:]] if first > 0 else []


@contextmanager
def _listen(network: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
    """Record what enters each of ``layers``; ``None`` for a call with more than one argument."""
    heard: dict[str, list[Any]] = {layer: [] for layer in layers}

    def recorder(layer: str) -> Callable:
        def hook(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            value = args[0] if len(args) == 1 and not kwargs else None
            if isinstance(value, Tensor):
                value = value.as_tensor() if hasattr(value, "as_tensor") else value
                value = value.detach().clone()  # what follows may work in place
            heard[layer].append(value)

        return hook

    hooks = [
        network.get_submodule(layer).register_forward_pre_hook(recorder(layer), with_kwargs=True) for layer in heard
    ]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _shaken(network: nn.Module) -> Iterator[None]:
    """Random values in every parameter that learns, for as long as the block lasts."""
    generator = torch.Generator().manual_seed(0)
    kept = {p: p.detach().clone() for p in network.parameters() if p.requires_grad}
    try:
        with torch.no_grad():
            for parameter in kept:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.1 * noise.to(parameter.device, parameter.dtype))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in kept.items():
                parameter.copy_(value)


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    a, b = a.float(), b.float()
    return bool((a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1e-12))


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
