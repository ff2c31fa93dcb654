import math

import pytest
import torch
from torch import nn

from monai_transfer.methods.base import Fields
from monai_transfer.methods.pseudo_label import PseudoLabel, class_thresholds, select_labels


def test_thresholds_and_selection_by_loops():
    p = torch.randn(40, 3).softmax(1)
    thresholds = class_thresholds(p, 0.3)
    for c in range(3):
        sure = sorted((max(row) for row in p.tolist() if row.index(max(row)) == c), reverse=True)
        assert thresholds[c].item() == pytest.approx(sure[max(round(0.3 * len(sure)), 1) - 1])
    for row, label in zip(p.tolist(), select_labels(p, thresholds).tolist(), strict=True):
        ratios = [v / t for v, t in zip(row, thresholds.tolist(), strict=True)]
        assert label == (ratios.index(max(ratios)) if max(ratios) >= 1 else -1)


def test_a_rare_unsure_class_is_selected_like_the_others():
    common = torch.tensor([[0.98, 0.02]]).repeat(95, 1) - torch.linspace(0, 0.02, 95)[:, None] * torch.tensor(
        [1.0, -1.0]
    )
    rare = torch.tensor([[0.40, 0.60]]).repeat(5, 1)
    p = torch.cat([common, rare])
    labels = select_labels(p, class_thresholds(p, 0.4))
    assert (labels[:95] == 0).sum() == 38
    assert (labels[95:] == 1).all()  # equal confidences: all reach their own quantile, far below any fixed 0.95


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 5, 5), (2, 1, 4, 4, 4)])
def test_term_is_the_mean_cross_entropy_of_the_selected(shape):
    logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    method = PseudoLabel(portion=(0.5, 0.5))
    method.setup(nn.Identity(), Fields(target_logits=logits))
    method.double()
    term = method(Fields(target_logits=logits), 0.0)
    two = torch.cat([torch.zeros_like(logits), logits], 1) if shape[1] == 1 else logits
    labels = select_labels(two.softmax(1), class_thresholds(two.softmax(1), 0.5))
    torch.testing.assert_close(term, nn.functional.cross_entropy(two, labels, ignore_index=-1))
    term.backward()
    ignored = (labels == -1).unsqueeze(1).expand_as(logits)
    assert logits.grad[ignored].abs().max() == 0  # what has no label gives no gradient
    assert method.log()["selected"] == pytest.approx((labels != -1).double().mean().item())


def test_moving_average_unseen_class_and_resume():
    method, other = PseudoLabel(momentum=0.5), PseudoLabel(momentum=0.5)
    first = Fields(target_logits=torch.tensor([[4.0, 0.0, 0.0], [3.0, 0.0, 0.0]]))
    method.setup(nn.Identity(), first)
    method(first, 0.0)
    assert method.thresholds.isnan().tolist() == [False, True, True]
    t0 = method.thresholds[0].item()
    second = Fields(target_logits=torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
    method(second, 0.0)
    p = math.exp(2) / (math.exp(2) + 2)
    assert method.thresholds[0].item() == pytest.approx(0.5 * t0 + 0.5 * p)
    assert method.thresholds[1].item() == pytest.approx(p)
    other.setup(nn.Identity(), first)
    other.load_state_dict(method.state_dict())
    assert other(second, 0.5) == method(second, 0.5)


def test_waits_for_its_start_and_refuses_nonsense():
    fields = Fields(target_logits=torch.randn(4, 2, requires_grad=True))
    method = PseudoLabel(start=0.5)
    method.setup(nn.Identity(), fields)
    assert method(fields, 0.4) == 0
    assert method(fields, 0.6) > 0
    with pytest.raises(ValueError, match="portion"):
        PseudoLabel(portion=(0.0, 0.5))


def lesions(n, share, centre, seed):
    """A common class at -2 and a rare one at ``centre`` on the first axis."""
    g = torch.Generator().manual_seed(seed)
    y = (torch.arange(n) < share * n).long()
    x = 0.4 * torch.randn(n, 2, generator=g)
    x[:, 0] += torch.where(y == 1, centre, -2.0)
    return x, y


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rare_class_that_faded_is_found_again(adapt, batches, perceptron, seed):
    source, target = batches(*lesions(200, 0.5, 2.0, 1)), batches(lesions(400, 0.08, 0.1, 2)[0], size=200)
    x, y = lesions(1000, 0.08, 0.1, 3)

    def recalls(network):
        correct = (network(x).argmax(1) == y).float()
        return correct[y == 1].mean().item(), correct[y == 0].mean().item()

    rare_before, common_before = recalls(adapt(None, perceptron(seed=seed), source, None, seed=seed))
    network = adapt(PseudoLabel(start=0.2), perceptron(seed=seed), source, target, seed=seed)
    rare_after, common_after = recalls(network)
    assert rare_before < 0.85
    assert common_before > 0.99
    assert rare_after > 0.95
    assert common_after > 0.97
