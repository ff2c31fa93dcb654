"""Up, then down to nothing; groups keep their ratio; a resumed schedule goes on."""

from __future__ import annotations

import pytest
import torch

from monai_transfer.engine.learning_rate import warm_up_cosine


def rates(epochs: int, warm_up: float) -> list[list[float]]:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.AdamW(groups)
    course, found = warm_up_cosine(optimizer, epochs, warm_up), []
    for _ in range(epochs):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        course.step()
    return found


@pytest.mark.parametrize("epochs", [1, 2, 20, 40])
def test_rates_rise_and_fall(epochs):
    first = [pair[0] for pair in rates(epochs, 0.1)]
    top = first.index(max(first))
    assert max(first) == 1.0 and top <= max(0, round(0.1 * epochs))
    assert first[: top + 1] == sorted(first[: top + 1]) and first[top:] == sorted(first[top:], reverse=True)
    assert min(first) > 0, "no epoch is wasted"
    assert all(pair[1] == pytest.approx(0.1 * pair[0]) for pair in rates(epochs, 0.1))


def test_without_warm_up_it_is_torchs_cosine():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    course, found = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7), []
    for _ in range(7):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        course.step()
    assert [pair[0] for pair in rates(7, 0.0)] == pytest.approx(found)


def test_a_resumed_schedule_goes_on():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    course = warm_up_cosine(optimizer, 10)
    for _ in range(4):
        optimizer.step()
        course.step()
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    again = warm_up_cosine(other, 10)
    again.load_state_dict(course.state_dict())
    other.load_state_dict(optimizer.state_dict())
    for one, opt in ((course, optimizer), (again, other)):
        opt.step()
        one.step()
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
