import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.box_utils import box_area
from monai.transforms import Compose, EnsureTyped

from monai_transfer.localization.transforms import BoxesFromMaskd


def test_an_item_gets_its_boxes():
    mask = torch.zeros(1, 6, 6, 6)
    mask[0, 1:3, 2:4, 3:6] = 1
    affine = torch.diag(torch.tensor([-2.0, 1.0, 1.0, 1.0]))
    item = {"label": MetaTensor(mask, affine=affine), "case": "a"}
    pipeline = Compose([EnsureTyped(keys="label"), BoxesFromMaskd(keys=["label", "absent"], allow_missing_keys=True)])
    out = pipeline(item)
    assert out["case"] == "a" and "label_boxes" not in item
    assert out["label_boxes"].tolist() == [[1, 2, 3, 3, 4, 6]]
    assert out["label_world"].tolist() == [[-5, 1.5, 2.5, -1, 3.5, 5.5]]  # the first axis runs to the left
    assert out["label_sizes"].tolist() == [24.0]
    assert box_area(out["label_boxes"]).tolist() == [12]


def test_probabilities_of_a_picture_without_geometry():
    p = torch.zeros(2, 5, 5)
    p[1, 2, 2:4] = torch.tensor([0.7, 0.9])
    out = BoxesFromMaskd("pred", probabilities=True, threshold=0.6, score="max")({"pred": p})
    assert out["pred_boxes"].tolist() == [[2, 2, 3, 4]]
    np.testing.assert_allclose(out["pred_scores"], [0.9], rtol=1e-6)
    assert out["pred_labels"].tolist() == [1]
    assert BoxesFromMaskd("pred", probabilities=True)({"pred": p * 0})["pred_world"].shape == (0, 4)
