"""``predict``: files, folders and series in; each image's own grid out, and no file written over another."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.networks.nets import UNet
from PIL import Image

from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.data.phantom.sites import SITES, scan_patient
from monai_transfer.data.phantom.write import write_dicom
from monai_transfer.errors import InputError
from monai_transfer.files import write_json
from monai_transfer.predict.images import predict_images

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def segmenter(packaged) -> Path:
    return packaged / "head_mr_segmentation"


@pytest.fixture
def sample(segmenter) -> Path:
    return next((segmenter / "sample").iterdir())


def test_equal_names_in_two_folders_a_file_and_its_own_grid(segmenter, sample, tmp_path):
    image = nibabel.load(sample)
    for name, array, affine in (
        ("a", np.asarray(image.dataobj), image.affine),
        # the same head stored the other way round: axes turned and flipped
        ("b", np.asarray(image.dataobj)[::-1].transpose(1, 0, 2), None),
    ):
        (tmp_path / name).mkdir()
        if affine is None:
            flip = np.diag([-1.0, 1, 1, 1])
            flip[0, 3] = image.shape[0] - 1
            affine = image.affine @ flip @ np.eye(4)[[1, 0, 2, 3]]
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(array), affine), tmp_path / name / "head.nii.gz")
    done = predict_images(segmenter, [tmp_path / "a" / "head.nii.gz", tmp_path / "b"], tmp_path / "out")
    files = sorted((tmp_path / "out").rglob("*.nii.gz"))
    assert [path.relative_to(tmp_path / "out").as_posix() for path in files] == [
        "a/head_pred.nii.gz",
        "b/head_pred.nii.gz",
    ]
    assert done.written == files and not done.faults
    one, two = (nibabel.load(path) for path in files)
    for got, given in ((one, tmp_path / "a"), (two, tmp_path / "b")):
        given = nibabel.load(given / "head.nii.gz")
        assert got.shape == given.shape
        np.testing.assert_allclose(got.affine, given.affine, atol=1e-4)
    # the same anatomy, so the same mask once it is turned back
    back = np.asarray(two.dataobj).transpose(1, 0, 2)[::-1]
    assert (back == np.asarray(one.dataobj)).mean() > 0.995 and back.max() > 0


def test_a_second_call_does_not_predict_on_predictions(segmenter, sample, tmp_path):
    (tmp_path / sample.name).write_bytes(sample.read_bytes())
    for _ in range(2):
        predict_images(segmenter, [tmp_path], tmp_path / "out")
        assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 1


def test_a_dicom_series(segmenter, tmp_path):
    scan = scan_patient(SITES["site_b"], 20)
    (tmp_path / "in").mkdir()
    write_dicom(
        tmp_path / "in" / "series", scan.image, scan.affine, patient_id="P20", protocol=SITES["site_b"].protocol
    )
    predict_images(segmenter, [tmp_path / "in"], tmp_path / "out")
    (path,) = (tmp_path / "out").rglob("*.nii.gz")
    mask = nibabel.load(path)
    assert sorted(mask.shape) == sorted(scan.image.shape)
    # the same place in the world: the ventricles' centre of mass against the truth's
    truth = np.argwhere(scan.label == 1).mean(axis=0)
    found = np.argwhere(np.asarray(mask.dataobj) == 1).mean(axis=0)
    where = [nibabel.affines.apply_affine(a, p) for a, p in ((scan.affine, truth), (mask.affine, found))]
    assert np.linalg.norm(where[0] - where[1]) < 10
    assert b"P20" not in path.read_bytes()


def test_classes_become_a_csv_with_names(packaged, tmp_path):
    bundle = packaged / "head_mr_slice_classification"
    sample = next((bundle / "sample").iterdir())
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "slice.png").write_bytes(sample.read_bytes())
    predict_images(bundle, [tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert [row["image"] for row in rows] == ["a/slice.png", "b/slice.png"]
    for row in rows:
        scores = {name: float(row[f"p_{name}"]) for name in ("no lesion", "lesion")}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-4)
        assert row["prediction"] == max(scores, key=scores.__getitem__)


def test_features_are_numbers_without_a_prediction(packaged, sample, tmp_path):
    (path,) = predict_images(packaged / "head_mr_self_supervised", [sample], tmp_path).written
    (row,) = csv.DictReader(path.open())
    assert list(row)[:2] == ["image", "output 0"] and "prediction" not in row


def test_png_masks_keep_the_pictures_size_and_side(tiny_set, tmp_path):
    data = tiny_set("segmentation", 2)
    bundle = tmp_path / "cells_segmentation"
    sites = {"source_site": "north", "target_site": "south"}
    new_bundle(bundle, data, size="small", batch_size=4, **sites)
    run = run_workflow(bundle, "pretrain", {"max_epochs": 12, "steps_per_epoch": 5, "val_interval": 4}, log=False)
    case = data.parent / "images" / "south_test_0.png"
    predict_images(bundle, [case], tmp_path / "out", run=run)
    (path,) = (tmp_path / "out").rglob("*.png")
    got, truth = np.asarray(Image.open(path)), np.asarray(Image.open(data.parent / "labels" / "south_test_0.png"))
    assert got.shape == truth.shape
    overlap = 2 * ((got > 0) & (truth > 0)).sum() / ((got > 0).sum() + (truth > 0).sum())
    assert overlap > 0.8, "the mask lies where the truth lies, unturned"


def test_a_broken_file_is_one_line_and_the_others_are_predicted(segmenter, sample, tmp_path):
    given = tmp_path / "in"
    given.mkdir()
    content = sample.read_bytes()
    (given / "a_cut.nii.gz").write_bytes(content[: len(content) // 2])
    (given / "b_sound.nii.gz").write_bytes(content)
    image = nibabel.load(sample)
    array = np.asarray(image.dataobj)
    nibabel.save(nibabel.Nifti1Image(np.stack([array] * 2, -1), image.affine), given / "c_two_channels.nii.gz")
    Image.fromarray(np.zeros((40, 40), np.uint8) + 7).save(given / "d_flat.png")
    done = predict_images(segmenter, [given], tmp_path / "out")
    assert [path.name for path in done.written] == ["b_sound_pred.nii.gz"]
    assert [Path(fault.path).name for fault in done.faults] == ["a_cut.nii.gz", "c_two_channels.nii.gz", "d_flat.png"]
    assert done.n_images == 4
    cut, two, flat = map(str, done.faults)
    assert "damaged gzip" in cut
    assert "holds 2 channels, and the model takes 1" in two
    assert "2D image, and the model takes 3D" in flat
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b_sound_pred.nii.gz"], "nothing left aside"
    with pytest.raises(InputError, match=r"a_cut.nii.gz: damaged gzip"):  # alone, it is wrong input
        predict_images(segmenter, [given / "a_cut.nii.gz"], tmp_path / "out")


def test_what_the_network_fails_on_is_noted_and_the_rest_goes_on(packaged, tmp_path):
    """The inferer is told to choke on one slice: the table holds the others, in one piece."""
    bundle = Path(shutil.copytree(packaged / "head_mr_slice_classification", tmp_path / "slice_classification"))
    (tmp_path / "in").mkdir()
    for n in range(3):
        rng = np.random.default_rng(n)
        Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(tmp_path / "in" / f"s{n}.png")
    config = bundle / "configs" / "inference.yaml"
    text = config.read_text()
    place = re.search(r"^postprocessing:.*\n  _target_: monai.transforms.Compose\n  transforms:\n", text, re.M)[0]
    choke = "$lambda d: d['nothing'] if 's1' in d['image'].meta['filename_or_obj'] else d"
    text = text.replace(place, f"{place}  - {{_target_: monai.transforms.Lambda, func: {json.dumps(choke)}}}\n")
    config.write_text(text)
    with pytest.raises(InputError, match="code of its own.*--trust-source"):
        predict_images(bundle, [tmp_path / "in"], tmp_path / "out")
    done = predict_images(bundle, [tmp_path / "in"], tmp_path / "out", trust_source=True)
    assert [str(Path(fault.path).name) for fault in done.faults] == ["s1.png"]
    assert "the network failed on it (KeyError" in str(done.faults[0])
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert [row["image"] for row in rows] == ["s0.png", "s2.png"]


def test_pictures_are_predicted_as_a_person_sees_them(packaged, tmp_path):
    """An EXIF rotation, a palette and an opaque alpha channel change nothing."""
    bundle = packaged / "head_mr_slice_classification"
    upright = Image.open(next((bundle / "sample").iterdir())).convert("L")
    (tmp_path / "in").mkdir()
    upright.save(tmp_path / "in" / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    upright.rotate(90, expand=True).save(tmp_path / "in" / "turned.png", exif=exif)
    upright.convert("RGBA").save(tmp_path / "in" / "alpha.png")
    colours = np.arange(255, -1, -1, dtype=np.uint8)  # index 0 is white
    palette = Image.fromarray(255 - np.asarray(upright))
    palette.putpalette(np.repeat(colours[:, None], 3, 1).tobytes())
    palette.save(tmp_path / "in" / "palette.png")
    predict_images(bundle, [tmp_path / "in"], tmp_path / "out")
    scores = {
        row["image"]: float(row["p_lesion"]) for row in csv.DictReader((tmp_path / "out" / "predictions.csv").open())
    }
    assert len(scores) == 4
    assert all(score == pytest.approx(scores["plain.png"], abs=1e-6) for score in scores.values()), scores


def test_cases_of_a_manifest_with_channels_in_files_of_their_own(tmp_path, tiny_set):
    """The same two-channel case as one file, as two nnU-Net files and as a case: one mask, named three ways."""
    data = tiny_set("segmentation", 3, channels=2)
    bundle = tmp_path / "two_channel_segmentation"
    new_bundle(bundle, data, size="small", source_site="north", target_site="south")
    run = run_workflow(bundle, "pretrain", {"max_epochs": 1, "steps_per_epoch": 2, "val_interval": 1}, log=False)
    whole = data.parent / "images" / "south_test_0.nii.gz"
    image = nibabel.load(whole)
    folder = tmp_path / "split"
    folder.mkdir()
    for n in range(2):
        one = np.asarray(image.dataobj)[..., n]
        nibabel.save(nibabel.Nifti1Image(one, image.affine), folder / f"case_{n:04d}.nii.gz")
    shutil.copyfile(folder / "case_0000.nii.gz", folder / "half_0000.nii.gz")
    item = {"image": [f"case_{n:04d}.nii.gz" for n in range(2)], "case": "listed", "patient": "p", "site": "s"}
    manifest = {"name": "m", "task": "segmentation", "labels": {"0": "background", "1": "lesion"}}
    write_json(folder / "set.json", manifest | {"test": [item | {"label": None}]})
    done = predict_images(bundle, [whole, folder, folder / "set.json"], tmp_path / "out", run=run)
    assert [fault.fault[:28] for fault in done.faults] == ["has the channels _0000, and "]
    masks = {path.name: np.asarray(nibabel.load(path).dataobj) for path in done.written}
    assert sorted(masks) == ["case_pred.nii.gz", "listed_pred.nii.gz", "south_test_0_pred.nii.gz"]
    first, *others = masks.values()
    assert all(np.array_equal(first, other) for other in others)


def test_refusals(segmenter, sample, tmp_path, tiny_set):
    with pytest.raises(InputError, match="no such file or folder"):
        predict_images(segmenter, [tmp_path / "nothing"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        predict_images(segmenter, [tmp_path / "empty"], tmp_path / "out")
    (tmp_path / "twin").mkdir()
    for name in ("x.nii.gz", "x.nii"):
        (tmp_path / "twin" / name).write_bytes(sample.read_bytes())
    with pytest.raises(InputError, match="written over.*rename one"):
        predict_images(segmenter, [tmp_path / "twin"], tmp_path / "out")
    new_bundle(tmp_path / "fresh", tiny_set("regression", 3), source_site="north", target_site="south")
    with pytest.raises(InputError, match="no weights here; pretrain first"):
        predict_images(tmp_path / "fresh", [sample], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bundle_of_the_model_zoos_layout(tmp_path, sample):
    """JSON, short targets, a file list of its own, a folder for each output: two equal names stay apart."""
    bundle = tmp_path / "zoo"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "models").mkdir()
    network = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8]}
    config = {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "/nowhere",
        "datalist": "$list(sorted(glob.glob(os.path.join(@dataset_dir, 'imagesTs', '*.nii.gz'))))",
        "device": "$torch.device('cpu')",
        "network_def": {**network, "strides": [2]},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "LAS"},
                {"_target_": "ScaleIntensityd", "keys": "image"},
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i} for i in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 2,
            "shuffle": False,
            "num_workers": 2,
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 32], "sw_batch_size": 4},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_postfix": "seg"},
            ],
        },
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }
    image = {"num_channels": 1, "spatial_shape": [32, 32, 32], "channel_def": {"0": "MR"}}
    pred = {"type": "image", "num_channels": 2, "channel_def": {"0": "background", "1": "thing"}}
    formats = {"inputs": {"image": image}, "outputs": {"pred": pred}}
    config["imports"].append("$import torch")
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    (bundle / "configs" / "metadata.json").write_text(json.dumps({"network_data_format": formats}))
    torch.manual_seed(0)
    torch.save(UNet(3, 1, 2, [4, 8], [2]).state_dict(), bundle / "models" / "model.pt")
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "scan.nii.gz").write_bytes(sample.read_bytes())
    done = predict_images(bundle, [tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    names = [path.relative_to(tmp_path / "out").as_posix() for path in done.written]
    assert names == ["a/scan_seg.nii.gz", "b/scan_seg.nii.gz"]
    given, got = nibabel.load(sample), nibabel.load(done.written[0])
    assert got.shape == given.shape
    np.testing.assert_allclose(got.affine, given.affine, atol=1e-4)
    other = tmp_path / "run" / "models"  # it names no id for weights, and takes those of a run all the same
    other.mkdir(parents=True)
    torch.save(UNet(3, 1, 2, [4, 8], [2]).state_dict(), other / "model.pt")
    again = predict_images(bundle, [tmp_path / "a"], tmp_path / "out2", run=tmp_path / "run")
    assert not np.array_equal(nibabel.load(again.written[0]).get_fdata(), got.get_fdata())
