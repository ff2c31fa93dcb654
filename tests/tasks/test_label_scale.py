"""A regression's labels at mean 0 and spread 1."""

from __future__ import annotations

import torch

from monai_transfer.tasks.label_scale import ScaleLabeld


def test_numbers_become_tensors_of_one_value():
    out = ScaleLabeld(["label"], mean=29.6, std=12.5)({"label": "42.1", "image": 3})
    torch.testing.assert_close(out["label"], torch.tensor([1.0]))
    assert out["image"] == 3 and out["label"].dtype == torch.float32
    assert ScaleLabeld(["label"], 0, 1, allow_missing_keys=True)({}) == {}
