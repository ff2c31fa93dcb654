"""Cases that lack a channel: what `new` makes of them, and of the options."""

from __future__ import annotations

import pytest

from monai_transfer.bundle.planning.missing_channels import plan_missing_channels
from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.data.lists import DataLists
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest


def manifest(*missing, folder="."):
    cases = [
        {"image": ["a.nii", "b.nii"], "label": 0, "case": f"c{i}", "patient": f"p{i}", "site": "s"}
        | ({"missing": lost} if lost else {})
        for i, lost in enumerate(missing)
    ]
    content = {"name": "x", "task": "classification", "labels": {"0": "well", "1": "ill"}, "training": cases}
    return Manifest.from_dict(content, folder)


@pytest.mark.parametrize(
    ("lost", "policy", "dropout", "planned"),
    [
        (([], []), "auto", None, (0.0, "refuse")),
        (([], [1]), "auto", None, (0.25, "zeros")),
        (([], [1]), "zeros", 0.5, (0.5, "zeros")),
        (([], []), "zeros", None, (0.25, "zeros")),
        (([], []), "auto", 0.1, (0.1, "zeros")),
        (([], [1]), "leave-out", None, (0.0, "leave-out")),
        (([], [1]), "leave-out", 0.1, (0.1, "leave-out")),
    ],
)
def test_what_is_planned(lost, policy, dropout, planned):
    assert plan_missing_channels(manifest(*lost), 2, policy, dropout, Reasons()) == planned


@pytest.mark.parametrize(
    ("lost", "channels", "policy", "dropout", "message"),
    [
        (([1],), 2, "leave-out", None, "no training case is left"),
        (([], [1]), 2, "auto", 0.0, "by dropout alone"),
        (([],), 1, "zeros", None, "one channel"),
        (([],), 2, "auto", 1.0, "--channel-dropout is 1"),
        (([],), 2, "guess", None, "is no policy"),
    ],
)
def test_refused(lost, channels, policy, dropout, message):
    with pytest.raises(InputError, match=message):
        plan_missing_channels(manifest(*lost), channels, policy, dropout, Reasons())


def test_data_lists_refuse_leave_out_or_hand_on(tmp_path):
    path = manifest([], [1], folder=tmp_path).save(tmp_path / "m.json")
    with pytest.raises(InputError, match="1 cases lack a channel, first 'c1'.*--missing-channels zeros"):
        _ = DataLists(path).target_training
    assert [item["case"] for item in DataLists(path, missing_channels="leave-out").target_training] == ["c0"]
    assert [item["missing"] for item in DataLists(path, missing_channels="zeros").target_training] == [[], [1]]
    with pytest.raises(InputError, match="refuse, leave-out or zeros"):
        DataLists(path, missing_channels="maybe")
