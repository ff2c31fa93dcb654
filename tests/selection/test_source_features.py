"""What a source sees: the right layer, the bundle's own preprocessing, regions on the label's own voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.networks.nets import DenseNet, UNet
from monai.transforms import LoadImage
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest
from monai_transfer.selection.source_features import SourceNetwork


class Identity(nn.Module):
    """Its one feature is the image itself."""

    def __init__(self, dims=3):
        super().__init__()
        self.head = (nn.Conv3d if dims == 3 else nn.Conv2d)(1, 2, 1)

    def forward(self, x):
        return self.head(x)


def plain(item):
    return {"image": LoadImage(ensure_channel_first=True)(item["image"])}


@pytest.mark.parametrize("window", [None, (16, 16, 16), (10, 7, 5)])
def test_regions_hold_the_voxels_of_their_class(volumes, window):
    manifest = Manifest.load(volumes)
    case = manifest.training[0]
    image = LoadImage()(case.image).numpy()
    mask = LoadImage()(case.label).numpy()
    network = SourceNetwork(Identity(), preprocessing=plain, window=window)
    found = network.outputs(case.image, case.label, [0, 1], voxels=20)
    assert found.regions[1][0] == pytest.approx(image[mask == 1].mean(), rel=1e-5)
    assert found.regions[0][0] == pytest.approx(image[mask == 0].mean(), rel=1e-5)
    assert found.regions[1][1].sum() == pytest.approx(1, abs=1e-5)
    assert sorted(found.voxel_classes) == [0] * 20 + [1] * 20
    assert set(found.voxels[found.voxel_classes == 1, 0]) <= set(image[mask == 1])
    if window is None:
        assert found.pooled == pytest.approx(image.mean(), rel=1e-5)


def test_labels_follow_the_bundles_own_preprocessing(volumes, unet_bundle):
    """The bundle turns images to RAS; the label must turn along."""
    case = Manifest.load(volumes).training[0]
    from_bundle = SourceNetwork.load(unet_bundle)
    network = SourceNetwork(Identity(), preprocessing=from_bundle.preprocessing, window=from_bundle.window)
    found = network.outputs(case.image, case.label, [0, 1])
    image, mask = LoadImage()(case.image).numpy(), LoadImage()(case.label).numpy()
    scaled = (image - image.min()) / (image.max() - image.min())
    assert found.regions[1][0] == pytest.approx(scaled[mask == 1].mean(), rel=1e-4)


def test_bundle_has_its_name_window_and_features(volumes, unet_bundle):
    network = SourceNetwork.load(unet_bundle)
    assert network.name == "ball_unet"
    assert network.window == (16, 16, 16)
    case = Manifest.load(volumes).training[0]
    found = network.outputs(case.image, case.label, [0, 1], voxels=5)
    assert found.pooled.shape == (12,)  # what enters the output block (skip 4, bottom 8), not the class channels
    assert found.outputs.sum() == pytest.approx(1, abs=1e-5)
    assert network.outputs(case.image).pooled == pytest.approx(network.pooled(case.image))


def test_classifiers_give_the_input_of_their_last_layer(pictures):
    torch.manual_seed(0)
    network = DenseNet(2, 1, 3, init_features=8, growth_rate=4, block_config=(2, 2)).eval()
    case = Manifest.load(pictures).training[0]
    source = SourceNetwork(network)
    found = source.outputs(case.image)
    seen = {}
    network.class_layers.out.register_forward_pre_hook(lambda _m, inputs: seen.update(x=inputs[0]))
    image = LoadImage(ensure_channel_first=True)(case.image).as_tensor().float()
    low, high = np.percentile(image.numpy(), (1, 99))
    network(((image - low) / (high - low)).clip(0, 1)[None].to(next(network.parameters()).device))
    assert found.pooled == pytest.approx(seen["x"][0].detach().cpu().numpy(), rel=1e-3, abs=1e-4)
    assert found.outputs.shape == (3,)
    with pytest.raises(InputError, match="one feature vector"):
        source.outputs(case.image, case.image, [0, 1])


def test_encoders_without_head_give_their_output(pictures):
    encoder = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU())
    found = SourceNetwork(encoder, layer=None).outputs(Manifest.load(pictures).training[0].image)
    assert found.pooled.shape == (1,)  # the plain rule: the input of the last layer
    from monai.networks.nets import ResNet

    headless = ResNet("basic", [1, 1, 1, 1], [4, 8, 8, 8], spatial_dims=2, n_input_channels=1, feed_forward=False)
    found = SourceNetwork(headless).outputs(Manifest.load(pictures).training[0].image)
    assert found.pooled.shape == (8,)
    assert found.outputs is None


def test_untrained_copy_is_another_network_of_the_same_shape(volumes, unet_bundle):
    network = SourceNetwork.load(unet_bundle)
    before = {k: v.clone() for k, v in network.network.state_dict().items()}
    other = network.untrained(seed=3)
    image = Manifest.load(volumes).training[0].image
    assert other.pooled(image).shape == network.pooled(image).shape
    assert not np.allclose(other.pooled(image), network.pooled(image))
    assert all(torch.equal(before[k], v) for k, v in network.network.state_dict().items())
    assert np.array_equal(other.pooled(image), network.untrained(seed=3).pooled(image))


def test_what_cannot_work_says_why(volumes, pictures, tmp_path, unet_bundle):
    picture = Manifest.load(pictures).training[0].image
    with pytest.raises(InputError, match="cannot take this image"):
        SourceNetwork(UNet(3, 1, 2, (4, 8), (2,))).outputs(picture)
    with pytest.raises(InputError, match="missing.nii.gz: not found"):
        SourceNetwork.load(unet_bundle).outputs(str(tmp_path / "missing.nii.gz"))
    with pytest.raises(InputError):
        SourceNetwork.load(tmp_path)
    checkpoint = tmp_path / "weights.pt"
    torch.save(Identity().state_dict(), checkpoint)
    with pytest.raises(InputError, match="without a network"):
        SourceNetwork.load(checkpoint)
