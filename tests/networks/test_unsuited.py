"""Networks that a bundle cannot train are refused by their names, whichever way they are named."""

from __future__ import annotations

import pytest

from monai_transfer.errors import InputError
from monai_transfer.networks.unsuited import refuse_unsuited


@pytest.mark.parametrize("name", ["VISTA3D", "monai.networks.nets.vista3d132", "monai.networks.nets.vista3d.VISTA3D"])
def test_prompts(name):
    with pytest.raises(InputError, match=r"source\.pt: .*answers prompts.*its image encoder is a source"):
        refuse_unsuited(name, "source.pt")


def test_a_dictionary():
    with pytest.raises(InputError, match="HoVerNet gives a dictionary of outputs"):
        refuse_unsuited("HoVerNet")


def test_a_class_of_ones_own_may_have_that_name():
    refuse_unsuited("my_package.nets.VISTA3D")
    refuse_unsuited("monai.networks.nets.SwinUNETR")
