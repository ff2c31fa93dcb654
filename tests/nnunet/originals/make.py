"""Small nnU-Net models in nnU-Net's own layout, and what nnU-Net itself predicts with them; run once, by hand.

    pip install nnunetv2==2.8.1          (in an environment of its own)
    python tests/nnunet/originals/make.py

Images are synthetic (``phantoms.py``), networks tiny and lightly trained on them. nnU-Net's own code preprocesses,
builds the network, saves the checkpoint and predicts. Only weights, plans and predicted label maps are kept.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"nnUNet_raw": "/nowhere", "nnUNet_preprocessed": "/nowhere", "nnUNet_results": "/nowhere"}

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from kinds import KINDS, dataset_json, plans_json
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from phantoms import write_case

HERE = Path(__file__).parent


def make(kind: str) -> None:
    """Train, save and predict one kind of model."""
    work = Path(tempfile.mkdtemp())
    plans, dataset = plans_json(kind), dataset_json(kind)
    name = next(iter(plans["configurations"]))
    cases = [write_case(work, kind, seed) for seed in range(6)]
    manager = PlansManager(json.loads(json.dumps(plans)))
    reader = manager.image_reader_writer_class()
    for channel in range(len(dataset["channel_names"])):
        inside = np.concatenate(
            [reader.read_images(images)[0][channel][reader.read_seg(label)[0][0] > 0] for images, label in cases[:4]]
        )
        facts = {"mean": inside.mean(), "std": inside.std(), "percentile_00_5": np.percentile(inside, 0.5)}
        facts |= {"percentile_99_5": np.percentile(inside, 99.5)}
        facts = {key: float(value) for key, value in facts.items()}
        plans["foreground_intensity_properties_per_channel"][str(channel)] = facts
    manager = PlansManager(json.loads(json.dumps(plans)))
    config = manager.get_configuration(name)
    labels = manager.get_label_manager(dataset)
    folder = HERE / kind / f"nnUNetTrainer__nnUNetPlans__{name}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans, indent=1))
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=1))
    preprocessor = config.preprocessor_class(verbose=False)
    data = [preprocessor.run_case(images, label, manager, config, dataset)[:2] for images, label in cases[:4]]
    folds = KINDS[kind].get("folds", 1)
    for fold in range(folds):
        torch.manual_seed(fold)
        trainer = nnUNetTrainer({**plans, "continue_training": False}, name, fold, dataset, device=torch.device("cpu"))
        trainer.output_folder, trainer.output_folder_base = str(folder / f"fold_{fold}"), str(folder)
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        channels = len(dataset["channel_names"])
        network = trainer.build_network_architecture(
            manager, config, channels, labels.num_segmentation_heads, enable_deep_supervision=True
        )
        optimizer = torch.optim.Adam(network.parameters(), 5e-3)
        draw = np.random.default_rng(fold)
        for _ in range(60):
            image, label = batch(data, config.patch_size, draw)
            loss = loss_of(network(image)[0], label, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(kind, fold, float(loss))
        trainer.network, trainer.optimizer = network, torch.optim.SGD(network.parameters(), 0.1)
        trainer.was_initialized, trainer.grad_scaler, trainer.is_ddp = True, None, False
        trainer.inference_allowed_mirroring_axes = tuple(range(len(config.patch_size)))
        trainer.save_checkpoint(str(folder / f"fold_{fold}" / "checkpoint_final.pth"))
        for log in folder.rglob("training_log*"):
            log.unlink()
    found = {}
    for mirror in (False, True):
        predictor = nnUNetPredictor(use_mirroring=mirror, device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), use_folds=tuple(range(folds)))
        for number, (images, _) in enumerate(cases[4:]):
            out = predictor.predict_from_files_sequential([images], None)[0]
            found[f"{'mirrored' if mirror else 'plain'}_{number}"] = out.astype(np.uint8)
    np.savez_compressed(HERE / kind / "predictions.npz", **found)


def batch(data, patch, draw):
    """Four random patches."""
    images, labels = [], []
    for _ in range(4):
        image, label = data[draw.integers(len(data))]
        if len(patch) == 2:
            place = draw.integers(image.shape[1])
            image, label = image[:, place], label[:, place]
        pad = [(0, 0), *((0, max(0, p - n)) for p, n in zip(patch, image.shape[1:], strict=True))]
        image, label = np.pad(image, pad), np.pad(label, pad)
        corner = [draw.integers(n - p + 1) for n, p in zip(image.shape[1:], patch, strict=True)]
        place = (slice(None), *(slice(a, a + p) for a, p in zip(corner, patch, strict=True)))
        images.append(image[place])
        labels.append(label[place][0])
    return torch.tensor(np.stack(images)).float(), torch.tensor(np.stack(labels)).long().clamp_min(0)


def loss_of(output, label, labels):
    """Cross-entropy of classes or of regions."""
    if not labels.has_regions:
        return torch.nn.functional.cross_entropy(output, label)
    parts = [r if isinstance(r, tuple | list) else [r] for r in labels.foreground_regions]
    target = torch.stack([torch.isin(label, torch.tensor(part)) for part in parts], 1).float()
    return torch.nn.functional.binary_cross_entropy_with_logits(output, target)


if __name__ == "__main__":
    for kind in sys.argv[1:] or KINDS:
        make(kind)
