"""Where a classifier looked: class activation maps and MIL attention on the image's own grid, ready for boxes.

Only case labels are needed. Such a map tells what decided, not what is abnormal, and it has the resolution of a feature
map: its boxes are coarse.

Paper: Selvaraju et al., Grad-CAM, ICCV 2017, arXiv:1610.02391; Zhou et al., Learning Deep Features for Discriminative
Localization (CAM), CVPR 2016, arXiv:1512.04150
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.data import MetaTensor
from monai.visualize import CAM, GradCAM, GradCAMpp
from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.networks.copying import copy_network

__all__ = ["activation_map", "attention_map"]

_KINDS = {"grad_cam": GradCAM, "grad_cam_pp": GradCAMpp, "cam": CAM}


def activation_map(
    network: nn.Module, image: Tensor, layer: str, class_index: int, *, kind: str = "grad_cam", fc_layers: str = ""
) -> Tensor:
    """A class activation map, B x 1 x spatial, each image's from 0 to 1 (all 0 where nothing speaks for the class).

    MONAI's maps by default run from 1 at the least to 0 at the most active place; here high is active.

    Args:
        network: a classifier in any mode; it is left as it is.
        image: B x C x spatial.
        layer: module name of the last feature map, for example ``class_layers.relu`` of a DenseNet.
        class_index: the class that is looked for.
        kind: ``grad_cam``, ``grad_cam_pp`` or ``cam`` (needs ``fc_layers``: a global mean, then that one linear layer).
        fc_layers: module name of the linear layer after the mean, for ``cam``.

    Raises:
        InputError: no such kind or layer.

    The class is the mean of the feature map, so the bright corner of the image speaks for it:

    >>> import torch
    >>> parts = torch.nn.Conv2d(1, 1, 1, bias=False), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    >>> network = torch.nn.Sequential(*parts)
    >>> _ = torch.nn.init.ones_(network[0].weight)
    >>> activation_map(network, torch.tensor([[[[0.0, 0.0], [0.0, 4.0]]]]), "0", class_index=0).tolist()
    [[[[0.0, 0.0], [0.0, 1.0]]]]
    """
    if kind not in _KINDS:
        raise InputError(f"no activation map {kind!r}", hint=f"one of {', '.join(_KINDS)}")
    names = dict(network.named_modules())
    for name in (layer, fc_layers) if kind == "cam" else (layer,):
        if name not in names:
            raise InputError(f"the network has no layer {name!r}", hint=f"one of {', '.join(list(names)[-6:])} ...")
    extra = {"fc_layers": fc_layers} if kind == "cam" else {}
    # a copy: MONAI leaves its hooks, makes activations not in place, and fills the parameters' gradients
    copied = copy_network(network)
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image  # metadata have no place in a gradient
    index = torch.full((len(image),), class_index) if kind == "cam" else class_index
    with torch.enable_grad():
        cam = _KINDS[kind](copied, target_layers=layer, postprocessing=_as_it_is, **extra)
        maps = cam(plain.detach().clone().requires_grad_(), class_idx=index)
    return _scaled(maps.detach().clamp_min(0), image)


def attention_map(network: nn.Module, image: Tensor, class_index: int | None = None) -> Tensor:
    """The attention of a ``Mil`` network on the image's grid, B x 1 x spatial, each image's from 0 to 1.

    With ``class_index`` its evidence for that class instead: attention times what the place adds to the class's logit.

    Args:
        network: a ``Mil`` network.
        image: B x C x spatial.
        class_index: of the evidence; None: the attention alone.

    Raises:
        InputError: the network has no ``lesion_map``.

    >>> from monai_transfer.networks.mil import Mil
    >>> _ = torch.manual_seed(0)
    >>> network = Mil(instances="patches", backbone=nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU()), features=4)
    >>> found = attention_map(network, torch.rand(1, 1, 16, 16))
    >>> found.shape, float(found.max())
    (torch.Size([1, 1, 16, 16]), 1.0)
    """
    lesion_map: Callable[..., Tensor] | None = getattr(network, "lesion_map", None)
    if lesion_map is None:
        raise InputError(
            f"{type(network).__name__} has no attention over instances", hint="use monai_transfer.networks.mil.Mil"
        )
    mode = network.training
    network.eval()
    try:
        maps = lesion_map(image.as_tensor() if isinstance(image, MetaTensor) else image, class_index)
    finally:
        network.train(mode)
    return _scaled(maps, image)


def _as_it_is(value: Tensor) -> Tensor:
    return value


def _scaled(maps: Tensor, image: Tensor) -> Tensor:
    """Each map's maximum to 1; with the image's geometry where it has one."""
    top = maps.flatten(1).amax(1).view(-1, *[1] * (maps.ndim - 1))
    maps = maps / top.clamp_min(1e-12)
    if isinstance(image, MetaTensor):
        return MetaTensor(maps).copy_meta_from(image)
    return maps
