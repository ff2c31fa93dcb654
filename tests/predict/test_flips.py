"""``predict --tta flips``: other predictions than without, the axes of training, and refusals in one line."""

from __future__ import annotations

import shutil

import nibabel
import numpy as np
import pytest

from monai_transfer.errors import InputError
from monai_transfer.predict.flips import trained_mirror
from monai_transfer.predict.images import predict_images

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_mirror_images_mean(packaged, tmp_path, monkeypatch):
    bundle = packaged / "head_mr_segmentation"
    assert trained_mirror(bundle) == [0]
    image = next((bundle / "sample").iterdir())

    def predicted(name, **options):
        done = predict_images(bundle, [image], tmp_path / name, **options)
        assert not done.faults
        return np.asarray(nibabel.load(done.written[0]).dataobj)

    plain, flips = predicted("plain"), predicted("flips", tta="flips")
    assert plain.shape == flips.shape and (plain != flips).any()
    both = 2 * ((plain > 0) & (flips > 0)).sum() / ((plain > 0).sum() + (flips > 0).sum())
    assert both > 0.9
    # in parts, within little memory, come the labels of the whole image at once
    assert (predicted("in parts", tta="flips", max_memory=2**28) == flips).all()
    monkeypatch.setattr("monai_transfer.predict.images.put_in_slabs", lambda *_: False)
    assert (predicted("at once", tta="flips") != flips).mean() < 1e-5


def test_refused(packaged, tmp_path):
    bundle = packaged / "head_mr_segmentation"
    image = next((bundle / "sample").iterdir())
    with pytest.raises(InputError, match="no test-time augmentation 'crops'"):
        predict_images(bundle, [image], tmp_path, tta="crops")
    sided = tmp_path / "sided_segmentation"
    shutil.copytree(bundle, sided, ignore=shutil.ignore_patterns("runs"))
    config = sided / "configs" / "train.yaml"
    config.write_text(config.read_text().replace("\nmirror: [0]", "\nmirror: []"))
    with pytest.raises(InputError, match="may not be mirrored"):
        predict_images(sided, [image], tmp_path, tta="flips")
