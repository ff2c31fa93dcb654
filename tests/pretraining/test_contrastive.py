from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.losses import ContrastiveLoss
from monai.networks.nets import DenseNet, SegResNet, UNet, ViT
from monai.transforms import RandGaussianNoised, RandSpatialCropd

from monai_transfer import load_weights
from monai_transfer.engine.checkpoint import export_state
from monai_transfer.errors import InputError
from monai_transfer.pretraining.contrastive import NtXent, SimClr
from monai_transfer.pretraining.views import TwoViewsd


def nt_xent(z: torch.Tensor, temperature: float) -> float:
    """The paper's formula, one pair after the other."""
    z = torch.nn.functional.normalize(z.double(), dim=-1)
    views = [(i, v) for i in range(len(z)) for v in range(2)]
    total = 0.0
    for i, v in views:
        others = sum(math.exp(float(z[i, v] @ z[k, w]) / temperature) for k, w in views if (k, w) != (i, v))
        total -= math.log(math.exp(float(z[i, 0] @ z[i, 1]) / temperature) / others)
    return total / len(views)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_loss_equals_the_papers_formula(temperature):
    z = torch.randn(5, 2, 7, generator=torch.Generator().manual_seed(0))
    assert NtXent(temperature)(z).item() == pytest.approx(nt_xent(z, temperature), rel=1e-5)


def test_the_coldest_temperature_overflows_nothing():
    z = torch.randn(4, 2, 5, requires_grad=True)
    loss = NtXent(1e-3)(z)
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all() and z.grad.abs().sum() > 0
    torch.testing.assert_close(NtXent(0.5)(z), ContrastiveLoss(temperature=0.5)(z[:, 0], z[:, 1]))
    with pytest.raises(ValueError, match="positive"):
        NtXent(0)


def test_loss_of_perfect_and_of_collapsed_projections():
    perfect = torch.eye(4).unsqueeze(1).expand(4, 2, 4)
    collapsed = torch.ones(4, 2, 4)
    assert NtXent(0.5)(collapsed).item() == pytest.approx(math.log(7), rel=1e-5), "a guess among the other views"
    assert NtXent(0.5)(perfect).item() < 0.7
    half = torch.randn(3, 2, 4).half()
    assert torch.isfinite(NtXent(0.05)(half * 100)), "exp(20) is beyond float16"
    with pytest.raises(ValueError, match="two cases"):
        NtXent()(torch.ones(1, 2, 4))


NETWORKS = {
    "unet": (3, lambda: UNet(3, 1, 3, (4, 8, 8), (2, 2), norm="batch"), "model.1.submodule.1.submodule"),
    "segresnet": (2, lambda: SegResNet(2, 8, out_channels=3), "down_layers.2"),
    "densenet": (2, lambda: DenseNet(2, 1, 2, 4, 4, (2, 2), bn_size=1), None),
    "vit": (2, lambda: ViT(1, (16, 16), (4, 4), 24, 32, 2, 2, classification=True, spatial_dims=2), None),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_only_what_comes_before_the_layer_learns_and_is_exported(name):
    dims, build, layer = NETWORKS[name]
    network = build()
    before = copy.deepcopy(network.state_dict())
    wrapped = SimClr(network, [16] * dims, layer=layer)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items()), (
        "tracing changes nothing"
    )
    assert network.training
    out = wrapped(torch.rand(3, 2, 1, *[16] * dims))
    assert out.shape == (3, 2, 64)
    NtXent()(out).backward()
    idle = [key for key, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle, "a parameter that waits for a gradient in vain stops DDP"
    export = export_state(wrapped)
    assert not any("projection" in key for key in export)
    assert set(export) <= set(before), "the network's own names"
    learnt = {key for key, p in network.named_parameters() if p.requires_grad}
    assert learnt <= set(export)
    untouched = set(before) - set(export)
    assert untouched, "the head or decoder stays behind"
    fresh = build()
    report = load_weights(fresh, export, min_coverage=0.1)
    assert untouched <= set(report.missing)
    for key, value in fresh.state_dict().items():
        if key in export:
            assert torch.equal(value, export[key])


def test_running_statistics_are_exported():
    wrapped = SimClr(UNet(2, 1, 3, (4, 8), (2,), norm="batch"), [8, 8], layer="model.1.submodule")
    assert any("running_mean" in key for key in export_state(wrapped))
    assert not any(key.startswith("model.2") for key in export_state(wrapped))


def test_a_wrong_layer_names_those_that_are_near():
    with pytest.raises(InputError, match=r"model\.1"):
        SimClr(UNet(2, 1, 3, (4, 8), (2,)), [8, 8], layer="model.1.submodul")
    with pytest.raises(InputError, match="not used"):
        SimClr(SegResNet(2, 8, use_conv_final=False), [16, 16], layer="conv_final.2")


def test_learns_to_recognise_cases_in_a_stock_trainer():
    """Noisy crops of eight textures: after training the two views of a case find each other."""
    torch.manual_seed(0)
    x, y = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    items = [{"image": torch.sin(0.2 * (k + 1) * (x if k % 2 else y))[None]} for k in range(8)]
    crop = [RandSpatialCropd("image", [16, 16], random_size=False), RandGaussianNoised("image", prob=1.0, std=0.1)]
    loader = DataLoader(Dataset(items, TwoViewsd("image", crop)), batch_size=8, shuffle=True)
    network = SimClr(UNet(2, 1, 1, (8, 16), (2,), norm="batch"), [16, 16], layer="model.1.submodule")

    def hits() -> float:
        with torch.no_grad():
            z = torch.nn.functional.normalize(network(next(iter(loader))["image"]), dim=-1)
        return ((z[:, 0] @ z[:, 1].T).argmax(1) == torch.arange(8)).float().mean().item()

    before = sum(hits() for _ in range(5)) / 5
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=25,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 3e-3),
        loss_function=NtXent(0.2),
        decollate=False,
    )
    trainer.run()
    after = sum(hits() for _ in range(5)) / 5
    assert after > max(0.6, before + 0.2), (before, after)


def _gradient(batch: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(0)
    network = SimClr(UNet(2, 1, 1, (2, 4), (2,), norm=("group", {"num_groups": 1})), [8, 8], layer="model.1.submodule")
    model = network
    if dist.is_initialized():
        model = torch.nn.parallel.DistributedDataParallel(network)  # without find_unused_parameters
    NtXent()(model(batch)).backward()
    return [p.grad.clone() for p in network.parameters() if p.requires_grad]


def _rank(rank: int, folder: str, batch: torch.Tensor, expected: list[torch.Tensor]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        for a, b in zip(_gradient(batch[2 * rank : 2 * rank + 2]), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_have_the_gradient_of_one_process_with_the_joint_batch(tmp_path):
    batch = torch.randn(4, 2, 1, 8, 8)
    mp.spawn(_rank, (str(tmp_path), batch, _gradient(batch)), nprocs=2)
