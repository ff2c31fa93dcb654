"""The same weights with and without the cache in a stock trainer; every refusal with its reason."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, SmartCacheDataset, pad_list_data_collate
from monai.engines import SupervisedTrainer
from monai.losses import DiceCELoss
from monai.networks.nets import DenseNet, EfficientNetBN, UNet, ViT
from monai.transforms import Compose, OneOf, RandFlipd, RandGaussianNoised, ScaleIntensityd

from monai_transfer.engine.adapt import Adapt
from monai_transfer.engine.auto_cache import FeatureCache
from monai_transfer.engine.epoch_seed import EpochSeed
from monai_transfer.engine.feature_cache import CachedFeatures, cache_features
from monai_transfer.errors import InputError
from monai_transfer.methods.coral import Coral
from monai_transfer.networks.wrappers import unwrap
from monai_transfer.strategies.full import Full
from monai_transfer.strategies.head_only import HeadOnly


def densenet():
    return DenseNet(2, 1, 2, init_features=4, growth_rate=4, block_config=(1, 1), dropout_prob=0.3)


def efficientnet():  # dropout right before its last layer
    return EfficientNetBN("efficientnet-b0", pretrained=False, in_channels=1, num_classes=2)


def vit():
    return ViT(1, (16, 16), (8, 8), 24, 32, 1, 2, classification=True, num_classes=2, spatial_dims=2, dropout_rate=0.2)


def unet():
    return UNet(2, 1, 3, (4, 8), (2,), num_res_units=1, norm="batch", dropout=0.2)


def cross_entropy(prediction, label):
    prediction = prediction[0] if isinstance(prediction, tuple) else prediction
    return torch.nn.functional.cross_entropy(prediction, label.long())


def items(n: int = 7, segmentation: bool = False, shift: float = 0.0, size: int = 16) -> list[dict]:
    generator = torch.Generator().manual_seed(3)
    result = []
    for index in range(n):
        image = torch.randn(1, size, size, generator=generator) + shift
        result.append(
            {"image": image, "label": (image > 0.5).long() if segmentation else index % 2, "case": f"c{index}"}
        )
    return result


def frozen(make, seed: int = 1):
    """A network whose backbone has seen data (fresh norm statistics make EfficientNet's features vanish), frozen."""
    torch.manual_seed(seed)
    network = make().train()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        network(torch.randn(4, 1, *(2 * [32 if make is efficientnet else 16])))
    return HeadOnly().apply(network)


def train(network, loader, *, inferer=None, loss=cross_entropy, epochs=3, handlers=(), accumulation=1) -> dict:
    SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.AdamW(HeadOnly().param_groups(network), lr=0.01),
        loss_function=loss,
        inferer=inferer,
        train_handlers=[EpochSeed(5), *handlers],
        decollate=False,
        accumulation_steps=accumulation,
    ).run()
    return network.state_dict()


def assert_same(a: dict, b: dict, start: dict, head: str) -> None:
    """The head ended at the same weights, within a thousandth of how far it went; the rest did not move at all."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        if not name.startswith(head):
            assert torch.equal(value, start[name]) and torch.equal(b[name], start[name]), name
            continue
        way = float((value - start[name]).abs().max())
        assert way > 1e-3 or not name.endswith("weight"), name
        torch.testing.assert_close(value, b[name], rtol=0, atol=1e-3 * way + 1e-7, msg=name)


@pytest.mark.parametrize(
    ("make", "head", "segmentation"),
    [
        (densenet, "class_layers.out", False),
        (efficientnet, "_fc", False),
        (vit, "classification_head", False),
        (unet, "model.2", True),
    ],
)
@pytest.mark.parametrize("automatic", [False, True])
def test_same_weights_as_without_the_cache(make, head, segmentation, automatic):
    loss = DiceCELoss(to_onehot_y=True, softmax=True) if segmentation else cross_entropy
    transform = ScaleIntensityd("image")

    def loader():
        size = 32 if make is efficientnet else 16
        return DataLoader(Dataset(items(segmentation=segmentation, size=size), transform), batch_size=3, shuffle=True)

    start = {name: value.clone() for name, value in frozen(make).state_dict().items()}
    ordinary = train(frozen(make), loader(), loss=loss)
    network = frozen(make)
    if automatic:
        cache = FeatureCache(network, loader(), enabled=True)
        assert cache.reason is None  # nothing happens before the first batch
        cached = train(network, cache.loader, inferer=cache.inferer, loss=loss)
        assert "7 cases" in cache.reason
    else:
        kept = cache_features(network, loader())
        assert kept, kept.reason
        cached = train(network, kept.loader(), inferer=kept.inferer, loss=loss)
    inner = {name for name in start if segmentation and ".adn." in name}  # frozen, but inside of the head's module
    for name in inner:
        assert torch.equal(cached[name], start[name]) and torch.equal(ordinary[name], start[name])
    assert_same(*({k: v for k, v in state.items() if k not in inner} for state in (ordinary, cached, start)), head)


def test_the_backbone_runs_once_per_case():
    network = frozen(densenet)
    counted = []
    network.features.conv0.register_forward_hook(lambda _m, inputs, _o: counted.append(len(inputs[0])))
    cached = cache_features(network, DataLoader(Dataset(items(12)), batch_size=4))
    assert isinstance(cached, CachedFeatures)
    assert sum(counted) == 12 + 2  # the cases, and one of them twice more as a test
    train(network, cached.loader(), inferer=cached.inferer, epochs=4)
    assert sum(counted) == 14
    assert cached.layers == ("class_layers.out",) and cached.nbytes == 12 * network.class_layers.out.in_features * 4


def test_head_alone_in_a_stock_trainer_trains_the_whole_network():
    network = frozen(densenet)
    cached = cache_features(network, DataLoader(Dataset(items()), batch_size=3))
    train(cached.head, cached.loader())
    ordinary = train(frozen(densenet), DataLoader(Dataset(items()), batch_size=3))
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, ordinary[name], rtol=1e-4, atol=1e-6, msg=name)


def test_accumulation_pairs_and_drop_last():
    pairs = [(x["image"], x["label"]) for x in items()]

    def loader():
        return torch.utils.data.DataLoader(pairs, batch_size=2, shuffle=True, drop_last=True)

    ordinary = train(frozen(densenet), loader(), accumulation=2)
    network = frozen(densenet)
    cached = cache_features(network, loader())
    other = train(network, cached.loader(), inferer=cached.inferer, accumulation=2)
    for name, value in ordinary.items():
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-6, msg=name)


def test_adapt_sees_the_cached_features_of_both_domains():
    source, target = items(6), items(6, shift=1.0)

    def run(cached: bool):
        network = frozen(densenet)
        loader, other = DataLoader(Dataset(source), batch_size=3), DataLoader(Dataset(target), batch_size=3)
        inferer = None
        if cached:
            kept, far = cache_features(network, loader), cache_features(network, other)
            loader, other, inferer = kept.loader(), far.loader(), kept.inferer
        adapt = Adapt(Coral(), other)
        train(network, loader, inferer=inferer, handlers=[adapt])
        return network.state_dict()

    ordinary, cached = run(False), run(True)
    for name, value in ordinary.items():
        torch.testing.assert_close(value, cached[name], rtol=1e-4, atol=1e-6, msg=name)


def test_images_still_go_through_the_whole_network():
    network = frozen(densenet)
    cached = cache_features(network, DataLoader(Dataset(items()), batch_size=3))
    network.eval()
    image = torch.stack([x["image"] for x in items(2)])
    features = torch.stack([cached.dataset[i]["image"] for i in range(2)])
    with torch.no_grad():
        torch.testing.assert_close(cached.inferer(image, network), network(image))
        torch.testing.assert_close(cached.inferer(features, network), network(image))


def test_images_of_different_sizes():
    """One by one they train as they are; in batches they are padded to each other, which differs by epoch."""
    data = [item | {"image": item["image"][..., : 16 - index]} for index, item in enumerate(items(5))]
    outcome = []
    for cached in (False, True):
        network = frozen(densenet)
        loader = DataLoader(Dataset(data), batch_size=1)
        found = FeatureCache(network, loader, enabled="auto" if cached else False)
        outcome.append(train(network, found.loader, inferer=found.inferer))
    assert isinstance(found.result, CachedFeatures) and len(found.result.dataset) == 5
    for name, value in outcome[0].items():
        torch.testing.assert_close(value, outcome[1][name], rtol=1e-4, atol=1e-6)
    padded = DataLoader(Dataset(data), batch_size=2, collate_fn=pad_list_data_collate)
    assert "differ in size" in cache_features(frozen(densenet), padded).reason
    alike = [data[0], items(2)[1], data[1], items(4)[3]]  # only later ones differ
    padded = DataLoader(Dataset(alike), batch_size=2, collate_fn=pad_list_data_collate)
    assert "differ in size" in cache_features(frozen(densenet), padded).reason


def test_views_are_different_deterministic_and_drawn():
    def loader():
        return DataLoader(Dataset(items(), RandGaussianNoised("image", prob=1.0)), batch_size=3)

    refused = cache_features(frozen(densenet), loader())
    assert not refused and "RandGaussianNoised" in refused.reason and "views" in refused.reason
    network = frozen(densenet)
    one, two = (cache_features(network, loader(), views=3, seed=8) for _ in range(2))
    other = cache_features(network, loader(), views=3, seed=9)
    tables = [torch.stack([x["image"] for view in c.dataset.views for x in view]) for c in (one, two, other)]
    assert torch.equal(tables[0], tables[1]) and not torch.equal(tables[0], tables[2])
    assert len(torch.unique(tables[0], dim=0)) == 3 * 7
    torch.manual_seed(0)
    drawn = {float(one.dataset[0]["image"].sum()) for _ in range(40)}
    assert drawn == {float(view[0]["image"].sum()) for view in one.dataset.views}
    assert "3 augmented views" in one.reason
    runs = [train(frozen(densenet), c.loader(), inferer=c.inferer) for c in (one, two)]
    for name, value in runs[0].items():
        assert torch.equal(value, runs[1][name])


def test_random_streams_and_modes_are_left_alone():
    network = frozen(densenet).eval()
    loader = DataLoader(Dataset(items(), RandFlipd("image")), batch_size=3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert cache_features(network, loader, views=2)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all() and before[2] == random.getstate()
    assert not any(module.training for module in network.modules())


def test_refusals_say_why():
    network, plain = frozen(densenet), DataLoader(Dataset(items()), batch_size=3)

    def reason(*args, **options) -> str:
        result = cache_features(*args, **options)
        assert not result
        return result.reason

    assert "one part" in reason(Full().apply(densenet()), plain)
    assert "to be had" in reason(network, plain, max_bytes=10)
    one_of = Dataset(items(), Compose([OneOf([ScaleIntensityd("image"), RandFlipd("image")])]))
    assert "OneOf" in reason(network, DataLoader(one_of, batch_size=3))
    sneaky = Dataset(items(), lambda x: {**x, "image": x["image"] + torch.randn(1)})
    assert "loaded twice" in reason(network, DataLoader(sneaky, batch_size=3))
    smart = SmartCacheDataset(items(), lambda x: x, cache_num=4, progress=False)
    assert "SmartCacheDataset" in reason(network, DataLoader(smart, batch_size=2))
    patches = Dataset(items(), lambda x: [x, x])
    assert "several patches" in reason(network, DataLoader(patches, batch_size=2))
    assert "DataLoader" in reason(network, [{"image": torch.zeros(2, 1, 16, 16)}])
    assert "empty" in reason(network, DataLoader(Dataset([]), batch_size=2))


def test_auto_falls_back_and_insists_on_request():
    def loader():
        return DataLoader(Dataset(items()), batch_size=3)

    network = Full().apply(densenet())
    cache = FeatureCache(network, loader())
    for batch in cache.loader:
        assert batch["image"].shape[1:] == (1, 16, 16)
    assert "whole network learns" in cache.reason and len(cache.loader) == 3
    with pytest.raises(InputError, match="cannot be cached"):
        next(iter(FeatureCache(network, loader(), enabled=True).loader))
    off = FeatureCache(frozen(densenet), loader(), enabled=False)
    assert next(iter(off.loader))["image"].ndim == 4
    with pytest.raises(InputError, match="enabled"):
        FeatureCache(network, loader(), enabled="yes")


def test_new_backbone_weights_make_new_features():
    network = frozen(densenet)
    cache = FeatureCache(network, DataLoader(Dataset(items()), batch_size=3))
    first = next(iter(cache.loader))["image"]
    assert cache.result is not None
    result = cache.result
    next(iter(cache.loader))
    assert cache.result is result  # nothing changed
    unwrap(network).load_state_dict(frozen(densenet, seed=2).state_dict())
    second = next(iter(cache.loader))["image"]
    assert cache.result is not result and not torch.allclose(first, second)
