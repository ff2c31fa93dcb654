"""Weights and balanced draws: what is chosen, what is said, and what is refused."""

from __future__ import annotations

import pytest

from monai_transfer.bundle.planning.balance import Balance, plan_balance
from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest
from monai_transfer.tasks import task_of


def manifest(labels, task="classification"):
    cases = [
        {"image": f"{i}.png", "label": label, "case": f"c{i}", "patient": f"p{i}", "site": "s"}
        for i, label in enumerate(labels)
    ]
    content = {"name": "x", "task": task, "training": cases}
    if task != "regression":
        content["labels"] = {"0": "oedema", "1": "mass"}
    return Manifest.from_dict(content)


def planned(data, how="auto"):
    reasons = Reasons()
    return plan_balance(data, task_of(data), [None], ["oedema", "mass"], how, reasons), reasons.to_dict()


def test_classes():
    unlike, alike = manifest([0] * 6 + [1] * 2), manifest([0] * 3 + [1] * 2)
    assert planned(unlike)[0] == Balance([0.6667, 2.0])
    found, reasons = planned(alike)
    assert found == Balance() and "alike enough" in reasons["class_weights"]["reason"]
    assert planned(alike, "weights")[0].weights == [0.8333, 1.25]
    found, reasons = planned(unlike, "sampling")
    assert found == Balance(sampling=True) and reasons["balance"]["value"] == "sampling"
    assert planned(unlike, "none")[0] == Balance()


def test_findings():
    rare = manifest([{"oedema": 1, "mass": None}, {"oedema": 0, "mass": 1}, *[{"oedema": 0, "mass": 0}] * 30])
    found, reasons = planned(rare)
    assert found.weights == [10.0, 10.0], "31 and 30 absent ones for one, and at most ten"
    assert "oedema 1 of 32, mass 1 of 31" in reasons["finding_weights"]["reason"]
    often = manifest([{"oedema": 1, "mass": 0}, {"oedema": 0, "mass": 1}, {"oedema": 1, "mass": 0}])
    assert planned(often, "none")[0].weights is None
    assert planned(often)[0].weights == [1.0, 2.0]
    with pytest.raises(InputError, match="drawing for one unbalances another.*--balance weights"):
        planned(often, "sampling")


@pytest.mark.parametrize(
    ("task", "label", "message"),
    [("segmentation", "m.png", "where its patches are placed"), ("regression", 1.5, "a regression has no classes")],
)
def test_tasks_without_classes_of_images(task, label, message):
    data = manifest([label], task)
    assert planned(data) == (Balance(), {})
    with pytest.raises(InputError, match=message):
        planned(data, "weights")
    with pytest.raises(InputError, match="is no way"):
        planned(data, "often")
