"""A loss over all heads: by hand, whatever form they come in; and a training step of each form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from monai.engines import SupervisedTrainer
from monai.losses import DiceCELoss

from monai_transfer.engine.adapt import Adapt
from monai_transfer.engine.memory import MemoryAdvice
from monai_transfer.engine.refuse_probabilities import RefuseProbabilities
from monai_transfer.engine.training_metrics import TrainingMetrics
from monai_transfer.errors import InputError
from monai_transfer.losses.known_dice_bce import KnownDiceBCELoss
from monai_transfer.losses.known_dice_ce import KnownDiceCELoss
from monai_transfer.methods.coral import Coral
from monai_transfer.methods.mean_teacher import MeanTeacher
from monai_transfer.networks.deep_supervision import HeadsLoss
from tests.networks.test_output_forms import NETWORKS


def cross_entropy(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, label[:, 0] if label.ndim == logits.ndim else label)


def test_a_plain_output_is_the_loss_itself():
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 1, 8, 8))
    assert HeadsLoss(cross_entropy)(logits, label) == cross_entropy(logits, label)
    volume, label = torch.randn(2, 3, 4, 5, 6), torch.randint(0, 3, (2, 1, 4, 5, 6))
    assert HeadsLoss(cross_entropy)(volume, label) == cross_entropy(volume, label)
    assert HeadsLoss(cross_entropy)(volume, label[:, 0]) == cross_entropy(volume, label)


def test_weights_follow_the_resolution():
    torch.manual_seed(0)
    heads = (torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4), torch.randn(2, 3, 2, 2))
    label = torch.arange(3).repeat_interleave(2).repeat(2)[:8].expand(2, 1, 8, 8)
    by_hand = sum(
        weight * cross_entropy(head, label[..., step // 2 :: step, step // 2 :: step])
        for weight, head, step in zip((1, 0.5, 0.25), heads, (1, 2, 4), strict=True)
    )
    assert torch.isclose(HeadsLoss(cross_entropy)(heads, label), by_hand / 1.75)
    assert torch.isclose(
        HeadsLoss(cross_entropy, weights=[1, 0, 0])(list(heads), label), cross_entropy(heads[0], label)
    )
    with pytest.raises(InputError, match="3 heads, and there are 2 weights"):
        HeadsLoss(cross_entropy, weights=[1, 1])(heads, label)


@pytest.mark.parametrize("label", ["channel", "indices", "one-hot"])
def test_a_stack_is_weighted_by_place(label):
    torch.manual_seed(0)
    stack, truth = torch.randn(2, 4, 3, 8, 8), torch.randint(0, 3, (2, 1, 8, 8))
    by_hand = sum(0.5**k * cross_entropy(stack[:, k], truth) for k in range(4)) / 1.875
    one_hot = F.one_hot(truth[:, 0], 3).movedim(-1, 1).float()
    given = {"channel": truth, "indices": truth[:, 0], "one-hot": one_hot}[label]
    loss = HeadsLoss(cross_entropy if label != "one-hot" else F.cross_entropy)
    assert torch.isclose(loss(stack, given), by_hand)


@pytest.mark.parametrize(("shape", "dims"), [((2, 3, 4, 5, 6), None), ((2, 3, 8, 8), 2)])
def test_a_stack_beside_targets_of_whole_numbers(shape, dims):
    """Regions and partial labels: a channel of 1, 0 and -1 for each output, which is no map of class numbers."""
    torch.manual_seed(0)
    stack, targets = torch.randn(2, 2, *shape[1:]), torch.randint(-1, 2, shape, dtype=torch.int8)
    for loss in (KnownDiceBCELoss(), KnownDiceCELoss()):
        by_hand = (loss(stack[:, 0], targets) + 0.5 * loss(stack[:, 1], targets)) / 1.5
        assert torch.isclose(HeadsLoss(loss, dims=dims)(stack, targets), by_hand)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", [Coral, MeanTeacher])
def test_one_step_of_each_form(name, method):
    """Everything a bundle's trainer holds: memory advice, checks, training metrics, a method."""
    torch.manual_seed(0)
    network = NETWORKS[name][0]()
    batch = {"image": torch.rand(2, 1, 32, 32), "label": torch.randint(0, 3, (2, 1, 32, 32)).float()}
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trainer = SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=1, train_data_loader=[batch, batch], network=network,
        optimizer=torch.optim.SGD(network.parameters(), 1e-2),
        loss_function=HeadsLoss(DiceCELoss(to_onehot_y=True, softmax=True)), decollate=False,
        train_handlers=[MemoryAdvice(), RefuseProbabilities(), TrainingMetrics("segmentation"),
                        Adapt(method(), [{"image": torch.rand(2, 1, 32, 32)}])],
    )  # fmt: skip
    trainer.run()
    assert trainer.state.adapt_log["adapt_loss"] >= 0
    assert 0 <= trainer.state.training_log["training_dice"] <= 1
    # every head learns
    names = dict(network.named_parameters())
    assert all(not torch.equal(before[n], p) for n, p in names.items() if "head" in n and n.endswith("weight"))
