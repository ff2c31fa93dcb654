"""load_weights: all or nothing, in place, and never in silence."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, SwinUNETR, UNet
from safetensors.torch import save_file
from torch import nn

from monai_transfer.errors import CoverageError, InputError
from monai_transfer.weights import Source, WeightReport, load_weights


def unet(channels: int = 1, classes: int = 3, seed: int = 0, **more) -> UNet:
    torch.manual_seed(seed)
    return UNet(3, channels, classes, (8, 16, 32), (2, 2), **{"norm": "batch", **more})


def bits(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def source() -> UNet:
    network = unet(seed=1)
    network(torch.randn(2, 1, 16, 16, 16))  # running statistics that differ from the fresh ones
    return network


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
        lambda s: {"network_weights": s, "current_epoch": 2, "init_args": {"plans": {"a": 1}}},
        lambda s: {"module." + k: v for k, v in s.items()},
        lambda s: {"state_dict": {"net." + k: v for k, v in s.items()}, "pytorch-lightning_version": "2.0"},
        lambda s: {"_orig_mod.module." + k: v for k, v in s.items()},
        lambda s: {"net": {"module.backbone." + k: v for k, v in s.items()}, "optimizer": {}, "epoch": 2100},
        lambda s: {"model": s, "ema": {k: torch.zeros_like(v) for k, v in s.items()}},
        lambda s: {k: MetaTensor(v) for k, v in s.items()},
    ],
    ids=["plain", "state_dict", "model", "nnunet", "module", "lightning", "compiled", "suprem", "ema", "meta"],
)
@pytest.mark.parametrize("suffix", ["pt", "memory"])
def test_usual_wrappings_load_everything(source, tmp_path, wrap, suffix):
    content = wrap(source.state_dict())
    if suffix == "pt":
        torch.save(content, tmp_path / "w.pt")
        content = tmp_path / "w.pt"
    network = unet()
    report = load_weights(network, content)
    assert same(bits(network), bits(source))
    assert report.coverage == 1.0
    assert sorted(report.loaded) == sorted(source.state_dict())
    assert report.adapted == report.skipped == report.missing == report.unused == []
    assert all(type(parameter) is nn.Parameter for parameter in network.parameters())


def test_safetensors_with_class_names_and_licence(source, tmp_path):
    path = tmp_path / "w.safetensors"
    meta = {"classes": '["background", "liver", "spleen"]', "licence": "CC BY-NC 4.0"}
    save_file(source.state_dict(), path, metadata=meta)
    network = unet(classes=2)
    report = load_weights(network, path, target_classes=["background", "spleen"])
    assert len(report.source_sha256) == 64
    assert report.non_commercial and "NON-COMMERCIAL" in str(report)
    weight = network.model[2].conv.weight  # a transposed convolution: the classes are its second axis
    assert torch.equal(weight, source.model[2].conv.weight[:, [0, 2]])


def test_half_precision_is_cast(source):
    network = unet()
    report = load_weights(
        network, {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()}
    )
    assert report.coverage == 1 and {p.dtype for p in network.parameters()} == {torch.float32}
    expected = source.model[0].conv.weight.half().float()
    assert torch.equal(network.model[0].conv.weight, expected)


def test_a_wrong_network_raises_and_is_unchanged_to_the_bit(source):
    network = BasicUNet(3, 1, 2, features=(4,) * 6, norm="batch")
    network(torch.randn(2, 1, 16, 16, 16))
    before = bits(network)
    with pytest.raises(CoverageError) as caught:
        load_weights(network, source.state_dict())
    assert same(before, bits(network))
    text = str(caught.value)
    assert "0.0%" in text and "model.0.conv.weight" in text and "conv_0" in text and "min_coverage" in text


def test_just_under_the_minimum_changes_nothing(source):
    part = {k: v for k, v in source.state_dict().items() if not k.startswith("model.1")}
    network = unet()
    before = bits(network)
    done = sum(p.numel() for n, p in network.named_parameters() if n in part)
    coverage = done / sum(p.numel() for p in network.parameters())
    with pytest.raises(CoverageError):
        load_weights(network, part, min_coverage=coverage + 1e-6)
    assert same(before, bits(network))
    report = load_weights(network, part, min_coverage=coverage - 1e-6)
    assert report.coverage == pytest.approx(coverage)
    assert report.missing and all(name.startswith("model.1") for name in report.missing)


def test_equal_names_with_other_shapes_do_not_count(source):
    wide = UNet(3, 1, 3, (12, 24, 48), (2, 2), norm="batch")
    before = bits(wide)
    with pytest.raises(CoverageError, match="shape differs"):
        load_weights(wide, source.state_dict())
    assert same(before, bits(wide))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_no_block_of_another_width_moves_to_where_it_fits(prefix):
    """The last stage of a narrow SegResNet has the shape of a wide one's decoder: no reason to put it there."""
    narrow = {prefix + name: value for name, value in SegResNet(3, 4, 1, 2, norm="batch").state_dict().items()}
    network = SegResNet(3, 8, 1, 2, norm="batch")
    before = bits(network)
    with pytest.raises(CoverageError, match=r"convInit.conv.weight: shape differs: 4 x 1 x 3 x 3 x 3 in the source"):
        load_weights(network, narrow)
    assert same(before, bits(network))


def test_a_skipped_head_is_said(source, caplog):
    network = unet(classes=5)
    fresh = bits(network)
    with caplog.at_level(logging.WARNING):
        report = load_weights(network, source.state_dict())
    assert report.skipped == ["model.2.conv.weight", "model.2.conv.bias"]
    assert "3 classes in the source, 5 here" in report.notes["model.2.conv.weight"]
    assert torch.equal(network.model[2].conv.weight, fresh["model.2.conv.weight"])
    assert "2 skipped" in caplog.text
    assert 0.9 < report.coverage < 1


def test_class_names_that_do_not_fit_are_refused(source):
    with pytest.raises(InputError, match="source_classes names 2 classes"):
        load_weights(
            unet(classes=4), source.state_dict(), source_classes=["a", "b"], target_classes=["a", "b", "c", "d"]
        )
    with pytest.raises(InputError, match="two classes are named"):
        load_weights(unet(), source.state_dict(), source_classes=["a", "A", "b"], target_classes=["a", "b", "c"])


def test_submodule_and_shared_prefix():
    torch.manual_seed(1)
    whole = SwinUNETR(1, 2, feature_size=12, spatial_dims=2)
    torch.manual_seed(2)
    network = SwinUNETR(1, 4, feature_size=12, spatial_dims=2)
    fresh = bits(network)
    encoder = {"module." + name: tensor for name, tensor in whole.swinViT.state_dict().items()}
    report = load_weights(network.swinViT, encoder)
    assert report.coverage == 1
    assert same(bits(network.swinViT), bits(whole.swinViT))
    assert torch.equal(network.encoder1.layer.conv1.conv.weight, fresh["encoder1.layer.conv1.conv.weight"])
    # The same encoder into the whole network needs no submodule, but a lower minimum.
    again = SwinUNETR(1, 4, feature_size=12, spatial_dims=2)
    report = load_weights(again, encoder, min_coverage=0.1)
    assert same(bits(again.swinViT), bits(whole.swinViT))
    assert "swinViT." in report.dialect


def test_another_depth_shares_what_both_have():
    from monai.networks.nets import resnet10, resnet18

    args = {"spatial_dims": 2, "n_input_channels": 1, "num_classes": 2, "widen_factor": 0.25}
    shallow, deep = resnet10(**args), resnet18(**args)
    report = load_weights(deep, shallow.state_dict(), min_coverage=0.3)
    assert report.unused == report.skipped == []
    assert {name.split(".")[1] for name in report.missing if name.startswith("layer")} == {"1"}
    assert torch.equal(deep.layer4[0].conv2.weight, shallow.layer4[0].conv2.weight)
    report = load_weights(shallow, deep.state_dict())
    assert report.coverage == 1 and report.missing == [] and report.unused[0] == "layer1.1.conv1.weight"


def test_tied_weights_stay_tied_and_count_once():
    def build() -> DynUNet:
        return DynUNet(2, 1, 2, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 8, 8])

    source, network = build(), build()
    # MONAI registers every block a second time under `skip_layers`; a source may name each only once.
    once = {k: v for k, v in source.state_dict().items() if not k.startswith("skip_layers")}
    report = load_weights(network, once)
    assert report.coverage == 1 and not report.missing
    assert same(bits(network), bits(source))
    assert network.input_block is network.skip_layers.downsample


def test_tensors_that_are_tied_here_only_are_noted():
    network = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
    state = bits(network)
    network["b"].weight = network["a"].weight
    report = load_weights(network, state)
    assert "tied" in report.notes["b.weight"]
    assert torch.equal(network["b"].weight, state["a.weight"])


def test_ddp_wrapped(source, tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        network = nn.parallel.DistributedDataParallel(unet())
        report = load_weights(network, source.state_dict())
        assert report.coverage == 1 and report.loaded[0].startswith("model.")
        assert same(bits(network.module), bits(source))
    finally:
        torch.distributed.destroy_process_group()


def test_loading_keeps_the_optimizer_and_the_frozen_flags(source):
    network = unet()
    network.model[0].conv.weight.requires_grad_(False)
    kept = list(network.parameters())
    load_weights(network, source.state_dict())
    assert all(a is b for a, b in zip(kept, network.parameters(), strict=True))
    assert not network.model[0].conv.weight.requires_grad


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_weights_are_refused(source, value):
    state = copy.deepcopy(source.state_dict())
    state["model.0.conv.weight"][0, 0, 0, 0, 0] = value
    network = unet()
    before = bits(network)
    with pytest.raises(InputError, match="model.0.conv.weight holds NaN or infinity"):
        load_weights(network, state)
    assert same(before, bits(network))


def test_no_weights_at_all_and_wrong_arguments(source):
    with pytest.raises(InputError, match="no weights"):
        load_weights(unet(), {"epoch": 3})
    with pytest.raises(InputError, match="min_coverage"):
        load_weights(unet(), source.state_dict(), min_coverage=50)
    with pytest.raises(InputError, match="channels"):
        load_weights(unet(), source.state_dict(), channels="all")
    for nothing in (None, 3, source):
        with pytest.raises(InputError, match="weights cannot come from a"):
            load_weights(unet(), nothing)
    with pytest.raises(InputError, match="no module"):
        load_weights(unet(), source.state_dict(), head=["fc"])


def test_integer_weights_are_skipped(source):
    state = {k: (v * 100).to(torch.int8) if v.is_floating_point() else v for k, v in source.state_dict().items()}
    with pytest.raises(CoverageError, match="int8"):
        load_weights(unet(), state)


def test_report_survives_the_round_trip(source, tmp_path):
    network = unet(2, 5)
    report = load_weights(network, Source(source.state_dict(), description="a test"))
    report.save(tmp_path / "weights.json")
    assert WeightReport.load(tmp_path / "weights.json") == report == WeightReport.from_dict(report.to_dict())
    with pytest.raises(InputError):
        WeightReport.from_dict({"lodaed": []})
    text = str(report)
    assert "a test" in text and "adapted     1" in text and "input channels 1 -> 2" in text


def test_numbers_beside_the_weights(source, tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"state_dict": source.state_dict(), "best": np.float64(0.5), "step": np.int64(2)}, path)
    assert load_weights(unet(), path).coverage == 1
