"""The bundles in ``bundles/``: their specs, and how their files are made and their small weights were trained.

``python -m bundles.packaged bundles`` rewrites their text files; ``--train`` also trains the weights on
the embedded set (minutes) and refreshes the sample; ``--only NAME`` leaves the other bundles alone.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from bundles.packaged_statistics import embedded_task, packaged_statistics
from monai_transfer.bundle.run import run_workflow
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.bundle.write import write_bundle
from monai_transfer.config_text import expr
from monai_transfer.data.phantom import embedded_set
from monai_transfer.engine.run_folder import read_status
from monai_transfer.manifest import Manifest
from monai_transfer.weights.hashes import write_hashes

__all__ = ["packaged_specs"]

_EMBEDDED = "the embedded, simulated set, made on first use; or --dataset_dir DIR with a manifest.json in it"


def _segmentation() -> BundleSpec:
    return BundleSpec(
        name="head_mr_segmentation",
        task="segmentation",
        spatial_dims=3,
        labels={0: "background", 1: "ventricle", 2: "lesion"},
        channel_names=["MR"],
        # BatchNorm: InstanceNorm nearly erases the domain from pooled features, and with it what adaptation aligns
        network={
            "_target_": "monai.networks.nets.UNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 3,
            "channels": [8, 16, 32],
            "strides": [2, 2],
            "num_res_units": 1,
            "norm": "BATCH",
        },
        layer="model.1.submodule.1.submodule",
        patch=[48, 48, 40],
        spacing=[4.0, 4.0, 4.0],
        oriented=True,
        normalise=[
            {"_target_": "monai.transforms.NormalizeIntensityd", "keys": ["image"], "nonzero": False},
        ],
        rotation_axes=["x", "y", "z"],
        source_site="site_a",
        target_site="site_b",
        n_labelled=3,
        dataset_dir=expr("embedded_set('segmentation')"),
        modality="MR",
        description="Ventricles and lesions in simulated head MR: a 3D U-Net pretrained at site_a, for site_b",
        data_note=_EMBEDDED,
        data_source="simulated by monai_transfer.data.phantom (no patients)",
        # measured with seed 0 on the CPU by the workflows themselves (summary.json of each run)
        expect={
            "pretrain": "test Dice 0.85 at site_a (ventricle 0.88, lesion 0.80)",
            "evaluate": "test Dice 0.42 at site_b with the packaged weights: the shift",
            "train": "test Dice 0.69 at site_b after 3 labelled cases",
            "adapt": "test Dice 0.63 at site_b without its labels; DANN had 0.56",
            "inference": "a label map: 1 ventricle, 2 lesion",
        },
    )


def _classification() -> BundleSpec:
    return BundleSpec(
        name="head_mr_slice_classification",
        task="classification",
        spatial_dims=2,
        labels={0: "no lesion", 1: "lesion"},
        channel_names=["MR"],
        network={
            "_target_": "monai.networks.nets.DenseNet",
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": 2,
            "init_features": 16,
            "growth_rate": 8,
            "block_config": [2, 4, 4],
            "bn_size": 2,
        },
        patch=[64, 64],
        resize=True,
        picture="grey",
        normalise=[{"_target_": "monai.transforms.NormalizeIntensityd", "keys": ["image"], "nonzero": False}],
        source_site="site_a",
        target_site="site_b",
        n_labelled=16,
        batch_size=16,
        dataset_dir=expr("embedded_set('classification')"),
        suffix=".png",
        modality="MR",
        description="Lesion or no lesion in slices of simulated head MR: a DenseNet pretrained at site_a, for site_b",
        data_note=_EMBEDDED,
        data_source="simulated by monai_transfer.data.phantom (no patients)",
        # measured with seed 0 on the CPU by the workflows themselves (summary.json of each run)
        expect={
            "pretrain": "test AUC 0.89 at site_a (accuracy 0.83)",
            "evaluate": "test AUC 0.65 at site_b with the packaged weights: the shift",
            "train": "test AUC 0.76 at site_b after 16 labelled slices",
            "adapt": "test AUC 0.77 at site_b without its labels; DANN gave 0.80, no term at all 0.79: no gain shown",
            "inference": "probabilities of lesion and no lesion in predictions.csv",
        },
    )


def _regression() -> BundleSpec:
    return BundleSpec(
        name="head_mr_volume_regression",
        task="regression",
        spatial_dims=3,
        labels={},
        channel_names=["MR"],
        network={
            "_target_": "monai.networks.nets.DenseNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 1,
            "init_features": 8,
            "growth_rate": 8,
            "block_config": [2, 4, 4],
            "bn_size": 2,
        },
        patch=[48, 48, 40],
        spacing=[4.0, 4.0, 4.0],
        oriented=True,
        crop=True,  # a volume in ml: resizing heads of unlike field of view to one grid would falsify it
        normalise=[{"_target_": "monai.transforms.NormalizeIntensityd", "keys": ["image"], "nonzero": False}],
        rotation_axes=["x", "y", "z"],
        label_mean=29.6,  # of the labelled training cases at site_a
        label_std=12.5,
        source_site="site_a",
        target_site="site_b",
        n_labelled=4,
        dataset_dir=expr("embedded_set('regression')"),
        modality="MR",
        description="Ventricle volume (ml) from simulated head MR: a 3D DenseNet pretrained at site_a, for site_b",
        data_note=_EMBEDDED,
        data_source="simulated by monai_transfer.data.phantom (no patients)",
        # measured with seed 0 on the CPU by the workflows themselves (summary.json of each run)
        expect={
            "pretrain": "test MAE 2.7 ml at site_a",
            "evaluate": "test MAE 12.7 ml at site_b with the packaged weights: the shift",
            "train": "test MAE 4.9 ml at site_b after 4 labelled cases",
            "adapt": "test MAE 7.0 ml at site_b without its labels; "
            "the same steps without the method's term give 8.9 (over 5 seeds 7.9 and 8.2: no evidence of a difference)",
            "inference": "the ventricles' volume in ml in predictions.csv",
        },
    )


def _localization() -> BundleSpec:
    return BundleSpec(
        name="head_mr_lesion_localization",
        task="localization",
        spatial_dims=3,
        labels={0: "background", 1: "lesion"},
        channel_names=["MR"],
        network={
            "_target_": "monai.networks.nets.UNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 2,
            "channels": [8, 16, 32],
            "strides": [2, 2],
            "num_res_units": 1,
            "norm": "BATCH",
        },
        layer="model.1.submodule.1.submodule",
        patch=[48, 48, 40],
        spacing=[4.0, 4.0, 4.0],
        oriented=True,
        normalise=[{"_target_": "monai.transforms.NormalizeIntensityd", "keys": ["image"], "nonzero": False}],
        rotation_axes=["x", "y", "z"],
        # 300 mm3: a ball of 8 mm; lesions of the set have 20 mm and more
        boxes={"min_size": 300.0},
        source_site="site_a",
        target_site="site_b",
        n_labelled=3,
        dataset_dir=expr("embedded_set('localization')"),
        modality="MR",
        description="Boxes around lesions in simulated head MR: a 3D U-Net pretrained at site_a, for site_b",
        data_note=_EMBEDDED,
        data_source="simulated by monai_transfer.data.phantom (no patients)",
        # measured with seed 0 on the CPU by the workflows themselves (summary.json of each run)
        expect={
            "pretrain": "test FROC 1.00 at site_a (box IoU 0.64)",
            "evaluate": "test FROC 0.39 at site_b with the packaged weights: the shift",
            "train": "test FROC 0.68 at site_b after 3 labelled cases",
            "adapt": "DANN had test FROC 0.32 at site_b, no better than the source; self-training has no score yet",
            "inference": "a JSON file of boxes per image: score, voxels, and mm in the scanner's room",
        },
    )


def _self_supervised() -> BundleSpec:
    return BundleSpec(
        name="head_mr_self_supervised",
        task="self_supervised",
        spatial_dims=3,
        labels={0: "MR, filled in"},
        channel_names=["MR"],
        # as in head_mr_segmentation but for the last layer, so that everything else can be taken over
        network=_segmentation().network | {"out_channels": 1},
        layer="model.1.submodule.1.submodule",
        patch=[48, 48, 40],
        spacing=[4.0, 4.0, 4.0],
        oriented=True,
        normalise=[{"_target_": "monai.transforms.NormalizeIntensityd", "keys": ["image"], "nonzero": False}],
        rotation_axes=["x", "y", "z"],
        source_site="site_a",
        target_site="site_b",
        dataset_dir=expr("embedded_set('segmentation')"),
        modality="MR",
        description="Head MR without labels: a 3D U-Net learns to fill in hidden blocks of simulated scans",
        data_note=_EMBEDDED,
        data_source="simulated by monai_transfer.data.phantom (no patients)",
        # measured with seed 0 on the CPU by the workflows themselves (metrics.csv of each run)
        expect={
            "train": "squared error 0.17 on hidden voxels of validation scans (z-scored; filling in the mean: about 1)",
            "contrastive": "contrast 2.1 among 8 validation scans, where guessing gives 2.7",
            "inference": "32 numbers per image in predictions.csv",
        },
    )


def packaged_specs() -> list[BundleSpec]:
    """The specs of the packaged bundles."""
    specs = [_segmentation(), _classification(), _regression(), _localization(), _self_supervised()]
    for spec in specs:
        spec.data_statistics = packaged_statistics(spec.name)
    return specs


def _train(folder: Path, spec: BundleSpec) -> None:
    """Weights, their hash and a sample image; an interrupted training continues."""
    workflow = "pretrain" if spec.kind.judged else "train"
    run = folder / "runs" / f"{workflow}-0"
    if read_status(run) != "finished":
        run_workflow(folder, workflow, {"output_dir": str(run)})
    for name in ("model.pt", "model.pt.sha256"):
        shutil.copyfile(run / "models" / name, folder / "models" / name)
    # a detector finds little at the other site: its sample is one of its own
    site = spec.source_site if spec.kind.saved_as == "boxes" else spec.target_site
    case = Manifest.load(Path(embedded_set(embedded_task(spec))) / "manifest.json").cases("test", site=site)[0]
    sample = folder / "sample"
    shutil.rmtree(sample, ignore_errors=True)
    sample.mkdir()
    shutil.copyfile(case.images[0], sample / f"{case.case}{spec.suffix}")


def main() -> None:
    """Rewrite the packaged bundles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", action="store_true", help="train the weights on the embedded set as well")
    parser.add_argument("--only", metavar="NAME", action="append", help="this bundle alone; may be given again")
    arguments = parser.parse_args()
    specs = {spec.name: spec for spec in packaged_specs()}
    for name in arguments.only or specs:
        if name not in specs:
            parser.error(f"no packaged bundle {name!r}: one of {', '.join(specs)}")
        spec = specs[name]
        folder = write_bundle(spec, arguments.folder / spec.name)
        if arguments.train:
            _train(folder, spec)
        write_hashes(folder)
        print(folder)


if __name__ == "__main__":
    main()
