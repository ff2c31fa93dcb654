"""Bias only (BitFit): the biases learn, everything else stays.

Paper: Ben Zaken, Ravfogel and Goldberg, BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
Language-models, ACL 2022, arXiv:2106.10199

All additive terms count: of linear layers, convolutions and norm layers. Norm layers use their stored statistics and do
not count, dropout is off.
"""

from __future__ import annotations

from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.networks.freezing import freeze_parameters, keep_in_eval, thaw
from monai_transfer.strategies.base import Strategy, head_modules

__all__ = ["BiasOnly"]


class BiasOnly(Strategy):
    """Only biases learn, and the head where it is new.

    Args:
        head: ``True`` trains the head as well, found by itself; a module name or several names it.

    Raises:
        InputError: (from ``apply``) the network has no biases.

    >>> import torch
    >>> from monai_transfer.strategies.bias_only import BiasOnly
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> network = BiasOnly().apply(network)
    >>> [name for name, p in network.named_parameters() if p.requires_grad]
    ['0.bias', '2.bias']
    """

    def __init__(self, head: bool | str | list[str] = False) -> None:
        self.head = head

    def apply(self, network: nn.Module) -> nn.Module:
        super().apply(network)
        if not any(is_bias(name) for name, p in network.named_parameters() if p.requires_grad):
            raise InputError(
                f"BiasOnly has nothing to learn: {type(network).__name__} has no biases",
                hint="build it with biases (bias=True), or choose another strategy",
            )
        heads = head_modules(network, None if self.head is True else self.head) if self.head else []
        for module in network.modules():
            freeze_parameters(module, [name for name, _ in module.named_parameters(recurse=False) if not is_bias(name)])
            if any(True for _ in module.parameters(recurse=False)) or not any(module.children()):
                keep_in_eval(module)  # not the containers: their mode decides e.g. about deep supervision
        for name in heads:
            thaw(network.get_submodule(name), network.training)
        return network


def is_bias(name: str) -> bool:
    """Whether a parameter of this name is a bias: ``bias``, or ``in_proj_bias`` of torch's attention.

    Args:
        name: of a parameter, as ``named_parameters`` gives it.

    >>> is_bias("encoder.conv.bias"), is_bias("encoder.bias_net.weight")
    (True, False)
    """
    return name.rpartition(".")[2] in ("bias", "in_proj_bias", "bias_k", "bias_v")
