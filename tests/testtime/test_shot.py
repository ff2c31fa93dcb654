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


def test_refuses_what_cannot_adapt():
    with pytest.raises(InputError, match="nothing to adapt"):
        Shot().fit(nn.Linear(2, 2), [torch.randn(4, 2)])
    with pytest.raises(InputError, match="no class head"):
        Shot().fit(nn.Sequential(nn.ReLU()), [torch.randn(4, 2)])
    with pytest.raises(InputError, match="spatial outputs"):
        Shot().fit(UNet(2, 1, 2, (4, 8), (2,), norm="batch"), [torch.randn(2, 1, 8, 8)])
    with pytest.raises(InputError, match="empty"):
        Shot().fit(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), [])
