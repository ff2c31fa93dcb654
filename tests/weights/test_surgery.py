"""Channels, classes, inflation, positions: the numbers that come out, not only the shapes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from monai.networks import nets
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.networks.fcn import Fcn
from monai_transfer.weights import load_weights
from monai_transfer.weights.channels import adapt_channels
from monai_transfer.weights.classes import ClassMap, class_names
from monai_transfer.weights.inflation import inflate
from monai_transfer.weights.positions import resize_positions, resize_relative_table


@pytest.mark.parametrize("mode", ["auto", "repeat", "average"])
@pytest.mark.parametrize(("n", "m"), [(1, 3), (1, 4), (3, 1), (3, 4), (3, 2), (2, 4), (4, 1)])
def test_an_image_equal_in_all_channels_gives_the_same_response(mode, n, m):
    weight, image = torch.randn(5, n, 3, 3), torch.randn(1, 1, 8, 8)
    if mode == "repeat" and n > m:
        weight = weight[:, :1].expand(-1, n, -1, -1)  # only the first channels are kept: equal ones for the test
    adapted, note = adapt_channels(weight, torch.zeros(5, m, 3, 3), mode)
    expected = F.conv2d(image.expand(-1, n, -1, -1), weight)
    torch.testing.assert_close(F.conv2d(image.expand(-1, m, -1, -1), adapted), expected, rtol=1e-4, atol=1e-5)
    assert f"{n} -> {m}" in note


def test_channels_by_name_and_first():
    weight, fresh = torch.randn(5, 3, 1, 1), torch.randn(5, 2, 1, 1)
    adapted, note = adapt_channels(weight, fresh, "auto", ["T1", "T2", "FLAIR"], ["flair", "CT"])
    assert torch.equal(adapted[:, 0], weight[:, 2]) and torch.equal(adapted[:, 1], fresh[:, 1])
    assert "flair" in note and "CT" in note
    adapted, _ = adapt_channels(weight, fresh, "first")
    assert torch.equal(adapted, weight[:, :2])
    wide = torch.randn(5, 4, 1, 1)
    adapted, _ = adapt_channels(weight, wide, "first")
    assert torch.equal(adapted[:, :3], weight) and torch.equal(adapted[:, 3], wide[:, 3])
    assert adapt_channels(weight, fresh, "auto", ["a", "b", "c"], ["x", "y"])[1].startswith("input channels 3 -> 2")


def test_only_the_first_layers_change_their_channels():
    """A convolution deeper inside with another width is skipped, however alike its shape looks."""
    source = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1))
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1))
    state = source.state_dict() | {"1.weight": torch.randn(4, 2, 3, 3)}
    report = load_weights(network, state, min_coverage=0)
    assert report.skipped == ["1.weight"] and "4 x 2 x 3 x 3 in the source" in report.notes["1.weight"]


def test_all_stems_of_a_swin_unetr_follow():
    network = nets.SwinUNETR(4, 2, feature_size=12, spatial_dims=2)
    report = load_weights(network, nets.SwinUNETR(1, 2, feature_size=12, spatial_dims=2).state_dict())
    assert set(report.adapted) == {
        "swinViT.patch_embed.proj.weight",
        "encoder1.layer.conv1.conv.weight",
        "encoder1.layer.conv3.conv.weight",
    }
    assert report.coverage == 1


def test_a_linear_patch_embedding_follows():
    def vit(channels):
        return nets.ViT(channels, (16, 16), (8, 8), 24, 32, 1, 4, proj_type="perceptron", spatial_dims=2)

    source, network = vit(1), vit(3)
    report = load_weights(network, source.state_dict())
    assert report.coverage == 1 and "1 -> 3" in report.notes["patch_embedding.patch_embeddings.1.weight"]
    image = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(network(image.expand(-1, 3, -1, -1))[0], source(image)[0], rtol=1e-4, atol=1e-5)


HEADS = {
    "up": lambda o: nets.UNet(2, 1, o, (4, 8, 16), (2, 2)),
    "residual": lambda o: nets.UNet(2, 1, o, (4, 8, 16), (2, 2), num_res_units=2, norm="batch"),
    "vnet": lambda o: nets.VNet(2, 1, o),
    "conv": lambda o: nets.BasicUNet(2, 1, o, features=(8,) * 6),
    "deep": lambda o: nets.DynUNet(2, 1, o, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[8] * 4, deep_supervision=True),
    "fcn": lambda o: Fcn(2, 1, o, stride=8, channels=(4,) * 5, convolutions=1, neck_channels=4),
    "linear": lambda o: nets.resnet10(spatial_dims=2, n_input_channels=1, num_classes=o),
}


@pytest.mark.parametrize("kind", HEADS)
def test_reordered_classes_give_reordered_scores(kind):
    """The oracle is the network itself: the same classes in another order are the same channels in another order."""
    size = 64 if kind == "linear" else 32
    torch.manual_seed(1)
    source = HEADS[kind](4)
    source(torch.randn(2, 1, size, size))
    if kind == "fcn":  # starts with equal kernels for all classes: make them differ
        for parameter in source.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    torch.manual_seed(2)
    network = HEADS[kind](4)
    names = ["background", "liver", "spleen", "left kidney"]
    ours = ["Background", "left_kidney", "Liver", "SPLEEN"]
    report = load_weights(network, source.state_dict(), source_classes=names, target_classes=ours)
    assert report.coverage == 1 and report.adapted
    image = torch.randn(1, 1, size, size)
    torch.testing.assert_close(network.eval()(image), source.eval()(image)[:, [0, 3, 1, 2]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", HEADS)
def test_classes_in_common_are_kept_and_new_ones_stay_fresh(kind):
    source, network = HEADS[kind](3), HEADS[kind](5)
    fresh = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report = load_weights(
        network,
        source.state_dict(),
        source_classes={"0": "background", "1": "liver", "2": "spleen"},
        target_classes=["background", "tumour", "spleen", "cyst", "vein"],
    )
    assert report.coverage == 1 and not report.skipped
    name = next(n for n in report.adapted if n.endswith("bias"))
    assert torch.equal(network.state_dict()[name][[0, 2]], source.state_dict()[name][[0, 2]])
    assert torch.equal(network.state_dict()[name][[1, 3, 4]], fresh[name][[1, 3, 4]])
    note = report.notes[name]
    assert "new, as initialised: tumour, cyst, vein" in note and "dropped: liver" in note


def test_no_class_in_common_leaves_the_head_fresh():
    source, network = HEADS["conv"](2), HEADS["conv"](2)
    fresh = network.final_conv.weight.clone()
    report = load_weights(network, source.state_dict(), source_classes=["a", "b"], target_classes=["c", "d"])
    assert report.skipped == ["final_conv.weight", "final_conv.bias"]
    assert torch.equal(network.final_conv.weight, fresh)


def test_one_sigmoid_output_has_the_name_of_the_structure():
    source, network = HEADS["conv"](1), HEADS["conv"](2)
    names = ["background", "tumour"]
    load_weights(network, source.state_dict(), source_classes=names, target_classes=["tumour", "oedema"])
    assert torch.equal(network.final_conv.weight[0], source.final_conv.weight[0])


def test_class_names_are_checked():
    assert class_names({"1": "b", "0": "a"}) == ["a", "b"]
    assert ClassMap.by_name(["A", "b"], ["a", "B"]).is_identity
    for wrong in ({"0": "a", "2": "b"}, {"x": "a"}, "ab", ["a", "A "]):
        with pytest.raises(InputError):
            class_names(wrong)


@pytest.mark.parametrize("how", ["center", "mean"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (1, 1), (7, 2), (2, 2), (5, 1)])
def test_an_inflated_convolution_repeats_its_2d_response(how, kernel, stride):
    flat = nn.Conv2d(2, 3, kernel, stride)
    deep = nn.Conv3d(2, 3, kernel, stride)
    weight = inflate(flat.weight.detach(), kernel, how, module=deep)
    image = torch.randn(1, 2, 14, 14)
    response = F.conv3d(image.unsqueeze(-1).expand(-1, -1, -1, -1, 14), weight, flat.bias, stride)
    torch.testing.assert_close(response, flat(image).unsqueeze(-1).expand_as(response), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["center", "mean"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (4, 2), (3, 1)])
def test_an_inflated_up_convolution_repeats_its_2d_response(how, kernel, stride):
    flat = nn.ConvTranspose2d(2, 3, kernel, stride)
    deep = nn.ConvTranspose3d(2, 3, kernel, stride)
    weight = inflate(flat.weight.detach(), kernel, how, module=deep)
    image = torch.randn(1, 2, 6, 6)
    response = F.conv_transpose3d(image.unsqueeze(-1).expand(-1, -1, -1, -1, 6), weight, flat.bias, stride)
    inner = response[..., kernel:-kernel]
    torch.testing.assert_close(inner, flat(image).unsqueeze(-1).expand_as(inner), rtol=1e-4, atol=1e-5)


def test_a_2d_network_becomes_a_3d_one():
    source = nets.BasicUNet(2, 3, 2, features=(4,) * 6)
    network = nets.BasicUNet(3, 1, 2, features=(4,) * 6)
    report = load_weights(network, source.state_dict())
    assert report.coverage == 1 and not report.skipped
    assert "inflated" in report.notes["final_conv.weight"]
    stem = "conv_0.conv_0.conv.weight"
    assert "inflated" in report.notes[stem] and "3 -> 1" in report.notes[stem]
    assert torch.equal(network.final_conv.weight[..., 0], source.final_conv.weight)
    with pytest.raises(InputError, match="inflation"):
        load_weights(network, source.state_dict(), inflate="corner")


def test_positions_are_interpolated():
    ramp = torch.linspace(-1, 1, 8)
    grid = ramp[:, None].expand(8, 8).reshape(1, 64, 1)
    resized = resize_positions(grid, torch.Size((1, 16, 1)), 2).reshape(4, 4)
    assert torch.all(resized[1:] > resized[:-1]) and torch.allclose(resized, resized[:, :1].expand(4, 4), atol=1e-6)
    assert resize_positions(torch.randn(1, 15, 4), torch.Size((1, 16, 4)), 2) is None
    assert resize_positions(torch.randn(1, 16, 4), torch.Size((1, 16, 5)), 2) is None


def ramp(grid):
    """Embeddings that are each patch's own place, in shares of the image: linear, so interpolation is exact inside."""
    axes = torch.meshgrid(*[(torch.arange(n) + 0.5) / n for n in grid], indexing="ij")
    return torch.stack(axes, -1).reshape(1, -1, len(grid)).repeat(1, 1, 2)


def inner(values, grid):
    return values.reshape(*grid, -1)[tuple(slice(1, -1) for _ in grid)]


def test_positions_on_grids_that_are_no_cubes():
    def vit(image, **k):
        return nets.ViT(1, image, (4, 4, 4), 6, 8, 1, 1, spatial_dims=3, **k)

    source, target, name = vit((16, 16, 24)), vit((24, 16, 32)), "patch_embedding.position_embeddings"
    source.patch_embedding.position_embeddings.data = ramp((4, 4, 6))
    grids = {"source_grid": (4, 4, 6), "target_grid": (6, 4, 8)}
    report = load_weights(target, source.state_dict(), min_coverage=0)
    assert name in report.skipped and "pass source_grid and target_grid" in report.notes[name]
    report = load_weights(target, source.state_dict(), **grids)
    assert name in report.adapted and report.coverage == 1
    got, there = target.patch_embedding.position_embeddings.data, grids["target_grid"]
    torch.testing.assert_close(inner(got, there), inner(ramp(there), there))
    with pytest.raises(InputError, match="4 x 4 x 5 and 6 x 4 x 8 patches does not explain"):
        load_weights(target, source.state_dict(), source_grid=(4, 4, 5), target_grid=(6, 4, 8))

    turned = vit((24, 16, 16))  # equally many patches
    load_weights(turned, source.state_dict(), source_grid=(4, 4, 6), target_grid=(6, 4, 4))
    torch.testing.assert_close(
        inner(turned.patch_embedding.position_embeddings, (6, 4, 4)), inner(ramp((6, 4, 4)), (6, 4, 4))
    )
    load_weights(turned, source.state_dict())
    assert torch.equal(turned.patch_embedding.position_embeddings, source.patch_embedding.position_embeddings)


def test_a_network_that_knows_its_image_needs_no_grid():
    def unetr(image):
        return nets.UNETR(1, 2, image, feature_size=4, hidden_size=6, mlp_dim=8, num_heads=1)

    source, target, name = unetr((64, 64, 64)), unetr((64, 64, 32)), "vit.patch_embedding.position_embeddings"
    source.vit.patch_embedding.position_embeddings.data = ramp((4, 4, 4))
    assert name in load_weights(target, source.state_dict()).adapted
    got = target.vit.patch_embedding.position_embeddings.reshape(4, 4, 2, 6)
    torch.testing.assert_close(got[1:-1, 1:-1], ramp((4, 4, 2)).reshape(4, 4, 2, 6)[1:-1, 1:-1])
    table = torch.randn(13**2, 3)
    assert resize_relative_table(table, torch.Size((7**2, 3)), 2).shape == (49, 3)
    deep = resize_relative_table(table, torch.Size((13**3, 3)), 3).reshape(13, 13, 13, 3)
    torch.testing.assert_close(deep, table.reshape(13, 13, 1, 3).expand_as(deep))
    assert resize_relative_table(table, torch.Size((50, 3)), 2) is None


def test_swin_with_another_window_is_resized_and_keeps_its_index():
    source = nets.SwinUNETR(1, 2, feature_size=12, spatial_dims=2, window_size=7)
    network = nets.SwinUNETR(1, 2, feature_size=12, spatial_dims=2, window_size=4)
    kept = network.swinViT.layers1[0].blocks[0].attn.relative_position_index.clone()
    report = load_weights(network, source.state_dict())
    assert report.coverage == 1
    assert len([n for n in report.adapted if n.endswith("bias_table")]) == 8
    assert all(n.endswith("relative_position_index") for n in report.skipped)
    assert torch.equal(network.swinViT.layers1[0].blocks[0].attn.relative_position_index, kept)
    assert network(torch.randn(1, 1, 64, 64)).isfinite().all()


def test_the_user_can_name_the_head():
    def build(classes):
        return nn.ModuleDict({"head": nn.Linear(4, classes), "projector": nn.Linear(4, 4)})

    source, network = build(2), build(3)
    report = load_weights(network, source.state_dict(), min_coverage=0)
    assert "shape differs" in report.notes["head.weight"]
    names = {"source_classes": ["a", "b"], "target_classes": ["b", "c", "a"]}
    report = load_weights(network, source.state_dict(), head=["head"], **names)
    assert report.coverage == 1
    assert torch.equal(network["head"].weight[[2, 0]], source["head"].weight)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nets.UNet, {"spatial_dims": 2, "in_channels": 1, "channels": (4, 8), "strides": (2,), "num_res_units": 2}),
        (nets.UNet, {"spatial_dims": 2, "in_channels": 1, "channels": (4, 8), "strides": (2,), "norm": "batch"}),
        (nets.BasicUNet, {"spatial_dims": 2, "in_channels": 1, "features": (4, 4, 8, 8, 8, 4)}),
        (nets.SegResNet, {"spatial_dims": 2, "in_channels": 1, "init_filters": 8}),
    ],
)
def test_a_network_with_a_new_class_at_first_answers_as_its_source(kind, options):
    theirs, ours = kind(out_channels=2, **options).eval(), kind(out_channels=4, **options).eval()
    names = ["background", "spleen", "liver", "cyst"]
    classes = {"source_classes": ["background", "liver"], "target_classes": names}
    report = load_weights(ours, theirs.state_dict(), **classes, new_classes="background")
    assert any("less likely" in note for note in report.notes.values())
    image = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        before, after = theirs(image), ours(image)
    assert torch.allclose(after[:, [0, 2]], before, atol=1e-5), "the old classes' outputs are the source's"
    assert (after[:, [1, 3]] < after[:, :1]).all(), "a new class is less likely than the background"
    with pytest.raises(InputError, match="new_classes is one of"):
        load_weights(ours, theirs.state_dict(), new_classes="zero")
