import math

import pytest
import torch
from monai.networks.nets import DenseNet, resnet10
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.networks.mil import Attention, Mil


@pytest.mark.parametrize("gated", [True, False])
def test_attention_written_out(gated):
    layer = Attention(4, 3, gated).double()
    h = torch.randn(2, 5, 4, dtype=torch.float64)
    weights = layer(h)
    for b in range(2):
        scores = []
        for k in range(5):
            hidden = torch.tanh(layer.v.weight @ h[b, k] + layer.v.bias)
            if gated:
                hidden = hidden / (1 + torch.exp(-(layer.u.weight @ h[b, k] + layer.u.bias)))
            scores.append(math.exp((layer.w.weight @ hidden + layer.w.bias).item()))
        for k in range(5):
            assert weights[b, k].item() == pytest.approx(scores[k] / sum(scores), rel=1e-5)


def test_defaults_are_the_papers():
    network = Mil()
    assert network.embedding[0].out_features == 500
    assert network.attention.v.out_features == network.attention.u.out_features == 128


def test_order_of_slices_does_not_matter_and_padding_gets_nothing():
    network = Mil(embedding=16, hidden=8).eval()
    x = torch.randn(2, 1, 16, 16, 6)
    logits, order = network(x), torch.randperm(6)
    torch.testing.assert_close(network(x[..., order]), logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.attention_weights(x[..., order]), network.attention_weights(x)[:, order])
    padded = torch.cat([x, torch.zeros(2, 1, 16, 16, 3)], -1)
    torch.testing.assert_close(network(padded), logits, rtol=1e-4, atol=1e-5)
    assert network.attention_weights(padded)[:, 6:].max() == 0
    assert torch.isfinite(network(torch.zeros(1, 1, 16, 16, 3))).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_patches_and_bags(dims):
    x = torch.randn(2, 1, *[16] * dims)
    network = Mil(dims, instances="patches", embedding=16, hidden=8)
    weights = network.attention_weights(x)
    assert weights.shape == (2, *[2] * dims)
    torch.testing.assert_close(weights.flatten(1).sum(1), torch.ones(2))
    heat = network.lesion_map(x)
    assert heat.shape == x.shape
    torch.testing.assert_close(heat.flatten(1).amax(1), torch.ones(2))
    bag = Mil(dims, instances="bag", num_classes=3, embedding=16, hidden=8)
    assert bag(torch.randn(2, 4, 1, *[16] * dims)).shape == (2, 3)
    with pytest.raises(ValueError, match="no place"):
        bag.lesion_map(torch.randn(2, 4, 1, *[16] * dims))
    with pytest.raises(ValueError, match="do not fit"):
        bag(x)


def test_a_transferred_backbone():
    backbone = resnet10(spatial_dims=2, n_input_channels=1, feed_forward=False)
    network = Mil(backbone=backbone, features=512)
    assert network(torch.randn(1, 1, 32, 32, 3)).shape == (1, 2)
    assert Mil(backbone=nn.Sequential(nn.Flatten(), nn.Linear(9, 7))).embedding[0].in_features == 7
    with pytest.raises(ValueError, match="instances"):
        Mil(instances="voxels")
    pooled = Mil(instances="patches", backbone=nn.Sequential(nn.Flatten(), nn.Linear(9, 7)))
    with pytest.raises(ValueError, match="feature maps"):
        pooled(torch.randn(1, 1, 3, 3))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_backbone_of_dense_blocks_has_more_features_than_its_last_layer(dims):
    """A dense block's last convolution gives its growth rate alone; the block adds what came before."""
    dense = DenseNet(dims, 2, 2, init_features=8, growth_rate=4, block_config=(2, 2), bn_size=2).features[:7]
    before = {k: v.clone() for k, v in dense.state_dict().items()}
    network = Mil(dims, in_channels=2, instances="patches", backbone=dense, embedding=16, hidden=8)
    x = torch.randn(2, 2, *[32] * dims)
    assert network.embedding[0].in_features == dense(x).shape[1] == 16
    assert network(x).shape == (2, 2)
    assert dense.training and all(torch.equal(v, dense.state_dict()[k]) for k, v in before.items() if "weight" in k)
    wrong = Mil(dims, instances="patches", backbone=dense, features=4)
    with pytest.raises(InputError, match="gives 16 features, and Mil was made for 4; features=16"):
        wrong(x)


def test_a_backbone_that_takes_no_blank_image_must_say_its_width():
    with pytest.raises(InputError, match="features=F"):
        Mil(backbone=nn.Sequential(nn.Flatten(), nn.Linear(9, 7), nn.ReLU()))
    assert Mil(backbone=nn.Sequential(nn.Flatten(), nn.Linear(9, 7), nn.ReLU()), features=7)(
        torch.randn(2, 1, 3, 3, 4)
    ).shape == (2, 2)


def volumes(n, seed):
    """Noise; in every other case one slice holds a bright square: only the case's label is known."""
    g = torch.Generator().manual_seed(seed)
    x, y = 0.5 * torch.randn(n, 1, 12, 12, 6, generator=g), torch.arange(n) % 2
    place = torch.randint(0, 6, (n,), generator=g)
    for i in range(1, n, 2):
        x[i, 0, 4:8, 4:8, place[i]] += 2.0
    return x, y, place


def test_finds_the_slice_with_the_lesion_from_case_labels(adapt, batches, accuracy):
    x, y, _ = volumes(64, 1)
    torch.manual_seed(0)
    network = Mil(embedding=32, hidden=16)
    adapt(None, network, batches(x, y, size=16, length=12), None, epochs=4)
    x, y, place = volumes(40, 2)
    assert accuracy(network, x, y) > 0.9
    hits = network.attention_weights(x).argmax(1)[1::2] == place[1::2]
    assert hits.float().mean() > 0.9
    heat = network.lesion_map(x)
    assert heat.shape == x.shape
    assert (heat[1, 0, 0, 0].argmax() == place[1]).item()


def pictures(n, seed):
    g = torch.Generator().manual_seed(seed)
    x, y = 0.5 * torch.randn(n, 1, 32, 32, generator=g), torch.arange(n) % 2
    corner = torch.randint(0, 27, (n, 2), generator=g)
    for i in range(1, n, 2):
        a, b = corner[i]
        x[i, 0, a : a + 5, b : b + 5] += 2.0
    return x, y, corner


def test_points_at_the_lesion_in_a_picture(adapt, batches, accuracy):
    x, y, _ = pictures(64, 1)
    torch.manual_seed(0)
    network = Mil(instances="patches", embedding=32, hidden=16)
    adapt(None, network, batches(x, y, size=32, length=20), None, epochs=4)
    x, y, corner = pictures(40, 2)
    assert accuracy(network, x, y) > 0.9
    hits = []
    for i in range(1, 40, 2):  # the pointing game, with a margin of one place of the feature map
        row, column = divmod(int(network.lesion_map(x[i : i + 1]).argmax()), 32)
        hits.append(all(abs(p - c - 2) <= 2 + 4 for p, c in zip((row, column), corner[i].tolist(), strict=True)))
    assert sum(hits) / len(hits) > 0.75  # by chance: 0.16


@pytest.mark.parametrize("classes", [2, 3])
def test_evidence_adds_up_to_the_logits(classes):
    network = Mil(instances="patches", num_classes=classes, embedding=8, hidden=4).eval()
    x = torch.randn(2, 1, 32, 32)
    bias, logits = network.head.bias, network(x)
    for c in range(classes):
        others = [k for k in range(classes) if k != c]
        expected = (logits - bias)[:, c] - (logits - bias)[:, others].mean(1)
        torch.testing.assert_close(network.evidence(x, c).flatten(1).sum(1), expected, rtol=1e-4, atol=1e-5)
    heat = network.lesion_map(x, class_index=1)
    assert heat.shape == x.shape and heat.min() >= 0 and heat.max() <= 1
