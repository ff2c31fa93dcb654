"""What source-free and test-time methods share: their declarations, and the norm layers that they adapt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from monai_transfer.errors import InputError
from monai_transfer.tasks.for_methods import ANY_TASK, PRESENCES

__all__ = ["SourceFree", "affine_norms", "has_statistics", "images", "norm_layers", "statistic_norms"]


class SourceFree:
    """Base class of methods that see the target alone. Constructed without required arguments.

    One of two interfaces: ``wrap(network)`` returns a network that adapts while it predicts; ``fit(network, loader)``
    adapts a network in place on unlabelled cases and returns it in eval mode.

    Class attributes: as in ``monai_transfer.methods.base.Method``, and ``exclusive`` as there.

    A method of one's own that wraps the network; here it makes every answer surer:

    >>> class Sharper(SourceFree):
    ...     norm_statistics = "left as they are"
    ...     def wrap(self, network):
    ...         return nn.Sequential(network, nn.Threshold(0.0, 0.0))
    >>> Sharper().wrap(nn.Identity())(torch.tensor([[2.0, -1.0]])).tolist()
    [[2.0, 0.0]]
    """

    tasks: ClassVar[tuple[str, ...]] = ANY_TASK
    dims: ClassVar[tuple[int, ...]] = (2, 3)
    limits: ClassVar[Mapping[str, str]] = {
        "regression": "it works on class probabilities",
        **dict.fromkeys(PRESENCES, "it works on probabilities of classes that exclude each other"),
    }
    exclusive: bool = True
    norm_statistics: ClassVar[str] = ""
    experimental: ClassVar[bool] = True
    learns_nothing: ClassVar[bool] = False

    def for_task(self, task: str) -> Self:
        """This method, told what the outputs are: ``exclusive`` is False where each is present or absent.

        >>> SourceFree().for_task("regions").exclusive
        False
        """
        self.exclusive = task not in PRESENCES
        return self

    @staticmethod
    def attach(wrapped: nn.Module, engine: Any) -> None:
        """Have a wrapped network start anew with each batch of an evaluator, where it keeps anything between them."""
        attach: Any = getattr(wrapped, "attach", None)
        if attach is not None:
            attach(engine)


def norm_layers(network: nn.Module) -> list[nn.Module]:
    """All norm layers: BatchNorm, InstanceNorm, GroupNorm, LayerNorm.

    Args:
        network: any network.

    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2), torch.nn.GroupNorm(1, 2))
    >>> [type(layer).__name__ for layer in norm_layers(network)]  # in the network's order
    ['LayerNorm', 'GroupNorm']
    """
    return [m for m in network.modules() if isinstance(m, (_NormBase, nn.GroupNorm, nn.LayerNorm))]


def has_statistics(network: nn.Module) -> bool:
    """Whether any norm layer keeps running statistics.

    Args:
        network: any network.

    >>> import torch
    >>> has_statistics(torch.nn.BatchNorm2d(2)), has_statistics(torch.nn.InstanceNorm2d(2))
    (True, False)
    """
    return bool(_tracking(network))


def _tracking(network: nn.Module) -> list[_NormBase]:
    return [m for m in norm_layers(network) if isinstance(m, _NormBase) and m.running_mean is not None]


def statistic_norms(network: nn.Module) -> list[_NormBase]:
    """The norm layers that keep running statistics.

    Args:
        network: any network.

    Raises:
        InputError: there is none, with the reason.

    BatchNorm keeps them, InstanceNorm by default does not:

    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.InstanceNorm2d(2))
    >>> statistic_norms(network)
    [BatchNorm2d(2, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)]
    """
    found = _tracking(network)
    if not found:
        raise InputError(
            f"{type(network).__name__} has no running statistics to adapt: {_described(network)}",
            hint="use a network with BatchNorm, or tent for affine norm layers",
        )
    return found


def affine_norms(network: nn.Module) -> list[nn.Module]:
    """The norm layers with a learnable scale and shift, per channel.

    Args:
        network: any network.

    Raises:
        InputError: there is none, with the reason.

    InstanceNorm has a scale and a shift only when asked for:

    >>> import torch
    >>> without, affine = torch.nn.InstanceNorm3d(4), torch.nn.InstanceNorm3d(4, affine=True)
    >>> len(affine_norms(torch.nn.Sequential(without, affine))), tuple(affine.weight.shape)
    (1, (4,))
    """
    found = [m for m in norm_layers(network) if getattr(m, "weight", None) is not None]
    if not found:
        raise InputError(
            f"{type(network).__name__} has no affine norm parameters to adapt: {_described(network)}",
            hint='build it with affine norm layers, e.g. norm=("instance", {"affine": True}), or use adabn or shot',
        )
    return found


def _described(network: nn.Module) -> str:
    kinds = sorted({type(m).__name__ for m in norm_layers(network)})
    if not kinds:
        return "it has no norm layers"
    own = any(isinstance(m, (_InstanceNorm, nn.GroupNorm, nn.LayerNorm)) for m in norm_layers(network))
    return f"its norm layers are {', '.join(kinds)}" + (", which see one case at a time" if own else "")


def images(loader: Iterable[Any], key: str, device: torch.device) -> Iterator[Tensor]:
    """The image tensors of a loader's batches (dictionaries with ``key``, or plain tensors), on ``device``.

    Args:
        loader: batches, dictionaries or B x C x spatial tensors.
        key: of the image in a dictionary.
        device: where the tensors are wanted.

    Raises:
        InputError: a batch has no such tensor, or there is no batch.

    >>> import torch
    >>> loader = [{"image": torch.zeros(2, 1, 8, 8), "label": None}, torch.zeros(1, 1, 8, 8)]
    >>> [len(batch) for batch in images(loader, "image", torch.device("cpu"))]  # labels are never looked at
    [2, 1]
    """
    count = 0
    for batch in loader:
        value = batch.get(key) if isinstance(batch, Mapping) else batch
        if not isinstance(value, Tensor):
            raise InputError(
                f"a batch of the unlabelled loader holds no tensor under {key!r}", hint="name it with key="
            )
        count += 1
        yield (value.as_tensor() if hasattr(value, "as_tensor") else value).to(device)
    if not count:
        raise InputError("the unlabelled loader is empty", hint="check the target site's cases")
