"""Numbers and picture of two sites in feature space, against clouds whose distances are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from PIL import Image
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.evaluation.domain_features import DomainView, alignment_numbers, view_domain
from monai_transfer.evaluation.domain_picture import DomainPicture


def clouds(shift: float, width: float = 0.1, seed: int = 0) -> DomainView:
    """Two classes 2 apart along the first axis, moved by ``shift`` along the second."""
    rng = np.random.default_rng(seed)
    classes = np.arange(60) % 2
    rows = np.stack([2.0 * classes, np.full(60, shift), np.zeros(60)], 1) + width * rng.normal(size=(60, 3))
    return DomainView(rows, [f"p{i // 2}" for i in range(60)], rows, classes)


def test_numbers_follow_the_shift():
    same, moved = (alignment_numbers(clouds(0.0), clouds(d, seed=1)) for d in (0.0, 3.0))
    assert same["proxy_a_distance"] < 0.8
    assert moved["proxy_a_distance"] == 2.0
    assert moved["class_shift"] == pytest.approx(3 / 2, abs=0.1), "moved by 3 where classes are 2 apart"
    assert same["class_shift"] < 0.05
    # spread: classes lie 1 to either side of their middle, and 0.1 of noise along three axes
    assert moved["domain_distance"] == pytest.approx(3 / np.sqrt(1 + 3 * 0.01), rel=0.03)


def test_collapsed_features_are_not_called_aligned():
    def shrunk(view: DomainView) -> DomainView:
        rows = view.rows * [0.01, 1.0, 1.0]
        return DomainView(rows, view.patients, rows, view.classes)

    before = alignment_numbers(clouds(0.0), clouds(0.5, seed=1))
    after = alignment_numbers(shrunk(clouds(0.0)), shrunk(clouds(0.5, seed=1)))
    assert after["class_shift"] > 5 * before["class_shift"]


def test_too_few_patients_give_no_a_distance():
    view = clouds(0.0)
    one = DomainView(view.features, ["p"] * 60, view.rows, view.classes)
    assert alignment_numbers(one, view)["proxy_a_distance"] is None


class Bright(nn.Module):
    """Features: the image and its square; class 1 where it is brighter than 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Identity()

    def forward(self, x):
        f = self.features(torch.cat([x, x * x], 1))
        return 40 * torch.cat([0.5 - f[:, :1], f[:, :1] - 0.5], 1)


def test_regions_are_those_that_the_network_predicts_also_through_windows():
    image = torch.zeros(1, 8, 8)
    image[0, :4] = 1.0
    view = view_domain(
        Bright(), [{"image": image, "patient": "a"}], layer="features", inferer=SlidingWindowInferer(4, overlap=0)
    )
    assert view.classes.tolist() == [0, 1]
    assert view.rows == pytest.approx(np.array([[0.0, 0.0], [1.0, 1.0]]), abs=1e-6)
    assert view.features[0] == pytest.approx([0.5, 0.5])
    with pytest.raises(InputError, match="no case"):
        view_domain(Bright(), [], layer="features")


def items(level: float) -> list[dict]:
    g = torch.Generator().manual_seed(int(100 * level))
    return [
        {"image": torch.rand(1, 8, 8, generator=g) + level, "label": torch.zeros(1, 8, 8), "patient": f"p{i}"}
        for i in range(6)
    ]


def trainer(network: nn.Module, handlers: list) -> SupervisedTrainer:
    return SupervisedTrainer(
        "cpu", 2, DataLoader(Dataset(items(0.0)), batch_size=2, shuffle=True), network,
        torch.optim.SGD(network.parameters(), 0.1), nn.MSELoss(), train_handlers=handlers, decollate=False,
    )  # fmt: skip


def test_the_handler_leaves_picture_and_numbers_and_touches_nothing(tmp_path):
    weights = []
    for look in (False, True):
        torch.manual_seed(0)
        network = UNet(2, 1, 1, (4, 8), (2,), norm="BATCH")
        network.model[2] = nn.Sequential(network.model[2], nn.Conv2d(1, 1, 1))
        picture = DomainPicture(tmp_path, Dataset(items(0.0)), Dataset(items(2.0)), layer="model.0")
        trainer(network, [picture] if look else []).run()
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(*weights), "looking changes neither weights nor random numbers"
    content = json.loads((tmp_path / "alignment.json").read_text())
    assert content["before"]["proxy_a_distance"] == content["after"]["proxy_a_distance"] == 2.0
    assert content["cases"] == {"source": 6, "target": 6}
    with Image.open(tmp_path / "figures" / "domains.png") as image:
        assert len(np.unique(np.asarray(image.convert("L")))) > 20
    assert not (tmp_path / "figures" / "domains_before.npz").exists()


def test_a_resumed_run_remembers_its_start(tmp_path):
    first = UNet(2, 1, 1, (4, 8), (2,))
    picture = DomainPicture(tmp_path, Dataset(items(0.0)), Dataset(items(2.0)), layer="model.0")
    engine = trainer(first, [picture])
    engine.network = first
    picture._start(engine)  # then the process is killed
    resumed = DomainPicture(tmp_path, Dataset(items(0.0)), Dataset(items(2.0)), layer="model.0")
    engine.state.epoch = 1
    resumed._start(engine)
    kept, seen = resumed._before[1], picture._before[1]
    assert np.array_equal(kept.rows, seen.rows)
    assert "p1" not in kept.patients, "names stay out of files"
