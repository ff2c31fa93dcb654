"""Softmax before a logits loss is refused with both names; ordinary networks and losses pass."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from monai import losses
from monai.losses import (
    DeepSupervisionLoss,
    DiceCELoss,
    DiceFocalLoss,
    DiceLoss,
    FocalLoss,
    MaskedDiceLoss,
    TverskyLoss,
)
from monai.networks.nets import Classifier, DenseNet, SEResNet50, UNet
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.networks.output_check import check_logits, loss_activation, output_activation

LOGITS = [
    nn.CrossEntropyLoss(),
    nn.BCEWithLogitsLoss(),
    DiceLoss(softmax=True),
    DiceLoss(sigmoid=True),
    MaskedDiceLoss(softmax=True),
    DiceCELoss(softmax=True),
    DiceCELoss(),  # its cross-entropy takes logits anyway
    DiceFocalLoss(),
    FocalLoss(),
    FocalLoss(use_softmax=True),
    TverskyLoss(sigmoid=True),
    DeepSupervisionLoss(DiceLoss(softmax=True)),
    torch.nn.functional.cross_entropy,
    DiceLoss(other_act=partial(torch.softmax, dim=1)),
    DiceLoss(other_act=nn.Softmax(1)),
    losses.MCCLoss(softmax=True),
    losses.SoftDiceclDiceLoss(sigmoid=True),
    DeepSupervisionLoss(torch.nn.functional.cross_entropy),
]
PROBABILITIES = [
    DiceLoss(),
    DiceCELoss(lambda_ce=0.0),
    TverskyLoss(),
    nn.BCELoss(),
    nn.MSELoss(),
    nn.L1Loss(),
    lambda p, y: (p - y).mean(),
    DiceLoss(other_act=torch.nn.functional.relu),
    losses.AsymmetricUnifiedFocalLoss(),
]

CLASSES = torch.randint(0, 3, (2, 12, 12), generator=torch.Generator().manual_seed(0))
ONE_HOT = nn.functional.one_hot(CLASSES, 3).movedim(-1, 1).float()
BINARY = ONE_HOT[:, :1]
RUN = {  # loss, target, perfect probabilities
    "ce": (nn.CrossEntropyLoss(), CLASSES, ONE_HOT),
    "bce": (nn.BCEWithLogitsLoss(), ONE_HOT, ONE_HOT),
    "multilabel": (nn.MultiLabelSoftMarginLoss(), ONE_HOT, ONE_HOT),
    "softmargin": (nn.SoftMarginLoss(), 2 * ONE_HOT - 1, ONE_HOT),
    "nacl": (losses.NACLLoss(classes=3, dim=2, alpha=0.0), CLASSES, ONE_HOT),
    "wasserstein": (losses.GeneralizedWassersteinDiceLoss(1 - torch.eye(3)), CLASSES[:, None], ONE_HOT),
    "focal": (FocalLoss(gamma=0.0), ONE_HOT, ONE_HOT),
    "focal softmax": (FocalLoss(gamma=0.0, use_softmax=True), ONE_HOT, ONE_HOT),
    "dice softmax": (DiceLoss(softmax=True), ONE_HOT, ONE_HOT),
    "dice sigmoid": (DiceLoss(sigmoid=True), ONE_HOT, ONE_HOT),
    "dice other": (DiceLoss(other_act=partial(torch.softmax, dim=1)), ONE_HOT, ONE_HOT),
    "dice ce": (DiceCELoss(lambda_dice=0.0), ONE_HOT, ONE_HOT),
    "tversky": (TverskyLoss(softmax=True), ONE_HOT, ONE_HOT),
    "mcc": (losses.MCCLoss(softmax=True), ONE_HOT, ONE_HOT),
    "soft clDice": (losses.SoftclDiceLoss(softmax=True), ONE_HOT, ONE_HOT),
    "hausdorff": (losses.HausdorffDTLoss(softmax=True), ONE_HOT, ONE_HOT),
    "plain dice": (DiceLoss(), ONE_HOT, ONE_HOT),
    "plain tversky": (TverskyLoss(), ONE_HOT, ONE_HOT),
    "plain mcc": (losses.MCCLoss(), ONE_HOT, ONE_HOT),
    "plain hausdorff": (losses.HausdorffDTLoss(), ONE_HOT, ONE_HOT),
    "unified focal": (losses.AsymmetricUnifiedFocalLoss(), torch.cat([1 - BINARY, BINARY], 1), None),
    "bce of probabilities": (nn.BCELoss(), ONE_HOT, ONE_HOT),
    "mse": (nn.MSELoss(), ONE_HOT, ONE_HOT),
}


@pytest.mark.parametrize("kind", RUN)
def test_what_is_said_of_a_loss_is_what_it_does(kind):
    """A loss with an activation of its own cannot come to its least on perfect probabilities; one without can."""
    loss, target, probabilities = RUN[kind]
    perfect = target if probabilities is None else probabilities
    given = float(loss(perfect, target))
    if loss_activation(loss) is None:
        blurred = 0.8 * perfect + 0.1
        assert given < float(loss(blurred, target)) - 1e-3, "perfect probabilities are the best that it can be given"
    else:
        scores = float(loss(40 * (2 * perfect - 1), target))
        assert given > scores + 0.02, "perfect scores are far better than perfect probabilities"


def name(loss) -> str:
    return getattr(loss, "__name__", type(loss).__name__)


@pytest.mark.parametrize("loss", LOGITS, ids=name)
def test_a_softmax_at_the_end_is_refused_under_every_logits_loss(loss):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Softmax(1))
    assert loss_activation(loss) is not None
    with pytest.raises(InputError) as caught:
        check_logits(network, loss)
    assert (
        "Softmax" in str(caught.value)
        and name(loss) in str(caught.value)
        and "take the softmax off" in str(caught.value)
    )


@pytest.mark.parametrize("loss", PROBABILITIES, ids=name)
def test_losses_of_probabilities_pass(loss):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Softmax(1))
    assert loss_activation(loss) is None
    check_logits(network, loss, torch.rand(4, 3).softmax(1))


class Hidden(nn.Module):
    def __init__(self, log: bool = False) -> None:
        super().__init__()
        self.linear, self.log = nn.Linear(16, 3), log

    def forward(self, x):
        x = self.linear(x.flatten(1))
        return x.log_softmax(1) if self.log else x.softmax(1)


def test_a_softmax_in_the_forward_method_is_found_from_a_prediction():
    network, image = Hidden(), torch.randn(4, 1, 4, 4)
    check_logits(network, nn.CrossEntropyLoss())  # no module tells
    with pytest.raises(InputError, match="sum to 1"):
        check_logits(network, nn.CrossEntropyLoss(), network(image))
    log = Hidden(log=True)
    check_logits(log, nn.CrossEntropyLoss(), log(image))  # harmless: softmax of it is the same
    with pytest.raises(InputError, match="exponentials"):
        check_logits(log, nn.BCEWithLogitsLoss(), log(image))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_the_sums(dtype):
    prediction = torch.randn(4, 12, 5, 5).mul(3).softmax(1).to(dtype)
    with pytest.raises(InputError, match="sum to 1"):
        check_logits(nn.Conv2d(1, 12, 1), nn.CrossEntropyLoss(), prediction)
    check_logits(nn.Conv2d(1, 12, 1), nn.CrossEntropyLoss(), (prediction * 1.05).to(dtype))


def test_a_loss_of_logarithms_is_not_given_probabilities():
    end = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Softmax(1))
    for loss in (nn.NLLLoss(), nn.functional.nll_loss):
        with pytest.raises(InputError, match="logarithms"):
            check_logits(end, loss)
        check_logits(nn.Sequential(nn.Conv2d(1, 3, 1), nn.LogSoftmax(1)), loss)
        check_logits(nn.Conv2d(1, 3, 1), loss)


def test_other_ends():
    with pytest.raises(InputError, match="Sigmoid"):
        check_logits(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sigmoid()), nn.BCEWithLogitsLoss())
    with pytest.raises(InputError, match="Softmax"):
        check_logits(
            Classifier((1, 16, 16), 3, (4, 8), (2, 2), last_act=("softmax", {"dim": 1})), nn.CrossEntropyLoss()
        )
    voxels = torch.randn(2, 3, 4, 4).softmax(1)
    assert output_activation(nn.Identity(), voxels)[0] == "softmax"


@pytest.mark.parametrize(
    "network",
    [
        DenseNet(2, 1, 3, init_features=4, growth_rate=4, block_config=(1, 1)),
        SEResNet50(spatial_dims=2, in_channels=1, num_classes=3, layers=(1, 1, 1, 1)),  # sigmoids inside
        UNet(2, 1, 3, (4, 8), (2,)),
    ],
    ids=["densenet", "senet", "unet"],
)
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), DiceCELoss(softmax=True)], ids=name)
def test_ordinary_networks_pass(network, loss):
    network.eval()
    with torch.no_grad():
        check_logits(network, loss, network(torch.randn(3, 1, 32, 32)))


def test_values_between_zero_and_one_are_no_proof():
    ce = nn.CrossEntropyLoss()
    check_logits(nn.Identity(), ce, torch.rand(8, 3))
    check_logits(nn.Identity(), ce, torch.full((4, 2), 0.5))  # constant scores
    check_logits(nn.Identity(), ce, torch.tensor([[0.4, 0.6]]))  # one case
    check_logits(nn.Identity(), nn.BCEWithLogitsLoss(), torch.rand(8, 1))


class Gated(nn.Module):
    """A sigmoid registered last that is not the output."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.gate = nn.Linear(4, 2), nn.Sigmoid()

    def forward(self, x):
        return 5 * self.linear(x) * self.gate(x[:, :1])


def test_a_gate_is_no_end():
    network = Gated()
    check_logits(network, nn.BCEWithLogitsLoss(), network(torch.randn(8, 4)))
