import inspect

import pytest
from monai.networks import nets

from monai_transfer.networks.arguments import INPUTS, OUTPUTS, argument_of, with_channels


@pytest.mark.parametrize(
    "name", ["UNet", "DynUNet", "DenseNet121", "ResNet", "SwinUNETR", "SegResNet", "VNet", "SENet"]
)
def test_monais_networks_have_one_of_the_names(name):
    kind = getattr(nets, name)
    known = {**inspect.signature(kind.__mro__[1]).parameters, **inspect.signature(kind).parameters}
    assert argument_of(INPUTS, known) and argument_of(OUTPUTS, known)


def test_every_name_that_stands_there_is_set_and_none_is_added():
    plain = {"_target_": "Net", "input_channels": 4, "n_classes": 9, "depth": 2}
    assert with_channels(plain, 1, 3) == {"_target_": "Net", "input_channels": 1, "n_classes": 3, "depth": 2}
    assert with_channels({"_target_": "Net"}, 1, 3) == {"_target_": "Net"} and plain["n_classes"] == 9
    assert argument_of(OUTPUTS, plain) == "n_classes" and argument_of(OUTPUTS, {}) is None
