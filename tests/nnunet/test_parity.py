"""Predictions of nnU-Net's own code with small models in its own layout, against ours; see ``originals/make.py``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_transfer.nnunet.model import read_model
from monai_transfer.nnunet.network import FoldMean
from monai_transfer.nnunet.predictor import NnunetPredictor
from tests.nnunet.originals.kinds import KINDS
from tests.nnunet.originals.phantoms import write_case

ORIGINALS = Path(__file__).parent / "originals"
HAVE_ORIGINAL = importlib.util.find_spec("dynamic_network_architectures") is not None


def folder_of(kind: str) -> Path:
    return next(path for path in (ORIGINALS / kind).iterdir() if path.is_dir())


def dice(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean over the foreground values."""
    values = [value for value in np.unique(theirs) if value]
    both = [2 * ((ours == v) & (theirs == v)).sum() / ((ours == v).sum() + (theirs == v).sum()) for v in values]
    return float(np.mean(both))


@pytest.mark.parametrize("mirror", [False, True], ids=["plain", "mirrored"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_label_map_as_nnunet(kind, mirror, tmp_path):
    if kind == "resenc" and not HAVE_ORIGINAL:
        pytest.skip("dynamic_network_architectures is not installed")
    predictor = NnunetPredictor(folder_of(kind), mirror=mirror)
    assert isinstance(predictor.network, FoldMean) == (KINDS[kind].get("folds", 1) > 1)
    with np.load(ORIGINALS / kind / "predictions.npz") as expected:
        found = []
        for number, seed in enumerate((4, 5)):
            theirs = expected[f"{'mirrored' if mirror else 'plain'}_{number}"]  # nnU-Net's axes: z, y, x
            ours = predictor(write_case(tmp_path, kind, seed)[0])
            ours = np.asarray(ours[0])
            ours = ours.T[None] if ours.ndim == 2 else ours.T
            assert ours.shape == theirs.shape
            assert (theirs > 0).mean() > 0.01
            found.append(dice(ours, theirs))
        assert np.mean(found) >= 0.999  # nnU-Net sums tiles in half precision: a voxel or two at the border


def test_mirroring_is_not_nothing():
    plain, mirrored = (NnunetPredictor(folder_of("iso"), mirror=mirror) for mirror in (False, True))
    image = torch.randn(1, 20, 24, 16)
    assert not torch.allclose(plain.logits(image), mirrored.logits(image))
    assert read_model(folder_of("iso")).mirror_axes == [0, 1, 2]
