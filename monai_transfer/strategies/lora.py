"""LoRA: every linear layer and convolution learns a low-rank change of its weights, which itself stays frozen.

    W' = W + s * B A,   A random, B zero at the start, s = alpha / r   (rsLoRA: alpha / sqrt(r))

Paper: Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang and Chen, LoRA: Low-Rank Adaptation of Large Language Models,
ICLR 2022, arXiv:2106.09685; rsLoRA: Kalajdzievski, A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA,
arXiv:2312.03732

For a convolution A is one of ``in`` to ``r`` channels with the layer's own kernel, stride, padding, padding mode and
dilation, and B is a 1x1 convolution of ``r`` to ``out``. The composition of the two is one convolution with the kernel
B A, so it is formed in the space of weights, and the layer's own forward runs with W': exact for every kernel, stride,
padding (``"same"`` too), dilation, padding mode and number of groups, and merging changes nothing. With groups, B is
grouped like the layer and A is the same in each group (of a transposed convolution, whose weights are ``in`` by ``out``
per group, A belongs to the inputs and B to the outputs likewise).

The adapted layer keeps its type (a subclass), its place and the names of its parameters; ``lora_A``, ``lora_B`` and the
buffer ``lora_scale`` come beside them. Code that reads ``layer.weight`` (torch's attention does) sees W'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from monai_transfer.errors import InputError
from monai_transfer.networks.freezing import freeze_all_but, freeze_parameters, thaw
from monai_transfer.networks.head import find_head
from monai_transfer.networks.low_rank import low_rank_change
from monai_transfer.networks.wrappers import unwrap
from monai_transfer.strategies.base import NORM_LAYERS, Strategy, head_modules

__all__ = ["Lora", "add_lora", "load_lora", "lora_state_dict", "merge_lora", "merged_state_dict", "skipped_layers"]

_OWN = ("lora_A", "lora_B", "lora_scale")


class Lora(Strategy):
    """Adapters learn, and the head in full; all else is frozen, norm statistics and dropout included.

    The names of what learns in full are in ``self.full`` after ``apply``.

    Args:
        rank: r; a rank above what a layer's weights allow is only redundant.
        alpha: None is ``rank``, so that s = 1.
        rslora: s = alpha / sqrt(r).
        target: which layers; see ``add_lora``. The head gets no adapter.
        head: the head's module name or names, where it is not found by itself; ``False`` for none.
        train_norm: affine norm parameters and running statistics learn too.

    Raises:
        InputError: (from ``apply``) see ``add_lora``; the head cannot be told.

    >>> import torch
    >>> from monai_transfer.strategies.lora import Lora
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1))
    >>> network = Lora(rank=2).apply(network)
    >>> [name for name, p in network.named_parameters() if p.requires_grad]
    ['0.lora_A', '0.lora_B', '2.weight', '2.bias']
    """

    def __init__(
        self,
        rank: int = 4,
        alpha: float | None = None,
        rslora: bool = False,
        target: str | Sequence[str] | None = None,
        head: str | list[str] | bool | None = None,
        train_norm: bool = False,
    ) -> None:
        _scale(rank, alpha, rslora)
        self.rank, self.alpha, self.rslora, self.target = rank, alpha, rslora, target
        self.head, self.train_norm = head, train_norm
        self.full: list[str] = []

    def apply(self, network: nn.Module) -> nn.Module:
        super().apply(network)
        if self.head is False:
            heads = []
        elif self.head is None or self.head is True:
            heads = find_head(network)  # an encoder has none, and that is all right here
        else:
            heads = head_modules(network, self.head)
        full = [network.get_submodule(name) for name in heads]
        if self.train_norm:
            full += [module for module in network.modules() if isinstance(module, NORM_LAYERS)]
        add_lora(network, self.rank, self.alpha, self.rslora, self.target, exclude=heads)
        for module in full:
            thaw(module)
        freeze_all_but(network, full)
        for module in network.modules():
            if isinstance(module, _Adapted):
                module.lora_A.requires_grad_(True)
                module.lora_B.requires_grad_(True)
        self.full = [n for n, p in network.named_parameters() if p.requires_grad and not n.endswith(_OWN)]
        return network


def add_lora(
    network: nn.Module,
    rank: int = 4,
    alpha: float | None = None,
    rslora: bool = False,
    target: str | Sequence[str] | None = None,
    *,
    exclude: Sequence[str] = (),
) -> nn.Module:
    """Add adapters in place and leave gradients to them alone; the outputs are at first exactly what they were.

    Args:
        network: the network; its modes and norm statistics are not touched (``Lora`` freezes them as well).
        rank, alpha, rslora: see ``Lora``.
        target: layer names, the last parts of layer names (``"qkv"``), names of modules above them, or patterns
            (``"*.attn.*"``); by default every linear layer, convolution and transposed convolution.
        exclude: the same, for layers that get none.

    Returns:
        The same network.

    Raises:
        InputError: a bad rank; the network has adapters already; a name fits no layer; or no layer is left.

    >>> import torch
    >>> from monai_transfer.strategies.lora import add_lora
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    >>> x = torch.randn(3, 4)
    >>> before = network(x)
    >>> _ = add_lora(network, rank=2)
    >>> torch.equal(network(x), before)  # B starts at zero, so nothing changes until it learns
    True
    """
    scale = _scale(rank, alpha, rslora)
    kind = type(network).__name__
    if any(isinstance(module, _Adapted) for module in network.modules()):
        raise InputError(f"{kind} has adapters already", hint="merge_lora() them first")
    skipped = skipped_layers(network)
    layers = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear | _ConvNd)}
    chosen = {name: layer for name, layer in layers.items() if name not in skipped}
    if target is not None:
        wanted = [target] if isinstance(target, str) else list(target)
        for pattern in wanted:
            if not any(_fits(name, pattern) for name in layers):
                raise InputError(
                    f"no linear layer or convolution of {kind} fits {pattern!r}",
                    hint="leave target out for all of them, or name modules as named_modules() does",
                )
        chosen = {n: m for n, m in chosen.items() if any(_fits(n, pattern) for pattern in wanted)}
    chosen = {n: m for n, m in chosen.items() if not any(_fits(n, pattern) for pattern in exclude)}
    if not chosen:
        reasons = (
            "; ".join(f"{name}: {why}" for name, why in skipped.items()) or "it has no linear layer or convolution"
        )
        raise InputError(f"no layer of {kind} can take an adapter", hint=f"({reasons})")
    for module in network.modules():
        freeze_parameters(module)
    for layer in chosen.values():
        _adapt(layer, rank, scale)
    network.__dict__["transfer_export"] = merged_state_dict
    return network


def skipped_layers(network: nn.Module) -> dict[str, str]:
    """Layers that cannot take an adapter, with the reason: name -> why.

    Args:
        network: without adapters yet.

    >>> import torch
    >>> network = torch.nn.ModuleDict({"attention": torch.nn.MultiheadAttention(8, 2), "head": torch.nn.Linear(8, 2)})
    >>> skipped_layers(network)  # the linear layers take one
    {'attention.in_proj_weight': "torch's fused input projection is no layer of its own"}
    """
    owners: dict[int, list[str]] = {}
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(f"{prefix}.{name}")
    skipped = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.MultiheadAttention):
            skipped[f"{name}.in_proj_weight"] = "torch's fused input projection is no layer of its own"
        if not isinstance(layer, nn.Linear | _ConvNd) or isinstance(layer, _Adapted):
            continue
        weight = layer._parameters.get("weight")
        if weight is None:
            skipped[name] = "its weight is computed from other parameters (weight or spectral norm)"
        elif isinstance(weight, nn.parameter.UninitializedParameter):
            skipped[name] = "its size is not known before a first forward pass"
        elif not weight.is_floating_point():
            skipped[name] = f"its weight is {weight.dtype}"
        elif len(owners[id(weight)]) > 1:
            skipped[name] = "its weight is shared with another layer"
    return skipped


def merge_lora(network: nn.Module) -> nn.Module:
    """Put the adapters' changes into the weights and remove them, in place: original types and keys, gradients on.

    Outputs stay the same. Whatever was frozen for the adapters' sake is released. Returns the same network.

    Args:
        network: with adapters of ``add_lora``; may be wrapped in DDP.

    >>> import torch
    >>> from monai_transfer.strategies.lora import add_lora, merge_lora
    >>> network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3, padding=1, padding_mode="reflect"))
    >>> x = torch.randn(1, 1, 4, 4, 4)
    >>> _ = add_lora(network, rank=2)
    >>> for p in network.parameters():
    ...     _ = p.data.normal_()
    >>> before = network(x)
    >>> _ = merge_lora(network)
    >>> torch.allclose(network(x), before, atol=1e-4), type(network[0]).__name__
    (True, 'Conv3d')
    """
    core = unwrap(network)
    for module in core.modules():
        if isinstance(module, _Adapted):
            with torch.no_grad():
                _base(module).copy_(module.weight)
            for name in ("lora_A", "lora_B"):
                del module._parameters[name]
            del module._buffers["lora_scale"]
            module.__class__ = module.lora_base  # type: ignore[assignment]
    core.__dict__.pop("transfer_export", None)
    thaw(core)
    return network


def merged_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """The state dict that ``merge_lora`` would leave, without touching the network: loads into the original one.

    Args:
        network: with adapters of ``add_lora``; may be wrapped in DDP.

    It has the names of the network without adapters:

    >>> import torch
    >>> network = add_lora(torch.nn.Sequential(torch.nn.Linear(5, 4)), rank=1)
    >>> sorted(merged_state_dict(network))
    ['0.bias', '0.weight']
    """
    core = unwrap(network)
    state = {name: tensor for name, tensor in core.state_dict().items() if not name.endswith(_OWN)}
    with torch.no_grad():
        for name, module in core.named_modules(remove_duplicate=False):
            if isinstance(module, _Adapted):
                state[f"{name}.weight" if name else "weight"] = module.weight.detach().clone()
    return state


def lora_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """What is needed beside the original weights, and no more: adapters, what learns in full, and its buffers.

    Plain tensors on the CPU, for ``torch.save`` or safetensors; ``load_lora`` takes them back.

    Args:
        network: with adapters of ``add_lora``; may be wrapped in DDP.

    Adapters of rank 1 beside 20 weights and 4 biases that stay as they are:

    >>> import torch
    >>> network = add_lora(torch.nn.Sequential(torch.nn.Linear(5, 4)), rank=1)
    >>> {name: tuple(tensor.shape) for name, tensor in lora_state_dict(network).items()}
    {'0.lora_A': (1, 5), '0.lora_B': (4, 1), '0.lora_scale': ()}
    """
    core = unwrap(network)
    state: dict[str, Tensor] = {}
    for prefix, module in core.named_modules():
        dot = f"{prefix}." if prefix else ""
        parameters = dict(module.named_parameters(recurse=False))
        buffers = dict(module.named_buffers(recurse=False))
        own = {n: p for n, p in parameters.items() if p.requires_grad or n in _OWN}
        if isinstance(module, _Adapted):
            own["lora_scale"] = buffers["lora_scale"]
        elif own:
            own |= {n: b for n, b in buffers.items() if n not in module._non_persistent_buffers_set}
        state |= {dot + name: tensor.detach().cpu().clone() for name, tensor in own.items()}
    return state


def load_lora(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Take adapters and the rest of ``lora_state_dict`` into a network with the original weights, in place.

    Adapters are added as the state has them, where the network has none yet. Returns the same network.

    Args:
        network: with the original weights, with or without adapters.
        state: of ``lora_state_dict``.

    Raises:
        InputError: the state belongs to another network.

    The original weights and the adapters give what was tuned:

    >>> import copy, torch
    >>> network = torch.nn.Sequential(torch.nn.Linear(5, 4))
    >>> tuned = add_lora(copy.deepcopy(network), rank=1)
    >>> for name, value in tuned.named_parameters():
    ...     _ = torch.nn.init.ones_(value) if "lora" in name else value
    >>> again, image = load_lora(network, lora_state_dict(tuned)), torch.ones(1, 5)
    >>> bool(torch.equal(again(image), tuned(image)))
    True
    """
    core = unwrap(network)
    layers = sorted(name.removesuffix(".lora_A") for name in state if name.endswith(".lora_A"))
    modules = dict(core.named_modules())
    if not any(isinstance(module, _Adapted) for module in modules.values()):
        unknown = [name for name in layers if not isinstance(modules.get(name), nn.Linear | _ConvNd)]
        if unknown or not layers:
            what = f"the layer {unknown[0]!r}" if unknown else "no adapters"
            raise InputError(
                f"these adapters name {what}" + (f", which {type(core).__name__} has not" if unknown else ""),
                hint="load them into the network that they were trained with",
            )
        for module in core.modules():
            freeze_parameters(module)
        for name in layers:
            factor = state[f"{name}.lora_B"]
            _adapt(modules[name], factor.shape[1], 1.0)
        core.__dict__["transfer_export"] = merged_state_dict
    try:
        missing = core.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        raise InputError(
            f"these adapters do not fit {type(core).__name__} ({str(error).splitlines()[-1].strip()})",
            hint="load them into the network that they were trained with",
        ) from error
    own = {name for name, _ in core.named_parameters() if name.endswith(_OWN)}  # each once, whatever its other names
    lost = [*missing.unexpected_keys, *own.intersection(missing.missing_keys)]
    if lost:
        raise InputError(
            f"these adapters do not fit {type(core).__name__}: {lost[0]!r} stands on one side only",
            hint="add them with the rank and target that they were saved with",
        )
    return network


# ---------------------------------------------------------------------- the adapted layer


class _Adapted:
    """Mixed into a layer's class: ``weight`` reads as W + s B A, while the parameter ``weight`` stays W."""

    lora_base: type[nn.Module]
    lora_A: nn.Parameter
    lora_B: nn.Parameter
    lora_scale: Tensor

    @property
    def weight(self) -> Tensor:
        base = _base(self)  # type: ignore[arg-type]
        return base + self.lora_scale * low_rank_change(self, self.lora_A, self.lora_B).view(base.shape)

    @weight.setter
    def weight(self, value: Any) -> None:
        raise AttributeError("the weight of an adapted layer is not to be set: merge_lora() first")

    def __reduce_ex__(self, protocol: Any) -> Any:  # the class is made at run time: copies and pickles remake it
        return _remake, (self.lora_base,), self.__dict__


@cache  # one class per kind of layer, so that pickles and copies agree
def _adapted(base: Any) -> type[nn.Module]:
    return type(f"Lora{base.__name__}", (_Adapted, base), {"lora_base": base, "__module__": __name__})


def _remake(base: type[nn.Module]) -> nn.Module:
    kind: Any = _adapted(base)  # type: ignore[arg-type]
    return kind.__new__(kind)


def _adapt(layer: nn.Module, rank: int, scale: float) -> None:
    """Turn ``layer`` into an adapted one; A and B have its weight's type and device."""
    weight = _base(layer)
    if isinstance(layer, _ConvTransposeNd):
        first = (layer.in_channels, rank, *layer.kernel_size)
        outputs = layer.out_channels
    else:
        first = (rank, *weight.shape[1:])
        outputs = weight.shape[0]
    factor = torch.empty(first, dtype=torch.float32)
    if isinstance(layer, _ConvTransposeNd):  # the fan-in of a transposed convolution is its first axis times the kernel
        bound = 1 / math.sqrt(max(layer.in_channels // layer.groups * math.prod(layer.kernel_size), 1))
        nn.init.uniform_(factor, -bound, bound)
    else:
        nn.init.kaiming_uniform_(factor.view(rank, -1), a=math.sqrt(5))
    layer.register_parameter("lora_A", nn.Parameter(factor.to(weight)))
    layer.register_parameter("lora_B", nn.Parameter(weight.new_zeros(outputs, rank)))
    layer.register_buffer("lora_scale", weight.new_tensor(scale))
    layer.__class__ = _adapted(type(layer))  # type: ignore[arg-type]


def _base(layer: nn.Module) -> nn.Parameter:
    """The parameter W, whatever ``layer.weight`` reads as."""
    weight = layer._parameters["weight"]
    assert weight is not None
    return weight


def _scale(rank: int, alpha: float | None, rslora: bool) -> float:
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise InputError(f"rank is a whole number from 1, got {rank!r}", hint="4 to 16 are usual")
    return (rank if alpha is None else alpha) / (math.sqrt(rank) if rslora else rank)


def _fits(name: str, pattern: str) -> bool:
    return (
        name == pattern or name.startswith(pattern + ".") or name.endswith("." + pattern) or fnmatchcase(name, pattern)
    )
