"""Holding out sites that have no test split: divided by patients, all of it, or named with the reason."""

from __future__ import annotations

from monai_transfer.manifest import Manifest
from monai_transfer.study.held_out_sites import can_be_held_out, held_out_manifest


def manifest(folder, sites, split="training", test=()):
    """Six patients with two cases at each site, of which the sites in ``test`` have two cases more in a test split."""
    content = {"name": "x", "task": "classification", "labels": {"0": "well", "1": "ill"}, split: [], "test": []}
    for site, n in sites.items():
        for i in range(n):
            item = {"image": f"{site}{i}.png", "label": i % 2, "case": f"{site}{i}", "site": site}
            content[split].append(item | {"patient": f"{site}{i // 2}"})
        for i in range(2 if site in test else 0):
            item = {"image": f"{site}t{i}.png", "label": i, "case": f"{site}t{i}", "site": site}
            content["test"].append(item | {"patient": f"{site}t{i}"})
    return Manifest.from_dict({key: value for key, value in content.items() if value != []}, folder)


def test_a_site_without_a_test_split_is_divided_by_patients(tmp_path):
    whole = manifest(tmp_path, {"a": 12, "b": 12, "c": 12}, test="c")
    assert can_be_held_out(whole, True) == (["a", "b", "c"], {})
    assert held_out_manifest(whole, "c", True, tmp_path / "c" / "m.json") is None
    path = held_out_manifest(whole, "a", True, tmp_path / "a" / "m.json")
    divided = Manifest.load(path)
    parts = {split: divided.cases(split, site="a") for split in ("training", "validation", "test")}
    assert sum(map(len, parts.values())) == 12 and len(parts["test"]) >= 4 and parts["training"]
    patients = [{case.patient for case in cases} for cases in parts.values()]
    assert not patients[0] & patients[1] and not patients[0] & patients[2] and not patients[1] & patients[2]
    assert divided.filter("b").training == whole.filter("b").training
    assert divided.training[0].image.startswith(str(tmp_path))  # the files are where they were
    again = held_out_manifest(whole, "a", True, tmp_path / "a" / "again.json")
    assert Manifest.load(again).test == divided.test
    alone = Manifest.load(held_out_manifest(whole, "a", False, tmp_path / "a" / "all.json"))
    assert len(alone.cases("test", site="a")) == 12 and not alone.cases("training", site="a")


def test_unlabelled_images_of_tested_patients_do_not_train(tmp_path):
    whole = manifest(tmp_path, {"a": 12, "b": 12})
    content = whole.to_dict(tmp_path)
    content["training"] += [
        {"image": f"u{i}.png", "label": None, "case": f"u{i}", "patient": f"a{i}", "site": "a"} for i in range(6)
    ]
    path = held_out_manifest(Manifest.from_dict(content, tmp_path), "a", True, tmp_path / "m.json")
    divided = Manifest.load(path)  # loading refuses a patient in two splits
    tested = {case.patient for case in divided.test}
    assert tested and not tested & {case.patient for case in divided.training}
    assert any(case.label is None for case in divided.training)


def test_sites_that_cannot_be_tested_are_named(tmp_path):
    whole = manifest(tmp_path, {"a": 12, "b": 2})
    content = whole.to_dict(tmp_path)
    content["training"] += [{"image": "n.png", "label": None, "case": "n", "patient": "n", "site": "n"}]
    whole = Manifest.from_dict(content, tmp_path)
    held, reasons = can_be_held_out(whole, True)
    assert held == ["a"] and reasons["n"] == "none of its cases has a label" and "one patient" in reasons["b"]
    assert can_be_held_out(whole, False)[0] == ["a", "b"]
    lonely = manifest(tmp_path, {"a": 4, "b": 4}, split="validation", test="a")
    assert "no labelled training case" in can_be_held_out(lonely, True)[1]["a"]
