"""Outputs that do not exclude each other: each is a case of its own with two classes, for every method that says so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_transfer.methods.advent import Advent
from monai_transfer.methods.base import Fields
from monai_transfer.methods.fixmatch import Fixmatch
from monai_transfer.methods.mean_teacher import MeanTeacher
from monai_transfer.methods.pseudo_label import PseudoLabel
from monai_transfer.methods.self_training import SelfTraining
from monai_transfer.testtime.source_free_self_training import SourceFreeSelfTraining
from monai_transfer.testtime.tent import Tent

LOGITS, STRONG = (
    torch.tensor([[2.0, -3.0], [-1.0, 0.5], [4.0, 1.0]]),
    torch.tensor([[1.0, 1.0], [-2.0, 0.0], [0.5, 3.0]]),
)
P, Q = LOGITS.sigmoid(), STRONG.sigmoid()
BERNOULLI = -(P * P.log() + (1 - P) * (1 - P).log())


def cross_entropy(of: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return nn.functional.binary_cross_entropy(of, label.float(), reduction="none")


@pytest.mark.parametrize("spatial", [(), (2, 2)])
@pytest.mark.parametrize(
    ("method", "by_hand"),
    [
        (MeanTeacher(), (P - Q).square().mean()),
        (Fixmatch(threshold=0.8), (cross_entropy(Q, P > 0.5) * (torch.maximum(P, 1 - P) >= 0.8)).mean()),
        (PseudoLabel(portion=1.0), cross_entropy(P, P > 0.5).mean()),
        (SelfTraining(portion=1.0), cross_entropy(Q, P > 0.5).mean()),
        (Advent(adversarial=False, weight=1.0, foreground=None), BERNOULLI.mean() / torch.tensor(2.0).log()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_bernoulli_term_by_hand(method, by_hand, spatial):
    """Two findings of three cases, also as maps; a softmax over them would give another number."""

    def maps(logits):
        return logits.reshape(3, 2, *[1] * len(spatial)).expand(3, 2, *spatial).clone()

    given = {"source_logits": maps(STRONG), "target_logits": maps(LOGITS), "target_strong_logits": maps(STRONG)}
    fields = Fields(target_image=maps(LOGITS), **given)  # the network is the identity
    method.exclusive = False
    method.setup(nn.Identity(), fields)
    assert method(fields, progress=1.0).item() == pytest.approx(by_hand.item(), abs=1e-6)


def test_each_finding_has_its_own_thresholds():
    """A rare finding whose probabilities are all low still has its surest absent and present cases."""
    common, rare = torch.tensor([5.0, 4.0, -5.0, -4.0]), torch.tensor([0.3, 0.1, -0.2, -0.1])
    fields, method = Fields(target_logits=torch.stack([common, rare], 1)), PseudoLabel(portion=0.5)
    method.exclusive = False
    method.setup(nn.Identity(), fields)
    method(fields, progress=1.0)
    expected = torch.stack([torch.sigmoid(torch.tensor([5.0, 5.0])), torch.sigmoid(torch.tensor([0.2, 0.3]))])
    assert torch.allclose(method.thresholds, expected), "absent and present, for each finding"
    assert method.log()["selected"].item() == 0.5


def test_the_adversary_sees_both_sides_of_each_region():
    method, logits = Advent(width=4), torch.zeros(2, 3, 8, 8)
    method.exclusive = False
    method.setup(nn.Identity(), Fields(target_logits=logits))
    assert method._maps(logits).shape == (2, 6, 8, 8)
    assert torch.isfinite(method(Fields(source_logits=logits, target_logits=logits), 0.5))


def test_tent_lowers_the_entropy_of_each_output():
    """Two findings that both are there: as classes that exclude each other one of them would have to go."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(2)
    norm.bias.data.fill_(1.0)
    image = torch.randn(16, 2) * 0.1
    alone, together = (Tent(lr=0.05, steps=40).for_task(task).wrap(norm) for task in ("multilabel", "classification"))
    first = alone(image).mean(0), together(image).mean(0)
    assert (alone(image).mean(0) > first[0]).all(), "both are surer"
    assert not (together(image).mean(0) > first[1]).all()


def test_self_training_without_source_data_passes_it_on(monkeypatch):
    seen = []
    forward = SelfTraining.forward
    monkeypatch.setattr(SelfTraining, "forward", lambda self, *a: seen.append(self.exclusive) or forward(self, *a))
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    SourceFreeSelfTraining(steps=1).for_task("multilabel").fit(network, [{"image": torch.randn(4, 1, 8, 8)}])
    assert seen == [False]
