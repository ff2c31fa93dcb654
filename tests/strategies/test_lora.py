"""LoRA: exact at the start, merge == forward on every convolution, original types and keys after merging."""

from __future__ import annotations

import copy
import io
import itertools
import random

import pytest
import torch
from monai.networks.nets import DynUNet, UNet, ViT, resnet10
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd

from monai_transfer.engine.checkpoint import export_state
from monai_transfer.errors import InputError
from monai_transfer.networks.wrappers import unwrap
from monai_transfer.strategies.lora import (
    Lora,
    add_lora,
    load_lora,
    lora_state_dict,
    merge_lora,
    merged_state_dict,
    skipped_layers,
)

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def grid() -> list[tuple[str, int, dict]]:
    """Every valid combination: (kind, dims, arguments)."""
    cases: list[tuple[str, int, dict]] = []
    for dims in (1, 2, 3):
        kernels = [1, 2, 3] + [(1, *[3] * (dims - 1)), (*[1] * (dims - 1), 3)] * (dims > 1)
        for kernel, stride, padding, dilation, mode, groups in itertools.product(
            kernels, (1, 2), (0, 1, "same", "valid"), (1, 2), ("zeros", "reflect", "replicate", "circular"), (1, 2, 4)
        ):
            if (padding == "same" and stride > 1) or (padding in (0, "valid") and mode != "zeros"):
                continue
            arguments = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
            cases.append(("conv", dims, arguments | {"padding_mode": mode, "groups": groups}))
        for kernel, stride, padding, extra, dilation, groups in itertools.product(
            kernels, (1, 2), (0, 1), (0, 1), (1, 2), (1, 2, 4)
        ):
            if extra and stride == 1 and dilation == 1:
                continue  # torch itself refuses an output padding that is not below stride or dilation
            arguments = {"kernel_size": kernel, "stride": stride, "padding": padding, "output_padding": extra}
            cases.append(("transposed", dims, arguments | {"dilation": dilation, "groups": groups}))
    return cases


def reference(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """base(x) + scale * B(A(x)) with two layers of torch: A as the layer's kind, B a 1x1 convolution."""
    rank, groups, dims = layer.lora_B.shape[1], layer.groups, x.ndim - 2
    shared = {name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation")}
    if isinstance(layer, _ConvTransposeNd):
        first = TRANSPOSED[dims](
            layer.in_channels, rank * groups, **shared, output_padding=layer.output_padding, groups=groups, bias=False
        )
        first.weight.data = layer.lora_A.data
    else:
        first = CONVS[dims](
            layer.in_channels, rank * groups, **shared, groups=groups, padding_mode=layer.padding_mode, bias=False
        )
        first.weight.data = layer.lora_A.data.repeat(groups, *[1] * (dims + 1))
    second = CONVS[dims](rank * groups, layer.out_channels, 1, groups=groups, bias=False)
    second.weight.data = layer.lora_B.data.view(*layer.lora_B.shape, *[1] * dims)
    plain = copy.deepcopy(layer)
    plain.lora_B.data.zero_()
    return plain(x) + layer.lora_scale * second(first(x))


def check(kind: str, dims: int, arguments: dict) -> None:
    make = (CONVS if kind == "conv" else TRANSPOSED)[dims]
    layer = make(4, 8, **arguments)
    x = torch.randn(2, 4, *[7, 6, 5][:dims])
    original = copy.deepcopy(layer)
    expected = original(x)
    network = nn.Sequential(layer)
    add_lora(network, rank=3, alpha=6)
    assert torch.equal(network(x), expected), "not exact at the start"
    nn.init.normal_(network[0].lora_B)
    changed = network(x)
    assert (changed - expected).abs().max() > 1e-3, "the adapter does nothing"
    torch.testing.assert_close(changed, reference(network[0], x), rtol=1e-4, atol=1e-4)
    twin = make(4, 8, **arguments)
    nn.Sequential(twin).load_state_dict(merged_state_dict(network))
    merge_lora(network)
    assert type(network[0]) is make and network.state_dict().keys() == nn.Sequential(original).state_dict().keys()
    torch.testing.assert_close(network(x), changed, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(twin(x), changed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", random.Random(0).sample(grid(), 48), ids=str)
def test_merge_is_forward(case):
    check(*case)


@pytest.mark.slow
def test_merge_is_forward_on_the_whole_grid():
    cases = grid()
    assert len(cases) > 700
    for case in cases:
        try:
            check(*case)
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from error


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": (1, 1, 3)},
        {"kernel_size": 3, "dilation": 2},
        {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
        {"kernel_size": 3, "groups": 4},
    ],
    ids=str,
)
def test_where_another_library_fails_in_3d(arguments):
    check("conv", 3, arguments)


def test_linear():
    network = nn.Sequential(nn.Linear(5, 3))
    x = torch.randn(2, 7, 5)
    expected = network(x)
    add_lora(network, rank=2, alpha=8, rslora=True)
    assert torch.equal(network(x), expected)
    layer = network[0]
    nn.init.normal_(layer.lora_B)
    change = x @ layer.lora_A.T @ layer.lora_B.T * 8 / 2**0.5
    torch.testing.assert_close(network(x), expected + change)
    after = network(x)
    assert torch.equal(merge_lora(network)(x), after)


def adapted_unet() -> nn.Module:
    network = UNet(2, 1, 2, (4, 8), (2,), num_res_units=1, norm="batch").eval()
    add_lora(network, rank=2)
    for name, parameter in network.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter)
    return network


def test_every_linear_and_convolution_by_default_and_only_adapters_learn():
    network = adapted_unet()
    layers = [n for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    names = dict(network.named_parameters())
    assert all(f"{layer}.lora_A" in names and f"{layer}.lora_B" in names for layer in layers)
    assert {n.rpartition(".")[2] for n, p in names.items() if p.requires_grad} == {"lora_A", "lora_B"}
    network(torch.randn(1, 1, 8, 8)).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in names.values())


def test_copy_pickle_and_state_dict():
    network, x = adapted_unet(), torch.randn(1, 1, 8, 8)
    expected = network(x)
    stream = io.BytesIO()
    torch.save(network, stream)
    stream.seek(0)
    other = add_lora(UNet(2, 1, 2, (4, 8), (2,), num_res_units=1, norm="batch").eval(), rank=2)
    other.load_state_dict(network.state_dict())
    for twin in (copy.deepcopy(network), torch.load(stream, weights_only=False), other):
        assert torch.equal(twin(x), expected)
        assert all(a is not b for a, b in zip(twin.parameters(), network.parameters(), strict=True))
        torch.testing.assert_close(merge_lora(twin)(x), expected)
    assert torch.equal(network(x), expected), "a copy shares something with the original"


def test_type_and_device_follow_the_layer():
    network = add_lora(nn.Sequential(nn.Conv2d(1, 2, 3)).double())
    assert {p.dtype for p in network.parameters()} == {torch.float64}
    network.to(torch.bfloat16)
    assert network(torch.randn(1, 1, 4, 4, dtype=torch.bfloat16)).dtype is torch.bfloat16
    assert next(add_lora(nn.Sequential(nn.Linear(2, 2, device="meta"))).parameters()).device.type == "meta"


def test_compiled_and_autocast():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    add_lora(network, rank=1)
    nn.init.ones_(network[0].lora_B)
    x = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(torch.compile(network, backend="eager")(x), network(x))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(x).float(), network(x.float()).float())
        assert network(x).dtype is torch.bfloat16


def test_attention_of_torch():
    network = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        expected = network(x)
        add_lora(network, rank=2)
        torch.testing.assert_close(network(x), expected)
        nn.init.normal_(network.self_attn.out_proj.lora_B)
        changed = network(x)
        assert (changed - expected).abs().max() > 1e-2, "the output projection's adapter does nothing"
        torch.testing.assert_close(network.train()(x), changed, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(merge_lora(network)(x), changed, rtol=1e-4, atol=1e-4)
    assert "fused" in skipped_layers(network)["self_attn.in_proj_weight"]


def first(output):
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("dims", [2, 3])
def test_monai_networks(dims):
    networks = [
        ViT(1, [8] * dims, [4] * dims, 8, 8, 2, 2, classification=True, num_classes=2, spatial_dims=dims),
        resnet10(spatial_dims=dims, n_input_channels=1, num_classes=2, widen_factor=0.0625),
        DynUNet(dims, 1, 2, [3, 3, 3], [1, 2, 1], [2, 1], filters=[4, 4, 4]),
    ]
    x = torch.randn(2, 1, *[8] * dims)
    for network in networks:
        fresh = copy.deepcopy(network)
        network.eval(), fresh.eval()
        keys = network.state_dict().keys()
        add_lora(network, rank=1)
        for name, parameter in network.named_parameters():
            if name.endswith("lora_B"):
                nn.init.normal_(parameter, std=0.1)
        with torch.no_grad():
            expected = network(x)
            fresh.load_state_dict(merged_state_dict(network))  # DynUNet: several names for one tensor
            merged = merge_lora(network)
            assert merged.state_dict().keys() == keys
            for got in (fresh(x), merged(x)):
                torch.testing.assert_close(first(got), first(expected), rtol=1e-4, atol=1e-4)
        assert all(p.requires_grad for p in merged.parameters() if p.ndim > 1)


@pytest.mark.parametrize("kind", ["unet", "dynunet"])
def test_adapters_alone(kind, tmp_path):
    def network():
        torch.manual_seed(0)
        if kind == "unet":
            return UNet(2, 1, 2, (8, 16), (2,), norm="batch").eval()
        return DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 1], [2, 1], filters=[8, 8, 8]).eval()

    strategy = Lora(rank=1, alpha=3)
    trained = strategy.apply(network())
    optimizer = torch.optim.AdamW(strategy.param_groups(trained), lr=0.1)
    x = torch.randn(2, 1, 8, 8)
    for _ in range(3):
        optimizer.zero_grad()
        trained(x).square().mean().backward()
        optimizer.step()
    path = tmp_path / "adapters.pt"
    torch.save(lora_state_dict(trained), path)
    restored = load_lora(network(), torch.load(path, weights_only=True))
    assert torch.equal(restored(x), trained(x))
    state = lora_state_dict(trained)
    assert set(strategy.full) <= set(state)
    assert sum(t.numel() for t in state.values()) < 0.6 * sum(p.numel() for p in network().parameters())
    assert torch.equal(merge_lora(restored)(x), merge_lora(copy.deepcopy(trained))(x))
    other = UNet(2, 1, 2, (4, 8, 8), (2, 2))
    with pytest.raises(InputError):
        load_lora(other, state)


def test_export_is_of_the_original_architecture():
    trained = adapted_unet()
    fresh = UNet(2, 1, 2, (4, 8), (2,), num_res_units=1, norm="batch").eval()
    fresh.load_state_dict(export_state(trained))  # strictly
    x = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(fresh(x), trained(x))


def test_strategy_freezes_statistics_and_trains_the_head_in_full():
    network = UNet(2, 1, 2, (4, 8), (2,), norm="batch", dropout=0.2)
    strategy = Lora(rank=2)
    strategy.apply(network)
    assert strategy.full == ["model.2.conv.weight", "model.2.conv.bias"]
    assert not any(n.startswith("model.2.") and "lora" in n for n, _ in network.named_parameters())
    before = copy.deepcopy(dict(network.named_buffers()))
    network.train()(torch.randn(2, 1, 8, 8)).sum().backward()
    assert all(torch.equal(before[n], b) for n, b in network.named_buffers())
    learning = {n for n, p in network.named_parameters() if p.grad is not None}
    assert learning == set(strategy.full) | {n for n, _ in network.named_parameters() if "lora_" in n}
    asked = Lora(rank=2, train_norm=True, head=False)
    network = asked.apply(UNet(2, 1, 2, (4, 8), (2,), norm="batch"))
    network.train()(torch.randn(2, 1, 8, 8))
    assert network.model[0].adn.N.num_batches_tracked == 1
    assert all(".N." in name for name in asked.full) and asked.full


def test_target_names():
    def network():
        return ViT(1, (8, 8), (4, 4), 8, 8, 2, 2, classification=True, num_classes=2, spatial_dims=2)

    def adapted(target):
        names = [n for n, _ in add_lora(network(), target=target).named_parameters()]
        return sorted(n.removesuffix(".lora_A") for n in names if n.endswith("lora_A"))

    assert adapted("qkv") == ["blocks.0.attn.qkv", "blocks.1.attn.qkv"]
    assert adapted(["*.mlp.*1"]) == ["blocks.0.mlp.linear1", "blocks.1.mlp.linear1"]
    assert len(adapted("blocks.0")) == 4
    with pytest.raises(InputError, match="fits 'query'"):
        adapted("query")


def test_refusals_and_skips():
    with pytest.raises(InputError, match="rank"):
        add_lora(nn.Sequential(nn.Linear(2, 2)), rank=0)
    with pytest.raises(InputError, match="rank"):
        Lora(rank=2.5)
    with pytest.raises(InputError, match="adapters already"):
        add_lora(add_lora(nn.Sequential(nn.Linear(2, 2))))
    with pytest.raises(InputError, match="no layer"):
        add_lora(nn.Sequential(nn.ReLU()))
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    network = nn.Sequential(tied, normed)
    skipped = skipped_layers(network)
    assert sorted(skipped) == ["0.0", "0.1", "1"]
    assert "shared" in skipped["0.0"] and "shared" in skipped["0.1"] and "weight" in skipped["1"]
    add_lora(network)
    assert [n for n, _ in network.named_parameters() if "lora" in n] == ["0.2.lora_A", "0.2.lora_B"]
    assert unwrap(network) is network
