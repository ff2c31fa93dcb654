"""MedicalNet's ResNet: arguments read from the file, and its own strides, against a reference after its code."""

from __future__ import annotations

import pytest
import torch
from monai.networks import nets
from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.weights import load_weights
from monai_transfer.weights.medicalnet import published_strides, resnet_arguments, resnet_flags

WIDTHS = (4, 8, 12, 16)


class Block(nn.Module):
    """A block of the published network, dilated, with either kind of shortcut."""

    def __init__(self, inside: int, width: int, stride: int, dilation: int, deep: bool, kind: str) -> None:
        super().__init__()
        out = width * (4 if deep else 1)
        same = {"dilation": dilation, "padding": dilation, "bias": False}
        self.deep, self.out, self.stride = deep, out, stride
        if deep:
            self.conv1, self.conv2 = nn.Conv3d(inside, width, 1, bias=False), nn.Conv3d(width, width, 3, stride, **same)
            self.conv3, self.bn3 = nn.Conv3d(width, out, 1, bias=False), nn.BatchNorm3d(out)
        else:
            self.conv1, self.conv2 = nn.Conv3d(inside, width, 3, stride, **same), nn.Conv3d(width, width, 3, **same)
        self.bn1, self.bn2 = nn.BatchNorm3d(width), nn.BatchNorm3d(width)
        self.padded = (stride != 1 or inside != out) and kind == "A"
        if (stride != 1 or inside != out) and kind == "B":
            self.downsample = nn.Sequential(nn.Conv3d(inside, out, 1, stride, bias=False), nn.BatchNorm3d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        y = self.bn3(self.conv3(y.relu())) if self.deep else y
        if self.padded:
            s = self.stride
            small = x[:, :, ::s, ::s, ::s]
            x = torch.cat([small, small.new_zeros(len(x), self.out - x.shape[1], *small.shape[2:])], 1)
        elif hasattr(self, "downsample"):
            x = self.downsample(x)
        return (x + y).relu()


class MedicalNet(nn.Module):
    """The published encoder with its names: stride 2 in conv1, 1 in layer3 and layer4, which are dilated by 2 and 4."""

    def __init__(self, layers: tuple[int, ...], deep: bool, kind: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(1, WIDTHS[0], 7, 2, 3, bias=False), nn.BatchNorm3d(WIDTHS[0])
        inside = WIDTHS[0]
        for number, (width, count, stride, dilation) in enumerate(
            zip(WIDTHS, layers, (1, 2, 1, 1), (1, 1, 2, 4), strict=True), 1
        ):
            blocks = []
            for place in range(count):
                blocks.append(Block(inside, width, stride if place == 0 else 1, dilation, deep, kind))
                inside = blocks[-1].out
            setattr(self, f"layer{number}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool3d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def published(reference: nn.Module, segmentation: bool) -> dict[str, dict[str, Tensor]]:
    """A raw file: a nest, ``module.``, and where it was trained for segmentation the decoder's three layers."""
    state = reference.state_dict()
    if segmentation:
        state["conv_seg.0.weight"], state["conv_seg.6.weight"] = torch.ones(16, 32, 2, 2, 2), torch.ones(2, 32, 1, 1, 1)
    return {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}


KINDS = {10: ((1, 1, 1, 1), False, "B"), 18: ((2, 2, 2, 2), False, "A"), 50: ((3, 4, 6, 3), True, "B")}


@pytest.mark.parametrize("depth", KINDS)
def test_features_are_those_of_the_published_network(depth):
    reference = MedicalNet(*KINDS[depth]).eval()
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm3d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    checkpoint = published(reference, segmentation=depth == 10)
    arguments = resnet_arguments(checkpoint)
    flags = {**resnet_flags(depth), "bias_downsample": False, "layers": list(KINDS[depth][0])}
    assert arguments.items() >= flags.items()
    network = published_strides(nets.ResNet(**arguments)).eval()
    report = load_weights(network, checkpoint)
    assert report.coverage == 1 and report.missing == report.skipped == report.adapted == []
    assert len(report.unused) == (2 if depth == 10 else 0)
    features: list[Tensor] = []
    network.layer4.register_forward_hook(lambda _m, _i, output: features.append(output))
    image = torch.randn(1, 1, 32, 40, 24)
    with torch.no_grad():
        network(image)
        expected = reference(image)
    assert expected.shape[2:] == (4, 5, 3) and expected.std() > 1e-2
    torch.testing.assert_close(features[0], expected, rtol=1e-4, atol=1e-4 * float(expected.max()))


def test_monai_without_it_is_another_function():
    network = nets.ResNet(**resnet_arguments(published(MedicalNet(*KINDS[10]), segmentation=False)))
    shapes: list[torch.Size] = []
    network.layer4.register_forward_hook(lambda _m, _i, output: shapes.append(output.shape[2:]))
    network.eval()(torch.zeros(1, 1, 32, 32, 32))
    published_strides(network)(torch.zeros(1, 1, 32, 32, 32))
    assert shapes == [(1, 1, 1), (4, 4, 4)]


def test_arguments_with_a_head_and_from_other_resnets(tmp_path):
    checkpoint = published(MedicalNet(*KINDS[18]), segmentation=False)
    torch.save(checkpoint, tmp_path / "resnet_18.pth")
    network = nets.ResNet(**resnet_arguments(tmp_path / "resnet_18.pth", num_classes=3))
    report = load_weights(network, tmp_path / "resnet_18.pth")
    assert report.missing == ["fc.weight", "fc.bias"] and network.fc.out_features == 3
    flat = nets.resnet18(spatial_dims=2, n_input_channels=3, num_classes=5, widen_factor=0.125)
    arguments = resnet_arguments(flat.state_dict(), num_classes=5)
    assert load_weights(nets.ResNet(**arguments), flat.state_dict()).coverage == 1
    assert arguments["spatial_dims"] == 2 and arguments["bias_downsample"] and arguments["block"] == "basic"


@pytest.mark.parametrize("wrong", [nets.UNet(3, 1, 2, (4, 8), (2,)), nets.DenseNet(2, 1, 2, 4, 4, (1, 1))])
def test_other_networks_are_refused(wrong):
    with pytest.raises(InputError, match="no weights of a ResNet"):
        resnet_arguments(wrong.state_dict())
    with pytest.raises(InputError, match="MONAI's ResNet"):
        published_strides(wrong)
