import copy
import math

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet
from scipy.spatial.distance import cdist
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.testtime.shot import Shot, centroid_labels, class_centroids, information_maximisation


def test_information_maximisation_written_out():
    logits = torch.randn(6, 3, dtype=torch.float64)
    p = logits.softmax(1).tolist()
    sure = sum(-v * math.log(v) for row in p for v in row) / 6
    mean = [sum(row[c] for row in p) / 6 for c in range(3)]
    diverse = sum(-v * math.log(v) for v in mean)
    assert information_maximisation(logits).item() == pytest.approx(sure - diverse)
    best = 50 * torch.eye(3)
    assert information_maximisation(best).item() == pytest.approx(-math.log(3), abs=1e-4)
    assert information_maximisation(torch.zeros(4, 3)).item() == pytest.approx(0, abs=1e-6)


def test_centroids_and_labels_by_scipy():
    features, p = torch.randn(30, 5, dtype=torch.float64), torch.randn(30, 3, dtype=torch.float64).softmax(1)
    f = np.concatenate([features.numpy(), np.ones((30, 1))], 1)
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    centroids = p.numpy().T @ f / p.numpy().sum(0)[:, None]
    labels = cdist(f, centroids, "cosine").argmin(1)
    centroids = np.stack([f[labels == c].mean(0) for c in range(3)])
    ours = class_centroids(features, p)
    np.testing.assert_allclose(ours.numpy(), centroids)
    np.testing.assert_array_equal(centroid_labels(features, ours).numpy(), cdist(f, centroids, "cosine").argmin(1))


def test_a_class_that_no_case_is_predicted_to_be_of_stays_out():
    """Its soft share alone would give it a centroid near the mean, which draws cases."""
    features = torch.cat([torch.randn(40, 4) + 3, torch.randn(40, 4) - 3])
    p = torch.tensor([0.5, 0.1, 0.4]).repeat(80, 1)
    p[40:] = torch.tensor([0.1, 0.5, 0.4])
    centroids = class_centroids(features, p)
    assert centroids[2].isnan().all()
    assert set(centroid_labels(features, centroids).tolist()) == {0, 1}


def test_an_empty_class_is_never_a_label():
    features = torch.randn(10, 4)
    p = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).repeat(5, 1)
    centroids = class_centroids(features, p)
    assert set(centroid_labels(features, centroids).tolist()) <= {0, 1}


@pytest.mark.parametrize("norm", [lambda: nn.BatchNorm1d(32), lambda: nn.GroupNorm(4, 32), nn.Identity])
def test_undoes_a_shift_with_the_classifier_untouched(norm, clouds, trained):
    x, y = clouds(400, 2.2, 3)
    network = trained(norm, smoothing=0.1)
    before = (network(x).argmax(1) == y).float().mean().item()
    head = copy.deepcopy(network[6].state_dict())
    adapted = Shot(epochs=15, lr=0.05).fit(network, [{"image": part} for part in x.split(50)])
    assert adapted is network
    assert not network.training
    assert before < 0.9
    assert (network(x).argmax(1) == y).float().mean().item() > 0.98
    for key, value in network[6].state_dict().items():
        torch.testing.assert_close(value, head[key], rtol=0, atol=0)
    assert all(p.requires_grad for p in network.parameters())


def test_a_prior_takes_the_place_of_equal_shares():
    logits = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    prior = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    mean = logits.softmax(1).mean((0, 2, 3))
    apart = (mean * (mean / prior).log()).sum()
    torch.testing.assert_close(
        information_maximisation(logits, 2.0, prior) - information_maximisation(logits, 0.0), 2 * apart
    )
    equal = torch.full((3,), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(
        information_maximisation(logits[..., 0, 0], 1.0, equal) - math.log(3),
        information_maximisation(logits[..., 0, 0]),
    )


def test_a_segmenter_keeps_the_shares_of_its_classes_while_it_grows_sure():
    torch.manual_seed(0)
    network = UNet(2, 1, 2, (4, 8), (2,), norm="batch")
    batches = [torch.randn(4, 1, 16, 16) + torch.linspace(-2, 4, 16) for _ in range(3)]
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(30):
        for image in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(image), (image[:, 0] > 2).long()).backward()
            optimizer.step()
    shifted = [0.7 * image + 0.3 * torch.randn_like(image) for image in batches]
    with torch.no_grad():
        before = network.eval()(torch.cat(shifted)).softmax(1)
        adapted = Shot(lr=1e-3, epochs=5).fit(network, shifted)
        after = adapted(torch.cat(shifted)).softmax(1)
    assert -(after * after.log()).sum(1).mean() < -(before * before.log()).sum(1).mean()
    assert abs(after[:, 1].mean() - before[:, 1].mean()) < 0.1


def test_refuses_what_cannot_adapt():
    with pytest.raises(InputError, match="nothing to adapt"):
        Shot().fit(nn.Linear(2, 2), [torch.randn(4, 2)])
    with pytest.raises(InputError, match="no class head"):
        Shot().fit(nn.Sequential(nn.ReLU()), [torch.randn(4, 2)])
    network = UNet(2, 1, 2, (4, 8), (2,), norm="batch")
    with pytest.raises(InputError, match="prior has 3 classes and the network 2"):
        Shot(prior=[0.5, 0.25, 0.25]).fit(network, [torch.randn(2, 1, 8, 8)])
    with pytest.raises(InputError, match="shares that sum to 1"):
        Shot(prior=[0.5, 0.4])
    with torch.no_grad():
        next(p for n, p in network.named_parameters() if n.endswith("bias") and p.shape == (2,))[0] = 99
    with pytest.raises(InputError, match="one class alone on the target"):
        Shot().fit(network, [torch.randn(2, 1, 8, 8)])
    with pytest.raises(InputError, match="empty"):
        Shot().fit(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), [])
