"""nnU-Net's way from a file to a label map, as configs of MONAI transforms and an inferer."""

from __future__ import annotations

from typing import Any

from monai_transfer.nnunet.model import NnunetModel

__all__ = ["inferer_config", "postprocessing_configs", "preprocessing_configs"]

STEPS = "monai_transfer.nnunet.steps"


def preprocessing_configs(
    model: NnunetModel, *, label: bool = False, load: bool = True, steps: str = STEPS
) -> list[dict[str, Any]]:
    """The transforms from paths under ``image`` (and ``label``) to what the network reads, in order.

    Args:
        model: what ``read_model`` gave.
        label: a label map goes along: cropped to the image's nonzero region and resampled by classes.
        load: begin with reading; else with an image that has its channel first.
        steps: where the classes of ``nnunet.steps`` are: a module path.
    """
    keys = ["image", "label"] if label else ["image"]
    configs: list[dict[str, Any]] = []
    if load:
        configs += [
            {"_target_": "monai.transforms.LoadImaged", "keys": keys},
            {"_target_": "monai.transforms.EnsureChannelFirstd", "keys": keys},
        ]
    if model.orientation:
        configs.append(
            {"_target_": "monai.transforms.Orientationd", "keys": keys, "axcodes": model.orientation, "labels": None}
        )
    configs += [
        {
            "_target_": "monai.transforms.CropForegroundd",
            "keys": keys,
            "source_key": "image",
            "select_fn": {"_target_": f"{steps}.nonzero", "_mode_": "callable"},
            "allow_smaller": True,
        },
        {
            "_target_": f"{steps}.NormalizeChannelsd",
            "keys": ["image"],
            "channels": [channel.as_config() for channel in model.normalization],
        },
        {
            "_target_": f"{steps}.ResizeToSpacingd",
            "keys": keys,
            "spacing": model.spacing,
            "order": model.order,
            "order_z": model.order_z,
            "inverse": list(model.inverse),
            "labels": [False, True] if label else False,
            "separate": model.separate,
        },
    ]
    return configs


def inferer_config(model: NnunetModel, *, mirror: bool = False, steps: str = STEPS) -> dict[str, Any]:
    """nnU-Net's tiles; ``mirror``: with mirrored views, as its own prediction does by default."""
    config: dict[str, Any] = {"_target_": f"{steps}.EvenTilesInferer", "roi_size": model.patch, "step": 0.5}
    if mirror and model.mirror_axes:
        config["mirror_axes"] = model.mirror_axes
    if model.slice_axis is not None:
        config["slice_axis"] = model.slice_axis
    return config


def postprocessing_configs(model: NnunetModel, *, steps: str = STEPS) -> list[dict[str, Any]]:
    """From the outputs, back on the image's own grid, to a label map; behind ``Invertd``."""
    if model.has_regions:
        return [{"_target_": f"{steps}.RegionsToLabelsd", "keys": "pred", "labels": model.regions_order}]
    configs: list[dict[str, Any]] = [{"_target_": "monai.transforms.AsDiscreted", "keys": "pred", "argmax": True}]
    values = [value[0] for value in model.label_values]
    if values != list(range(len(values))):
        configs.append(
            {
                "_target_": "monai.transforms.MapLabelValued",
                "keys": "pred",
                "orig_labels": list(range(len(values))),
                "target_labels": values,
            }
        )
    return configs
