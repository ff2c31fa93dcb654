"""Training metrics read off one confusion matrix agree with MONAI's and scikit-learn's, and reach metrics.csv."""

from __future__ import annotations

import csv
import math

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.metrics import DiceHelper
from sklearn.metrics import accuracy_score, confusion_matrix, mean_absolute_error

from monai_transfer.engine.metrics_log import MetricsLog
from monai_transfer.engine.training_metrics import TrainingMetrics
from monai_transfer.errors import InputError
from monai_transfer.metrics.training import _confusion


def run(tmp_path, task, batches, **options):
    """A stock trainer whose network gives what the batch says; the epoch's row."""

    class Given(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, image):
            return image * self.weight

    network = Given()
    SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=1, train_data_loader=batches, network=network, decollate=False,
        optimizer=torch.optim.SGD(network.parameters(), 0.0), loss_function=lambda pred, label: pred.mean(),
        train_handlers=[TrainingMetrics(task, **options), MetricsLog(tmp_path)],
    ).run()  # fmt: skip
    with (tmp_path / "metrics.csv").open() as stream:
        return next(csv.DictReader(stream))


def test_dice_is_that_of_all_voxels_together(tmp_path):
    torch.manual_seed(0)
    batches = [{"image": torch.randn(2, 4, 6, 6, 6), "label": torch.randint(0, 3, (2, 1, 6, 6, 6))} for _ in range(3)]
    row = run(tmp_path, "segmentation", batches)
    hard = torch.cat([batch["image"].argmax(1, keepdim=True) for batch in batches]).reshape(1, 1, -1, 1)
    label = torch.cat([batch["label"] for batch in batches]).reshape(1, 1, -1, 1)
    onehot = [torch.nn.functional.one_hot(x[:, 0].long(), 4).movedim(-1, 1).float() for x in (hard, label)]
    expected, _ = DiceHelper(include_background=False, softmax=False, reduction="none")(*onehot)
    expected = torch.nan_to_num(expected, nan=0.0).mean()  # class 3 is predicted and never there: 0
    assert float(row["training_dice"]) == pytest.approx(float(expected), abs=1e-4)


def test_binary_logit_and_one_hot_labels(tmp_path):
    image = torch.tensor([[[[3.0, -1.0, 2.0, -2.0]]]])
    label = torch.tensor([[[[1, 1, 0, 0]]]])
    assert float(run(tmp_path, "segmentation", [{"image": image, "label": label}])["training_dice"]) == 0.5
    both = torch.cat([-image, image], 1)
    onehot = torch.cat([1 - label, label], 1)
    assert float(run(tmp_path, "segmentation", [{"image": both, "label": onehot}])["training_dice"]) == 0.5


def test_nothing_there_is_not_a_number(tmp_path):
    batch = {"image": torch.full((1, 1, 4, 4), -1.0), "label": torch.zeros(1, 1, 4, 4)}
    assert math.isnan(float(run(tmp_path, "segmentation", [batch])["training_dice"]))


def test_accuracy_and_error(tmp_path):
    torch.manual_seed(0)
    batches = [{"image": torch.randn(5, 3), "label": torch.randint(0, 3, (5,))} for _ in range(3)]
    truth = torch.cat([batch["label"] for batch in batches])
    given = torch.cat([batch["image"] for batch in batches])
    row = run(tmp_path, "classification", batches)
    assert float(row["training_accuracy"]) == pytest.approx(accuracy_score(truth, given.argmax(1)), abs=1e-5)
    batches = [{"image": torch.randn(5, 1), "label": torch.randn(5, 1)} for _ in range(2)]
    error = mean_absolute_error(*(torch.cat([batch[key] for batch in batches]) for key in ("label", "image")))
    assert float(run(tmp_path, "regression", batches)["training_mae"]) == pytest.approx(error, abs=1e-5)
    row = run(tmp_path, "regression", batches, scale=12.5)
    assert float(row["training_mae"]) == pytest.approx(12.5 * error, rel=1e-5)


def test_ignored_labels_count_for_nothing(tmp_path):
    batch = {"image": torch.tensor([[2.0, 0.0], [0.0, 2.0]]), "label": torch.tensor([0, -1])}
    assert float(run(tmp_path, "classification", [batch])["training_accuracy"]) == 1.0


def test_refuses_an_unknown_task():
    with pytest.raises(InputError, match="'detection'"):
        TrainingMetrics("detection")


@pytest.mark.parametrize("classes", [2, 3, 15, 16, 20])
def test_any_number_of_classes_as_scikit_learn_counts_them(classes):
    torch.manual_seed(classes)
    scores = torch.randn(2, classes, 5, 5).round()  # with ties: the first of the highest
    label = torch.randint(0, classes, (2, 1, 5, 5))
    expected = confusion_matrix(label.flatten(), scores.argmax(1).flatten(), labels=range(classes))
    assert (_confusion(scores, label.float()).numpy() == expected).all()
