import numpy as np
import pytest
import torch
from monai.data import Dataset, MetaTensor
from monai.transforms import Compose
from scipy.ndimage import distance_transform_edt
from scipy.ndimage import label as components
from torch import nn

from monai_transfer.data.structure_copy import CopyStructured
from monai_transfer.errors import InputError


def donor(dims=3, size=24, at=(8, 12, 10), radius=3, ground=1.0, bright=3.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    grid = torch.stack(torch.meshgrid(*[torch.arange(float(size))] * dims, indexing="ij"))
    ball = sum((grid[i] - at[i]) ** 2 for i in range(dims)) <= radius**2
    image = ground + (bright - ground) * ball + 0.05 * torch.randn(ball.shape, generator=g)
    return {"image": image[None].float(), "label": 2 * ball[None].float()}


def target(dims=3, size=24, ground=10.0):
    return {"image": ground + 0.1 * torch.randn(1, *[size] * dims)}


@pytest.mark.parametrize("dims", [2, 3])
def test_label_and_pixels_go_together_and_the_rest_stays(dims):
    case = target(dims)
    copy = CopyStructured("image", [donor(dims)], prob=1.0, jitter=0.0)
    result = copy.set_random_state(0)(case)
    torch.testing.assert_close(result["label"], donor(dims)["label"])  # the same place, without jitter
    inside = result["label"] > 0
    far = torch.from_numpy(distance_transform_edt(~inside[0].numpy()) > 6)[None]
    assert torch.equal(result["image"][far], case["image"][far])
    assert "label" not in case  # the item given is left alone
    # contrast stays, the scanner's level goes: the donor's ball stood 2 above its ground
    assert result["image"][inside].mean() - case["image"].mean() == pytest.approx(2, abs=0.15)


def test_without_matching_the_donors_intensities_come():
    copy = CopyStructured("image", [donor()], prob=1.0, jitter=0.0, match=False, blend=0, margin=0)
    result = copy.set_random_state(0)(target())
    inside = result["label"] > 0
    assert torch.equal(result["image"][inside], donor()["image"][inside])


def test_own_labels_are_kept_elsewhere_and_classes_chosen():
    case = target()
    case["label"] = torch.zeros(1, 24, 24, 24)
    case["label"][0, 20:, 20:, 20:] = 1
    given = donor()
    given["label"][0, 0, 0, 0] = 1  # another class of the donor, not asked for
    result = CopyStructured("image", [given], classes=[2], prob=1.0, jitter=0.0).set_random_state(0)(case)
    assert set(result["label"].unique().tolist()) == {0.0, 1.0, 2.0}
    assert (result["label"] == 1).sum() == 64
    assert result["label"][0, 0, 0, 0] == 0
    assert (case["label"] == 2).sum() == 0


def test_random_places_under_a_seed_stay_whole_and_inside():
    copy = CopyStructured("image", [donor(seed=1), donor(at=(4, 20, 5), seed=2)], prob=1.0, jitter=0.3)
    case, places = target(size=32), set()
    for seed in range(12):
        label = copy.set_random_state(seed)(case)["label"]
        again = copy.set_random_state(seed)(case)["label"]
        assert torch.equal(label, again)
        assert label.sum() == donor()["label"].sum()  # nothing is cut off
        assert components(label[0].numpy())[1] == 1
        places.add(tuple(np.argwhere(label[0].numpy()).mean(0).round(1)))
    assert len(places) > 6


def test_probability_zero_gives_a_background_label():
    case = target()
    result = CopyStructured("image", [donor()], prob=0.0)(case)
    assert torch.equal(result["image"], case["image"])
    assert result["label"].sum() == 0


def test_geometry_of_the_image_is_kept_in_a_monai_pipeline():
    affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0]))
    case = {"image": MetaTensor(target()["image"], affine=affine)}
    donors = Dataset([donor()])
    result = Compose([CopyStructured("image", donors, prob=1.0)]).set_random_state(3)(case)
    torch.testing.assert_close(result["image"].affine, affine.double())
    torch.testing.assert_close(result["label"].affine, affine.double())
    assert result["label"].shape == result["image"].shape


def test_refusals():
    with pytest.raises(InputError, match="no donors"):
        CopyStructured("image", [])
    with pytest.raises(InputError, match=r"structure of \[7\]; give labelled source cases"):
        CopyStructured("image", [donor()], classes=[7], prob=1.0)(target())
    with pytest.raises(InputError, match="does not fit an image"):
        CopyStructured("image", [donor(2)], prob=1.0)(target(3))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_teaches_a_segmentation_in_the_targets_look(seed):
    """Healthy target images with copied structures find those of the target, where the source alone does not."""

    def case(number, slope, noise, sick=True):
        g = torch.Generator().manual_seed(number)
        item = donor(2, 20, at=torch.randint(5, 15, (2,), generator=g).tolist())
        ball = item["label"] / 2 * sick
        ground = slope * torch.linspace(-1, 1, 20)
        return {"image": 2 * ball + ground + noise * torch.randn(1, 20, 20, generator=g), "label": ball}

    source = [case(n, 0.0, 0.2) for n in range(24)]
    healthy = [{"image": case(n, 2.0, 0.4, sick=False)["image"]} for n in range(100, 124)]
    test = [case(n, 2.0, 0.4) for n in range(200, 224)]
    copy = CopyStructured("image", source, prob=1.0, jitter=0.2).set_random_state(seed)

    def dice(mixed):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(1, 12, 5, padding=2), nn.ReLU(), nn.Conv2d(12, 12, 5, padding=2), nn.ReLU(), nn.Conv2d(12, 2, 1)
        )
        optimizer = torch.optim.Adam(network.parameters(), 1e-2)
        for _ in range(100):
            chosen = torch.randint(24, (8,)).tolist()
            items = [source[i] for i in chosen[:4]]
            items += [copy(healthy[i]) if mixed else source[i] for i in chosen[4:]]
            image, mask = (torch.stack([item[key] for item in items]) for key in ("image", "label"))
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(image), mask[:, 0].long()).backward()
            optimizer.step()
        with torch.no_grad():
            found = network(torch.stack([t["image"] for t in test])).argmax(1, keepdim=True)
        truth = torch.stack([t["label"] for t in test])
        return (2 * (found * truth).sum() / (found.sum() + truth.sum())).item()

    alone, together = dice(False), dice(True)
    assert together > alone + 0.2
