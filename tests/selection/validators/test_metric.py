"""UnlabelledValidator inside unmodified stock MONAI evaluators whose batches have no label."""

from __future__ import annotations

import logging
import os
import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from monai.data import DataLoader, Dataset, decollate_batch
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from monai.inferers import SlidingWindowInferer
from monai.transforms import Activationsd, AsDiscreted, Compose
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.selection.validators import UnlabelledValidator, entropy, information_maximisation


class Scale(nn.Module):
    """Two logits from the image's own intensity, times a gain: the higher, the surer; a bias collapses it."""

    def __init__(self, gain: float, bias: float = 0.0, pool: bool = False) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.bias, self.pool = bias, pool

    def forward(self, x):
        x = x.flatten(2).mean(-1) if self.pool else x
        return torch.cat([-self.gain * x, self.gain * x + self.bias], 1)


def images(n=6, shape=(8, 8, 8)):
    rng = torch.Generator().manual_seed(0)
    return [{"image": torch.randn(1, *shape, generator=rng) + (1 if i % 2 else -1)} for i in range(n)]


def evaluate(network, validator, data=None, **arguments):
    loader = DataLoader(Dataset(data or images()), batch_size=2)
    evaluator = SupervisedEvaluator(
        torch.device("cpu"), loader, network, key_val_metric={"score": validator}, **arguments
    )
    evaluator.run()
    return evaluator


@pytest.mark.parametrize("name", ["entropy", "information_maximisation", "snd", "bnm", "class_clustering"])
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_is_the_key_metric_of_a_stock_evaluator_without_labels(name, task):
    values = [
        evaluate(Scale(gain, pool=task == "classification"), UnlabelledValidator(name, task=task)).state.metrics[
            "score"
        ]
        for gain in (0.2, 5.0)
    ]
    assert all(isinstance(v, float) for v in values)
    if name != "snd":  # its order is for clusters of classes, tested elsewhere
        assert values[0] < values[1]


def test_the_best_checkpoint_is_the_better_one_and_a_collapse_never_is(caplog):
    network = Scale(1.0, pool=True)
    validator = UnlabelledValidator("entropy", task="classification", class_names=["normal", "lesion"])
    evaluator = evaluate(network, validator)
    assert evaluator.state.best_metric == evaluator.state.metrics["score"]
    network.bias = 50.0  # everything is "lesion" now, with great confidence
    with caplog.at_level(logging.WARNING):
        evaluator.run()
    assert evaluator.state.metrics["score"] < -1
    assert evaluator.state.metrics["score"] != evaluator.state.best_metric
    assert validator.alarm.constant
    assert "every case (6 cases) is called lesion" in caplog.text
    network.bias, network.gain.data = 0.0, torch.tensor(4.0)
    evaluator.run()
    assert evaluator.state.best_metric == evaluator.state.metrics["score"]
    assert not validator.alarm


def test_a_healthy_constant_is_possible_by_veto():
    network = Scale(1.0, bias=50.0, pool=True)
    validator = UnlabelledValidator("entropy", task="classification", veto=())
    assert evaluate(network, validator).state.metrics["score"] > -0.1
    assert validator.alarm  # said, though not punished


@pytest.mark.parametrize("decollate", [True, False])
def test_logits_probabilities_and_batches_agree(decollate):
    network = Scale(2.0)
    plain = evaluate(network, UnlabelledValidator("entropy", task="segmentation"), decollate=decollate)
    softened = evaluate(
        network,
        UnlabelledValidator("entropy", task="segmentation", activation="none"),
        postprocessing=Compose([Activationsd("pred", softmax=True)]),
    )
    explicit = evaluate(network, UnlabelledValidator("entropy", "segmentation", output_transform=from_engine(["pred"])))
    expected = np.mean([entropy(network(d["image"][None]).softmax(1)) for d in images()])
    for one in (plain, softened, explicit):
        assert one.state.metrics["score"] == pytest.approx(expected, abs=1e-5)


def test_works_with_sliding_windows_and_volumes_of_different_size():
    data = [{"image": torch.randn(1, 8, 8, 4 + i)} for i in range(3)]
    loader = DataLoader(Dataset(data), batch_size=1)
    validator = UnlabelledValidator(task="segmentation")
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        loader,
        Scale(2.0),
        inferer=SlidingWindowInferer((4, 4, 4), sw_batch_size=4),
        key_val_metric={"im": validator},
    )
    evaluator.run()
    assert 0 < evaluator.state.metrics["im"] <= 1
    assert validator.summary.cases == 3


def test_a_single_sigmoid_channel_is_two_classes():
    class One(nn.Module):
        def forward(self, x):
            return 3 * x.flatten(2).mean(-1)

    value = evaluate(One(), UnlabelledValidator("information_maximisation", activation="sigmoid")).state.metrics[
        "score"
    ]
    p = torch.cat([One()(d["image"][None]) for d in images()]).sigmoid()
    assert value == pytest.approx(information_maximisation(torch.cat([1 - p, p], 1)), abs=1e-6)


def test_discretised_predictions_are_refused():
    with pytest.raises(InputError, match="AsDiscreted"):
        evaluate(
            Scale(2.0),
            UnlabelledValidator("entropy", task="segmentation"),
            postprocessing=AsDiscreted("pred", argmax=True, to_onehot=2),
        )


def test_unfit_names_and_tasks_are_refused():
    with pytest.raises(InputError, match="class probabilities"):
        UnlabelledValidator(task="regression")
    with pytest.raises(InputError, match="source features"):
        UnlabelledValidator("dev")
    with pytest.raises(InputError, match="not one of"):
        UnlabelledValidator("accuracy")


def _one_process(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK="0")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    values = {}
    for name in ("information_maximisation", "snd", "bnm"):
        metric = UnlabelledValidator(name, task="segmentation")
        metric.reset()
        for item in images()[rank::2]:
            metric.update(Scale(2.0)(item["image"][None]))
        values[name] = metric.compute()
    torch.save(values, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow  # two processes import everything anew
def test_two_processes_agree_with_each_other_and_with_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_one_process, args=(port, tmp_path), nprocs=2)
    zero, one = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert zero == one
    metric = UnlabelledValidator(task="segmentation")
    metric.reset()
    metric.update([p for d in images() for p in decollate_batch(Scale(2.0)(d["image"][None]))])
    assert zero["information_maximisation"] == pytest.approx(metric.compute(), rel=1e-6)
