"""Norm only: the affine parameters of the normalisation layers learn, everything else stays.

Paper: Frankle, Schwab and Morcos, Training BatchNorm and Only BatchNorm: On the Expressive Power of Random Features in
CNNs, ICLR 2021, arXiv:2003.00152

Norm layers that learn are in training mode, so the running statistics of a BatchNorm follow the new data; all else,
dropout included, is bitwise frozen. MONAI's UNet has by default InstanceNorm without affine parameters: there is
nothing to learn, and that is refused.
"""

from __future__ import annotations

from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.networks.freezing import freeze_all_but, keep_in_eval
from monai_transfer.strategies.base import NORM_LAYERS, Strategy, head_modules

__all__ = ["NormOnly"]


class NormOnly(Strategy):
    """Only affine norm parameters learn, and the head where it is new.

    Args:
        head: ``True`` trains the head as well, found by itself; a module name or several names it.
        statistics: ``False`` freezes the running statistics of BatchNorm too.

    Raises:
        InputError: (from ``apply``) the network has no affine norm parameters.

    >>> import torch
    >>> from monai_transfer.strategies.norm_only import NormOnly
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 1))
    >>> network = NormOnly().apply(network)
    >>> [name for name, p in network.named_parameters() if p.requires_grad]
    ['1.weight', '1.bias']
    """

    def __init__(self, head: bool | str | list[str] = False, statistics: bool = True) -> None:
        self.head, self.statistics = head, statistics

    def apply(self, network: nn.Module) -> nn.Module:
        super().apply(network)
        norms = [m for m in network.modules() if isinstance(m, NORM_LAYERS) and any(True for _ in m.parameters())]
        if not norms:
            found = sorted({type(m).__name__ for m in network.modules() if isinstance(m, NORM_LAYERS)})
            raise InputError(
                f"NormOnly has nothing to learn: {type(network).__name__} has "
                + (f"{' and '.join(found)} without affine parameters" if found else "no norm layers"),
                hint='build it with affine ones, e.g. norm=("instance", {"affine": True}), or choose another strategy',
            )
        heads = head_modules(network, None if self.head is True else self.head) if self.head else []
        freeze_all_but(network, [*norms, *(network.get_submodule(name) for name in heads)])
        if not self.statistics:
            for module in norms:
                keep_in_eval(module)
        return network
