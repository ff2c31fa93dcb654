"""The domain shift is real: small networks, trained at site A, tested at both sites, as docs/embedded_data.md reports.

``pytest -m slow -s tests/data/phantom/test_shift.py`` prints the numbers (about two minutes on one core).
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from monai.data import load_decathlon_datalist
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.networks import one_hot
from monai.networks.nets import DenseNet, UNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    ResizeWithPadOrCropd,
    Spacingd,
)
from sklearn.metrics import roc_auc_score

from monai_transfer.data.phantom import embedded_set

pytestmark = pytest.mark.slow

KEYS = ["image", "label"]
VOLUME = Compose(
    [
        LoadImaged(KEYS),
        EnsureChannelFirstd(KEYS),
        Orientationd(KEYS, axcodes="RAS", labels=None),
        Spacingd(KEYS, pixdim=(4.0, 4.0, 4.0), mode=("bilinear", "nearest")),
        ResizeWithPadOrCropd(KEYS, (48, 48, 48)),
        NormalizeIntensityd("image"),
    ]
)
SLICE = Compose([LoadImaged("image"), EnsureChannelFirstd("image"), NormalizeIntensityd("image")])


def _load(folder: str, split: str, site: str, transform, patients: int | None = None):
    items = load_decathlon_datalist(str(Path(folder) / "manifest.json"), transform is VOLUME, split)
    items = [item for item in items if item["site"] == site]
    kept = sorted({item["patient"] for item in items})[:patients]
    items = [item for item in items if item["patient"] in kept]
    images = torch.stack([torch.as_tensor(transform(item)["image"]).float() for item in items])
    if transform is SLICE:
        return images, torch.tensor([int(item["label"] == "lesion") for item in items])
    return images, torch.stack([torch.as_tensor(transform(item)["label"]).long() for item in items])


def _train(network, images, labels, *, loss, steps: int, batch: int, rate: float, seed: int):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    network.train()
    for _ in range(steps):
        index = torch.randint(len(images), (batch,), generator=generator)
        flip = [2] if images.ndim == 5 else [3]
        x, y = images[index], labels[index]
        if torch.rand(1, generator=generator) < 0.5:  # left and right
            x, y = x.flip(flip), y.flip(flip) if y.ndim > 1 else y
        optimizer.zero_grad()
        loss(network(x), y).backward()
        optimizer.step()
        schedule.step()
    return network


@torch.no_grad()
def _predict(network, images, batch: int) -> torch.Tensor:
    network.eval()
    return torch.cat([network(part) for part in images.split(batch)])


def test_segmentation_fails_at_the_other_site_and_few_cases_mend_it(tmp_path):
    folder = embedded_set("segmentation", tmp_path)
    home, away = (_load(folder, "test", site, VOLUME) for site in ("site_a", "site_b"))
    few = _load(folder, "training", "site_b", VOLUME, patients=4)
    loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True)

    def dice(network, images, labels) -> tuple[float, float, float]:
        predicted = one_hot(_predict(network, images, 2).argmax(1, keepdim=True), 3)
        metric = DiceMetric(include_background=False, reduction="none", ignore_empty=True)
        values = metric(predicted, one_hot(labels, 3)).nanmean(0)
        return (*values.tolist(), values.mean().item())

    def network(seed: int):
        torch.manual_seed(seed)
        return UNet(3, 1, 3, (8, 16, 32), (2, 2), norm="batch")

    rows = []
    for seed in (0, 1):
        train = {"loss": loss, "batch": 4, "seed": seed}
        source = _train(network(seed), *_load(folder, "training", "site_a", VOLUME), steps=200, rate=1e-2, **train)
        tuned = _train(copy.deepcopy(source), *few, steps=80, rate=5e-3, **train)
        scratch = _train(network(seed), *few, steps=80, rate=1e-2, **train)
        rows.append([dice(source, *home), dice(source, *away), dice(tuned, *away), dice(scratch, *away)])
        names = ("source at A", "source at B", "4 cases fine-tuned at B", "4 cases from scratch at B")
        for name, values in zip(names, rows[-1], strict=True):
            print(f"seed {seed} {name:26} ventricle {values[0]:.2f} lesion {values[1]:.2f} mean {values[2]:.2f}")
    at_home, at_b, tuned_at_b, scratch_at_b = torch.tensor(rows)[:, :, 2].mean(0).tolist()
    assert at_home > 0.7
    assert at_b < 0.55
    assert tuned_at_b > scratch_at_b + 0.1
    assert tuned_at_b > at_b + 0.1


def test_classification_fails_at_the_other_site(tmp_path):
    folder = embedded_set("classification", tmp_path)
    home, away = (_load(folder, "test", site, SLICE) for site in ("site_a", "site_b"))
    training = _load(folder, "training", "site_a", SLICE)
    aucs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = DenseNet(2, 1, 2, init_features=16, growth_rate=8, block_config=(3, 3, 3))
        loss = torch.nn.CrossEntropyLoss()
        network = _train(network, *training, loss=loss, steps=250, batch=16, rate=3e-3, seed=seed)
        row = []
        for name, (images, labels) in {"A": home, "B": away}.items():
            score = _predict(network, images, 32).softmax(1)[:, 1]
            row.append(roc_auc_score(labels, score))
            accuracy = ((score > 0.5) == labels.bool()).float().mean()
            print(f"seed {seed} source at {name}: AUC {row[-1]:.2f} accuracy {accuracy:.2f}")
        aucs.append(row)
    at_home, at_b = torch.tensor(aucs).mean(0).tolist()
    assert at_home > 0.85
    assert at_b < at_home - 0.1
