import copy
import math

import pytest
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import nn

from monai_transfer.methods.base import Fields
from monai_transfer.methods.cps import Cps, cross_pseudo_loss
from monai_transfer.networks.outputs import supervised_loss


def test_loss_written_out():
    a, b = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    total = 0.0
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        for one, other in ((x, y), (y, x)):
            total -= math.log(math.exp(one[other.index(max(other))]) / sum(map(math.exp, one))) / 5
    assert cross_pseudo_loss(a, b).item() == pytest.approx(total)
    torch.testing.assert_close(cross_pseudo_loss(a, b), cross_pseudo_loss(b, a))
    one = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(
        cross_pseudo_loss(one, -one), cross_pseudo_loss(*(torch.cat([torch.zeros_like(z), z], 1) for z in (one, -one)))
    )


def test_supervised_loss_is_monais():
    logits, label = torch.randn(2, 3, 6, 6), torch.randint(0, 3, (2, 1, 6, 6))
    expected = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False)
    # MONAI's cross-entropy also leaves the background out then: compare the parts
    torch.testing.assert_close(
        supervised_loss(logits, label), expected.dice(logits, label) + nn.functional.cross_entropy(logits, label[:, 0])
    )
    torch.testing.assert_close(
        supervised_loss(logits[..., 0, 0], label[:, 0, 0, 0]),
        nn.functional.cross_entropy(logits[..., 0, 0], label[:, 0, 0, 0]),
    )


def make_fields(network, dims=2, n=3):
    image = torch.randn(n, 1, *[8] * dims)
    with torch.no_grad():
        logits = network(image)
    return Fields(
        source_image=image, source_label=(image > 0).float(), source_logits=logits.clone().requires_grad_(),
        target_image=image + 1, target_logits=network(image + 1).detach().requires_grad_(),
    )  # fmt: skip


@pytest.mark.parametrize("dims", [2, 3])
def test_only_the_head_is_new_and_both_networks_learn(dims):
    network = UNet(dims, 1, 2, (4, 8), (2,), norm="batch")
    fields = make_fields(network, dims)
    method = Cps()
    kept = copy.deepcopy(network.state_dict())
    method.setup(network, fields)
    changed = [k for k, v in method.peer.state_dict().items() if not torch.equal(v, kept[k])]
    assert changed
    assert all(k.startswith("model.2.conv.") for k in changed), changed
    method(fields, 0.5).backward()
    assert fields.target_logits.grad.abs().sum() > 0
    assert fields.source_logits.grad.abs().sum() > 0
    assert all(p.grad is not None for p in method.peer.parameters())
    assert all(p.grad is None for p in network.parameters())
    mine = {id(p) for p in network.parameters()}
    assert not any(id(p) in mine for g in method.make_optimizer().param_groups for p in g["params"])


def test_all_new_and_resume():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    method, other = Cps(start="all"), Cps(start="all")
    x = torch.randn(6, 3)
    fields = Fields(source_image=x, source_label=torch.tensor([0, 1] * 3), source_logits=network(x), target_image=x,
                    target_logits=network(x))  # fmt: skip
    method.setup(network, fields)
    other.setup(network, fields)
    assert not torch.equal(method.peer[0].weight, network[0].weight)
    assert other(fields, 0.5) != method(fields, 0.5)
    other.load_state_dict(method.state_dict())
    assert other(fields, 0.5) == method(fields, 0.5)
    with pytest.raises(ValueError, match="start"):
        Cps(start="encoder")


def test_the_peer_teaches_little_at_first_and_learns_as_the_network_does():
    network = nn.Linear(3, 2)
    x = torch.randn(6, 3)
    fields = Fields(source_image=x, source_label=torch.tensor([0, 1] * 3), source_logits=network(x), target_image=x,
                    target_logits=network(x))  # fmt: skip
    method = Cps()
    method.setup(network, fields)
    own = supervised_loss(method.peer(x), fields.source_label)
    cross = cross_pseudo_loss(network(x), method.peer(x))  # the same in both domains, whose mean counts
    for progress, share in ((0.0, math.exp(-5)), (0.5, math.exp(-1.25)), (1.0, 1.0)):
        torch.testing.assert_close(method(fields, progress), own + 1.5 * share * cross)
    assert method.follows_lr
    assert not Cps(lr=1e-3).follows_lr


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seed", SEEDS)
def test_follows_a_rotation(adapt, batches, moons, perceptron, accuracy, seed):
    source, target = batches(*moons(200, 0, 1)), batches(moons(200, 30, 2)[0])
    before = accuracy(adapt(None, perceptron(seed=seed), source, None, epochs=10), *moons(400, 30, 3))
    method = Cps(start="all", lr=3e-3, weight=3.0)
    after = accuracy(adapt(method, perceptron(seed=seed), source, target, epochs=10), *moons(400, 30, 3))
    assert after > before + 0.05
