"""The plans and data sets of the small models, one per thing that differs."""

from __future__ import annotations

from typing import Any

KINDS: dict[str, dict[str, Any]] = {
    "iso": {},
    "flat": {"dims": 2},
    "thick": {"spacing": [4.0, 1.2, 1.1], "patch": [8, 24, 24], "schemes": ["CTNormalization"],
              "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]},
    "from_thick": {"spacing": [1.6, 1.2, 1.1], "patch": [16, 24, 24], "schemes": ["CTNormalization"]},
    "regions": {"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, "order": [1, 2]},
    "resenc": {"residual": True},
    "two": {"channels": {"0": "MRI", "1": "CT"}, "schemes": ["ZScoreNormalization", "CTNormalization"],
            "masked": [True, False], "transpose": [1, 0, 2], "folds": 2},
    "png": {"dims": 2, "spacing": [1.0, 1.0], "patch": [32, 40], "channels": {"0": "R", "1": "G", "2": "B"},
            "schemes": ["RGBTo01Normalization"] * 3, "masked": [False] * 3, "reader": "NaturalImage2DIO",
            "ending": ".png", "labels": {"background": 0, "nucleus": 1}},
}  # fmt: skip


def dataset_json(kind: str) -> dict[str, Any]:
    """``dataset.json``."""
    told = KINDS[kind]
    labels = told.get("labels", {"background": 0, "left": 1, "right": 2})
    channels = told.get("channels", {"0": "MRI"})
    made = {"channel_names": channels, "labels": labels, "numTraining": 4, "file_ending": told.get("ending", ".nii.gz")}
    return made | ({"regions_class_order": told["order"]} if "order" in told else {})


def plans_json(kind: str) -> dict[str, Any]:
    """``plans.json``, as nnU-Net's planner writes it but for the numbers."""
    told = KINDS[kind]
    dims = told.get("dims", 3)
    turned = told.get("transpose", [0, 1, 2])
    blocks = {"n_blocks_per_stage": [1, 2, 2]} if told.get("residual") else {"n_conv_per_stage": [2, 2, 2]}
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet."
        + ("ResidualEncoderUNet" if told.get("residual") else "PlainConvUNet"),
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [4, 6, 8],
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": told.get("kernels", [[3] * dims] * 3),
            "strides": told.get("strides", [[1] * dims, [2] * dims, [2] * dims]),
            **blocks,
            "n_conv_per_stage_decoder": [1, 1] if told.get("residual") else [2, 2],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    resample = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    config = {
        "data_identifier": "nnUNetPlans",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": told.get("patch", [16, 24, 20][-dims:]),
        "median_image_size_in_voxels": [22.0, 34.0, 26.0][-dims:],
        "spacing": told.get("spacing", [1.1, 1.05, 1.0][-dims:]),
        "normalization_schemes": told.get("schemes", ["ZScoreNormalization"]),
        "use_mask_for_norm": told.get("masked", [False]),
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resample,
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": resample | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resample | {"order": 1},
        "architecture": architecture,
        "batch_dice": False,
    }
    return {
        "dataset_name": "Dataset001_Phantom",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [999.0, 1.0, 1.0] if kind == "png" else [1.2, 0.9, 1.0],
        "original_median_shape_after_transp": [1, 58, 70] if kind == "png" else [22, 34, 26],
        "image_reader_writer": told.get("reader", "SimpleITKIO"),
        "transpose_forward": turned,
        "transpose_backward": [turned.index(axis) for axis in range(3)],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {},
        "configurations": {"2d" if dims == 2 else "3d_fullres": config},
    }
