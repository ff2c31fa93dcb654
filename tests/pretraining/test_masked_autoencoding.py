from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, from_engine
from monai.networks.blocks import PatchEmbeddingBlock
from monai.networks.nets import DynUNet, MaskedAutoEncoderViT, SegResNet, UNet, ViT
from monai.transforms import Compose, CopyItemsd

from monai_transfer import load_weights
from monai_transfer.pretraining.masked_autoencoding import MaskedPatchLoss, MaskedReconstructionLoss, patches_of
from monai_transfer.pretraining.masking import RandMaskBlocksd


@pytest.mark.parametrize(("norm", "expected"), [("l2", (4.0 + 0.0) / 2), ("l1", (2.0 + 0.0) / 2)])
def test_only_hidden_voxels_count_and_each_case_the_same(norm, expected):
    image = torch.zeros(2, 1, 4, 4)
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, 0, 0] = 1  # 4 voxels hidden in one case, 8 in the other
    mask[1, 0, :2] = 1
    pred = torch.full((2, 1, 4, 4), 100.0)
    pred[0][mask[0] == 1], pred[1][mask[1] == 1] = 2.0, 0.0
    loss = MaskedReconstructionLoss(norm)
    target = torch.cat([image, mask], 1)
    assert loss(pred, target).item() == pytest.approx(expected)
    assert loss([pred, "auxiliary"], target).item() == pytest.approx(expected), "the main output of several"


def test_several_channels_half_precision_and_misfits():
    target = torch.cat([torch.ones(1, 2, 4, 4), torch.ones(1, 1, 4, 4)], 1)
    value = MaskedReconstructionLoss()(torch.full((1, 2, 4, 4), 301.0, dtype=torch.half), target.half())
    assert value.dtype == torch.float32 and value.item() == pytest.approx(90000), "float16 would overflow"
    with pytest.raises(ValueError, match="as many outputs"):
        MaskedReconstructionLoss()(torch.ones(1, 3, 4, 4), target)
    with pytest.raises(ValueError, match="norm"):
        MaskedReconstructionLoss("l3")


@pytest.mark.parametrize(("size", "patch"), [((8, 12), (4, 6)), ((8, 4, 12), (4, 2, 6))])
def test_patches_stand_in_the_order_of_monais_embedding(size, patch):
    image = torch.rand(2, 3, *size)
    embedding = PatchEmbeddingBlock(3, size, patch, 4, 1, "conv", "none", spatial_dims=len(size))
    layer = embedding.patch_embeddings
    torch.nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
    torch.nn.init.zeros_(layer.bias)
    means = embedding(image)[..., 0]
    torch.testing.assert_close(patches_of(image, patch).mean(-1), means)
    assert sorted(patches_of(image, patch).flatten().tolist()) == sorted(image.flatten().tolist())
    with pytest.raises(ValueError, match="whole number"):
        patches_of(image, 5)


def test_patch_loss_of_hidden_patches():
    image = torch.rand(2, 1, 8, 8)
    truth = patches_of(image, 4)
    mask = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0]])
    guess = truth.clone()
    guess[mask == 0] += 9
    assert MaskedPatchLoss(4, normalise=False)((guess, mask), image).item() == 0
    guess[mask == 1] += 2
    assert MaskedPatchLoss(4, normalise=False)((guess, mask), image).item() == pytest.approx(4)
    assert MaskedPatchLoss(4, "l1", normalise=False)((guess, mask), image).item() == pytest.approx(2)
    scored = (truth - truth.mean(-1, keepdim=True)) / truth.std(-1, keepdim=True)
    assert MaskedPatchLoss(4)((scored, mask), image).item() == pytest.approx(0, abs=1e-6)


def blobs(dims: int, n: int = 6) -> list[dict[str, torch.Tensor]]:
    """Images with structure: random smooth waves, from which hidden blocks can be guessed."""
    g = torch.Generator().manual_seed(dims)
    axes = torch.meshgrid(*[torch.arange(16.0)] * dims, indexing="ij")
    return [{"image": sum(torch.sin(0.3 * a + 6 * torch.rand(1, generator=g)) for a in axes)[None]} for _ in range(n)]


def pretrain(network, loss, transform, dims, epochs=12, lr=1e-2) -> list[float]:
    items = blobs(dims)
    train = DataLoader(Dataset(items, transform), batch_size=3, shuffle=True)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=train,
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr),
        loss_function=loss,
        decollate=False,
    )
    losses = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output["loss"].item())
    )
    trainer.run()
    return losses


NETWORKS = {
    "unet2": (2, lambda c: UNet(2, 1, c, (4, 8), (2,), norm="batch")),
    "unet3": (3, lambda c: UNet(3, 1, c, (4, 8), (2,), norm="batch")),
    "segresnet3": (3, lambda c: SegResNet(3, 4, out_channels=c, norm=("group", {"num_groups": 2}))),
    "dynunet2": (2, lambda c: DynUNet(2, 1, c, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 8])),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_as_it_is_learns_in_a_stock_trainer_and_starts_a_segmentation(name):
    dims, build = NETWORKS[name]
    torch.manual_seed(0)
    network = build(1)
    losses = pretrain(network, MaskedReconstructionLoss(), RandMaskBlocksd(block=4), dims)
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    segmenter = build(3)
    fresh = copy.deepcopy(segmenter.state_dict())
    report = load_weights(segmenter, network.state_dict(), target_classes=["background", "ventricle", "lesion"])
    assert report.coverage > 0.5
    assert report.skipped, "the reconstruction's head is not passed off as a class head"
    for key, value in segmenter.state_dict().items():
        assert torch.equal(value, fresh[key] if key in report.skipped else network.state_dict()[key]), key


def test_the_loss_is_a_validation_metric():
    network = UNet(2, 1, 1, (4, 8), (2,))
    loss = MaskedReconstructionLoss()
    loader = DataLoader(Dataset(blobs(2), RandMaskBlocksd(block=4, seed=0)), batch_size=2)
    metric = IgniteMetricHandler(loss_fn=loss, output_transform=from_engine(["pred", "label"]))
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=loader, network=network, key_val_metric={"loss": metric}
    )
    evaluator.run()
    network.eval()
    with torch.no_grad():
        expected = torch.stack([loss(network(batch["image"]), batch["label"]) for batch in loader]).mean()
    assert evaluator.state.metrics["loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_monais_masked_autoencoder_vit_and_its_encoder_in_a_vit(dims):
    torch.manual_seed(0)
    same = {"img_size": [16] * dims, "patch_size": [4] * dims, "hidden_size": 24, "mlp_dim": 32, "num_layers": 2}
    network = MaskedAutoEncoderViT(
        1, num_heads=2, decoder_hidden_size=24, decoder_mlp_dim=32, decoder_num_layers=1, decoder_num_heads=2,
        masking_ratio=0.6, spatial_dims=dims, **same,
    )  # fmt: skip
    transform = Compose([CopyItemsd("image", names="label")])
    losses = pretrain(network, MaskedPatchLoss(4, normalise=False), transform, dims, epochs=30, lr=5e-3)
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    vit = ViT(1, num_heads=2, spatial_dims=dims, pos_embed_type="sincos", classification=True, num_classes=2, **same)
    report = load_weights(vit, network.state_dict(), target_classes=["no", "yes"])
    assert report.coverage > 0.9
    for name in ("patch_embedding.patch_embeddings.weight", "blocks.1.attn.qkv.weight"):
        assert name in report.loaded
        assert torch.equal(vit.state_dict()[name], network.state_dict()[name])
    assert any(name.startswith("classification_head") for name in report.missing)
