"""The table of names, and what is built of a config."""

from __future__ import annotations

from monai_transfer.component_table import build_config
from monai_transfer.config_text import Expression, expr


def test_a_config_that_is_built_stays_what_it_was():
    """Else expressions of ours would be written into a bundle as data, and its network could not be made."""
    config = {
        "_target_": "torch.nn.Conv2d",
        "in_channels": 1,
        "out_channels": 1,
        "kernel_size": expr("torch.numel(torch.ones(3))"),
    }
    assert build_config(config).kernel_size == (3, 3)
    assert isinstance(config["kernel_size"], Expression)
