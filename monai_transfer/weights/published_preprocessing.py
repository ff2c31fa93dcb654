"""What the authors of published weights do to images, as a small table with its sources."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

__all__ = ["PREPROCESSING", "Preprocessing"]


@dataclass(frozen=True)
class Preprocessing:
    """What one family's images went through.

    Attributes:
        name: whose it is.
        source: where it is published.
        mean, std: of each channel after scaling to 0 and 1 (pictures); a grey image gets their mean.
        scale: the range that a picture's whole range of values is brought to.
        window: values that are brought to 0 and 1, clipped (CT, in Hounsfield units).
        own_mean: each image by the mean and spread of its voxels above zero.
        spacing: mm per axis; ``None``: none is published.
        orientation: axis codes.
        size: pixels per axis of whole pictures, or voxels of the sliding window.
        note: what is not taken over.
    """

    name: str
    source: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: tuple[float, float] | None = None
    window: tuple[float, float] | None = None
    own_mean: bool = False
    spacing: tuple[float, float, float] | None = None
    orientation: str | None = None
    size: int | None = None
    note: str = ""

    def at_size(self, size: int) -> Preprocessing:
        """The same for pictures of another size."""
        return replace(self, size=size)

    def intensities(self, channels: int, top: float) -> list[dict[str, Any]]:
        """The intensity transforms, as configs of MONAI for the key ``image``.

        Args:
            channels: of the images. top: the largest value that the pictures' type holds, 255 of 8 bits.
        """
        keys = {"keys": ["image"]}
        if self.window is not None:
            low, high = self.window
            scaled = {"a_min": low, "a_max": high, "b_min": 0.0, "b_max": 1.0, "clip": True}
            return [{"_target_": "monai.transforms.ScaleIntensityRanged", **keys, **scaled}]
        if self.own_mean:
            above = {"nonzero": True, "channel_wise": True}
            return [{"_target_": "monai.transforms.NormalizeIntensityd", **keys, **above}]
        steps: list[dict[str, Any]] = []
        if self.scale is not None:
            scaled = {"a_min": 0.0, "a_max": top, "b_min": self.scale[0], "b_max": self.scale[1]}
            steps.append({"_target_": "monai.transforms.ScaleIntensityRanged", **keys, **scaled})
        if self.mean:
            mean, std = list(self.mean), list(self.std)
            if channels != len(mean):
                mean, std = [round(sum(mean) / len(mean), 4)] * channels, [round(sum(std) / len(std), 4)] * channels
            numbers = {"subtrahend": mean, "divisor": std, "channel_wise": True}
            steps.append({"_target_": "monai.transforms.NormalizeIntensityd", **keys, **numbers})
        return steps

    def grid(self, keys: list[str], spacing: list[float] | None) -> list[dict[str, Any]]:
        """Orientation and spacing, as configs of MONAI for these keys.

        Args:
            keys: ``image``, and ``label`` where label maps go along. spacing: in place of the published one.
        """
        steps: list[dict[str, Any]] = []
        if self.orientation is not None:
            codes = {"axcodes": self.orientation, "labels": None}
            steps.append({"_target_": "monai.transforms.Orientationd", "keys": keys, **codes})
        pixdim = spacing or (list(self.spacing) if self.spacing else None)
        if pixdim is not None:
            mode = ["bilinear", "nearest"] if len(keys) > 1 else "bilinear"
            steps.append({"_target_": "monai.transforms.Spacingd", "keys": keys, "pixdim": pixdim, "mode": mode})
        return steps

    def dense_steps(self, channels: int, spacing: list[float] | None = None, *, label: bool) -> list[dict[str, Any]]:
        """Grid and intensities of volumes."""
        return [*self.grid(["image", "label"] if label else ["image"], spacing), *self.intensities(channels, 255.0)]


PREPROCESSING: dict[str, Preprocessing] = {
    "imagenet": Preprocessing(
        "ImageNet",
        "https://docs.pytorch.org/vision/stable/models.html",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        scale=(0.0, 1.0),
        size=224,
        note="EfficientNet's advprop weights take -1 to 1 instead",
    ),
    "xray": Preprocessing(
        "TorchXRayVision",
        "https://github.com/mlmed/torchxrayvision (torchxrayvision/utils.py, normalize)",
        scale=(-1024.0, 1024.0),
        size=224,
        note="it also cuts pictures to squares about their centre",
    ),
    "medicalnet": Preprocessing(
        "MedicalNet",
        "https://github.com/Tencent/MedicalNet (datasets/brains18.py)",
        own_mean=True,
        note="it fills what is zero with noise, which is not done here",
    ),
    "swinvit": Preprocessing(
        "SwinUNETR, self-supervised on CT",
        "https://github.com/Project-MONAI/research-contributions (SwinUNETR/Pretrain/main.py)",
        window=(-1000.0, 1000.0),
        spacing=(1.5, 1.5, 2.0),
        orientation="RAS",
        size=96,
    ),
    "suprem": Preprocessing(
        "SuPreM",
        "https://github.com/MrGiovanni/SuPreM (supervised_pretraining/train.py)",
        window=(-175.0, 250.0),
        spacing=(1.5, 1.5, 1.5),
        orientation="RAS",
        size=96,
    ),
    "vista3d": Preprocessing(
        "VISTA3D",
        "https://github.com/Project-MONAI/model-zoo (models/vista3d/configs/inference.json)",
        window=(-963.8247715525971, 1053.678477684517),
        spacing=(1.5, 1.5, 1.5),
        orientation="RAS",
        size=128,
    ),
}
"""By family: intensities, grid and size as published. Families that are not here: unknown, and said so."""
