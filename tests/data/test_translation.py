import math

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from monai_transfer.data.translate import TranslateToTargetd
from monai_transfer.data.translation import Generator, Translation, patch_nce, structure_check
from monai_transfer.errors import InputError


def discs(n, inverted, seed, size=24, dims=2):
    """Bright discs on a dark ground, or dark ones on a bright ground, with their masks."""
    g = torch.Generator().manual_seed(seed)
    grid = torch.stack(torch.meshgrid(*[torch.arange(float(size))] * dims, indexing="ij"))
    centre = 6 + (size - 12) * torch.rand(n, dims, *[1] * dims, generator=g)
    mask = ((grid - centre).square().sum(1) < (3 + 3 * torch.rand(n, *[1] * dims, generator=g)) ** 2).float()
    image = (0.9 - 1.8 * mask) if inverted else (1.5 * mask - 0.5)
    return (image + 0.1 * torch.randn(n, *[size] * dims, generator=g))[:, None], mask[:, None]


def test_patch_nce_written_out():
    q, k = (nn.functional.normalize(torch.randn(2, 4, 3, dtype=torch.float64), dim=-1) for _ in range(2))
    total = 0.0
    for b in range(2):
        for p in range(4):
            scores = [math.exp(float(q[b, p] @ k[b, j]) / 0.07) for j in range(4)]
            total -= math.log(scores[p] / sum(scores)) / 8
    assert patch_nce(q, k).item() == pytest.approx(total)
    unit = torch.eye(4)[None]
    assert patch_nce(unit, unit).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_structure_check_ignores_contrast_and_sees_moved_edges(dims):
    image, _ = discs(4, False, 1, dims=dims)
    assert structure_check(image, 3 - 2 * image) == pytest.approx(1)
    moved = image.roll(6, 2)
    assert structure_check(image, moved) < 0.75
    assert structure_check(torch.ones(1, 1, 5, 5), torch.ones(1, 1, 5, 5)) == 1.0


def fitted(steps: int) -> Translation:
    torch.set_num_threads(1)
    sources, targets = discs(64, False, 1)[0], discs(64, True, 2)[0]
    method = Translation(steps=steps, width=16, depth=3, batch_size=8, places=64, seed=1, attempts=1)
    return method.fit([{"image": sources[:32]}, {"image": sources[32:]}], [targets])


@pytest.mark.slow
def test_turns_contrast_round_and_keeps_the_anatomy():
    method = fitted(330)
    image, mask = discs(32, False, 5)
    look = method(image)
    assert look[mask > 0].mean() == pytest.approx(-0.9, abs=0.35)  # the target's discs
    assert look[mask == 0].mean() == pytest.approx(0.9, abs=0.35)  # and its ground
    assert method.structure > 0.95
    found = look < 0
    assert (2 * (found * mask).sum() / (found.sum() + mask.sum())) > 0.9


@pytest.mark.filterwarnings("ignore:.*moves edges")
def test_state_and_transform():
    first, other = fitted(5), Translation()
    other.load_state_dict(first.state_dict())
    image, _ = discs(1, False, 7)
    torch.testing.assert_close(other(image), first(image))
    affine = torch.diag(torch.tensor([2.0, 2.0, 1.0, 1.0], dtype=torch.float64))
    case = {"image": MetaTensor(image[0], affine=affine), "label": torch.ones(1, 24, 24)}
    out = TranslateToTargetd("image", other)(case)
    torch.testing.assert_close(out["image"].as_tensor(), first(image)[0])
    torch.testing.assert_close(out["image"].affine, affine)
    torch.testing.assert_close(out["label"], case["label"])
    torch.testing.assert_close(TranslateToTargetd("image", other, prob=0.0)(case)["image"], case["image"])
    # by windows, away from their borders, the same
    torch.testing.assert_close(other(image, window=16), first(image), atol=0.1, rtol=0.1)


def test_3d_repeats_by_seed_and_leaves_the_random_stream_alone():
    sources, targets = discs(4, False, 1, 12, 3)[0], discs(4, True, 2, 12, 3)[0]
    state = torch.random.get_rng_state()
    options = {"steps": 2, "width": 4, "depth": 2, "batch_size": 2, "attempts": 1, "min_structure": 0.0}
    runs = [Translation(**options).fit([sources], [targets])(sources) for _ in range(2)]
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert runs[0].shape == sources.shape


def test_a_bad_result_is_said_and_bad_input_refused():
    sources, targets = discs(4, False, 1)[0], discs(4, True, 2)[0]
    with pytest.warns(UserWarning, match="moves edges"):
        method = Translation(steps=1, width=4, depth=2, batch_size=2, attempts=2, min_structure=1.1)
        method.fit([sources], [targets])
    with pytest.raises(InputError, match="never fitted"):
        Translation()(sources)
    with pytest.raises(InputError, match="empty"):
        Translation(steps=1).fit([], [targets])
    with pytest.raises(InputError, match="do not fit"):
        Translation(steps=1).fit([sources], [targets[..., None]])
    assert Generator(3, 2, 4, 2)(torch.randn(1, 2, 5, 6, 7)).shape == (1, 2, 5, 6, 7)


def test_broken_and_unequal_images_are_refused():
    sound, quick = [torch.rand(4, 1, 8, 8)], Translation(steps=1, attempts=1)
    with pytest.raises(InputError, match="not finite"):  # the generator would be NaN, and its edges "in place"
        quick.fit(sound, [torch.full((4, 1, 8, 8), float("nan"))])
    assert structure_check(sound[0], sound[0] * float("nan")) == 0
    with pytest.raises(InputError, match="differ in size"):
        quick.fit([torch.rand(2, 1, 8, 8), torch.rand(2, 1, 10, 8)], sound)
