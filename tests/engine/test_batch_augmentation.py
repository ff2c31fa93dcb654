"""Augmentation of batches in a stock trainer: each case by itself, labels along, the same after resuming."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedTrainer

from monai_transfer.data.augmentation import preset
from monai_transfer.engine.batch_augmentation import AugmentBatch
from monai_transfer.engine.checkpoint import Checkpoint
from monai_transfer.engine.epoch_seed import EpochSeed

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="wants CUDA"))]


def trainer(transforms, device, handlers=(), epochs=2, amp=False):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 2, 3, padding=1).to(device)
    items = [{"image": MetaTensor(torch.full((1, 12, 12), float(n))), "label": torch.ones(1, 12, 12), "case": f"c{n}"}
             for n in range(8)]  # fmt: skip
    on_device = AugmentBatch(transforms)
    return SupervisedTrainer(
        device=torch.device(device), max_epochs=epochs, train_data_loader=DataLoader(items, batch_size=4, shuffle=True),
        network=network, optimizer=torch.optim.SGD(network.parameters(), 1e-3), decollate=False, amp=amp,
        loss_function=lambda pred, label: ((pred - label) ** 2).mean(), prepare_batch=on_device,
        train_handlers=[EpochSeed(3), on_device, *handlers],
    )  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
def test_each_case_is_augmented_by_itself(device):
    shift = {"_target_": "monai.transforms.RandShiftIntensityd", "keys": ["image"], "offsets": [0.1, 0.4], "prob": 1.0}
    flip = {"_target_": "monai.transforms.RandFlipd", "keys": ["image", "label"], "prob": 0.5, "spatial_axis": 0}
    engine = trainer([shift, flip], device, amp=device == "cuda")
    seen = []

    @engine.on(Events.ITERATION_COMPLETED)
    def _look(e):
        image, label = e.state.output["image"], e.state.output["label"]
        assert image.shape == (4, 1, 12, 12) and image.device.type == device and (label == 1).all()
        seen.extend((image.amax((1, 2, 3)) % 1).tolist())

    engine.run()
    assert len({round(v, 5) for v in seen}) == 16 and all(0.09 < v < 0.41 for v in seen)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["standard", "randomised"])
def test_a_resumed_run_draws_alike(device, name, tmp_path):
    transforms = preset(name, 2, None, [12, 12], parts="intensity", task="classification")

    def run(folder, stop=None):
        engine = trainer(transforms, device, [Checkpoint(folder)], epochs=3)
        if stop:

            @engine.on(Events.ITERATION_COMPLETED)
            def _die(e):
                if e.state.iteration == stop:
                    raise KeyboardInterrupt

        engine.run()
        return engine.network.weight.detach().cpu()

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop=3)
    resumed = run(tmp_path / "cut")
    assert torch.equal(whole, resumed) if device == "cpu" else torch.allclose(whole, resumed, atol=1e-4)
