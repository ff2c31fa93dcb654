"""The list of tasks, and what each of them says of itself."""

from __future__ import annotations

import dataclasses

import pytest
from monai.bundle import ConfigParser

from monai_transfer.errors import InputError
from monai_transfer.tasks import TASKS, Outputs, get_task, manifest_tasks


def test_a_misspelt_task_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="did you mean 'segmentation'"):
        get_task("segmentatoin")
    assert get_task(TASKS["regression"]) is TASKS["regression"]


def test_a_task_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TASKS["regression"].name = "other"


def test_pretraining_without_labels_is_no_task_of_a_manifest():
    assert manifest_tasks() == ["classification", "segmentation", "regression", "localization"]
    with pytest.raises(InputError, match="images alone"):
        TASKS["self_supervised"].loss(Outputs(["image"]))


@pytest.mark.parametrize("name", manifest_tasks())
def test_configs_can_be_built_and_inference_needs_monai_alone(name):
    task, outputs = TASKS[name], Outputs(["a", "b"], mean=3.0, std=2.0)
    for part in ("loss", "key_metric_config", "label_transforms", "validation", "scored", "predicted"):
        config = getattr(task, part)(outputs)
        scale = {"mean": outputs.mean, "std": outputs.std}
        parser = ConfigParser({"imports": ["$import monai", "$import torch"], "label_scale": scale, "part": config})
        assert parser.get_parsed_content("part") is not None
    assert "monai_transfer" not in str(task.predicted(outputs))


def test_a_quantity_is_learned_scaled_and_given_back_in_its_unit():
    task, outputs = TASKS["regression"], Outputs(["value"], mean=3.0, std=2.0)
    parser = ConfigParser(
        {
            "label_scale": {"mean": outputs.mean, "std": outputs.std},
            "to": task.label_transforms(outputs),
            "back": task.predicted(outputs),
        }
    )
    (there,), (back,) = parser.get_parsed_content("to"), parser.get_parsed_content("back")
    scaled = there({"label": 7.0})["label"]
    assert scaled.tolist() == [2.0]
    assert back({"pred": scaled})["pred"].tolist() == [7.0]


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("segmentation", {"0": "background", "1": "liver"}, {0: "background", 1: "liver"}),
        ("localization", {}, {0: "background", 1: "lesion"}),
        ("localization", {"1": "nodule"}, {0: "background", 1: "nodule"}),
        ("regression", {"0": "unused"}, {}),
    ],
)
def test_output_names(name, labels, expected):
    assert TASKS[name].output_names(labels) == expected
