"""Published key names into MONAI's networks; against small reference modules where outputs can be compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from monai.networks import nets
from monai.networks.nets import densenet, efficientnet, senet
from torch import Tensor, nn

from monai_transfer.errors import CoverageError, InputError
from monai_transfer.weights import load_weights
from monai_transfer.weights.dialects import find_state_dicts
from monai_transfer.weights.key_rules import DIALECTS
from monai_transfer.weights.medicalnet import resnet_flags
from monai_transfer.weights.nnunet import dynunet_arguments


def shuffle_statistics(network: nn.Module) -> nn.Module:
    """Norms with statistics and affine parameters of their own, so that a swap of two layers shows."""
    for module in network.modules():
        for name in ("running_mean", "running_var", "weight", "bias"):
            tensor = getattr(module, name, None)
            if isinstance(module, nn.modules.batchnorm._NormBase | nn.LayerNorm) and tensor is not None:
                nn.init.uniform_(tensor, 0.5, 1.5)
    return network


class TimmBlock(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.attn["qkv"](self.norm1(x)).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        x = x + self.attn["proj"](y)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class TimmViT(nn.Module):
    """A vision transformer with timm's names, without class token."""

    def __init__(self, patches: int = 16, dim: int = 24) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, 8, 8)})
        self.pos_embed = nn.Parameter(torch.randn(1, patches, dim))
        self.blocks = nn.ModuleList(TimmBlock(dim, 4, 32) for _ in range(2))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def monai_vit(size: int = 32, channels: int = 3, **more) -> nets.ViT:
    more = {"spatial_dims": 2, "qkv_bias": True, **more}
    d = more["spatial_dims"]
    return nets.ViT(channels, (size,) * d, (8,) * d, hidden_size=24, mlp_dim=32, num_layers=2, num_heads=4, **more)


def test_timm_vit_gives_the_same_output():
    reference = shuffle_statistics(TimmViT())
    network = monai_vit()
    report = load_weights(network, {"model": {f"module.{k}": v for k, v in reference.state_dict().items()}})
    assert "timm" in report.dialect and report.unused == report.skipped == []
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network(image)[0], reference(image), rtol=1e-4, atol=1e-5)


def test_mae_class_token_decoder_and_resized_positions():
    state = TimmViT().state_dict()
    token = torch.randn(1, 1, 24)
    state["pos_embed"] = torch.cat([token, state["pos_embed"]], dim=1)
    state |= {
        "cls_token": token,
        "mask_token": token,
        "decoder_pos_embed": token,
        "decoder_blocks.0.norm1.weight": token,
    }
    network = monai_vit()
    report = load_weights(network, {"model": state})
    assert set(report.unused) == {"cls_token", "mask_token", "decoder_pos_embed", "decoder_blocks.0.norm1.weight"}
    assert torch.equal(network.patch_embedding.position_embeddings, state["pos_embed"][:, 1:])
    larger = monai_vit(64)
    report = load_weights(larger, {"model": state})
    assert "patch_embedding.position_embeddings" in report.adapted
    resized = larger.patch_embedding.position_embeddings.detach()
    torch.testing.assert_close(resized.mean(), state["pos_embed"][:, 1:].detach().mean(), atol=0.03, rtol=0)


def test_vit_2d_into_3d_gives_the_same_output_on_equal_slices():
    reference = monai_vit()
    network = monai_vit(channels=1, spatial_dims=3)
    report = load_weights(network, reference.state_dict(), inflate="mean")
    assert report.coverage == 1
    flat = torch.randn(1, 1, 32, 32)
    volume = network(flat.unsqueeze(-1).expand(-1, -1, -1, -1, 32))[0].reshape(1, 4, 4, 4, 24)
    plane = reference(flat.expand(-1, 3, -1, -1))[0].reshape(1, 4, 4, 24)
    torch.testing.assert_close(volume[:, :, :, 1], plane, rtol=1e-4, atol=1e-5)


def test_monai_masked_autoencoder_into_vit():
    args = {"img_size": (32, 32), "patch_size": (8, 8), "hidden_size": 24, "mlp_dim": 32, "num_heads": 4}
    decoder = {f"decoder_{k}": args[k] for k in ("hidden_size", "mlp_dim", "num_heads")} | {"decoder_num_layers": 1}
    autoencoder = shuffle_statistics(nets.MaskedAutoEncoderViT(3, num_layers=2, spatial_dims=2, **args, **decoder))
    network = monai_vit(qkv_bias=False)
    report = load_weights(network, autoencoder.state_dict())
    assert report.missing == report.skipped == []
    assert torch.equal(network.norm.weight, autoencoder.blocks[2].weight)
    assert torch.equal(network.blocks[1].attn.qkv.weight, autoencoder.blocks[1].attn.qkv.weight)


class NnUNet(nn.Module):
    """nnU-Net v2's PlainConvUNet with its names (dynamic_network_architectures), three stages, deep supervision."""

    def __init__(self, features=(6, 8, 10), classes: int = 3, flat: bool = False) -> None:
        super().__init__()
        f = features
        first, kernel = ((1, 3, 3), (1, 2, 2)) if flat else ((3, 3, 3), (2, 2, 2))  # flat: as planned for thick slices
        plans = ((2, f[0], first, 1), (f[0], f[1], (3, 3, 3), kernel), (f[1], f[2], (3, 3, 3), 2))

        def stack(i: int, o: int, kernel: tuple, stride: int | tuple = 1) -> nn.ModuleDict:
            def block(i: int, o: int, stride: int | tuple) -> nn.ModuleDict:
                conv = nn.Conv3d(i, o, kernel, stride, [k // 2 for k in kernel], bias=True)
                norm = nn.InstanceNorm3d(o, affine=True)
                whole = nn.ModuleDict({"conv": conv, "norm": norm})
                whole["all_modules"] = nn.Sequential(conv, norm, nn.LeakyReLU(0.01))
                return whole

            return nn.ModuleDict({"convs": nn.ModuleList([block(i, o, stride), block(o, o, 1)])})

        self.encoder = nn.ModuleDict({"stages": nn.ModuleList(nn.ModuleList([stack(*plan)]) for plan in plans)})
        ups = [nn.ConvTranspose3d(f[2], f[1], 2, 2), nn.ConvTranspose3d(f[1], f[0], kernel, kernel)]
        self.decoder = nn.ModuleDict(
            {
                "encoder": self.encoder,
                "stages": nn.ModuleList([stack(2 * f[1], f[1], (3, 3, 3)), stack(2 * f[0], f[0], first)]),
                "transpconvs": nn.ModuleList(ups),
                "seg_layers": nn.ModuleList([nn.Conv3d(f[1], classes, 1), nn.Conv3d(f[0], classes, 1)]),
            }
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        def run(stage, x):
            for block in stage["convs"]:
                x = block["all_modules"](x)
            return x

        skips = []
        for stage in self.encoder["stages"]:
            x = run(stage[0], x)
            skips.append(x)
        outputs = []
        for level in range(2):
            x = self.decoder["transpconvs"][level](x)
            x = run(self.decoder["stages"][level], torch.cat((x, skips[-(level + 2)]), 1))
            outputs.append(self.decoder["seg_layers"][level](x))
        return outputs[::-1]


def dynunet(**more) -> nets.DynUNet:
    return nets.DynUNet(3, 2, 3, [3] * 3, [1, 2, 2], [2, 2], filters=[6, 8, 10], trans_bias=True, **more)


@pytest.mark.parametrize("flat", [False, True], ids=["cubic", "flat"])
def test_nnunet_into_dynunet_gives_the_same_output(flat):
    reference = NnUNet(flat=flat)
    for module in reference.modules():
        if isinstance(module, nn.InstanceNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -1, 1)
    checkpoint = {"network_weights": reference.state_dict(), "optimizer_state": {"state": {}}, "init_args": {"a": 1}}
    network = nets.DynUNet(**dynunet_arguments(checkpoint, deep_supervision=True))
    report = load_weights(network, checkpoint)
    assert "nnU-Net" in report.dialect and report.coverage == 1
    assert report.missing == report.skipped == []
    wide = {f"upsamples.1.conv_block.conv{number}.conv.weight" for number in (1, 2)}
    assert {name for name in report.adapted if "skip_layers" not in name} == (wide if flat else set())
    # What is unused: the convolutions' biases, which instance norm removes, and second names of the same tensors.
    second = ("all_modules", "decoder.encoder")
    assert all("convs" in n and (any(s in n for s in second) or n.endswith("conv.bias")) for n in report.unused)
    image = torch.randn(2, 2, 8, 16, 16)
    torch.testing.assert_close(network.eval()(image), reference(image)[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(network.deep_supervision_heads[0].conv.conv.weight, reference.decoder["seg_layers"][0].weight)


def test_arguments_of_other_nnunets_are_refused():
    with pytest.raises(InputError, match="no weights of nnU-Net"):
        dynunet_arguments(nets.UNet(2, 1, 2, (4, 8), (2,)).state_dict())
    residual = {f"encoder.stages.{s}.blocks.0.conv1.conv.weight": torch.ones(4, 4, 3, 3, 3) for s in range(3)}
    with pytest.raises(InputError, match="dynamic_network_architectures"):
        dynunet_arguments(residual)
    one = {name: tensor for name, tensor in NnUNet().state_dict().items() if "stages.2.0.convs.1" not in name}
    with pytest.raises(InputError, match="1 or 2 convolutions in a stage"):
        dynunet_arguments(one)


def test_weights_never_move_along_a_row():
    source = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 8))
    with pytest.raises(CoverageError):
        load_weights(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), source.state_dict(), min_coverage=0.9)
    inner = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    report = load_weights(nn.Sequential(inner, nn.ReLU()), inner.state_dict())
    assert report.coverage == 1 and "under '0.'" in report.dialect


def test_weights_without_a_network_in_monai_are_named():
    state = {f"encoder.stages.{s}.blocks.0.conv1.conv.weight": torch.ones(4, 4, 3, 3, 3) for s in range(3)}
    with pytest.raises(CoverageError, match="residual-encoder U-Net .* dynamic_network_architectures"):
        load_weights(dynunet(), {"network_weights": state})


def published_swin(network: nn.Module, generation: str) -> dict[str, Tensor]:
    """Key names of the two published SwinUNETR encoders, from the names that MONAI's own loaders read."""
    state = network.swinViT.state_dict()
    if generation == "model_swinvit.pt":
        old = {re.sub(r"mlp\.linear([12])", r"mlp.fc\1", f"module.{k}"): v for k, v in state.items()}
        return old | {"module.rotation_head.weight": torch.ones(4, 96), "module.convTrans3d.weight": torch.ones(3)}
    new = {re.sub(r"^(layers\d\.0)\.", r"\1.0.", k): v for k, v in state.items()}
    more = {
        "encoder.mask_token": torch.ones(1, 1),
        "encoder.norm.weight": torch.ones(3),
        "decoder.0.weight": torch.ones(3),
    }
    return {f"encoder.{k}": v for k, v in new.items()} | more


@pytest.mark.parametrize("generation", ["model_swinvit.pt", "ssl_pretrained_weights.pth"])
def test_swin_encoder_of_both_generations(generation):
    torch.manual_seed(1)
    source = shuffle_statistics(nets.SwinUNETR(1, 2, feature_size=12, spatial_dims=2))
    torch.manual_seed(2)
    network = nets.SwinUNETR(1, 2, feature_size=12, spatial_dims=2)
    report = load_weights(network.swinViT, {"state_dict": published_swin(source, generation)})
    assert report.coverage == 1 and report.missing == []
    assert all(
        torch.equal(a, b) for a, b in zip(source.swinViT.parameters(), network.swinViT.parameters(), strict=True)
    )
    whole = nets.SwinUNETR(2, 5, feature_size=12, spatial_dims=2)
    report = load_weights(whole, {"state_dict": published_swin(source, generation)}, min_coverage=0.1)
    assert "swinViT.patch_embed.proj.weight" in report.adapted
    assert "swinViT.layers4.0.blocks.1.mlp.linear2.bias" in report.loaded


def torchvision_densenet(old: bool) -> dict[str, Tensor]:
    """Names and shapes of torchvision's densenet121, as its constructor makes them; ``old``: the published files."""
    state: dict[str, Tensor] = {"features.conv0.weight": torch.randn(64, 3, 7, 7)}
    dot = "." if old else ""

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{part}"] = torch.rand(width)

    norm("features.norm0", 64)
    width = 64
    for block, layers in enumerate((6, 12, 24, 16), 1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            norm(f"{name}.norm{dot}1", width)
            state[f"{name}.conv{dot}1.weight"] = torch.randn(128, width, 1, 1)
            norm(f"{name}.norm{dot}2", 128)
            state[f"{name}.conv{dot}2.weight"] = torch.randn(32, 128, 3, 3)
            width += 32
        if block < 4:
            norm(f"features.transition{block}.norm", width)
            state[f"features.transition{block}.conv.weight"] = torch.randn(width // 2, width, 1, 1)
            width //= 2
    norm("features.norm5", width)
    state["classifier.weight"], state["classifier.bias"] = torch.randn(1000, width), torch.randn(1000)
    return state


@pytest.mark.parametrize("old", [True, False], ids=["norm.1", "norm1"])
def test_torchvision_densenet_from_rgb_to_one_channel(old):
    state = torchvision_densenet(old)
    network = nets.DenseNet121(2, 1, 2)
    report = load_weights(network, state)
    assert report.unused == [] and report.adapted == ["features.conv0.weight"]
    assert report.skipped == ["class_layers.out.weight", "class_layers.out.bias"]
    assert all(name.endswith("num_batches_tracked") for name in report.missing)
    torch.testing.assert_close(network.features.conv0.weight, state["features.conv0.weight"].sum(1, keepdim=True))
    dot = "." if old else ""
    expected = state[f"features.denseblock3.denselayer7.conv{dot}2.weight"]
    assert torch.equal(network.features.denseblock3.denselayer7.layers.conv2.weight, expected)


def test_monai_maps_the_older_densenet_names_alike(monkeypatch):
    """The oracle: MONAI's own renaming, given the same file instead of a download."""
    state = torchvision_densenet(old=True)
    monkeypatch.setattr(densenet, "load_state_dict_from_url", lambda *args, **more: dict(state))
    oracle = nets.DenseNet121(2, 3, 1000, pretrained=True)
    network = nets.DenseNet121(2, 3, 1000)
    load_weights(network, state)
    # MONAI leaves the published head out.
    for name, tensor in oracle.state_dict().items():
        assert name.startswith("class_layers") or torch.equal(network.state_dict()[name], tensor), name
    assert torch.equal(network.class_layers.out.weight, state["classifier.weight"])


def test_pretrainedmodels_senet(monkeypatch):
    network = nets.SEResNet50(spatial_dims=2, in_channels=3, num_classes=4)
    source = shuffle_statistics(nets.SEResNet50(spatial_dims=2, in_channels=3, num_classes=1000)).state_dict()
    rules = (
        (r"(layer[1-4]\.\d+)\.conv(\d)\.conv\.", r"\1.conv\2."),
        (r"(layer[1-4]\.\d+)\.conv(\d)\.adn\.N\.", r"\1.bn\2."),
        (r"se_layer\.fc\.0", "se_module.fc1"),
        (r"se_layer\.fc\.2", "se_module.fc2"),
        (r"project\.conv", "downsample.0"),
        (r"project\.adn\.N", "downsample.1"),
    )
    published = {}
    for name, tensor in source.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        published[name] = tensor[..., None, None] if "se_module" in name and name.endswith("weight") else tensor
    assert published["layer1.0.se_module.fc1.weight"].shape == (16, 256, 1, 1)
    report = load_weights(network, published)
    assert report.skipped == ["last_linear.weight", "last_linear.bias"] and report.unused == report.missing == []
    loaded = network.state_dict()
    assert all(torch.equal(loaded[name], source[name]) for name in report.loaded)
    # MONAI's own renaming as the oracle, given the same file instead of a download.
    monkeypatch.setattr(senet, "download_url", lambda *args, **more: None)
    monkeypatch.setattr(senet, "load_state_dict_from_url", lambda *args, **more: dict(published))
    monkeypatch.setattr(senet.torch, "load", lambda *args, **more: dict(published))
    oracle = nets.SEResNet50(spatial_dims=2, in_channels=3, num_classes=4, pretrained=True).state_dict()
    assert all(torch.equal(loaded[name], oracle[name]) for name in report.loaded)


@pytest.mark.parametrize("where", ["EfficientNetBN", "FlexibleUNet"])
def test_efficientnet_pytorch(where, monkeypatch):
    source = shuffle_statistics(
        nets.EfficientNetBN("efficientnet-b0", False, spatial_dims=2, in_channels=3, num_classes=9)
    )
    published = {re.sub(r"_blocks\.\d+\.(\d+)\.", r"_blocks.\1.", k): v for k, v in source.state_dict().items()}
    if where == "FlexibleUNet":
        network = nets.FlexibleUNet(3, 2, "efficientnet-b0", spatial_dims=2)
        report, inner = load_weights(network.encoder, published), network.encoder
    else:
        network = inner = nets.EfficientNetBN("efficientnet-b0", False, spatial_dims=2, in_channels=3, num_classes=9)
        report = load_weights(network, published)
        assert report.unused == report.skipped == []
        # MONAI's own renaming as the oracle, given the same file instead of a download.
        monkeypatch.setattr(efficientnet.model_zoo, "load_url", lambda *args, **more: dict(published))
        oracle = nets.EfficientNetBN("efficientnet-b0", True, spatial_dims=2, in_channels=3, num_classes=9)
        loaded = network.state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in oracle.state_dict().items())
    assert report.missing == []
    expected = source.state_dict()["_blocks.6.15._project_conv.weight"]
    assert torch.equal(inner.state_dict()["_blocks.6.15._project_conv.weight"], expected)


def test_timm_efficientnet():
    """Names as timm's efficientnet_b0 has them; the first stage has no expanding convolution."""
    source = shuffle_statistics(
        nets.EfficientNetBN("efficientnet-b0", False, spatial_dims=2, in_channels=3, num_classes=9)
    )
    inner = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand", "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    first = {**inner, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    ends = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    published, seen = {}, {}
    for name, tensor in source.state_dict().items():
        parts = name.split(".")
        if parts[0] == "_blocks":
            stage, number = int(parts[1]), int(parts[2])
            index = number - seen.setdefault(stage, number)
            published[f"blocks.{stage}.{index}.{(inner if stage else first)[parts[3]]}.{parts[4]}"] = tensor
        else:
            published[f"{ends[parts[0]]}.{parts[1]}"] = tensor
    assert {"blocks.0.0.conv_pw.weight", "blocks.6.0.conv_pwl.weight", "bn2.bias"} <= set(published)
    network = nets.EfficientNetBN("efficientnet-b0", False, spatial_dims=2, in_channels=3, num_classes=9)
    report = load_weights(network, published)
    assert report.coverage == 1 and report.unused == report.missing == []
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), network.parameters(), strict=True))


@pytest.mark.parametrize("depth", [10, 18, pytest.param(50, marks=pytest.mark.slow)])
def test_medicalnet_flags_leave_nothing_fresh(depth):
    build = getattr(nets, f"resnet{depth}")
    published = build(**resnet_flags(depth)).state_dict()
    checkpoint = {"state_dict": {f"module.{k}": v for k, v in published.items()}}
    report = load_weights(build(**resnet_flags(depth, feed_forward=True), num_classes=2), checkpoint)
    assert report.missing == ["fc.weight", "fc.bias"] and report.unused == report.skipped == []
    if depth == 18:  # MONAI's defaults have convolutions in the shortcuts, and the report says so
        report = load_weights(build(spatial_dims=3, n_input_channels=1, feed_forward=False), checkpoint)
        assert "layer2.0.downsample.0.weight" in report.missing
    with pytest.raises(InputError, match="depth 77"):
        resnet_flags(77)


def test_every_dialect_says_where_it_comes_from():
    assert len({dialect.name for dialect in DIALECTS}) == len(DIALECTS)
    for dialect in DIALECTS:
        assert dialect.reference and dialect.status in ("names-only", "implementation-verified", "verified")
        assert dialect.name == "plain" or dialect.sign


def test_nests_are_found_and_optimizers_left_out():
    content = {"a": {"b": {"w": torch.ones(1)}}, "optimizer": {"x": torch.ones(1)}, "ema": {"w": torch.ones(1)}}
    assert list(find_state_dicts(content)) == ["a/b", "ema"]


def test_the_documentation_lists_every_dialect_with_its_status():
    table = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
    for dialect in DIALECTS:
        row = next(line for line in table.splitlines() if line.startswith(f"| {dialect.name} |"))
        assert dialect.status in row
