"""The sets: complete, repeatable, safe under concurrency, conforming to the manifest, loadable by MONAI."""

from __future__ import annotations

import filecmp
import json
import multiprocessing
import os
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from monai.transforms import LoadImaged

from monai_transfer.data.phantom import TASKS, embedded, embedded_set
from monai_transfer.data.phantom.__main__ import main
from monai_transfer.data.phantom.sets import write_set
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest
from monai_transfer.manifest.checksums import sha256_image


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory) -> Path:
    return Path(embedded_set("segmentation", tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def classification(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cls") / "set"
    write_set("classification", folder, patients=3)
    return folder


def test_both_sites_stand_in_every_split_and_no_patient_in_two(segmentation):
    manifest = Manifest.load(segmentation / "manifest.json")
    assert manifest.sites == ["site_a", "site_b"]
    counts = {
        (split, site): len(manifest.cases(split, site=site))
        for split in ("training", "validation", "test")
        for site in manifest.sites
    }
    assert min(counts.values()) >= 4
    assert counts["training", "site_b"] >= 14
    assert counts["test", "site_b"] >= 12
    splits = [{case.patient for case in manifest.cases(split)} for split in ("training", "validation", "test")]
    assert sum(map(len, splits)) == len(set.union(*splits))


def test_monai_reads_the_list_and_loads_every_case(segmentation):
    spacings, axes = {}, {}
    seen: set[int] = set()
    load = LoadImaged(["image", "label"])
    for split in ("training", "validation", "test"):
        for item in load_decathlon_datalist(str(segmentation / "manifest.json"), True, split):
            data = load(item)
            assert data["image"].shape == data["label"].shape
            assert np.allclose(data["image"].affine, data["label"].affine, atol=1e-4)
            assert data["image"].max() > 100
            values = set(np.unique(data["label"].numpy()).astype(int))
            assert {0, 1} <= values <= {0, 1, 2}
            seen |= values
            spacings.setdefault(item["site"], set()).add(tuple(np.round(data["image"].pixdim.numpy(), 3)))
            axes.setdefault(item["site"], set()).add(nib.aff2axcodes(data["image"].affine.numpy()))
    assert seen == {0, 1, 2}
    assert spacings["site_a"].isdisjoint(spacings["site_b"])
    assert axes == {"site_a": {("R", "A", "S")}, "site_b": {("P", "L", "I")}}


def test_one_image_is_a_dicom_series_and_holds_no_other_name(segmentation):
    folders = [item["image"] for item in _items(segmentation) if (segmentation / item["image"]).is_dir()]
    assert len(folders) == 1
    manifest = Manifest.load(segmentation / "manifest.json")
    (case,) = [case for case in manifest.cases("test") if Path(case.image).is_dir()]
    assert case.patient.startswith("PHANTOM-")


def test_checksums_are_those_of_the_files(segmentation):
    for item in _items(segmentation)[::7]:
        assert item["sha256"] == sha256_image(segmentation / item["image"])


def test_some_patients_have_no_lesion(segmentation):
    for site in ("site_a", "site_b"):
        labels = [nib.load(segmentation / i["label"]).get_fdata() for i in _items(segmentation) if i["site"] == site]
        without = [not (label == 2).any() for label in labels]
        assert 0 < sum(without) < len(labels) / 2


def test_slices_are_grey_bytes_of_one_size_and_classes_are_about_even(classification):
    manifest = Manifest.load(classification / "manifest.json")
    assert manifest.class_names == ["no lesion", "lesion"]
    for site in manifest.sites:
        items = [item for item in _items(classification) if item["site"] == site]
        counts = Counter(item["label"] for item in items)
        assert 0.3 < counts["lesion"] / len(items) < 0.6
        assert max(Counter(item["patient"] for item in items).values()) <= 10
    load = LoadImaged(["image"])
    for item in load_decathlon_datalist(str(classification / "manifest.json"), False, "training")[::10]:
        image = load(item)["image"]
        assert tuple(image.shape) == (64, 64)
        assert 200 < image.max() <= 255


def test_a_patient_stands_in_the_same_split_of_every_task(segmentation, classification):
    def split_of(folder: Path) -> dict[str, str]:
        content = json.loads((folder / "manifest.json").read_text())
        return {i["patient"]: split for split in ("training", "validation", "test") for i in content[split]}

    volumes, slices = split_of(segmentation), split_of(classification)
    shared = volumes.keys() & slices.keys()
    assert len(shared) >= 18
    assert all(volumes[patient] == slices[patient] for patient in shared)


def test_regression_gives_the_volume_in_ml(tmp_path, segmentation):
    write_set("regression", tmp_path / "set", patients=1)
    truth = {item["case"]: item for item in _items(tmp_path / "set")}
    for item in _items(segmentation):
        if item["case"] in truth:
            label = nib.load(segmentation / item["label"])
            drawn = (label.get_fdata() == 1).sum() * np.prod(label.header.get_zooms()) / 1000
            assert truth[item["case"]]["label"] == pytest.approx(drawn, rel=0.2)
            assert truth[item["case"]]["sha256"] == item["sha256"]  # the same images as for segmentation
    assert Manifest.load(tmp_path / "set" / "manifest.json").task == "regression"


@pytest.mark.parametrize("task", list(TASKS))
def test_equal_seeds_give_equal_bytes(task, tmp_path):
    for name in ("one", "two"):
        write_set(task, tmp_path / name, seed=5, patients=1)
    names = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    same, different, failed = filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", names, shallow=False)
    assert len(same) == len(names)
    assert not different + failed


def test_a_second_call_makes_nothing(segmentation, monkeypatch):
    monkeypatch.setattr(embedded, "write_set", lambda *_: pytest.fail("made again"))
    assert embedded_set("segmentation", segmentation.parent) == str(segmentation)


def _make_together(root: str, start, answers) -> None:
    embedded.write_set = lambda task, folder: write_set(task, folder, patients=1)
    start.wait()
    answers.put(embedded_set("segmentation", root))


def test_processes_at_once_leave_one_complete_set(tmp_path):
    fork = multiprocessing.get_context("fork")
    start, answers = fork.Barrier(3), fork.Queue()
    processes = [fork.Process(target=_make_together, args=(str(tmp_path), start, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    results = {answers.get(timeout=120) for _ in processes}
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0
    (result,) = results
    assert [path.name for path in tmp_path.iterdir()] == [Path(result).name]
    assert len(_items(Path(result))) == 6


def test_a_set_that_lost_its_manifest_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "write_set", lambda task, folder: write_set(task, folder, patients=1))
    folder = Path(embedded_set("regression", tmp_path))
    (folder / "manifest.json").unlink()
    stale = tmp_path / f".{folder.name}.1.dead"
    stale.mkdir()
    os.utime(stale, (0, 0))
    assert embedded_set("regression", tmp_path) == str(folder)
    assert (folder / "manifest.json").is_file()
    assert not stale.exists()


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(task: str, folder: Path) -> None:
        folder.mkdir()
        raise RuntimeError("interrupted")

    monkeypatch.setattr(embedded, "write_set", fail)
    with pytest.raises(RuntimeError):
        embedded_set("regression", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "write_set", lambda task, folder: write_set(task, folder, patients=1))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("MONAI_TRANSFER_CACHE", raising=False)
    assert Path(embedded_set("regression")).parent == tmp_path / "xdg" / "monai_transfer"
    monkeypatch.setenv("MONAI_TRANSFER_CACHE", str(tmp_path / "own"))
    assert Path(embedded_set("regression")).parent == tmp_path / "own"


def test_bad_input_is_named(tmp_path):
    with pytest.raises(InputError, match="segmentation, classification, regression"):
        embedded_set("detection", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="MONAI_TRANSFER_CACHE"):
        embedded_set("segmentation", tmp_path / "file")


def test_the_command_prints_the_folder(segmentation, capsys):
    assert main(["--task", "segmentation", "--out", str(segmentation.parent)]) == 0
    assert capsys.readouterr().out.strip() == str(segmentation)


def test_the_command_names_a_folder_that_cannot_hold_the_set(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def _items(folder: Path) -> list[dict]:
    content = json.loads((folder / "manifest.json").read_text())
    return [item for split in ("training", "validation", "test") for item in content[split]]
