"""The contract of a strategy, as functions; ``check_strategy`` runs all of it."""

from __future__ import annotations

import copy
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.networks.nets import DenseNet, DynUNet, SegResNet, UNet, ViT, resnet10
from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.networks.fcn import Fcn
from monai_transfer.strategies.base import NORM_LAYERS, Scheduled, Strategy

__all__ = [
    "NETWORKS",
    "check_form",
    "check_freezes",
    "check_refuses_nothing_to_learn",
    "check_schedule",
    "check_strategy",
]

NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "unet": lambda d: UNet(d, 1, 2, (4, 8), (2,), num_res_units=1, norm="batch", dropout=0.1),
    "dynunet": lambda d: DynUNet(
        d, 1, 2, [3, 3, 3, 3], [1, 2, 1, 1], [2, 1, 1], filters=[4, 4, 4, 4], deep_supervision=True, deep_supr_num=1
    ),
    "segresnet": lambda d: SegResNet(d, 8, 1, 2, blocks_down=(1, 1), blocks_up=(1,), norm="batch"),
    "resnet": lambda d: resnet10(spatial_dims=d, n_input_channels=1, num_classes=2, widen_factor=0.0625),
    "densenet": lambda d: DenseNet(d, 1, 2, init_features=4, growth_rate=2, block_config=(1, 1), bn_size=1),
    "vit": lambda d: ViT(1, [8] * d, [4] * d, 8, 8, 2, 2, classification=True, num_classes=2, spatial_dims=d),
    "fcn": lambda d: Fcn(d, 1, 2, stride=4, channels=(4, 4, 4, 4), convolutions=1, neck_channels=4),
}
"""Small networks that a strategy must know its way in, by name, for a number of spatial dimensions."""

_SEGMENTERS = ("unet", "dynunet", "segresnet", "fcn")

Factory = Callable[[], Strategy]


def check_strategy(
    strategy: Factory, *, networks: Sequence[str] = tuple(NETWORKS), dims: Sequence[int] = (2, 3), paper: bool = False
) -> None:
    """Hold a strategy to the whole contract.

    Its form; two steps in a stock trainer on each network: what does not learn is bitwise unchanged, buffers included,
    and what is in the optimizer moves; a schedule's first phase, its resumption; a refusal where nothing would learn.

    Args:
        strategy: its class, or a function without arguments that makes one.
        networks: some of ``NETWORKS``.
        dims: spatial dimensions.
        paper: the docstring of its module must have a line ``Paper: ...``, as ours do.

    Raises:
        AssertionError: a breach, which it names.

    >>> from monai_transfer.strategies.head_only import HeadOnly
    >>> check_strategy(HeadOnly, networks=["resnet"], dims=[2])
    """
    check_form(strategy, paper=paper)
    for kind in networks:
        for number in dims:
            check_freezes(strategy, kind, number)
    if isinstance(strategy(), Scheduled):
        for kind in networks:
            check_schedule(strategy, kind)
    check_refuses_nothing_to_learn(strategy)


def check_form(strategy: Factory, *, paper: bool = False) -> None:
    """It is a ``Strategy``, made without arguments.

    Raises:
        AssertionError: a breach.
    """
    cls = type(strategy())
    assert issubclass(cls, Strategy), f"{cls.__name__} is no Strategy"
    arguments = inspect.signature(cls).parameters.values()
    assert all(p.default is not p.empty for p in arguments), f"{cls.__name__} has an argument without a default"
    if paper:
        text = sys.modules[cls.__module__].__doc__ or ""
        assert re.search(r"^Paper: .+", text, re.MULTILINE), f"{cls.__module__} has no line `Paper: ...`"


def check_freezes(strategy: Factory, network: str, dims: int) -> None:
    """In two steps of a run of two, what does not learn stays bitwise, and what is in the optimizer moves.

    Raises:
        AssertionError: a breach.
    """
    made, original = strategy(), NETWORKS[network](dims)
    reference = copy.deepcopy(original.state_dict())
    changed = made.apply(original)
    for key, value in reference.items():
        assert torch.equal(value, changed.state_dict()[key]), f"applying changes {key}"
    groups = made.param_groups(changed)
    flat = [id(p) for group in groups for p in group["params"]]
    assert len(flat) == len(set(flat)), "a parameter is in two groups"
    assert set(flat) <= {id(p) for p in changed.parameters()}, "a parameter of the optimizer is not the network's"
    before = copy.deepcopy(_contents(changed))
    in_optimizer = {n for n, p in changed.named_parameters() if id(p) in set(flat)}
    optimizer = _train(changed, made, _loader(network, dims))
    moved = {key for key, value in _contents(changed).items() if not torch.equal(before[key], value)}
    # two steps of a run of two: a scheduled strategy has reached its second half
    parameters = {n for n, _ in changed.named_parameters()}
    learning = {n for n, p in changed.named_parameters() if p.requires_grad}
    assert learning <= in_optimizer, f"{sorted(learning - in_optimizer)[:3]} should learn, and no optimizer has them"
    still = sorted((moved & parameters) - in_optimizer)
    assert not still, f"{still[:3]} moved, and no optimizer has them"
    assert moved & parameters, "nothing learned"
    for key in moved - parameters:  # a buffer moves only where its module learns
        owner = key.rpartition(".")[0]
        assert isinstance(changed.get_submodule(owner), NORM_LAYERS), f"{key} moved"
        assert any(n.rpartition(".")[0] == owner for n in in_optimizer), f"{key} moved, its module does not learn"
    finite = all(p.grad is None or bool(p.grad.isfinite().all()) for p in changed.parameters())
    assert finite, "a gradient is not finite"
    assert len(optimizer.param_groups) == len(groups), "a group was added to the optimizer"


def check_schedule(strategy: Factory, network: str) -> None:
    """In the first phase what waits is bitwise still; stopping and resuming gives the same weights.

    Raises:
        AssertionError: a breach.
    """
    batches = _loader(network, 2, 8)

    def start() -> tuple:
        torch.manual_seed(1)
        made = strategy()
        assert isinstance(made, Scheduled)
        changed = made.apply(NETWORKS[network](2))
        optimizer = torch.optim.AdamW(made.param_groups(changed), lr=0.01, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=40)
        made.bind(changed, optimizer)
        return made, changed, optimizer, schedule

    def steps(parts: tuple, first: int, last: int) -> None:
        made, changed, optimizer, schedule = parts
        for step in range(first, last):
            torch.manual_seed(step)
            changed.train()
            made.advance(step / 32)
            optimizer.zero_grad(set_to_none=False)  # zero gradients must not move anything either
            batch = batches[step % 8]
            _LastOutput()(changed(batch["image"]), batch["label"]).backward()
            optimizer.step()
            schedule.step()

    whole = start()
    initial = copy.deepcopy(whole[1].state_dict())
    waiting = {n for n, p in whole[1].named_parameters() if not p.requires_grad}
    steps(whole, 0, 3)
    state = whole[1].state_dict()
    owners = {n.rpartition(".")[0] for n in waiting}
    still = waiting | {n for n, _ in whole[1].named_buffers() if n.rpartition(".")[0] in owners}
    assert waiting, "nothing waits in the first phase"
    assert all(torch.equal(initial[n], state[n]) for n in still), "what waits moved"
    steps(whole, 3, 20)
    saved = [copy.deepcopy(part.state_dict()) for part in whole[1:]]
    steps(whole, 20, 32)
    stuck = {n for n, p in whole[1].named_parameters() if torch.equal(initial[n], p)}
    unused = {n for n in stuck if ".norm_cross_attn." in n}  # ViT's, which its forward pass does not use
    assert stuck == unused, f"at the end {sorted(stuck - unused)[:3]} have not learnt"
    resumed = start()
    for part, content in zip(resumed[1:], saved, strict=True):
        part.load_state_dict(content)
    steps(resumed, 20, 32)
    for key, value in whole[1].state_dict().items():
        assert torch.equal(value, resumed[1].state_dict()[key]), f"resumed, {key} is another"


def check_refuses_nothing_to_learn(strategy: Factory) -> None:
    """A network that it finds nothing to train in is refused with an ``InputError``.

    Raises:
        AssertionError: it is taken.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = strategy()
            made.param_groups(made.apply(nn.Sequential(nn.Flatten(), nn.ReLU())))
        except InputError:
            return
    raise AssertionError(f"{type(made).__name__} takes a network without parameters")


def _loader(kind: str, dims: int, length: int = 2) -> list[dict[str, Tensor]]:
    side = 16 if kind == "densenet" else 8
    shape = (4, *[side] * dims) if kind in _SEGMENTERS else (4,)
    return [{"image": torch.randn(4, 1, *[side] * dims), "label": torch.randint(0, 2, shape)} for _ in range(length)]


def _contents(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each under its first name (DynUNet's state dict has several)."""
    return {n: t.detach() for n, t in (*network.named_parameters(), *network.named_buffers())}


class _LastOutput(nn.Module):
    """Cross entropy; a ViT returns its hidden states as well, deep supervision stacks its outputs."""

    def forward(self, output: Any, label: Tensor) -> Tensor:
        if isinstance(output, Tensor) and output.ndim == label.ndim + 2:
            return torch.stack([self(part, label) for part in output.unbind(1)]).sum()
        return nn.functional.cross_entropy(output[0] if isinstance(output, tuple) else output, label)


def _train(network: nn.Module, strategy: Strategy, batches: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(strategy.param_groups(network), lr=0.01, weight_decay=0.1)
    SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=1, train_data_loader=batches, network=network,
        optimizer=optimizer, loss_function=_LastOutput(), train_handlers=[strategy],
    ).run()  # fmt: skip
    return optimizer
