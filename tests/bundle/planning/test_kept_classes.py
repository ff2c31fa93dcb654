"""Which of a source's classes a new bundle keeps, and what is said of it."""

from __future__ import annotations

import pytest

from monai_transfer.bundle.planning.kept_classes import plan_kept_classes
from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest
from monai_transfer.tasks import task_of


def manifest(*labels, **more):
    case = {"image": "a.png", "label": "b.png", "case": "a", "patient": "p", "site": "us"}
    names = {str(i): name for i, name in enumerate(labels)}
    return Manifest.from_dict({"name": "x", "task": "segmentation", "labels": names, "training": [case], **more})


def planned(data, source, activation=None, wanted=None):
    reasons = Reasons()
    return plan_kept_classes(data, task_of(data), None, source, activation, wanted, reasons), reasons


def test_kept_unless_it_is_said_otherwise():
    data = manifest("background", "spleen")
    found, reasons = planned(data, ["background", "Liver", "Spleen"])
    assert (found.added, found.kept, found.known) == (("Liver",), ("Liver",), ("background", "spleen", "Liver"))
    assert "--no-keep-classes drops them" in reasons.why("keep_classes")
    term = found.distillation(["background", "spleen", "Liver"], "softmax")
    assert term["kept"] == [0, 1, 2], "the spleen was the source's as well"
    found, reasons = planned(data, ["background", "Liver"], wanted=False)
    assert (found.added, found.kept) == ((), ()) and "will be forgotten" in reasons.why("keep_classes")
    assert found.distillation(["background", "spleen"], "softmax") is None


def test_many_classes_are_kept_only_when_asked():
    many = ["background", *(f"organ {i}" for i in range(30))]
    found, reasons = planned(manifest("background", "spleen"), many)
    assert not found.added and "--keep-classes keeps them" in reasons.why("keep_classes")
    assert len(planned(manifest("background", "spleen"), many, wanted=True)[0].added) == 30


def test_a_class_that_is_named_but_was_not_looked_for_at_the_target():
    data = manifest("background", "liver", "spleen", annotated={"us": ["spleen"]})
    found, reasons = planned(data, ["background", "liver"])
    assert (found.added, found.kept) == ((), ("liver",))
    assert "not every target case tells" in reasons.why("keep_classes")


ILL = {"image": "a.png", "label": 1, "case": "a", "patient": "p", "site": "us"}
CLASSES = manifest("well", "ill", task="classification", training=[ILL])


@pytest.mark.parametrize(
    ("data", "source", "activation", "message"),
    [
        (manifest("background", "spleen"), None, None, "does not name its classes"),
        (manifest("background", "spleen"), ["whole tumour", "core"], None, "not classes beside a background"),
        (manifest("background", "spleen"), ["background", "liver"], "sigmoid", "not classes beside a background"),
        (manifest("background", "core", regions={"all": [1]}), ["background", "x"], None, "the task is regions"),
        (CLASSES, ["a", "b"], None, "task is classification"),
    ],
)
def test_what_cannot_be_kept_is_refused_only_when_asked(data, source, activation, message):
    found, reasons = planned(data, source, activation)
    assert not found.kept and not reasons.to_dict()
    with pytest.raises(InputError, match=message):
        planned(data, source, activation, wanted=True)
