import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_transfer.data.fourier import FourierDomainAdaptd, swap_low_frequencies, window
from monai_transfer.errors import InputError


def by_numpy(source, target, bs):
    """The paper's way: shift the zero frequency to the centre, copy a box, shift back."""
    out = np.empty_like(source)
    for c in range(len(source)):
        fs, ft = np.fft.fftshift(np.fft.fftn(source[c])), np.fft.fftshift(np.fft.fftn(target[min(c, len(target) - 1)]))
        amplitude = np.abs(fs)
        box = tuple(slice(n // 2 - b, n // 2 + b + 1) for n, b in zip(source.shape[1:], bs, strict=True))
        amplitude[box] = np.abs(ft)[box]
        out[c] = np.fft.ifftn(np.fft.ifftshift(amplitude * np.exp(1j * np.angle(fs)))).real
    return out


@pytest.mark.parametrize("shape", [(1, 32, 24), (2, 20, 18, 16), (1, 15, 17)])
@pytest.mark.parametrize("per_axis", [True, False])
def test_agrees_with_the_papers_centred_box(shape, per_axis):
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal(shape), rng.standard_normal((1, *shape[1:]))
    sizes = shape[1:] if per_axis else [min(shape[1:])] * (len(shape) - 1)
    bs = [int(0.15 * n) for n in sizes]
    assert window(shape[1:], 0.15, per_axis) == bs
    ours = swap_low_frequencies(torch.tensor(source), torch.tensor(target), 0.15, per_axis)
    np.testing.assert_allclose(ours.numpy(), by_numpy(source, target, bs), atol=1e-9)


def test_window_follows_anisotropy():
    assert window((256, 256, 20), 0.05) == [12, 12, 1]
    assert window((256, 256, 20), 0.05, per_axis=False) == [1, 1, 1]
    assert max(window((4, 4), 0.5)) == 1  # never past the highest frequency


def test_same_image_and_no_window():
    x = torch.randn(1, 16, 16)
    torch.testing.assert_close(swap_low_frequencies(x, x, 0.1), x, atol=1e-5, rtol=0)
    y = swap_low_frequencies(x, x + 5, 0.0)  # b = 0 still swaps the mean, as the paper's width of 2 b + 1 says
    assert y.mean().abs().item() == pytest.approx((x + 5).mean().item(), abs=1e-4)


def test_brings_in_brightness_and_keeps_edges():
    grid = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij"))
    disc = ((grid - 32).square().sum(0) < 100).float()
    target = 3 + 2 * disc.roll((9, -9), (0, 1)) + 0.01 * grid[0]
    adapted = swap_low_frequencies(disc[None], target[None], 0.01)[0]
    assert adapted.mean() == pytest.approx(target.mean().item(), rel=1e-3)
    assert torch.corrcoef(torch.stack([adapted.flatten(), disc.flatten()]))[0, 1] > 0.9  # the anatomy did not move


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float16, torch.float64])
def test_types_and_other_sizes(dtype):
    image = (100 * torch.rand(1, 12, 10, 8)).to(dtype)
    out = swap_low_frequencies(image, torch.rand(1, 7, 9, 11), 0.1)
    assert out.shape == image.shape
    assert out.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    with pytest.raises(ValueError, match="does not fit"):
        swap_low_frequencies(image, torch.rand(1, 7, 9), 0.1)
    with pytest.raises(ValueError, match="share"):
        swap_low_frequencies(image, image, 0.7)


def test_transform_reads_targets_keeps_geometry_and_repeats_by_seed(tmp_path):
    for name in ("a", "b"):
        volume = np.random.default_rng(ord(name)).random((8, 9, 10), dtype=np.float32) + 10
        nib.save(nib.Nifti1Image(volume, np.diag([1, 2, 3, 1])), tmp_path / f"{name}.nii.gz")
    targets = [str(tmp_path / "a.nii.gz"), {"image": str(tmp_path / "b.nii.gz"), "label": None}]
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    case = {"image": MetaTensor(torch.rand(1, 8, 8, 8), affine=affine), "label": torch.ones(1, 8, 8, 8)}
    transform = FourierDomainAdaptd("image", targets, prob=1.0, cache=1)
    transform.set_random_state(3)
    first = [transform(case)["image"] for _ in range(4)]
    transform.set_random_state(3)
    for expected in first:
        torch.testing.assert_close(transform(case)["image"], expected)
    assert isinstance(first[0], MetaTensor)
    torch.testing.assert_close(first[0].affine, affine)
    assert first[0].mean() > 5  # the targets' brightness
    torch.testing.assert_close(transform(case)["label"], case["label"])
    never = FourierDomainAdaptd("image", targets, prob=0.0)
    torch.testing.assert_close(never(case)["image"], case["image"])
    with pytest.raises(InputError, match="needs target images"):
        FourierDomainAdaptd("image", [])


def test_a_numpy_case_and_a_loader_of_its_own():
    transform = FourierDomainAdaptd("image", ["x"], prob=1.0, load=lambda _name: np.full((1, 6, 6), 4.0))
    out = transform({"image": np.zeros((1, 6, 6), np.float32)})["image"]
    assert isinstance(out, np.ndarray)


def test_what_is_not_finite_and_what_is_no_share_is_refused():
    sound, broken = torch.rand(1, 8, 8), torch.full((1, 8, 8), float("nan"))
    for pair, which in (((sound, broken), "target"), ((broken, sound), "source")):
        with pytest.raises(InputError, match=f"a {which} image .*not finite"):
            swap_low_frequencies(*pair, 0.1)
    for share in (0.6, (0.2, 0.1), (0.1, 0.2, 0.3)):
        with pytest.raises(InputError, match="range in"):
            FourierDomainAdaptd("image", [sound], share=share)
