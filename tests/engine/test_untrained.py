"""A network that is not trained: as it is, or with its statistics re-estimated on target images."""

from __future__ import annotations

import pytest
import torch

from monai_transfer.engine.untrained import Untrained
from monai_transfer.errors import InputError


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))


def test_saves_the_source_as_it_is_or_with_new_statistics(tmp_path):
    source = network()
    torch.save(source.state_dict(), tmp_path / "source.pt")
    Untrained(network=network(), pretrained=tmp_path / "source.pt").save(tmp_path / "a")
    kept = torch.load(tmp_path / "a" / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(kept[name], value) for name, value in source.state_dict().items())
    images = [{"image": torch.full((2, 1, 4, 4), 9.0) + torch.randn(2, 1, 4, 4)} for _ in range(3)]
    Untrained(images, network=network(), pretrained=tmp_path / "source.pt").save(tmp_path / "b")
    new = torch.load(tmp_path / "b" / "models" / "model.pt", weights_only=True)
    assert torch.equal(new["0.weight"], kept["0.weight"])
    assert (new["1.running_mean"] - kept["1.running_mean"]).abs().min() > 0.5
    with pytest.raises(InputError):
        Untrained(images, network=torch.nn.Conv2d(1, 2, 1))
