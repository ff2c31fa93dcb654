"""The content cache: new content or a new definition is computed, equal content is not, and geometry survives."""

from __future__ import annotations

import multiprocessing
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor, PersistentDataset, decollate_batch
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Invertd,
    Lambdad,
    LoadImaged,
    Orientationd,
    RandFlipd,
    ScaleIntensityd,
    Spacingd,
    SpatialPadd,
    Transform,
)

from monai_transfer.data.content_cache import ContentCacheDataset
from monai_transfer.data.fingerprint import fingerprint_item, fingerprint_transforms
from monai_transfer.data.phantom.sites import SITES
from monai_transfer.data.phantom.write import write_dicom, write_nifti
from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")
AFFINE = np.diag([-2.0, 2, 3, 1])


def scan(value: int = 0) -> np.ndarray:
    return np.random.default_rng(value).integers(0, 1000, (12, 10, 8)).astype(np.int16)


def steps(pixdim: float = 4.0, *more) -> Compose:
    return Compose(
        [
            LoadImaged(keys=["image"], reader=SafeReader()),
            EnsureChannelFirstd(keys=["image"]),
            Orientationd(keys=["image"], axcodes="RAS", labels=None),
            Spacingd(keys=["image"], pixdim=[pixdim] * 3),
            SpatialPadd(keys=["image"], spatial_size=[8, 8, 8]),
            *more,
        ]
    )


@pytest.fixture
def item(tmp_path) -> dict:
    write_nifti(tmp_path / "scan.nii.gz", scan(), AFFINE)
    return {"image": str(tmp_path / "scan.nii.gz"), "label": 1, "case": "c1", "patient": "p1", "site": "north"}


def make(item: dict, folder: Path, transform: Compose | None = None, **options) -> ContentCacheDataset:
    return ContentCacheDataset([item], transform or steps(), folder / "cache", progress=False, **options)


def test_the_second_read_equals_the_first_and_no_cache(item, tmp_path):
    plain = CacheDataset([item], steps(), progress=False)[0]
    first, second = make(item, tmp_path), make(item, tmp_path)
    assert (first.found, first.computed, second.found, second.computed) == (0, 1, 1, 0)
    for found in (first[0], second[0]):
        assert found.keys() == plain.keys() and {k: v for k, v in found.items() if k != "image"} == {
            k: v for k, v in plain.items() if k != "image"
        }
        image, wanted = found["image"], plain["image"]
        assert isinstance(image, MetaTensor) and torch.equal(image.as_tensor(), wanted.as_tensor())
        assert torch.equal(image.affine, wanted.affine) and image.spatial_ndim == wanted.spatial_ndim
        assert torch.equal(torch.as_tensor(image.meta["original_affine"]), torch.as_tensor(AFFINE))
        assert image.meta["filename_or_obj"] == item["image"]
        assert [op["class"] for op in image.applied_operations] == [op["class"] for op in wanted.applied_operations]
    # MONAI's own keeps no geometry: the reason for this file
    monai = [PersistentDataset([item], steps(), tmp_path / "monai")[0]["image"] for _ in range(2)]
    assert not isinstance(monai[1], MetaTensor)


@pytest.mark.parametrize("cache_rate", [0.0, 1.0])
def test_a_prediction_is_inverted_from_the_cache_as_without(item, tmp_path, cache_rate):
    make(item, tmp_path)
    found = []
    for data in (CacheDataset([item], steps(), progress=False), make(item, tmp_path, cache_rate=cache_rate)):
        (batch,) = DataLoader(data, batch_size=1)
        batch["pred"] = batch["image"] * 2
        (one,) = decollate_batch(batch)
        invert = Invertd(keys="pred", transform=data.transform, orig_keys="image", nearest_interp=False)
        found.append(invert(one)["pred"])
    assert found[1].shape == (1, 12, 10, 8)
    assert torch.equal(found[0].as_tensor(), found[1].as_tensor()) and torch.equal(found[0].affine, found[1].affine)
    np.testing.assert_allclose(found[1].affine, AFFINE)


def test_an_edit_in_place_is_new_data_even_with_the_old_time_stamp(item, tmp_path):
    data = make(item, tmp_path, cache_rate=0.0)
    before = data[0]["image"].clone()
    path = Path(item["image"])
    stamp = path.stat()
    write_nifti(path, scan(1), AFFINE)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = data[0]["image"]
    assert data.computed == 2 and not torch.equal(before, after)
    held = make(item, tmp_path)
    assert held.found == 1 and torch.equal(held[0]["image"], after)
    write_nifti(path, scan(), AFFINE)  # and back: what was computed for that content is still there
    held.set_data([item])
    assert held.computed == 0 and torch.equal(held[0]["image"], before)


def test_the_name_does_not_matter_and_the_path_is_the_items_own(item, tmp_path):
    make(item, tmp_path)
    other = tmp_path / "moved.nii.gz"
    Path(item["image"]).rename(other)
    data = make(item | {"image": str(other)}, tmp_path)
    assert data.found == 1 and data[0]["image"].meta["filename_or_obj"] == str(other)


def test_a_dicom_folder_counts_with_all_its_files(tmp_path):
    folder = tmp_path / "series"
    write_dicom(folder, scan(), np.diag([-2.0, -2, 3, 1]), patient_id="P", protocol=SITES["site_b"].protocol)
    make({"image": str(folder)}, tmp_path)
    assert make({"image": str(folder)}, tmp_path).found == 1
    last = sorted(folder.iterdir())[-1]
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    assert make({"image": str(folder)}, tmp_path).computed == 1


class Shift(Transform):
    def __init__(self, by):
        self.by = by

    def __call__(self, data):
        return {**data, "image": data["image"] + self.by}


def scaled(value, factor):
    return value * factor


def test_a_changed_definition_is_new_data():
    several = [
        steps(4.0),
        steps(3.0),
        steps(4.0, ScaleIntensityd(keys=["image"])),
        steps(4.0, ScaleIntensityd(keys=["image"], maxv=2.0)),
        steps(4.0, Lambdad(keys=["image"], func=lambda value: value * 2)),
        steps(4.0, Lambdad(keys=["image"], func=lambda value: value * 3)),
        steps(4.0, Lambdad(keys=["image"], func=partial(scaled, factor=2))),
        steps(4.0, Lambdad(keys=["image"], func=partial(scaled, factor=3))),
        steps(4.0, Shift(np.array([1.0]))),
        steps(4.0, Shift(np.array([2.0]))),
        steps(4.0, Shift(torch.tensor([1.0]))),
        Compose([LoadImaged(keys=["image"], reader=SafeReader(spacing_limits=(0.1, 50)))]),
        Compose([LoadImaged(keys=["image"], reader=SafeReader())]),
        Compose([LoadImaged(keys=["image"])]),
    ]
    keys = [fingerprint_transforms(one.transforms) for one in several]
    assert len(set(keys)) == len(keys)
    assert fingerprint_transforms(steps(4.0).transforms) == keys[0], "equal definitions are equal"
    factor = 2
    closed = fingerprint_transforms([Lambdad(keys=["image"], func=lambda value: value * factor)])
    factor = 3
    assert fingerprint_transforms([Lambdad(keys=["image"], func=lambda value: value * factor)]) != closed


def test_another_version_of_a_library_is_new_data(monkeypatch):
    before = fingerprint_transforms([])
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")
    assert fingerprint_transforms([]) != before


def test_a_word_that_is_by_chance_a_file_still_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("benign", "malign"):
        (tmp_path / name).write_text("same")
    assert fingerprint_item({"label": "benign"}) != fingerprint_item({"label": "malign"})


def test_random_transforms_stay_random(item, tmp_path):
    random = steps(4.0, RandFlipd(keys=["image"], prob=0.5, spatial_axis=0))
    data = make(item, tmp_path, random)
    data = make(item, tmp_path, random)
    assert data.found == 1
    data.transform.set_random_state(0)
    images = [data[0]["image"] for _ in range(12)]
    assert 0 < sum(torch.equal(image, images[0]) for image in images[1:]) < 11
    assert make(item, tmp_path, random).found == 1, "using a transform does not change its definition"
    fewer = make(item, tmp_path, steps())
    assert fewer.found == 1, "what comes after the first random transform is not part of the key"


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: c[:-9] + b"X" + c[-8:]])
def test_a_damaged_file_is_computed_again(item, tmp_path, damage):
    first = make(item, tmp_path)
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again = make(item, tmp_path)
    assert (again.found, again.computed) == (0, 1) and torch.equal(again[0]["image"], first[0]["image"])
    assert make(item, tmp_path).found == 1, "and fixed"


def test_no_names_in_the_folder(tmp_path):
    folder = tmp_path / "QXW-NAME"
    write_dicom(folder, scan(), np.diag([-2.0, -2, 3, 1]), patient_id="QXW-ID", protocol=SITES["site_b"].protocol)
    words = {"case": "QXW-CASE", "patient": "QXW-PATIENT", "site": "QXW-SITE"}
    plain = Compose([LoadImaged(keys=["image"], reader="ITKReader")])  # MONAI's own keeps a file's whole header
    one = {"image": str(sorted(folder.iterdir())[0]), **words}
    assert "QXW-ID" in str(dict(plain(dict(one))["image"].meta))
    for item, transform in (({"image": str(folder), **words}, steps()), (one, plain)):
        make(item, tmp_path, transform)
        assert make(item, tmp_path, transform).found == 1
    files = list((tmp_path / "cache").iterdir())
    assert len(files) == 2 and (tmp_path / "cache").stat().st_mode & 0o077 == 0
    for file in files:
        content = file.read_bytes()
        assert not any(word in content for word in (b"QXW", b"2.25.")) and "QXW" not in file.name


def _in_a_process(start, items: list[dict], folder: Path, results) -> None:
    torch.set_num_threads(1)
    start.wait()
    data = ContentCacheDataset(items, steps(), folder / "cache", progress=False)
    results.put((data.found, data.computed, [float(case["image"].sum()) for case in data]))


def test_two_processes_at_once(tmp_path):
    items = [{"image": str(tmp_path / f"scan{n}.nii.gz")} for n in range(6)]
    for n, item in enumerate(items):
        write_nifti(Path(item["image"]), scan(n), AFFINE)
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(2), context.Queue()
    both = [context.Process(target=_in_a_process, args=(start, items, tmp_path, results)) for _ in range(2)]
    for process in both:
        process.start()
    (*one, sums), (*two, others) = results.get(timeout=300), results.get(timeout=300)
    for process in both:
        process.join()
    assert sums == others and sum(one) == sum(two) == 6
    data = ContentCacheDataset(items, steps(), tmp_path / "cache", progress=False)
    assert (data.found, data.computed) == (6, 0) and [float(case["image"].sum()) for case in data] == sums
    assert len(list((tmp_path / "cache").iterdir())) == 6, "no temporary file is left"


@pytest.mark.parametrize("cached", [True, False])
def test_after_a_fault_no_thread_is_left_at_work(tmp_path, cached):
    """Such a thread would abort the process at its end, and the exit code would not be that of the fault."""
    at_work, begun = [], []

    def slow_or_faulty(value):
        begun.append(value)
        at_work.append(value)
        try:
            if value == 0:
                raise InputError("broken", path="scan0")
            time.sleep(0.3)
            return value
        finally:
            at_work.remove(value)

    items = [{"image": n} for n in range(40)]
    folder = tmp_path / "cache" if cached else None
    transform = Compose([Lambdad(keys=["image"], func=slow_or_faulty)])
    with pytest.raises(RuntimeError) as caught:
        ContentCacheDataset(items, transform, folder, num_workers=4, progress=False)
    assert isinstance(caught.value.__cause__, InputError) and not at_work and len(begun) < 20


def test_without_a_folder_it_is_a_cache_dataset(item, tmp_path):
    data = ContentCacheDataset([item], steps(), None, progress=False)
    assert torch.equal(data[0]["image"], CacheDataset([item], steps(), progress=False)[0]["image"])


def test_what_cannot_be_told_apart_is_refused(item, tmp_path):
    with pytest.raises(InputError, match="generator.*cache_dir null"):
        make(item, tmp_path, steps(4.0, Shift(iter(one for one in "ab"))))
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="no folder for the cache"):
        ContentCacheDataset([item], steps(), tmp_path / "taken" / "cache")
