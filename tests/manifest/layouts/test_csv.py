"""Tables with several findings per image, as NIH, CheXpert and hospitals write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest, build_manifest
from monai_transfer.manifest.layouts.csv import Files

RANDOM = np.random.default_rng(0)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


def every(manifest):
    return [case for split in ("training", "validation", "test", "unlabeled") for case in manifest.cases(split)]


def nih(folder: Path) -> Path:
    rows = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,View Position"]
    for i in range(12):
        name = f"{i // 2:08d}_{i % 2:03d}.png"
        picture(folder / f"images_{1 + i // 6:03d}" / "images" / name)
        listed = ("Cardiomegaly|Edema", "No Finding", "Edema")[i % 3]
        rows.append(f"{name},{listed},{i % 2},{i // 2},50,PA")
    table(folder / "Data_Entry_2017.csv", *rows)
    return folder


def test_nih_lists_findings_in_one_cell(tmp_path):
    manifest, notes = build_manifest(nih(tmp_path / "d"), tmp_path / "m.json")
    assert manifest.task == "classification" and manifest.multi_label
    assert manifest.labels == {"0": "Cardiomegaly", "1": "Edema"}
    labels = {case.case: case.label for case in every(manifest)}
    assert labels["00000000_000"] == {"Cardiomegaly": 1, "Edema": 1}
    assert labels["00000000_001"] == {"Cardiomegaly": 0, "Edema": 0}
    assert labels["00000001_000"] == {"Cardiomegaly": 0, "Edema": 1}
    assert {case.patient for case in every(manifest)} == {str(i) for i in range(6)}
    assert Manifest.load(tmp_path / "m.json") == manifest
    chosen, notes = build_manifest(tmp_path / "d", tmp_path / "m.json", labels=["Edema"])
    assert chosen.class_names == ["Edema"] and any("left out by --labels: Cardiomegaly" in note for note in notes)


def test_the_table_that_is_given_is_the_one_of_several(tmp_path):
    """NIH's own folder has a second table that names images, with its boxes."""
    folder = nih(tmp_path / "d")
    table(folder / "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x", "00000000_000.png,Edema,3")
    with pytest.raises(InputError, match="several tables name image files") as told:
        build_manifest(folder, tmp_path / "m.json")
    assert "--table" in told.value.hint
    given, _ = build_manifest(folder, tmp_path / "m.json", table=folder / "Data_Entry_2017.csv")
    (folder / "BBox_List_2017.csv").unlink()
    alone, _ = build_manifest(folder, tmp_path / "alone.json")
    assert given.labels == alone.labels and every(given) == every(alone)


def chexpert(folder: Path) -> Path:
    columns = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly,Edema,Support Devices"
    cells = ("1.0,,,1.0", ",1.0,-1.0,", ",0.0,1.0,0.0", ",,,")
    for split, start in (("train", 0), ("valid", 16)):
        rows = [columns]
        for i in range(start, start + 16):
            place = f"{split}/patient{i // 2:05d}/study{i % 2 + 1}/view1_frontal.png"
            picture(folder / place)
            rows.append(f"{folder.name}/{place},Female,50,Frontal,AP,{cells[i % 4]}")
        table(folder / f"{split}.csv", *rows)
    return folder


def test_a_given_table_may_lie_elsewhere(tmp_path):
    for n in range(6):
        picture(tmp_path / "set" / "images" / f"{n}.png")
    rows = [f"images/{n}.png,p{n},{n % 2}" for n in range(6)]
    given = table(tmp_path / "elsewhere.csv", "image,patient,label", *rows)
    manifest, _ = build_manifest(tmp_path / "set", tmp_path / "m.json", layout="csv", table=str(given))
    assert sorted((case.patient, case.label) for case in every(manifest)) == [(f"p{n}", n % 2) for n in range(6)]


def test_chexpert_has_a_column_for_each(tmp_path):
    manifest, notes = build_manifest(chexpert(tmp_path / "CheXpert-v1.0-small"), tmp_path / "m.json")
    assert manifest.class_names == ["Cardiomegaly", "Edema", "Support Devices"]
    assert manifest.name == "CheXpert-v1.0-small"
    assert {case.patient for case in manifest.validation} == {f"patient{i:05d}" for i in range(8, 16)} - {
        case.patient for case in manifest.unlabeled
    }
    labels = [case.label for case in every(manifest)]
    assert {"Cardiomegaly": 1, "Edema": None, "Support Devices": None} in labels
    assert {"Cardiomegaly": 0, "Edema": 1, "Support Devices": 0} in labels
    assert {"Cardiomegaly": 0, "Edema": 0, "Support Devices": 1} in labels  # no finding, but a device
    assert labels.count(None) == 8
    assert any("4 columns read as findings" in note for note in notes)
    policies = {"uncertain": "positive", "unmentioned": "negative"}
    strict, _ = build_manifest(tmp_path / "CheXpert-v1.0-small", tmp_path / "m.json", **policies)
    labels = [case.label for case in every(strict)]
    assert {"Cardiomegaly": 1, "Edema": 1, "Support Devices": 0} in labels and None not in labels


def test_a_folder_that_was_renamed_keeps_its_table(tmp_path):
    chexpert(tmp_path / "CheXpert-v1.0-small").rename(tmp_path / "chest")
    manifest, _ = build_manifest(tmp_path / "chest", tmp_path / "m.json")
    assert manifest.class_names == ["Cardiomegaly", "Edema", "Support Devices"]


def test_a_file_is_never_found_by_its_bare_name_behind_a_path(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "inner").mkdir()
    Image.fromarray(np.ones((8, 8), np.uint8)).save(tmp_path / "inner" / "b.png")
    files = Files(tmp_path)
    assert files.find("/home/them/elsewhere/a.png") is None
    assert files.find("/home/them/set/inner/b.png") == tmp_path / "inner" / "b.png"
    assert files.find(str(tmp_path / "a.png")) == tmp_path / "a.png"


def test_a_given_table_that_says_nothing_is_refused(tmp_path):
    for name in ("ill", "well"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for n in range(3):
            Image.fromarray(np.full((8, 8), n, np.uint8)).save(tmp_path / "set" / name / f"{name}{n}.png")
    rows = [f"{name}{n},{n}" for name in ("ill", "well") for n in range(3)]
    (tmp_path / "t.csv").write_text("\n".join(["case,shoe size", *rows]))
    with pytest.raises(InputError, match="none of its columns .case, shoe size. says anything.*--site-column"):
        build_manifest(tmp_path / "set", tmp_path / "m.json", table=str(tmp_path / "t.csv"))


def test_columns_of_a_joined_table(tmp_path):
    for i in range(8):
        picture(tmp_path / "d" / f"a{i}.png")
    rows = [f"a{i},p{i},{i % 2},{'' if i % 3 else 1},{i}" for i in range(8)]
    joined = table(tmp_path / "t.csv", "case,patient,oedema,effusion,smoker", *rows)
    options = {"table": joined, "findings": ["oedema", "effusion"]}
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json", **options)
    assert manifest.class_names == ["oedema", "effusion"]
    assert {case.case: case.label for case in every(manifest)}["a1"] == {"oedema": 1, "effusion": None}
    assert any("2 findings (oedema, effusion)" in note for note in notes)
    with pytest.raises(InputError, match="column 'smoker' holds '2'.*--findings"):
        build_manifest(tmp_path / "d", tmp_path / "m.json", table=joined, findings=["oedema", "smoker"])
    with pytest.raises(InputError, match="no policy.*ignore, positive, negative"):
        build_manifest(tmp_path / "d", tmp_path / "m.json", **options, uncertain="maybe")
    renamed = {"labels": {"oedema": "fluid", "effusion": "fluid"}}
    merged, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", **options, **renamed)
    labels = {case.case: case.label for case in every(merged)}
    assert merged.class_names == ["fluid"] and labels["a0"] == {"fluid": 1} and labels["a2"] == {"fluid": 0}


def test_what_was_looked_for_in_a_column(tmp_path):
    for i in range(6):
        picture(tmp_path / "d" / f"a{i}.png")
    rows = [f"a{i},{'ill' if i % 2 else 'well'},{'ill|well' if i else ''}" for i in range(6)]
    joined = table(tmp_path / "t.csv", "case,label,annotated", *rows)
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", table=joined)
    told = {case.case: case.annotated for case in every(manifest)}
    assert told["a0"] is None and told["a1"] == ["ill", "well"]


def test_splits_of_one_table_need_equal_columns(tmp_path):
    folder = chexpert(tmp_path / "d")
    table(folder / "valid.csv", "Path,Edema", "d/valid/patient00008/study1/view1_frontal.png,1")
    with pytest.raises(InputError, match="several tables name image files: train.csv, valid.csv"):
        build_manifest(folder, tmp_path / "m.json", layout="csv")
