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


def courses(epochs: int, warm_up: float, state: dict | None = None, optimizer_state: dict | None = None):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    course = warm_up_cosine(optimizer, epochs, warm_up)
    if state is not None:
        optimizer.load_state_dict(optimizer_state)
        course.load_state_dict(state)
    return optimizer, course


def run(optimizer, course, epochs: int) -> list[float]:
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        course.step()
    return found


@pytest.mark.parametrize("warm_up", [0.0, 0.1])
def test_a_prolonged_run_rises_to_the_longer_course_and_falls_to_nothing(warm_up, caplog):
    first = courses(10, warm_up)
    run(*first, 10)
    assert first[0].param_groups[0]["lr"] == pytest.approx(0)
    with caplog.at_level("INFO", logger="monai_transfer"):
        longer = courses(40, warm_up, first[1].state_dict(), first[0].state_dict())
    assert "prolonged from 10 to 40 epochs" in caplog.text
    found, whole = run(*longer, 30), run(*courses(40, warm_up), 40)
    rising = max(1, round(warm_up * 30))
    assert found[rising - 1 :] == pytest.approx(whole[9 + rising :]), "the course of a run of 40 epochs"
    assert found[:rising] == pytest.approx([w * (n + 1) / rising for n, w in enumerate(whole[10 : 10 + rising])])
    assert min(found) > 0 and longer[0].param_groups[0]["lr"] == pytest.approx(0)


def test_a_prolonged_run_resumes_and_is_prolonged_again():
    first = courses(5, 0.2)
    run(*first, 5)
    longer = courses(10, 0.2, first[1].state_dict(), first[0].state_dict())
    run(*longer, 2)
    again = courses(10, 0.2, longer[1].state_dict(), longer[0].state_dict())  # killed, and continued
    assert again[1].prolonged_at == 5
    assert run(*again, 3) == run(*longer, 3)
    twice = courses(20, 0.2, again[1].state_dict(), again[0].state_dict())
    assert twice[1].prolonged_at == 10 and run(*twice, 10)[-1] > 0


def test_an_unfinished_run_changes_to_the_longer_course_at_once():
    first = courses(10, 0.1)
    run(*first, 4)
    longer = courses(20, 0.1, first[1].state_dict(), first[0].state_dict())
    assert longer[1].prolonged_at is None and run(*longer, 16) == run(*courses(20, 0.1), 20)[4:]


def test_the_state_of_an_older_scheduler_is_read():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    older = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_up_cosine(optimizer, 10).factor)
    run(optimizer, older, 4)
    again = courses(10, 0.1, older.state_dict(), optimizer.state_dict())
    assert run(*again, 6) == run(*courses(10, 0.1), 10)[4:]
