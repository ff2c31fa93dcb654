"""Make the JSON files beside this one: names, shapes and outputs of networks as their original packages build them.

Run where those packages are installed (none is needed by the tests): ``python tests/weights/originals/make.py``.

    pip install --no-deps dynamic-network-architectures timm efficientnet-pytorch pretrainedmodels torchvision

Weights are not stored: each tensor is filled by ``fill`` from its own name, here and in ``test_originals.py``, so what
is compared is what the original code computes from a given state dict with what MONAI's network computes from it after
``load_weights``.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent


def fill(name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers that depend on the name and the shape alone, in a range where no activation dies or explodes.

    ``RandomState`` is numpy's frozen generator: these numbers stay the same for good.
    """
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.long)
    uniform = np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, shape)
    if len(shape) >= 2:
        uniform = uniform * np.sqrt(3 / np.prod(shape[1:]))
    elif name.endswith(("running_var", "weight")):
        uniform = 1 + 0.5 * uniform
    else:
        uniform = 0.3 * uniform
    return torch.tensor(uniform, dtype=torch.float32)


def picked(output: Tensor) -> list[float]:
    """48 numbers of an output, evenly spread."""
    flat = output.detach().double().flatten()
    return [round(float(flat[i]), 7) for i in torch.linspace(0, len(flat) - 1, 48).round().long()]


def nnunet(dims: int, residual: bool = False) -> nn.Module:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

    conv, norm = (nn.Conv2d, nn.InstanceNorm2d) if dims == 2 else (nn.Conv3d, nn.InstanceNorm3d)
    flat, full = ([3, 3], [3, 3]) if dims == 2 else ([1, 3, 3], [3, 3, 3])
    steps = [[1] * dims, [2, 2] if dims == 2 else [1, 2, 2], [2] * dims, [2] * dims]
    per_stage = {"n_blocks_per_stage" if residual else "n_conv_per_stage": [1, 2, 3, 1] if residual else [2] * 4}
    return (ResidualEncoderUNet if residual else PlainConvUNet)(
        input_channels=2,
        n_stages=4,
        features_per_stage=[4, 6, 8, 8],
        conv_op=conv,
        kernel_sizes=[flat, full, full, full],
        strides=steps,
        num_classes=3,
        n_conv_per_stage_decoder=[1 if residual else 2] * 3,
        conv_bias=True,
        norm_op=norm,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
        **per_stage,
    )


def timm_vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        32, 8, 3, num_classes=0, global_pool="", embed_dim=24, depth=3, num_heads=4, mlp_ratio=2, class_token=False
    )


def timm_efficientnet() -> nn.Module:
    import timm

    return timm.create_model("tf_efficientnet_b0", num_classes=10)


def efficientnet_pytorch() -> nn.Module:
    from efficientnet_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-b0", num_classes=10)


def torchvision(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision.models

        return getattr(torchvision.models, name)(num_classes=10)

    return build


def senet(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import pretrainedmodels

        return getattr(pretrainedmodels, name)(num_classes=10, pretrained=None)

    return build


NETWORKS: dict[str, tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = {
    "nnunet_plain_2d": ("dynamic_network_architectures", lambda: nnunet(2), (2, 2, 32, 32)),
    "nnunet_plain_3d": ("dynamic_network_architectures", lambda: nnunet(3), (1, 2, 8, 32, 32)),
    "nnunet_resenc_3d": ("dynamic_network_architectures", lambda: nnunet(3, residual=True), (1, 2, 8, 32, 32)),
    "timm_vit": ("timm", timm_vit, (2, 3, 32, 32)),
    "timm_efficientnet_b0": ("timm", timm_efficientnet, (2, 3, 64, 64)),
    "efficientnet_pytorch_b0": ("efficientnet_pytorch", efficientnet_pytorch, (2, 3, 64, 64)),
    "torchvision_densenet121": ("torchvision", torchvision("densenet121"), (2, 3, 64, 64)),
    "torchvision_resnet18": ("torchvision", torchvision("resnet18"), (2, 3, 64, 64)),
    "torchvision_resnet50": ("torchvision", torchvision("resnet50"), (2, 3, 64, 64)),
    "pretrainedmodels_se_resnet50": ("pretrainedmodels", senet("se_resnet50"), (1, 3, 224, 224)),
    "pretrainedmodels_se_resnext50": ("pretrainedmodels", senet("se_resnext50_32x4d"), (1, 3, 224, 224)),
}


def describe(package: str, build: Callable[[], nn.Module], size: tuple[int, ...]) -> dict:
    network = build().eval()
    state = network.state_dict()
    first: dict[int, str] = {}  # a tensor's first name, by its memory: nnU-Net registers several of each
    for name, tensor in state.items():
        if tensor.numel() and first.setdefault(tensor.data_ptr(), name) == name:
            tensor.copy_(fill(name, tuple(tensor.shape)))
    network.load_state_dict(state)
    with torch.no_grad():
        output = network(fill("input", size) * np.sqrt(np.prod(size[1:]) / 3))
    outputs = output if isinstance(output, list | tuple) else [output]
    same = {n: first[t.data_ptr()] for n, t in state.items() if t.numel() and first[t.data_ptr()] != n}
    return {
        "package": f"{package} {version(package)}",
        "tensors": {n: list(t.shape) for n, t in state.items() if n not in same},
        "same": same,
        "input": list(size),
        "outputs": [{"shape": list(o.shape), "values": picked(o)} for o in outputs],
    }


if __name__ == "__main__":
    torch.manual_seed(0)
    for key in sys.argv[1:] or NETWORKS:
        text = json.dumps(describe(*NETWORKS[key]), separators=(",", ":"))
        (HERE / f"{key}.json").write_text(text + "\n", encoding="utf-8")
        print(key, len(text))
