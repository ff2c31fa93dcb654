"""Pictures are read as they are: in colour where they hold any, grey where not, as the source or the user says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import open_workflow, run_workflow
from monai_transfer.errors import InputError
from monai_transfer.evaluation.overlay import draw_case
from monai_transfer.manifest import Manifest
from tests.data.readers.test_raster import deep_png

pytestmark = pytest.mark.filterwarnings("ignore")
SITES = {"source_site": "north", "target_site": "south", "size": "small"}
SPLITS = (("training", 4), ("validation", 2), ("test", 4))


def pictures(folder: Path, coloured: bool) -> Path:
    """Red against green of equal brightness, as colour pictures; or grey ones saved with three equal channels."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    content: dict = {"name": "tint", "task": "classification", "labels": {"0": "red", "1": "green"}}
    for site in ("north", "south"):
        for split, count in SPLITS:
            for number in range(count):
                case, label = f"{site}_{split}_{number}", number % 2
                noise = rng.integers(0, 60, (40, 48, 3)).astype(np.uint8)
                if coloured:
                    noise[..., label] += np.uint8(98 if label else 191)  # ITU-R 601: .299 x 191 = .587 x 98
                else:
                    noise[...] = noise[..., :1]
                Image.fromarray(noise).save(folder / f"{case}.png")
                item = {"case": case, "patient": case, "site": site, "image": f"{case}.png", "label": label}
                content.setdefault(split, []).append(item)
    Manifest.from_dict(content, folder).save(folder / "manifest.json")
    return folder / "manifest.json"


def test_colour_is_seen_and_told_apart(tmp_path):
    data = pictures(tmp_path / "data", True)
    bundle = tmp_path / "tint_classification"
    spec = new_bundle(bundle, data, steps_per_epoch=10, pretrain_epochs=6, batch_size=4, **SITES)
    assert spec.picture == "rgb" and spec.channel_names == ["red", "green", "blue"]
    assert spec.network["in_channels"] == 3 and "hold colours" in spec.recipe["channels"]["reason"]
    run = run_workflow(bundle, "pretrain", {}, log=False)
    metrics = json.loads((run / "summary.json").read_text())["metrics"]
    assert metrics["auc"]["mean"] == 1.0, "in grey they are the same"
    figure = next((run / "figures").glob("*.png"))
    shown = np.asarray(Image.open(figure).convert("RGB")).astype(int)
    assert np.abs(shown[..., 0] - shown[..., 1]).max() > 80, "the report's pictures are in colour"
    tuned = tmp_path / "again_classification"
    assert new_bundle(tuned, data, source=run, **SITES).network["in_channels"] == 3
    grey = new_bundle(tmp_path / "grey", pictures(tmp_path / "flat", False), source=run, **SITES)
    assert grey.picture == "rgb" and "source's weights take 3" in grey.recipe["channels"]["reason"]


def test_grey_pictures_with_three_channels_are_grey(tmp_path):
    data = pictures(tmp_path, False)
    spec = new_bundle(tmp_path / "b", data, **SITES)
    assert spec.picture == "grey" and spec.network["in_channels"] == 1
    assert new_bundle(tmp_path / "c", data, channels="rgb", **SITES).network["in_channels"] == 3
    with pytest.raises(InputError, match="--channels pink; grey or rgb"):
        new_bundle(tmp_path / "d", data, channels="pink", **SITES)


def test_colours_that_only_one_site_has_are_left(tmp_path):
    data = pictures(tmp_path, True)
    for path in tmp_path.glob("north_*.png"):
        Image.open(path).convert("L").convert("RGB").save(path)
    spec = new_bundle(tmp_path / "b", data, **SITES)
    assert spec.picture == "grey" and "pictures of north hold no colour" in spec.recipe["channels"]["reason"]
    alone = new_bundle(tmp_path / "c", data, target_site="south", source_site="south", size="small")
    assert alone.picture == "rgb", "no other site has to be understood"


@pytest.mark.parametrize("kind", ["colour", "grey", "palette", "opaque", "turned"])
def test_training_and_inference_read_the_same_colours(tmp_path, kind):
    bundle = tmp_path / "tint_classification"
    new_bundle(bundle, pictures(tmp_path / "data", True), **SITES)
    colours = np.random.default_rng(1).integers(0, 255, (40, 48, 3)).astype(np.uint8)
    image, path, options = Image.fromarray(colours), tmp_path / "one.png", {}
    if kind == "grey":
        image = image.convert("L")
    elif kind == "palette":
        image = image.quantize(17)
    elif kind == "opaque":
        image = image.convert("RGBA")
    elif kind == "turned":
        path, options = tmp_path / "one.jpg", {"exif": Image.Exif()}
        options["exif"][0x0112] = 6
    image.save(path, **options)
    train = open_workflow(bundle, "train", {}, log=False).parser.get_parsed_content("test#preprocessing")
    infer = ConfigParser(ConfigParser.load_config_file(str(bundle / "configs" / "inference.yaml")))
    ours = train({"image": str(path)})["image"]
    plain = infer.get_parsed_content("preprocessing")({"image": str(path)})["image"]
    assert ours.shape == (3, *ours.shape[1:])
    torch.testing.assert_close(ours.as_tensor(), plain.as_tensor())


def deep(data: Path) -> Path:
    """The pictures of a manifest, grey and with 16 bits."""
    for path in data.parent.glob("*.png"):
        array = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 257
        Image.fromarray(array).save(path)
    return data


def test_grey_of_16_bits_into_three_channels_is_not_clipped(tmp_path):
    data = deep(pictures(tmp_path / "data", False))
    bundle = tmp_path / "deep_classification"
    assert new_bundle(bundle, data, channels="rgb", **SITES).deep_grey
    path = next(data.parent.glob("*.png"))
    train = open_workflow(bundle, "train", {}, log=False).parser.get_parsed_content("test#preprocessing")
    infer = ConfigParser(ConfigParser.load_config_file(str(bundle / "configs" / "inference.yaml")))
    ours = train({"image": str(path)})["image"]
    plain = infer.get_parsed_content("preprocessing")({"image": str(path)})["image"]
    torch.testing.assert_close(ours.as_tensor(), plain.as_tensor())
    assert ours.shape[0] == 3 and len(ours.unique()) > 20, "255 grey values, and not one"


def test_colours_of_16_bits_are_refused(tmp_path):
    data = pictures(tmp_path, True)
    for path in tmp_path.glob("south_training_*.png"):
        deep_png(tmp_path, np.asarray(Image.open(path)).astype(np.uint16) * 257).replace(path)
    with pytest.raises(InputError, match="colours of 16 bits.*convert the pictures to 8 bits"):
        new_bundle(tmp_path / "b", data, **SITES)


def test_a_picture_is_drawn_in_its_colours(tmp_path):
    red = [np.full((20, 30), value) for value in (200.0, 20.0, 20.0)]
    red[0][:5] = red[1][:5] = red[2][:5] = 0.0
    draw_case(tmp_path / "a.png", red, np.eye(3), "red")
    shown = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert (shown[..., 0].astype(int) - shown[..., 1]).max() > 150
