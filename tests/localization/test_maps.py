import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import DenseNet
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.localization import boxes_from_probabilities
from monai_transfer.localization.maps import activation_map, attention_map
from monai_transfer.networks.mil import Mil


class Bright(nn.Module):
    """Class 1 is the mean brightness: its activation map is known."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU())
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(1, 2, bias=False)
        nn.init.ones_(self.features[0].weight)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[-1.0], [1.0]]))

    def forward(self, x):
        return self.fc(self.pool(self.features(x)).flatten(1))


@pytest.mark.parametrize("kind", ["grad_cam", "cam"])
def test_high_where_it_speaks_for_the_class(kind):
    image = torch.zeros(2, 1, 8, 8)
    image[0, 0, 2:4, 5:7], image[1, 0, 6, 1] = 3.0, 1.0
    heat = activation_map(Bright(), image, "features", 1, kind=kind, fc_layers="fc")
    torch.testing.assert_close(heat, (image > 0).float())
    against = activation_map(Bright(), image, "features", 0, kind=kind, fc_layers="fc")
    assert against.abs().max() == 0  # nothing speaks for the other class
    (box,) = boxes_from_probabilities(heat[0]).voxels.tolist()
    assert box == [2, 5, 4, 7]


def test_a_classifier_of_monai_comes_back_as_it_was():
    network = DenseNet(
        spatial_dims=3, in_channels=1, out_channels=2, init_features=8, growth_rate=4, block_config=(2, 2)
    )
    network.train()
    network.features.norm0.eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    image = MetaTensor(torch.randn(1, 1, 16, 16, 16), affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))
    heat = activation_map(network, image, "class_layers.relu", 1, kind="grad_cam_pp")
    assert isinstance(heat, MetaTensor) and heat.shape == image.shape
    torch.testing.assert_close(heat.affine, image.affine)
    assert network.training and not network.features.norm0.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_attention_of_a_mil_network():
    image = MetaTensor(torch.randn(2, 1, 32, 32))
    network = Mil(instances="patches", embedding=8, hidden=4).train()
    heat = attention_map(network, image)
    assert network.training and heat.shape == image.shape
    torch.testing.assert_close(heat.as_tensor().flatten(1).amax(1), torch.ones(2))
    torch.testing.assert_close(heat.as_tensor(), network.eval().lesion_map(image.as_tensor()))


def test_bad_names_are_told():
    with pytest.raises(InputError, match="no layer 'backbone'"):
        activation_map(Bright(), torch.zeros(1, 1, 8, 8), "backbone", 1)
    with pytest.raises(InputError, match="grad_cam"):
        activation_map(Bright(), torch.zeros(1, 1, 8, 8), "features", 1, kind="heat")
    with pytest.raises(InputError, match="no attention"):
        attention_map(Bright(), torch.zeros(1, 1, 8, 8))
