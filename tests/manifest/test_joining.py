"""Sets that name their labels differently in one manifest: numbers by name, and who looked for which class."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_transfer.errors import InputError
from monai_transfer.inspection import check_manifest
from monai_transfer.manifest import build_manifest

RANDOM = np.random.default_rng(0)


def site(folder: Path, values, labels, tmp_path, **options):
    for i in range(6):
        for kind in ("images", "masks"):
            array = RANDOM.integers(0, 99, (6, 6, 4)).astype(np.float32)
            if kind == "masks":
                array = np.zeros((6, 6, 4), np.uint8)
                array[1:3], array[3:5] = values
            path = folder / kind / f"{folder.name}_{i}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    manifest, _ = build_manifest(folder, tmp_path / f"{folder.name}.json", site=folder.name, labels=labels, **options)
    return manifest.path


def every(manifest):
    return [case for split in ("training", "validation", "test", "unlabeled") for case in manifest.cases(split)]


def values(case):
    return sorted(np.unique(np.asarray(nibabel.load(case.label).dataobj)).tolist())


def test_each_site_is_annotated_for_its_own_classes(tmp_path):
    a = site(tmp_path / "data" / "a", (1, 1), ["background", "liver"], tmp_path)
    b = site(tmp_path / "data" / "b", (1, 2), ["background", "spleen", "kidney"], tmp_path)
    manifest, notes = build_manifest([a, b], tmp_path / "both.json")
    assert manifest.labels == {"0": "background", "1": "liver", "2": "spleen", "3": "kidney"}
    assert manifest.annotated == {"a": ["liver"], "b": ["spleen", "kidney"]}
    assert {tuple(values(case)) for case in every(manifest.filter("a"))} == {(0, 1)}
    assert {tuple(values(case)) for case in every(manifest.filter("b"))} == {(0, 2, 3)}
    assert any("a: only liver was looked for" in note for note in notes)
    assert any("6 masks written with the common numbers" in note for note in notes)
    codes = {finding.code for finding in check_manifest(manifest)}
    assert "absent-class-at-site" not in codes and "label-unknown" not in codes and "not-annotated" not in codes


def test_gaps_ignored_values_and_regions_are_carried_over(tmp_path):
    a = site(
        tmp_path / "data" / "a", (1, 4), {0: "background", 1: "core", 4: "ring"}, tmp_path, regions={"whole": [1, 4]}
    )
    b = site(tmp_path / "data" / "b", (2, 9), {0: "background", 2: "core", 9: "rim"}, tmp_path, ignore=[9])
    manifest, _ = build_manifest([a, b], tmp_path / "both.json")
    assert manifest.labels == {"0": "background", "1": "core", "2": "ring"} and manifest.ignore == [3]
    assert manifest.regions == {"whole": [1, 2]} and manifest.annotated == {"b": ["core"]}
    assert {tuple(values(case)) for case in every(manifest.filter("a"))} == {(0, 1, 2)}
    assert {tuple(values(case)) for case in every(manifest.filter("b"))} == {(0, 1, 3)}


def test_one_site_in_both_is_told_by_case(tmp_path):
    a = site(tmp_path / "data" / "a", (1, 1), ["background", "liver"], tmp_path)
    b = site(tmp_path / "data" / "b", (1, 2), ["background", "liver", "spleen"], tmp_path)
    manifest, _ = build_manifest([a, b], tmp_path / "both.json", site="here")
    told = {case.case[0]: case.annotated for case in every(manifest)}
    assert told == {"a": ["liver"], "b": None} and manifest.annotated == {}
    assert manifest.datalist("training")[0]["annotated"] in (["liver"], ["background", "liver", "spleen"])


def test_a_value_outside_the_declared_ones_names_its_file(tmp_path):
    a = site(tmp_path / "data" / "a", (1, 1), ["background", "liver"], tmp_path)
    with pytest.raises(InputError, match="2 names, and the masks hold 0, 1, 7"):
        site(tmp_path / "data" / "c", (1, 7), ["background", "spleen"], tmp_path)
    c = site(tmp_path / "data" / "d", (1, 7), {0: "background", 1: "spleen"}, tmp_path)
    with pytest.raises(InputError, match=r"d_0.nii.gz: mask holds 7, which is not declared"):
        build_manifest([a, c], tmp_path / "both.json")
