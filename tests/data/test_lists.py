"""Which cases each part of a transfer sees: the label budget, hidden labels, no test case anywhere else."""

from __future__ import annotations

import json

import pytest

from monai_transfer.data.lists import DataLists
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest


@pytest.fixture
def manifest(tmp_path):
    def items(site: str, split: str, n: int, label=True) -> list[dict]:
        made = []
        for i in range(n):
            name = f"{site}_{split}_{i}"
            (tmp_path / f"{name}.nii.gz").write_bytes(b"")
            made.append(
                {
                    "image": f"{name}.nii.gz",
                    "label": i % 2 if label else None,
                    "case": name,
                    "patient": name,
                    "site": site,
                }
            )
        return made

    content = {
        "name": "x", "task": "classification", "labels": {"0": "no", "1": "yes"},
        "training": items("a", "training", 6) + items("b", "training", 5) + items("b", "bare", 1, label=False),
        "validation": items("a", "validation", 2) + items("b", "validation", 4),
        "test": items("a", "test", 2) + items("b", "test", 3),
        "unlabeled": items("b", "unlabeled", 2, label=False),
    }  # fmt: skip
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(content))
    return path


def names(items):
    return {item["case"] for item in items}


def test_sites_and_budget(manifest):
    lists = DataLists(manifest, "a", "b", n_labelled=2, seed=0)
    assert len(lists.source_training) == 6 and len(lists.target_training) == 2
    assert {item["label"] for item in lists.target_training} == {0, 1}
    assert len(lists.target_validation) == 2  # choosing an epoch uses labels too
    assert len(DataLists(manifest, "a", "b").target_validation) == 4
    assert len(lists.target_test) == 3 and len(lists.source_and_target_training) == 8


def test_few_are_among_more(manifest):
    for seed in range(5):
        few, more = (names(DataLists(manifest, "a", "b", n, seed).target_training) for n in (2, 4))
        assert few < more


def test_adaptation_sees_no_target_label_and_no_test_case(manifest):
    lists = DataLists(manifest, "a", "b", n_labelled=0)
    assert len(lists.target_unlabelled) == 8
    assert all("label" not in item for item in lists.target_unlabelled)
    assert lists.target_training == [] and len(lists.source_and_target_training) == 6
    assert not names(lists.target_test) & names(lists.target_unlabelled + lists.source_training)
    unnamed = DataLists(manifest, target_site="b", n_labelled=0).source_and_target_training
    assert {item["site"] for item in unnamed} == {"a"}, "where no source is named, the other sites are"


def test_faults_are_named(manifest):
    with pytest.raises(InputError, match="no site 'c'"):
        _ = DataLists(manifest, "c", "b").source_training
    with pytest.raises(InputError, match="5 are there"):
        _ = DataLists(manifest, "a", "b", n_labelled=9).target_training


def test_pretraining_without_labels_sees_both_sites_and_no_test_case(manifest):
    both = DataLists(manifest, "a", "b")
    assert len(both.self_supervised_training) == 6 + 5 + 1 + 2
    assert len(both.self_supervised_validation) == 6
    seen = both.self_supervised_training + both.self_supervised_validation
    assert not any("label" in item for item in seen)
    assert not any("_test_" in item["case"] for item in seen)
    assert names(DataLists(manifest, "b", "b").self_supervised_training) == {
        name for name in names(both.self_supervised_training) if name.startswith("b")
    }
    assert names(DataLists(manifest).self_supervised_training) == names(both.self_supervised_training)
    assert names(DataLists(manifest, ["a"], "b").self_supervised_training) == names(both.self_supervised_training)


def test_acquisition_order_stays_with_unlabelled_images_where_all_have_it(tmp_path):
    def listed(days: list[int | None]) -> list[dict]:
        items = [
            {"image": f"{i}.png", "label": "a", "case": f"c{i}", "patient": f"p{i}", "site": "s"}
            for i in range(len(days))
        ]
        for item, day in zip(items, days, strict=True):
            if day is not None:
                item["acquired"] = day
        content = {"name": "x", "task": "classification", "labels": {"0": "a", "1": "b"}, "training": items}
        Manifest.from_dict(content, tmp_path).save(tmp_path / "manifest.json")
        return DataLists(tmp_path / "manifest.json", "s", "s").target_unlabelled

    assert [item["acquired"] for item in listed([3, 1])] == [3, 1]
    assert all("acquired" not in item for item in listed([3, None])), "a batch's cases have the same keys"


def test_joint_training_keeps_the_budget(manifest):
    """Parts are told, replay is a number of source cases, and no further target label comes in by the back door."""

    def parts(**options):
        items = DataLists(manifest, **options).joint_training
        assert len({item["image"] for item in items}) == len(items)
        return [(item["part"], item["site"]) for item in items]

    assert parts(source_site="a", target_site="b", n_labelled=2) == [("source", "a")] * 6 + [("target", "b")] * 2
    assert parts(source_site="a", target_site="b", n_labelled=2, n_replay=3).count(("source", "a")) == 3
    assert parts(target_site="b", n_labelled=2) == [("source", "a")] * 6 + [("target", "b")] * 2
    assert parts(source_site=["a", "b"], target_site="b", n_labelled=1).count(("target", "b")) == 1
    assert {part for part, _ in parts(n_labelled=3)} == {"target"}, "without sites there is no source"
    few, more = (DataLists(manifest, "a", "b", 2, n_replay=n).joint_training for n in (2, 4))
    assert {i["image"] for i in few} <= {i["image"] for i in more}
