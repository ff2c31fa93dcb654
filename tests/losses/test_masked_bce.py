"""Binary cross entropy of what is known."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.losses.masked_bce import MaskedBCELoss


def test_it_is_the_usual_loss_where_all_is_known_and_has_no_gradient_elsewhere():
    logits = torch.randn(6, 3, requires_grad=True)
    target = torch.randint(0, 2, (6, 3)).float()
    assert MaskedBCELoss()(logits, target).item() == pytest.approx(
        F.binary_cross_entropy_with_logits(logits, target).item()
    )
    target[0, 1] = target[3, 2] = -1
    target[4, 0] = float("nan")
    loss = MaskedBCELoss()(logits, target)
    loss.backward()
    known = (target == 0) | (target == 1)
    assert loss.item() == pytest.approx(F.binary_cross_entropy_with_logits(logits[known], target[known]).item())
    assert torch.equal(logits.grad != 0, known)


def test_nothing_known_and_weights():
    logits = torch.randn(2, 2, requires_grad=True)
    loss = MaskedBCELoss()(logits, torch.full((2, 2), -1.0))
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()
    target = torch.ones(2, 2)
    weighted = MaskedBCELoss([3.0, 1.0])(logits, target)
    expected = F.binary_cross_entropy_with_logits(logits, target, pos_weight=torch.tensor([3.0, 1.0]))
    assert weighted.item() == pytest.approx(expected.item())


def test_shapes_must_fit():
    with pytest.raises(InputError, match=r"\(2, 3\)"):
        MaskedBCELoss()(torch.zeros(2, 3), torch.zeros(2))
