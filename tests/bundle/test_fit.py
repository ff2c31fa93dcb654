"""What ``new`` finds out about a set by reading it, against sets whose numbers are known."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from PIL import Image

from monai_transfer.bundle.fit import fit_data
from monai_transfer.errors import InputError
from monai_transfer.inspection.suitability import read_source
from monai_transfer.manifest import Manifest

# voxels of 2 x 1.5 x 4 mm; the file's axes run to the front, to the left and upwards
AFFINE = np.array([[0, -2.0, 0, 9], [1.5, 0, 0, -4], [0, 0, 4.0, 2], [0, 0, 0, 1]])


def write(folder, site_values, shape=(20, 16, 8), task="segmentation"):
    rng = np.random.default_rng(0)
    items = []
    for site, value in site_values.items():
        for n in range(3):
            image = np.zeros(shape, np.float32)
            image[:, shape[1] // 2 :] = value + rng.standard_normal(image[:, shape[1] // 2 :].shape)
            mask = np.zeros(shape, np.uint8)
            mask[:5, :4, : 4 if n else 0] = 1  # the first case has none
            for kind, array in (("image", image), ("label", mask)):
                nibabel.save(nibabel.Nifti1Image(array, AFFINE), folder / f"{site}{n}_{kind}.nii.gz")
            item = {"image": f"{site}{n}_image.nii.gz", "case": f"{site}{n}", "patient": f"{site}{n}", "site": site}
            items.append(item | {"label": f"{site}{n}_label.nii.gz" if task == "segmentation" else 10.0 * n})
    content = {"name": "set", "task": task, "training": items}
    if task == "segmentation":
        content["labels"] = {"0": "background", "1": "ball"}
    return Manifest.from_dict(content, folder)


def test_a_volume_set(tmp_path):
    fit = fit_data(write(tmp_path, {"a": 100, "b": 500}), ["a", "b"])
    assert (fit.spatial_dims, fit.suffix, fit.raster, fit.channels) == (3, ".nii.gz", False, 1)
    assert fit.spacing == [2.0, 1.5, 4.0] and fit.shape == [16, 20, 8], "left-right, back-front, feet-head"
    assert fit.background == pytest.approx(0.5, abs=0.01)
    # the medians over both sites lie between them
    assert 100 < fit.high < 505 and fit.low == pytest.approx(0, abs=1)


def test_statistics_are_those_of_the_site_where_training_begins(tmp_path):
    statistics = fit_data(write(tmp_path, {"a": 100, "b": 500}), ["a", "b"]).statistics()
    assert statistics["site"] == "a" and list(statistics["other_sites"]) == ["b"]
    assert 95 < statistics["intensity"]["p95"] < 105 < 495 < statistics["other_sites"]["b"]["intensity"]["p95"]
    assert statistics["field_of_view"] == [32, 30, 32] and statistics["orientation"] == "ALS"
    assert statistics["prevalence"] == {"ball": pytest.approx(2 / 3, abs=1e-3)}
    assert statistics["size"]["ball"] == pytest.approx(5 * 4 * 4 / (20 * 16 * 8))
    assert json.loads(json.dumps(statistics)) == statistics
    assert "a0" not in json.dumps(statistics), "no case is named"


def test_weights_of_a_source_bring_its_own_statistics(tmp_path):
    """The bundle's weights saw the source's data; a run trained on ours is told apart by its site."""
    fit = fit_data(write(tmp_path, {"a": 100, "b": 500}), ["a", "b"])
    packaged = Path(__file__).parents[2] / "bundles" / "head_mr_segmentation"
    statistics = fit.statistics(packaged)
    told = read_source(packaged).statistics
    assert statistics["intensity"] == told["intensity"] and statistics["site"] == "site_a"
    assert sorted(statistics["other_sites"]) == ["a", "b"], "those of the data, not the source's"
    bundle, run = tmp_path / "bundle" / "configs", tmp_path / "run"
    bundle.mkdir(parents=True)
    run.mkdir()
    metadata = {"transfer": {"task": "segmentation", "data_statistics": statistics}}
    (bundle / "metadata.json").write_text(json.dumps(metadata))
    (run / "config.yaml").write_text(yaml.safe_dump({"_meta_": metadata}))
    (run / "run.json").write_text(json.dumps({"status": "finished", "target_site": "b"}))
    assert read_source(bundle.parent).statistics["site"] == "site_a"
    assert read_source(run).statistics["intensity"]["p95"] > 495
    bare = tmp_path / "weights.pt"
    bare.write_bytes(b"x")
    assert list(fit.statistics(bare)) == ["other_sites"], "a checkpoint tells nothing, and nothing is made up"


def test_without_sites_all_of_the_set_is_described(tmp_path):
    statistics = fit_data(write(tmp_path, {"a": 100, "b": 500}, task="regression"), [None, None]).statistics()
    assert "site" not in statistics and statistics["n_images"] == 6
    assert statistics["prevalence"]["mean"] == 10


def test_pictures_count_as_one_grey_channel(tmp_path):
    items = []
    for n, mode in enumerate(("L", "RGB", "L")):
        Image.new(mode, (30, 20), 90 + n if mode == "L" else (90, 90, 90 + n)).save(tmp_path / f"{n}.png")
        items.append({"image": f"{n}.png", "label": "ill", "case": f"c{n}", "patient": f"c{n}", "site": "s"})
    content = {"name": "set", "task": "classification", "labels": {"0": "well", "1": "ill"}, "training": items}
    fit = fit_data(Manifest.from_dict(content, tmp_path), ["s"])
    assert (fit.spatial_dims, fit.raster, fit.channels, fit.spacing, fit.shape) == (2, True, 1, None, [30, 20])
    assert fit.statistics()["prevalence"] == {"well": 0.0, "ill": 1.0}


def test_at_most_so_many_of_each_site_are_read(tmp_path):
    data = write(tmp_path, {"a": 100, "b": 500})
    assert fit_data(data, ["a", "b"], n=2).statistics()["n_images"] == 2


def test_refusals(tmp_path):
    data = write(tmp_path, {"a": 100})
    path = tmp_path / "a1_image.nii.gz"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(InputError, match=r"a1_image.nii.gz: damaged gzip data"):
        fit_data(data, ["a"])
    flat = [{"image": "flat.png", "label": None, "case": "f", "patient": "f", "site": "a"}]
    Image.new("L", (9, 9), 5).save(tmp_path / "flat.png")
    content = data.to_dict(tmp_path)
    content["training"] = content["training"][:1] + flat
    with pytest.raises(InputError, match=r"images of \[2, 3\] dimensions in one set"):
        fit_data(Manifest.from_dict(content, tmp_path), ["a"])
    content["test"] = content.pop("training")
    with pytest.raises(InputError, match="no training image"):
        fit_data(Manifest.from_dict(content, tmp_path), ["a"])
