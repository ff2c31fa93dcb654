"""WiSE-FT behind a stock trainer: the formula, the rule, statistics, what is new, what is written."""

from __future__ import annotations

import json

import pytest
import torch
from ignite.metrics import Metric
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from monai_transfer.engine.checkpoint import Checkpoint, load_checkpoint
from monai_transfer.engine.source_average import AverageWithSource, average_states, tuned_share
from monai_transfer.errors import InputError
from monai_transfer.strategies.lora import Lora
from monai_transfer.weights import load_weights


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    )


def loader(shift=0.0):
    generator = torch.Generator().manual_seed(1)
    items = [{"image": torch.randn(1, 8, 8, generator=generator) + shift, "label": i % 2} for i in range(8)]
    return DataLoader(items, batch_size=4)


def trained(net, handlers):
    trainer = SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=2, train_data_loader=loader(), network=net, decollate=False,
        optimizer=torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], 1e-2),
        loss_function=torch.nn.CrossEntropyLoss(), train_handlers=handlers,
    )  # fmt: skip
    trainer.run()


class Score(Metric):
    """The network's weight sum as a score: says which weights were in it when it was evaluated."""

    def __init__(self, net, value):
        self.net, self.value, self.seen = net, value, None
        super().__init__()

    def reset(self):
        self.seen = self.net[3].weight.detach().clone()

    def update(self, output):
        pass

    def compute(self):
        return self.value


def test_it_is_the_average_and_both_are_kept(tmp_path):
    net = network()
    source = {k: v.clone() for k, v in net.state_dict().items()}
    trained(net, [Checkpoint(tmp_path), AverageWithSource(net, tmp_path, share=0.25)])
    tuned, model = (load_checkpoint(tmp_path / "models" / f"{n}.pt") for n in ("fine_tuned", "model"))
    assert not torch.allclose(tuned["3.weight"], source["3.weight"])
    for key in ("0.weight", "1.bias", "1.running_mean", "3.weight"):
        torch.testing.assert_close(model[key], 0.75 * source[key] + 0.25 * tuned[key])
        assert torch.equal(net.state_dict()[key], model[key]), "the test that follows sees the average"
    told = json.loads((tmp_path / "weight_average.json").read_text())
    assert told == {"tuned_share": 0.25, "source_score": None, "statistics": False}


@pytest.mark.parametrize(
    ("score", "chance", "share"), [(0.9, 0.0, 0.5), (0.2, 0.0, 0.8), (0.5, 0.5, 1.0), (0.3, 0.5, 1.0)]
)
def test_the_rule_looks_at_the_untouched_source(tmp_path, score, chance, share):
    net = network()
    source = net[3].weight.detach().clone()
    metric = Score(net, score)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=loader(2.0), network=net, key_val_metric={"score": metric}
    )
    handler = AverageWithSource(net, tmp_path, share=None, evaluator=evaluator, chance=chance)
    trained(net, [Checkpoint(tmp_path), handler])
    assert torch.equal(metric.seen, source)
    assert handler.share == pytest.approx(share) and handler.score == score
    if share == 1:
        assert torch.equal(net[3].weight, load_checkpoint(tmp_path / "models" / "fine_tuned.pt")["3.weight"])


def test_the_rule_in_numbers():
    assert [tuned_share(s) for s in (1.0, 0.5, 0.3, 0.0, float("nan"))] == [0.5, 0.5, 0.7, 1.0, 1.0]


def test_statistics_are_those_of_the_target(tmp_path):
    net = network()
    trained(net, [AverageWithSource(net, tmp_path, share=0.5, statistics=loader(3.0))])
    features = torch.cat([net[0](batch["image"]) for batch in loader(3.0)])
    torch.testing.assert_close(net[1].running_mean, features.mean((0, 2, 3)).detach(), atol=1e-5, rtol=1e-4)
    model = load_checkpoint(tmp_path / "models" / "model.pt")
    assert torch.equal(model["1.running_mean"], net[1].running_mean)


def test_a_network_without_statistics_is_averaged_alone(tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.InstanceNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    )
    trained(net, [AverageWithSource(net, tmp_path, share=0.5, statistics=loader(3.0))])
    assert json.loads((tmp_path / "weight_average.json").read_text())["statistics"] is False


def test_a_fresh_head_is_not_drawn_back_to_its_random_start(tmp_path):
    net = network()
    theirs = {k: v for k, v in network(5).state_dict().items() if not k.startswith("3.")}
    report = load_weights(net, theirs, min_coverage=0.0)
    assert "3.weight" in report.missing
    trained(net, [AverageWithSource(net, tmp_path, share=0.5, report=report)])
    tuned = load_checkpoint(tmp_path / "models" / "fine_tuned.pt")
    assert torch.equal(net[3].weight, tuned["3.weight"]) and not torch.equal(net[0].weight, tuned["0.weight"])


def test_with_injected_parameters(tmp_path):
    net = Lora(rank=2).apply(network())
    trained(net, [Checkpoint(tmp_path), AverageWithSource(net, tmp_path, share=0.5)])
    plain = network()
    plain.load_state_dict(load_checkpoint(tmp_path / "models" / "model.pt"))
    image = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(plain.eval()(image), net.eval()(image))


def test_refused():
    with pytest.raises(InputError, match="share lies between"):
        AverageWithSource(network(), share=1.5)
    with pytest.raises(InputError, match="give share, or an evaluator"):
        AverageWithSource(network(), share=None)
    with pytest.raises(InputError, match="no weights to average"):
        average_states({"a": torch.ones(1)}, {"b": torch.ones(1)}, 0.5)
