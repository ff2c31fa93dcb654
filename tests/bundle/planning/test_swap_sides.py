"""`new --swap-sides`: left and right change places in training's draws, or the option is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import open_workflow
from monai_transfer.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"source_site": "north", "target_site": "south", "size": "small", "batch_size": 2, "augment": "none"}


def sided(tiny_set, *labels, task="segmentation", dims=3):
    """The tiny set, whose one class is the left kidney; nothing is marked right."""
    manifest = Path(tiny_set(task, dims))
    content = json.loads(manifest.read_text())
    content["labels"] = {str(i): name for i, name in enumerate(labels)}
    path = manifest.with_name(f"sided{len(labels)}.json")
    path.write_text(json.dumps(content))
    return path


def test_draws_hold_both_sides(tiny_set, tmp_path):
    data = sided(tiny_set, "background", "kidney_left", "kidney_right")
    spec = new_bundle(tmp_path / "b", data, swap_sides=True, **SMALL)
    assert spec.flips == [] and "change places" in spec.recipe["mirror"]["reason"]
    for workflow in ("train", "pretrain"):
        flow = open_workflow(tmp_path / "b", workflow, {"pretrained": "none"}, log=False)
        flow.initialize()
        dataset = flow.parser.get_parsed_content("train#dataset")
        seen = {int(dataset[0]["label"].max()) for _ in range(12)}
        assert seen == {1, 2}, "the left kidney, flipped, is a right one"
        flow.finalize()


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (("background", "kidney_left"), {}, "kidney_left"),
        (("background", "tumour"), {}, "no class is named by side"),
        (("background", "kidney_left", "kidney_right"), {"flip": False}, "contradict each other"),
    ],
)
def test_refused(tiny_set, tmp_path, labels, options, message):
    with pytest.raises(InputError, match=message):
        new_bundle(tmp_path / "b", sided(tiny_set, *labels), swap_sides=True, **SMALL, **options)
    assert not (tmp_path / "b").exists()
