"""nnU-Net models of several configurations, lightly trained on real cases by nnU-Net's own code, in its own layout.

    pip install nnunetv2==2.8.1        # in an environment of its own; torch beside it; this package is not needed
    python benchmarks/nnunet_models.py --data Task04_Hippocampus --out DIR [--seconds 90] [--kinds spacing,thick,...]

``--data`` is a Decathlon folder with ``sites.csv`` (cases of its site ``uint8`` are taken: they are alike).
nnU-Net's code preprocesses, builds the network and saves the checkpoint; training is a loop of ``--seconds`` per fold
with patches mirrored at random, so that predictions are there with mirrored views too. Under ``--out``:
``results/Dataset1NN_Kind/nnUNetTrainer__nnUNetPlans__3d_fullres`` (``nnUNet_results``), ``kind/train`` and
``kind/test`` with five cases as ``nnUNetv2_predict`` wants them, ``kind/labels``. ``nnunet_predict.py`` compares.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ |= {"nnUNet_raw": "/nowhere", "nnUNet_preprocessed": "/nowhere", "nnUNet_results": "/nowhere"}

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

CLASSES = {"background": 0, "anterior": 1, "posterior": 2}
THREES = [[3, 3, 3]] * 3
HALVES = [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
KINDS: dict[str, dict[str, Any]] = {
    "spacing": {},
    "thick": {"spacing": [3.5, 1.0, 1.0], "patch": [12, 48, 40], "schemes": ["CTNormalization"],
              "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]},
    "regions": {"labels": {"background": 0, "whole": [1, 2], "posterior": 2}, "order": [1, 2]},
    "two": {"channels": {"0": "T1", "1": "edges"}, "schemes": ["ZScoreNormalization", "CTNormalization"],
            "masked": [True, False], "transpose": [1, 0, 2], "folds": 2},
    "residual": {"residual": True},
}  # fmt: skip


def plans_of(kind: str) -> dict[str, Any]:
    """``plans.json``, as nnU-Net's planner writes it but for the numbers."""
    told = KINDS[kind]
    turned = told.get("transpose", [0, 1, 2])
    residual = told.get("residual", False)
    blocks = {"n_blocks_per_stage": [1, 2, 2]} if residual else {"n_conv_per_stage": [2, 2, 2]}
    resample = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    config = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": told.get("patch", [32, 48, 32]),
        "median_image_size_in_voxels": [35.0, 50.0, 36.0],
        "spacing": told.get("spacing", [1.1, 1.05, 0.95]),
        "normalization_schemes": told.get("schemes", ["ZScoreNormalization"]),
        "use_mask_for_norm": told.get("masked", [False]),
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resample,
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": resample | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resample | {"order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet."
            + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [12, 24, 48],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": told.get("kernels", THREES),
                "strides": told.get("strides", HALVES),
                **blocks,
                "n_conv_per_stage_decoder": [1, 1] if residual else [2, 2],
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    return {
        "dataset_name": name_of(kind),
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [35, 50, 36],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": turned,
        "transpose_backward": [turned.index(axis) for axis in range(3)],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {},
        "configurations": {"3d_fullres": config},
    }


def name_of(kind: str) -> str:
    """The data set's name."""
    return f"Dataset{101 + list(KINDS).index(kind)}_{kind.capitalize()}"


def write_cases(data: Path, folder: Path, kind: str, cases: list[str], part: str) -> list[tuple[list[str], str]]:
    """Images as nnU-Net names them, and the label map; of ``two``, edges as a second channel and nothing around."""
    made = []
    (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    for case in cases:
        image, label = (nib.load(data / f"{what}Tr" / f"{case}.nii.gz") for what in ("images", "labels"))
        values, mask = np.asarray(image.dataobj, dtype=np.float32), np.asarray(label.dataobj).astype(np.uint8)
        channels = [values]
        if kind == "two":
            channels.append(ndimage.gaussian_gradient_magnitude(values, 1))
            for channel in channels:
                channel[:2], channel[:, :, -2:] = 0, 0
        files = [str(folder / part / f"{case}_{n:04d}.nii.gz") for n in range(len(channels))]
        for file, channel in zip(files, channels, strict=True):
            nib.save(nib.Nifti1Image(channel, image.affine), file)
        nib.save(nib.Nifti1Image(mask, image.affine), folder / "labels" / f"{case}.nii.gz")
        made.append((files, str(folder / "labels" / f"{case}.nii.gz")))
    return made


def batch(data: list[Any], patch: list[int], draw: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Two random patches, mirrored at random."""
    images, labels = [], []
    for _ in range(2):
        image, label = data[draw.integers(len(data))]
        pad = [(0, 0), *((0, max(0, p - n)) for p, n in zip(patch, image.shape[1:], strict=True))]
        image, label = np.pad(image, pad), np.pad(label, pad)
        corner = [draw.integers(n - p + 1) for n, p in zip(image.shape[1:], patch, strict=True)]
        place = (slice(None), *(slice(a, a + p) for a, p in zip(corner, patch, strict=True)))
        axes = [1 + axis for axis in range(3) if draw.random() < 0.5]
        images.append(np.flip(image[place], axes))
        labels.append(np.flip(label[place][0], [axis - 1 for axis in axes]))
    return torch.tensor(np.stack(images)).float(), torch.tensor(np.stack(labels)).long().clamp_min(0)


def loss_of(output: torch.Tensor, label: torch.Tensor, labels: Any) -> torch.Tensor:
    """Cross-entropy and Dice of classes or of regions."""
    if labels.has_regions:
        parts = [list(r) if isinstance(r, tuple | list) else [r] for r in labels.foreground_regions]
        target = torch.stack([torch.isin(label, torch.tensor(part)) for part in parts], 1).float()
        loss, shares = torch.nn.functional.binary_cross_entropy_with_logits(output, target), output.sigmoid()
    else:
        target = torch.nn.functional.one_hot(label, output.shape[1]).movedim(-1, 1).float()[:, 1:]
        loss, shares = torch.nn.functional.cross_entropy(output, label), output.softmax(1)[:, 1:]
    both = (shares * target).sum((0, 2, 3, 4))
    return loss + 1 - (2 * both / (shares.sum((0, 2, 3, 4)) + target.sum((0, 2, 3, 4)) + 1)).mean()


def make(kind: str, data: Path, out: Path, seconds: float) -> None:
    """Train and save one kind."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    told = KINDS[kind]
    with (data / "sites.csv").open(encoding="utf-8") as lines:
        cases = sorted(row["case"] for row in csv.DictReader(lines) if row["site"] == "uint8")
    write_cases(data, out / kind, kind, cases[20:25], "test")
    train = write_cases(data, out / kind, kind, cases[:20], "train")
    plans = plans_of(kind)
    dataset = {"channel_names": told.get("channels", {"0": "T1"}), "labels": told.get("labels", CLASSES)}
    dataset |= {"numTraining": len(train), "file_ending": ".nii.gz"}
    dataset |= {"regions_class_order": told["order"]} if "order" in told else {}
    reader = PlansManager(json.loads(json.dumps(plans))).image_reader_writer_class()
    for channel in range(len(dataset["channel_names"])):
        inside = np.concatenate(
            [reader.read_images(images)[0][channel][reader.read_seg(label)[0][0] > 0] for images, label in train]
        )
        facts = {"mean": inside.mean(), "std": inside.std(), "percentile_00_5": np.percentile(inside, 0.5)}
        facts |= {"percentile_99_5": np.percentile(inside, 99.5)}
        facts = {key: float(value) for key, value in facts.items()}
        plans["foreground_intensity_properties_per_channel"][str(channel)] = facts
    manager = PlansManager(json.loads(json.dumps(plans)))
    config, labels = manager.get_configuration("3d_fullres"), manager.get_label_manager(dataset)
    folder = out / "results" / name_of(kind) / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans, indent=1), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=1), encoding="utf-8")
    preprocessor = config.preprocessor_class(verbose=False)
    arrays = [preprocessor.run_case(images, label, manager, config, dataset)[:2] for images, label in train]
    arrays = [(np.asarray(image), np.asarray(label)) for image, label in arrays]
    for fold in range(told.get("folds", 1)):
        torch.manual_seed(fold)
        given = {**plans, "continue_training": False}
        trainer = nnUNetTrainer(given, "3d_fullres", fold, dataset, device=torch.device("cpu"))
        trainer.output_folder, trainer.output_folder_base = str(folder / f"fold_{fold}"), str(folder)
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        network = trainer.build_network_architecture(
            manager, config, len(dataset["channel_names"]), labels.num_segmentation_heads, enable_deep_supervision=True
        )
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        draw, end, steps = np.random.default_rng(fold), time.process_time() + seconds, 0
        while time.process_time() < end:
            image, label = batch(arrays, config.patch_size, draw)
            loss = loss_of(network(image)[0], label, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
        print(f"{kind} fold {fold}: {steps} steps, loss {float(loss):.3f}", flush=True)
        trainer.network, trainer.optimizer = network, torch.optim.SGD(network.parameters(), 0.1)
        trainer.was_initialized, trainer.grad_scaler, trainer.is_ddp = True, None, False
        trainer.inference_allowed_mirroring_axes = (0, 1, 2)
        trainer.save_checkpoint(str(folder / f"fold_{fold}" / "checkpoint_final.pth"))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--kinds", default=",".join(KINDS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for kind in given.kinds.split(","):
        make(kind, given.data, given.out, given.seconds)


if __name__ == "__main__":
    main()
