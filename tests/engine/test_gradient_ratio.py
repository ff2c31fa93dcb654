"""The strength of a term is what a hand measures beside it, is said once, and is a warning where it does not act."""

from __future__ import annotations

import logging
import math
import statistics

import pytest
import torch
from torch import nn

from monai_transfer import MethodStep
from monai_transfer.engine.gradient_ratio import gradient_ratio
from monai_transfer.methods.dann import Dann, dann_lambda
from monai_transfer.methods.l2_sp import L2Sp


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def run(method, weight=1.0, epochs=2, length=10):
    """A plain loop; returns the step, and for each batch from half of the run on the ratio measured by hand."""
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    target = [torch.randn(8, 4, generator=torch.Generator().manual_seed(2)) + 2]
    step = MethodStep(method, net, target, optimizer=optimizer, weight=weight, epochs=epochs, epoch_length=length)
    g = torch.Generator().manual_seed(3)
    found = []
    for index in range(epochs * length):
        image = torch.randn(8, 4, generator=g)
        label = (image[:, 0] > 0).long()
        logits = net(image)
        loss = nn.functional.cross_entropy(logits, label)
        total = step(image, label, logits, loss=loss)
        if index >= epochs * length // 2:
            ramp = dann_lambda(index / (epochs * length)) if isinstance(method, Dann) else 1.0
            parameters = list(net.parameters())
            whole = torch.autograd.grad(total, parameters, retain_graph=True)
            task = torch.autograd.grad(loss, parameters, retain_graph=True)
            pairs = [(a - b, b) for a, b in zip(whole, task, strict=True) if (a - b).abs().max() > 1e-9]
            if pairs:  # none of a term of weight 0
                norms = [math.sqrt(sum(float(x.square().sum()) for x in side)) for side in zip(*pairs, strict=True)]
                found.append(norms[0] / norms[1] / ramp)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    step.finish()
    return step, found


@pytest.mark.parametrize("make", [lambda: L2Sp(), lambda: Dann(hidden=8)])
def test_it_is_the_median_of_five_steps_at_half_of_the_run_without_the_ramp(make, caplog):
    with caplog.at_level(logging.INFO):
        step, by_hand = run(make())
    assert step.ratio.median == pytest.approx(statistics.median(by_hand[:5]), rel=2e-3)
    said = [r for r in caplog.records if "of the task's" in r.message]
    assert len(said) == 1
    assert said[0].levelno == logging.INFO
    assert f"is {step.ratio.median:.2g} of the task's (median of 5 steps)" in said[0].message


@pytest.mark.parametrize(
    ("method", "weight", "word"),
    [(L2Sp(), 1e-4, "it changes nothing; raise"), (Dann(hidden=8), 100.0, "it drowns the task; lower")],
)
def test_a_term_that_does_not_act_is_warned_of(method, weight, word, caplog):
    step, _ = run(method, weight)
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"the gradient of {type(method).__name__}'s term is ")
    assert word in warnings[0]
    equal = f"{weight / step.ratio.median:.2g}"
    assert warnings[0].endswith(f"({equal} in place of {weight:g} makes them equal)")
    assert run(type(method)(), float(equal))[0].ratio.median == pytest.approx(1.0, rel=0.5), "which it does, or nearly"


def test_a_control_is_not_asked_to_have_a_stronger_term(caplog):
    with caplog.at_level(logging.INFO):
        step, _ = run(L2Sp(), weight=0.0)
    assert math.isnan(step.ratio.median) and not [r for r in caplog.records if "of the task's" in r.message]


def test_measuring_changes_nothing():
    """Weights are bitwise those of a run in which nothing is measured."""

    def weights(measured):
        net = network()
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        step = MethodStep(L2Sp(), net, optimizer=optimizer, epochs=1, epoch_length=12)
        if not measured:
            step.ratio.due = lambda _progress: False
        for seed in range(12):
            image = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
            logits = net(image)
            loss = step(image, None, logits, loss=nn.functional.cross_entropy(logits, (image[:, 0] > 0).long()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        step.finish()
        assert math.isfinite(step.ratio.median) == measured
        return [p.detach() for p in net.parameters()]

    for a, b in zip(weights(True), weights(False), strict=True):
        assert torch.equal(a, b)


def test_only_parameters_that_both_reach_count():
    a, b = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([5.0]))
    assert gradient_ratio(2 * a.sum() + b.sum() * 7, a.square().sum(), [a, b]) == pytest.approx(2 / 6)
    assert math.isnan(gradient_ratio(b.sum(), a.sum(), [a, b]))
    assert math.isnan(gradient_ratio(torch.ones(()), a.sum(), [a]))
