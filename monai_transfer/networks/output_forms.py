"""What form a network's output has: one tensor, or several heads as a list, a tuple or a stack.

Networks with deep supervision give several maps while they train: ``SegResNetDS`` and ``BasicUNetPlusPlus`` a list,
``MedNeXt`` a tuple, ``DynUNet`` one tensor with an axis more (B x heads x C x spatial). Others put something beside
their scores: ``ViT`` its hidden states, ``SegResNetVAE`` the loss of its second decoder. Methods, metrics and test-time
adaptation work on the main output; the loss looks at all heads (``networks.deep_supervision``). This is the one place
that knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from monai_transfer.errors import InputError
from monai_transfer.networks.wrappers import unwrap

__all__ = [
    "auxiliary_loss",
    "is_stack",
    "main_output",
    "main_place",
    "main_scores",
    "may_give_several",
    "output_heads",
    "plain_in_evaluation",
    "spatial_dims_of",
]

_MAIN_LAST = ("BasicUNetPlusPlus",)
"""Classes whose main output is the last of a list: the others, by MONAI's custom, put it first."""

_KNOWN = ("monai.networks.nets.", "monai_transfer.networks.")
_SEVERAL = {"basicunetplusplus", "segresnetvae", "segresnetds2", "vit", "hovernet"}
"""MONAI's classes that always give something else than one tensor, also in evaluation, in lower case."""
_PLACES = {
    "basicunetplusplus": "output[-1]",
    "segresnetds2": "output[0][0]",
    "segresnetvae": "output[0]",
    "vit": "output[0]",
}
_WHILE_TRAINING = {"dynunet": "deep_supervision", "segresnetds": "dsdepth", "mednext": "deep_supervision"}
"""Those that do so in training where an argument asks for it, with the beginning of their names."""


def output_heads(output: Any, dims: int | None = None, network: nn.Module | None = None) -> list[Tensor]:
    """All heads of an output, the main one first, each B x C x spatial (a head's own size) or B x C.

    Args:
        output: what a network returned: a tensor, a stack of heads B x heads x C x spatial, or a list or tuple.
        dims: number of spatial dimensions of the images, by which a stack is told; default: the network's.
        network: the network, where it is at hand: a few put their main output last.

    Raises:
        InputError: a dictionary of outputs, or nothing that is a tensor of scores.

    >>> import torch
    >>> [tuple(head.shape) for head in output_heads(torch.zeros(2, 3, 4, 8, 8), dims=2)]
    [(2, 4, 8, 8), (2, 4, 8, 8), (2, 4, 8, 8)]
    """
    network = None if network is None else unwrap(network)
    name = "the network" if network is None else type(network).__name__
    if isinstance(output, Mapping):
        raise InputError(
            f"{name} gives a dictionary of outputs ({', '.join(map(str, output))}), not class scores",
            hint="wrap it in a module that returns the one to learn from",
        )
    if isinstance(output, Tensor):
        dims = spatial_dims_of(network) if dims is None and network is not None else dims
        plain = _bare_tensor(output)
        return list(plain.unbind(1)) if is_stack(plain, dims) else [plain]
    found = [_bare_tensor(value) for value in _flat(output) if isinstance(value, Tensor) and value.ndim > 1]
    if not found:
        raise InputError(f"{name} gives a {type(output).__name__} without class scores", hint="name another network")
    last = network is not None and any(base.__name__ in _MAIN_LAST for base in type(network).__mro__)
    main = found[-1] if last else found[0]
    others = [head for head in found if head is not main]
    same = [head for head in others if (head.ndim, head.shape[:2]) == (main.ndim, main.shape[:2])]
    return [main, *same]  # hidden states and reconstructions have another width


def main_place(target: str) -> str | None:
    """Of a network that gives several outputs also in evaluation, where among them the main one is, as Python.

    For configs that need MONAI alone; ``None``: it gives one tensor, or is not known.

    Args:
        target: full path of the network's class.

    >>> main_place("monai.networks.nets.ViT"), main_place("monai.networks.nets.UNet")
    ('output[0]', None)
    """
    return _PLACES.get(target.rpartition(".")[2].lower()) if target.startswith(_KNOWN) else None


def main_output(output: Any, dims: int | None = None, network: nn.Module | None = None) -> Tensor:
    """The output that counts: full resolution, the one that evaluation sees. See ``output_heads``.

    Args:
        output: of the network: a tensor, a list, tuple or dictionary of them, or stacked heads.
        dims: spatial dimensions of the image.
        network: that gave it.

    >>> import torch
    >>> tuple(main_output((torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4))).shape)
    (1, 2, 8, 8)
    """
    return output_heads(output, dims, network)[0]


def main_scores(network: nn.Module, image: Tensor) -> Tensor:
    """Run a network on images, B x C x spatial, and take its main output.

    Args:
        network: of any form of output.
        image: B x C x spatial.

    >>> import torch
    >>> network = nn.Module()
    >>> network.forward = lambda image: [image, image[..., ::2, ::2]]  # deep supervision: full size first
    >>> main_scores(network, torch.zeros(1, 2, 8, 8)).shape
    torch.Size([1, 2, 8, 8])
    """
    return main_output(network(image), image.ndim - 2, network)


def auxiliary_loss(output: Any) -> Tensor | None:
    """The scalar that a network puts beside its scores as a loss of its own (``SegResNetVAE``), else ``None``.

    Args:
        output: of the network.

    >>> import torch
    >>> auxiliary_loss((torch.zeros(1, 2, 8, 8), torch.tensor(0.3))), auxiliary_loss(torch.zeros(1, 2, 8, 8))
    (tensor(0.3000), None)
    """
    if isinstance(output, Tensor | Mapping):
        return None
    return next((_bare_tensor(v) for v in _flat(output) if isinstance(v, Tensor) and v.ndim == 0), None)


def is_stack(output: Tensor, dims: int | None) -> bool:
    """Whether a tensor holds stacked heads, B x heads x C x spatial, for images of ``dims`` spatial dimensions.

    Args:
        output: of the network.
        dims: spatial dimensions of the image; None: not known.

    >>> import torch
    >>> is_stack(torch.zeros(1, 3, 2, 8, 8), 2), is_stack(torch.zeros(1, 2, 8, 8, 8), 3)  # three heads; a volume
    (True, False)
    """
    return dims is not None and output.ndim == dims + 3


def spatial_dims_of(network: nn.Module) -> int | None:
    """The number of spatial dimensions that a network's first convolution works on; ``None`` without one.

    Args:
        network: any network.

    >>> spatial_dims_of(nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)))
    3
    """
    return next((len(m.kernel_size) for m in network.modules() if isinstance(m, _ConvNd)), None)


def may_give_several(target: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a network, by its class path and arguments as in a config, may give anything but one tensor.

    ``False`` is certain, for MONAI's own; any other class may.

    Args:
        target: full path of the class.
        arguments: as in a config.

    >>> may_give_several("monai.networks.nets.UNet", {}), may_give_several("monai.networks.nets.ViT", {})
    (False, True)
    """
    name = target.rpartition(".")[2].lower()
    if not target.startswith(_KNOWN) or name in _SEVERAL:
        return True
    found = next((argument for start, argument in _WHILE_TRAINING.items() if name.startswith(start)), "")
    value = arguments.get(found, False)
    return bool(value) and (isinstance(value, bool) or value != 1)  # dsdepth: 1 is the main head alone


def plain_in_evaluation(network: nn.Module) -> nn.Module:
    """Have a network give its main output alone while it evaluates; the same network, with a forward hook.

    Nothing is done to MONAI's networks that give one tensor then anyway.

    Args:
        network: changed in place.

    >>> import torch
    >>> class Two(nn.Module):
    ...     def forward(self, image):
    ...         return image, image[..., ::2]
    >>> network = plain_in_evaluation(Two())
    >>> len(network.train()(torch.zeros(1, 2, 8))), network.eval()(torch.zeros(1, 2, 8)).shape
    (2, torch.Size([1, 2, 8]))
    """
    cls = type(network)
    if not cls.__module__.startswith(_KNOWN) or cls.__name__.lower() in _SEVERAL:
        network.register_forward_hook(_main_alone)
    return network


def _main_alone(network: nn.Module, inputs: tuple, output: Any) -> Any:
    several = isinstance(output, list | tuple)
    return main_output(output, inputs[0].ndim - 2, network) if several and not network.training else output


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [item for part in value for item in _flat(part)]
    return [value]


def _bare_tensor(tensor: Tensor) -> Tensor:
    """Without the meta data of a ``MetaTensor``."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
