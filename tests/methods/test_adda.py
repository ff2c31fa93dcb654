import copy

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet
from torch import nn

from monai_transfer.engine.adapt import Adapt
from monai_transfer.errors import InputError
from monai_transfer.methods.adda import Adda
from monai_transfer.methods.base import Fields


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))


def fields_of(network, n=6):
    image = torch.randn(n, 1, 8, 8)
    return Fields(source_image=image, target_features=network[:4](image + 1))


@pytest.mark.parametrize("layer", [None, "2"])
def test_source_features_are_those_of_the_frozen_start(network, layer):
    method = Adda()
    method.layer = layer  # Adapt says where it taps
    features = network[:4] if layer is None else network[:3]
    image = torch.randn(6, 1, 8, 8)
    method.setup(network, Fields(target_features=features(image)))
    network.eval()
    expected = features(image) if layer is None else features(image).flatten(2).mean(-1)
    torch.testing.assert_close(method.source_features(image), expected)
    kept = copy.deepcopy(method.source_network.state_dict())
    with torch.no_grad():
        network[0].weight.add_(1.0)  # the network moves on; the copy does not, nor do its statistics
    network.train()
    method.train()
    method.critic_step(Fields(source_image=image, target_features=features(image)))
    for key, value in method.source_network.state_dict().items():
        torch.testing.assert_close(value, kept[key])
    torch.testing.assert_close(method.source_features(image), expected)


def test_who_learns_when(network):
    fields = fields_of(network)
    method = Adda()
    method.setup(network, fields)
    assert {id(p) for g in method.make_optimizer().param_groups for p in g["params"]} == {
        id(p) for p in method.discriminator.parameters()
    }
    method(fields, 1.0).backward()
    assert network[0].weight.grad.abs().sum() > 0
    assert network[4].weight.grad is None  # the classifier stays the source's
    assert all(p.grad is None for p in method.discriminator.parameters())
    method.critic_step(
        Fields(source_image=fields.source_image, target_features=fields.target_features.detach())
    ).backward()
    assert all(p.grad is not None for p in method.discriminator.parameters())
    assert 0 <= method.log()["discriminator_accuracy"] <= 1


def test_losses_written_out(network):
    fields = fields_of(network)
    method = Adda()
    method.setup(network, fields)
    d = torch.sigmoid(method.discriminator(fields.target_features)).double()
    s = torch.sigmoid(method.discriminator(method.source_features(fields.source_image))).double()
    inverted = -(1 - d).log().mean().item()
    for progress, share in ((0.0, 0.0), (0.1, 0.4621), (1.0, 0.9999)):  # the discriminator is given time
        assert method(fields, progress).item() == pytest.approx(share * inverted, rel=1e-3)
    expected = -0.5 * ((1 - s).log().mean() + d.log().mean())
    assert method.critic_step(fields).item() == pytest.approx(expected.item(), rel=1e-5)


def test_resume_brings_back_the_first_source_network(network):
    fields = fields_of(network)
    method = Adda()
    method.setup(network, fields)
    expected = method.source_features(fields.source_image)
    with torch.no_grad():
        network[0].weight.mul_(2.0)
    other = Adda()
    other.setup(network, fields)
    assert not torch.allclose(other.source_features(fields.source_image), expected)
    other.load_state_dict(method.state_dict())
    torch.testing.assert_close(other.source_features(fields.source_image), expected)
    assert other(fields, 1) == method(fields, 1)


def trainer_of(network, method, lr, **options):
    batches = [{"image": torch.randn(2, 1, 8, 8), "label": torch.randint(0, 2, (2, 1, 8, 8))} for _ in range(2)]
    shifted = [{"image": batch["image"] + 3} for batch in batches]
    handler = Adapt(method, shifted, **options)
    engine = SupervisedTrainer(
        device="cpu", max_epochs=2, train_data_loader=batches, network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr), decollate=False, train_handlers=[handler],
        loss_function=lambda pred, label: nn.functional.cross_entropy(pred, label[:, 0]),
    )  # fmt: skip
    return engine, handler


@pytest.mark.parametrize("lr", [1e-3, 2e-4])
def test_the_discriminator_learns_at_a_rate_of_its_own(lr):
    engine, handler = trainer_of(UNet(2, 1, 2, (4, 8), (2,)), Adda(hidden=4, lr=lr), 0.05)
    engine.run()
    assert handler.optimizer.param_groups[0]["lr"] == lr


def test_by_default_the_discriminator_learns_as_the_network_does():
    engine, handler = trainer_of(UNet(2, 1, 2, (4, 8), (2,)), Adda(hidden=4), 0.05)
    engine.run()
    assert isinstance(handler.optimizer, torch.optim.Adam)
    assert handler.optimizer.param_groups[0]["lr"] == 0.05
    assert handler.optimizer.param_groups[0]["betas"] == (0.9, 0.999)  # the network's


def test_in_a_segmentation_each_place_before_the_class_head_is_judged_and_the_target_alone_counts():
    network = UNet(2, 1, 2, (4, 8), (2,), norm="batch")
    head = {k: v.clone() for k, v in network.named_parameters() if k.startswith("model.2.conv")}
    engine, handler = trainer_of(network, Adda(hidden=4), 1e-2)
    engine.run()
    assert handler.method.discriminator[0].weight.shape == (4, 12, 1, 1)
    assert handler.statistics == "target"
    assert head and all(torch.equal(v, dict(network.named_parameters())[k]) for k, v in head.items())
    _, blended = trainer_of(network, Adda(hidden=4), 1e-2, statistics="both")
    assert blended.statistics == "both"


def test_segmentation_networks_and_unknown_heads():
    network = UNet(3, 1, 2, (4, 8), (2,))
    method = Adda()
    method.setup(network, Fields(target_features=torch.randn(2, 12, 8, 8, 8)))
    assert method.source_features(torch.randn(2, 1, 8, 8, 8)).shape == (2, 12)  # pool="mean", not through Adapt
    with pytest.raises(InputError, match="name a layer"):
        Adda().setup(nn.Sequential(nn.ReLU()), Fields(target_features=torch.randn(2, 3)))


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seed", SEEDS)
def test_undoes_a_shift_starting_from_a_source_network(adapt, batches, clouds, perceptron, accuracy, seed):
    source, target, test = batches(*clouds(300, 0.0, 1)), batches(clouds(300, 2.5, 2)[0]), clouds(400, 2.5, 3)
    network = adapt(None, perceptron(seed=seed), source, None, seed=seed)
    before = accuracy(network, *test)
    head = copy.deepcopy(network[4].state_dict())
    after = accuracy(adapt(Adda(hidden=64), network, source, target, lr=1e-3, epochs=6, seed=seed), *test)
    for key, value in network[4].state_dict().items():
        torch.testing.assert_close(value, head[key], rtol=0, atol=0)
    assert before < 0.8
    assert after > 0.95


def test_a_large_map_is_judged_at_places_drawn_anew():
    method = Adda(places=5)
    for shape in ((2, 3), (2, 3, 2, 2)):
        features = torch.randn(shape)
        assert method._drawn(features) is features
    features = torch.randn(2, 3, 4, 4)
    drawn = method._drawn(features)
    assert drawn.shape == (2, 3, 5, 1) and not torch.equal(drawn, method._drawn(features))
    for case, rows in zip(features, drawn, strict=True):
        columns = {tuple(column.tolist()) for column in case.flatten(1).T}
        assert {tuple(column.tolist()) for column in rows.flatten(1).T} <= columns
    assert method._drawn(torch.randn(1, 2, 3, 3, 3)).shape == (1, 2, 5, 1, 1)
    with pytest.raises(InputError, match="at least one place"):
        Adda(places=0)


def test_the_source_copy_drops_features_out_as_the_network_does():
    network = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 2))
    image = torch.randn(6, 4)
    method = Adda()
    method.setup(network, Fields(target_features=network[:3](image)))
    statistics = method.source_network[1].running_mean.clone()
    assert 0.3 < (method.source_features(image) == 0).float().mean() < 0.7
    torch.testing.assert_close(method.source_network[1].running_mean, statistics)  # normalised as frozen
    method.eval()
    assert (method.source_features(image) != 0).all()
