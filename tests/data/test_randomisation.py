import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_transfer.data.randomisation import RandAppearanced, StrongViewd, strong_randomised


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 12, 12, 10)])
def test_changes_appearance_not_shape_and_repeats_by_seed(shape):
    case = {"image": MetaTensor(torch.randn(shape)), "label": torch.ones(shape)}
    transform = RandAppearanced("image", prob=1.0, invert=0.5).set_random_state(7)
    first = transform(case)
    assert first["image"].shape == shape
    assert torch.isfinite(first["image"]).all()
    assert not torch.allclose(first["image"], case["image"])
    torch.testing.assert_close(first["label"], case["label"])
    torch.testing.assert_close(RandAppearanced("image", prob=1.0, invert=0.5).set_random_state(7)(case), first)
    torch.testing.assert_close(RandAppearanced("image", prob=0.0)(case)["image"], case["image"])


def test_inversion_turns_contrast_round():
    image = torch.rand(1, 20, 20)
    out = RandAppearanced("image", prob=0.0, invert=1.0)({"image": image})["image"]
    assert np.corrcoef(out.flatten(), image.flatten())[0, 1] == pytest.approx(-1)
    assert (out.min(), out.max()) == (image.min(), image.max())


def test_strength_orders_the_change():
    image = torch.randn(1, 24, 24)

    def change(strength):
        outs = [
            RandAppearanced("image", 1.0, strength).set_random_state(s)({"image": image})["image"] for s in range(12)
        ]
        return torch.stack([(o - image).abs().mean() for o in outs]).mean()

    assert change(0.1) < change(0.5) < change(1.5)
    with pytest.raises(ValueError, match="strength"):
        RandAppearanced("image", strength=-1)


def test_strong_view_leaves_the_image_alone():
    image = torch.randn(1, 16, 16)
    transform = StrongViewd(prob=1.0)
    transform.set_random_state(0)
    case = {"image": image.clone(), "label": 3}
    out = transform(case)
    torch.testing.assert_close(out["image"], image)
    assert not torch.allclose(out["strong"], image)
    assert "strong" not in case
    transform.set_random_state(0)
    torch.testing.assert_close(transform(case)["strong"], out["strong"])
    assert "strong" not in StrongViewd(allow_missing_keys=True)({"label": 1})
    with pytest.raises(ValueError, match="one image key"):
        StrongViewd(["image", "other"])


def test_a_strong_view_of_ones_own():
    image = torch.randn(1, 16, 16)
    view = StrongViewd(transforms=strong_randomised())
    outs = [view.set_random_state(seed)({"image": image})["strong"] for seed in range(12)]
    assert sum(not torch.allclose(out, image, atol=0.05) for out in outs) > 10
    for out in outs:
        torch.testing.assert_close(out.mean(), image.mean(), atol=1e-3, rtol=0)
    assert torch.equal(view.set_random_state(3)({"image": image})["strong"], outs[3])
    shifted = StrongViewd(
        transforms=[{"_target_": "monai.transforms.ShiftIntensityd", "keys": "strong", "offset": 2.0}]
    )
    torch.testing.assert_close(shifted({"image": image})["strong"], image + 2)
