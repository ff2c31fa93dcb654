"""The feature cache of a config: it decides at the first batch, says why in one line, and stays right when resumed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from monai.networks.nets import DenseNet
from monai.transforms import Compose, RandFlipd, ScaleIntensityd

from monai_transfer.engine.auto_cache import FeatureCache
from monai_transfer.engine.checkpoint import Checkpoint
from monai_transfer.engine.epoch_seed import EpochSeed
from monai_transfer.engine.precision import AutocastInferer
from monai_transfer.errors import InputError
from monai_transfer.strategies.full import Full
from monai_transfer.strategies.head_only import HeadOnly
from monai_transfer.strategies.norm_only import NormOnly


def network(strategy=HeadOnly):
    torch.manual_seed(1)
    made = DenseNet(2, 1, 2, init_features=4, growth_rate=4, block_config=(1, 1), dropout_prob=0.2)
    with torch.no_grad():
        made.train()(torch.randn(8, 1, 16, 16))
    return strategy().apply(made)


def loader(*transforms, cases: int = 6, **options) -> DataLoader:
    generator = torch.Generator().manual_seed(3)
    items = [{"image": torch.randn(1, 16, 16, generator=generator), "label": n % 2} for n in range(cases)]
    return DataLoader(Dataset(items, Compose(list(transforms))), batch_size=3, shuffle=True, **options)


def fit(net, cache: FeatureCache, epochs: int = 4, folder: Path | None = None, stop_after: int | None = None):
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=cache.loader,
        epoch_length=len(cache.loader),
        network=net,
        optimizer=torch.optim.AdamW(HeadOnly().param_groups(net), lr=0.01),
        loss_function=torch.nn.CrossEntropyLoss(),
        inferer=cache.inferer,
        train_handlers=[EpochSeed(5), *([Checkpoint(folder)] if folder else [])],
    )
    if stop_after is not None:

        @trainer.on(Events.EPOCH_COMPLETED(once=stop_after + 1))
        def _stop(engine):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            trainer.run()
    else:
        trainer.run()
    return {key: value.clone() for key, value in net.state_dict().items()}


def same(one, two) -> bool:
    return all(torch.equal(one[key], two[key]) for key in one)


def test_nothing_is_computed_before_the_first_batch(caplog):
    net = network()
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    with caplog.at_level(logging.INFO, logger="monai_transfer"):
        cache = FeatureCache(net, loader())
        assert cache.reason is None and not calls and len(cache.loader) == 2
        fit(net, cache, epochs=1)
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("feature cache: features of 6 cases") and "\n" not in line


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        (lambda: (network(Full), loader()), {}, "no feature cache: the whole network learns"),
        (lambda: (network(), loader(RandFlipd("image", 0.5))), {}, "augmented at random (RandFlipd): give the number"),
        (lambda: (network(NormOnly), loader()), {}, "no feature cache: "),
        (lambda: (network(), loader()), {"max_bytes": 10}, "no feature cache: the features would take"),
    ],
)
def test_where_it_is_not_valid_training_is_as_ever_and_one_line_says_why(make, options, reason, caplog):
    net, cases = make()
    with caplog.at_level(logging.INFO, logger="monai_transfer"):
        found = fit(net, FeatureCache(net, cases, **options))
    (line,) = [record.message for record in caplog.records]
    assert reason in line and "\n" not in line
    other, cases = make()
    assert same(found, fit(other, FeatureCache(other, cases, enabled=False)))


@pytest.mark.parametrize("views", [None, 3])
def test_resumed_is_bitwise_equal_to_uninterrupted(views, tmp_path):
    def make():
        net = network()
        augment = [RandFlipd("image", 0.5)] if views else []
        return net, FeatureCache(net, loader(ScaleIntensityd("image"), *augment), views=views, seed=2)

    whole = fit(*make(), folder=tmp_path / "whole")
    fit(*make(), folder=tmp_path / "part", stop_after=2)
    net, cache = make()
    assert same(fit(net, cache, folder=tmp_path / "part"), whole)
    assert cache.result and cache.result.views == (views or 1)
    if views is None:
        net = network()
        plain = FeatureCache(net, loader(ScaleIntensityd("image")), enabled=False)
        assert same(fit(net, plain, folder=tmp_path / "plain"), whole), "and to training without the cache"


def test_other_data_of_a_cached_dataset_are_seen():
    """MONAI Label and federated clients put their own items in before the run."""
    data = CacheDataset([], Compose([ScaleIntensityd("image")]), progress=False)
    net = network()
    cache = FeatureCache(net, DataLoader(data, batch_size=2))
    data.set_data([{"image": torch.randn(1, 16, 16), "label": n} for n in (0, 1)])
    (batch,) = cache.loader
    assert len(cache.loader.dataset) == 2 and batch["image"].ndim == 2, "features, not images"


def test_whether_autocast_is_on_is_seen_through_it():
    for inferer, seen in ((AutocastInferer(), True), (AutocastInferer(enabled=False), False), (None, False)):
        assert hasattr(FeatureCache(network(), loader(), inferer).inferer, "dtype") == seen


def test_switched_off_and_on():
    net = network()
    cache = FeatureCache(net, loader(), enabled=False)
    (batch, _) = cache.loader
    assert batch["image"].shape == (3, 1, 16, 16) and cache.reason == "it is switched off"
    insisting = FeatureCache(network(), loader(RandFlipd("image", 0.5)), SimpleInferer(), enabled=True)
    with pytest.raises(InputError, match="cannot be cached.*RandFlipd.*set enabled to auto"):
        iter(insisting.loader)
    with pytest.raises(InputError, match="choose auto"):
        FeatureCache(net, loader(), enabled="yes")
