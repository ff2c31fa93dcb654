"""L2-SP: fine-tuning that is pulled back to the starting point instead of to zero.

    L = alpha / 2 * ||w - w0||^2 + beta / 2 * ||w_new||^2

with w the transferred weights, w0 their values at the start, and w_new the weights of the new head.

Paper: Li, Grandvalet and Davoine, Explicit Inductive Bias for Transfer Learning with Convolutional Networks, ICML 2018,
arXiv:1802.01483

Defaults are those of the official code. Only weights count (matrices and kernels: more than one dimension), no biases
and no affine norm parameters. This takes the place of weight decay: **set the optimizer's ``weight_decay`` to 0**, or
both pull. With plain SGD the pull is stable while lr * alpha < 2. No forward pass of its own: norm statistics are
untouched.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.head import find_head
from monai_transfer.networks.outputs import at_least_float32
from monai_transfer.networks.snapshot import Snapshot

__all__ = ["L2Sp", "l2_sp_penalty"]


def l2_sp_penalty(
    weights: Iterable[Tensor],
    start: Iterable[Tensor],
    new: Iterable[Tensor] = (),
    alpha: float = 0.1,
    beta: float = 0.01,
) -> Tensor:
    """alpha/2 * ||w - w0||^2 + beta/2 * ||w_new||^2 over lists of tensors; a scalar, in float32 or wider.

    Args:
        weights: the transferred tensors as they are.
        start: the same as they were, in the same order and shapes.
        new: tensors that are pulled to zero.
        alpha, beta: factors of the two parts.

    Raises:
        InputError: ``weights`` and ``start`` differ in number or shape, or nothing is given at all.

    >>> import torch
    >>> from monai_transfer.methods.l2_sp import l2_sp_penalty
    >>> moved, start, head = [torch.tensor([3.0])], [torch.tensor([1.0])], [torch.tensor([2.0])]
    >>> round(l2_sp_penalty(moved, start, head).item(), 4)  # 0.1 / 2 * (3 - 1)^2 + 0.01 / 2 * 2^2
    0.22
    """
    parts = []
    for now, then in zip(weights, start, strict=True):
        if now.shape != then.shape:
            raise InputError(
                f"a weight of shape {tuple(now.shape)} started as {tuple(then.shape)}",
                hint="give both lists in the same order",
            )
        parts.append(alpha / 2 * (at_least_float32(now) - at_least_float32(then)).square().sum())
    parts += [beta / 2 * at_least_float32(tensor).square().sum() for tensor in new]
    if not parts:
        raise InputError(
            "there are no weights to regularise", hint="the lists are empty: take the network's parameters"
        )
    return torch.stack([part.to(parts[0].device) for part in parts]).sum()


class L2Sp(Method):
    """``l2_sp_penalty`` on the network that is trained; w0 is what it starts with, and is kept in the state.

    Args:
        alpha: pull of the transferred weights to their start.
        beta: pull of the new weights to zero.
        new: module name or names of what is new; ``None`` is the head as ``networks.head`` finds it, ``[]`` nothing
            (the source's own head goes on).

    Raises:
        InputError: a factor is negative, or (from ``setup``) a name is not in the network.

    >>> import torch
    >>> from monai_transfer.methods.base import Fields
    >>> from monai_transfer.methods.l2_sp import L2Sp
    >>> layers = [torch.nn.Linear(2, 2, bias=False) for _ in range(2)]
    >>> network, method = torch.nn.Sequential(*layers), L2Sp(beta=0.0)
    >>> method.setup(network, Fields())
    >>> _ = network[0].weight.data.add_(1.0)  # four weights, each moved by 1
    >>> round(method(Fields(), progress=0.5).item(), 4)  # 0.1 / 2 * 4
    0.2
    """

    replaces_weight_decay = True
    norm_statistics = "untouched: no forward pass of its own"

    def __init__(self, alpha: float = 0.1, beta: float = 0.01, new: str | list[str] | None = None) -> None:
        super().__init__()
        if alpha < 0 or beta < 0:
            raise InputError(
                f"the factors of L2-SP are not negative, got alpha {alpha} and beta {beta}",
                hint="the paper's are alpha=0.1 and beta=0.01",
            )
        self.alpha, self.beta, self.new = alpha, beta, new
        self.start: Snapshot | None = None
        self._log: dict[str, Tensor] = {}

    def setup(self, network: nn.Module, batch: Fields) -> None:
        fresh = find_head(network) if self.new is None else [self.new] if isinstance(self.new, str) else list(self.new)
        known = dict(network.named_modules(remove_duplicate=False))
        for name in fresh:
            if name not in known:
                raise InputError(f"{type(network).__name__} has no module {name!r}", hint="name what is new, or []")
        weights = {name: p for name, p in network.named_parameters() if p.ndim > 1}
        inside = {id(p) for name in fresh for p in known[name].parameters()}
        self._fresh = [name for name, p in weights.items() if id(p) in inside]
        self.start = Snapshot({name: p for name, p in weights.items() if name not in set(self._fresh)})
        self._network = weakref.ref(network)  # not a submodule: its weights are not this method's state

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.start is not None, "setup() comes before forward()"
        network = self._network()
        assert network is not None
        pairs = list(self.start.pairs(network))
        named = dict(network.named_parameters())
        fresh = [named[name] for name in self._fresh if named[name].requires_grad]
        if not pairs and not fresh:
            return torch.zeros((), device=next(network.parameters()).device)
        with torch.no_grad():
            moved = sum(((p - w0).float().square().sum() for _, p, w0 in pairs), torch.zeros(()))
            self._log = {"distance_from_start": moved.sqrt()}
        return l2_sp_penalty([p for _, p, _ in pairs], [w0 for _, _, w0 in pairs], fresh, self.alpha, self.beta)

    def log(self) -> dict[str, Tensor]:
        """``distance_from_start``: ||w - w0|| of the transferred weights."""
        return self._log
