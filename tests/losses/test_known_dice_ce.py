"""Dice and cross entropy of what is known: MONAI's where all is, no gradient where nothing is."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss

from monai_transfer.errors import InputError
from monai_transfer.losses.known_dice_ce import KnownDiceCELoss, class_targets


@pytest.mark.parametrize("shape", [(8, 8), (4, 6, 5)])
def test_it_is_monais_loss_where_everything_is_known(shape):
    logits, label = torch.randn(2, 3, *shape), torch.randint(0, 3, (2, 1, *shape))
    monai = DiceCELoss(to_onehot_y=True, softmax=True, batch=True, squared_pred=True)(logits, label)
    assert KnownDiceCELoss()(logits, label).item() == pytest.approx(monai.item(), rel=1e-5)
    assert KnownDiceCELoss()(logits, class_targets(label, 3)).item() == pytest.approx(monai.item(), rel=1e-5)
    weight = [0.2, 1.0, 3.0]
    weighted = DiceCELoss(
        to_onehot_y=True, softmax=True, batch=True, squared_pred=True, weight=torch.tensor(weight), lambda_dice=0.0
    )(logits, label)
    ours = KnownDiceCELoss(weight)
    assert ours._cross_entropy(logits, class_targets(label, 3)).item() == pytest.approx(weighted.item(), rel=1e-5)


def test_ignored_voxels_have_no_part():
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    label = torch.randint(0, 3, (2, 1, 8, 8))
    label[:, :, :3] = -1
    loss = KnownDiceCELoss()(logits, label)
    loss.backward()
    assert not logits.grad[:, :, :3].any() and logits.grad[:, :, 3:].abs().sum() > 0
    alone = KnownDiceCELoss()(logits.detach()[:, :, 3:], label[:, :, 3:])
    assert loss.item() == pytest.approx(alone.item(), rel=1e-5), "as if they were not there"
    nothing = KnownDiceCELoss()(logits, torch.full((2, 1, 8, 8), -1))
    assert nothing.item() == 0


def test_an_unmarked_voxel_may_be_what_nobody_looked_for():
    """Background, liver, spleen; only the spleen was looked for: liver and background are equally right there."""
    target = torch.tensor([[[-1, 0], [-1, 0], [0, 1]]])  # unmarked; spleen
    logits = torch.tensor([[[2.0, 0.0], [5.0, 0.0], [-4.0, 3.0]]], requires_grad=True)
    p = logits.softmax(1)
    expected = -(torch.log(p[0, 0, 0] + p[0, 1, 0]) + torch.log(p[0, 2, 1])) / 2
    loss = KnownDiceCELoss()._cross_entropy(logits, target)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    KnownDiceCELoss()(logits, target).backward()
    toward = logits.grad[0, :, 0]
    assert toward[2] > 0, "away from the spleen"
    moved = torch.tensor([[[5.0, 0.0], [2.0, 0.0], [-4.0, 3.0]]])
    assert KnownDiceCELoss()(moved, target).item() == pytest.approx(KnownDiceCELoss()(logits, target).item(), rel=1e-5)


def test_half_precision_and_a_wrong_label():
    label = torch.randint(0, 2, (1, 1, 8, 8))
    assert torch.isfinite(KnownDiceCELoss()(20 * torch.randn(1, 2, 8, 8).bfloat16(), label))
    with pytest.raises(InputError, match="2 channels"):
        KnownDiceCELoss()(torch.randn(1, 3, 8, 8), torch.zeros(1, 2, 8, 8))
