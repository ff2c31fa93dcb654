"""Augmentation: random crops, flips, rotations and intensities of training; what a user can add."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.grid import space
from monai_transfer.bundle.configs.parts import monai, ours
from monai_transfer.bundle.configs.reading import read
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import ref
from monai_transfer.manifest.label_mapping import LabelMapping

__all__ = ["appearance", "augment", "crop", "flips", "pad", "preset", "random_transforms", "rotation", "side_flip"]

_RADIANS = 0.26
# share of the patches about a labelled voxel, by the plan's word and the number of classes
_FOREGROUND = {"random": lambda _: 0.0, "foreground": lambda _: 0.5, "classes": lambda n: round(1 - 1 / n, 3)}


def pad(keys: list[str]) -> dict[str, Any]:
    """Images smaller than a patch are padded to it."""
    return monai("transforms.SpatialPadd", keys=keys, spatial_size=ref("patch"))


def crop(keys: list[str], *, where: str = "random", classes: int = 2) -> dict[str, Any]:
    """A patch at a random place; ``foreground``: every other one about a voxel of it; ``classes``: each as often."""
    if where == "classes":
        return monai(
            "transforms.RandCropByLabelClassesd",
            keys=keys,
            label_key="label",
            spatial_size=ref("patch"),
            num_classes=classes,
            num_samples=1,
            warn=False,
        )
    if where == "foreground":
        return monai(
            "transforms.RandCropByPosNegLabeld",
            keys=keys,
            label_key="label",
            spatial_size=ref("patch"),
            pos=1,
            neg=1,
            num_samples=1,
        )
    return monai("transforms.RandSpatialCropd", keys=keys, roi_size=ref("patch"), random_size=False)


def flips(s: BundleSpec, keys: list[str]) -> list[Any]:
    """Mirroring, axis by axis."""
    return [monai("transforms.RandFlipd", keys=keys, prob=0.5, spatial_axis=axis) for axis in s.flips]


def rotation(s: BundleSpec, keys: list[str], prob: float = 0.3) -> dict[str, Any]:
    """A small rotation about each axis that the spec names; labels by nearest neighbour."""
    modes = {"mode": ["bilinear", "nearest"][: len(keys)]}
    ranges = {f"range_{axis}": _RADIANS for axis in s.rotation_axes}
    return monai(
        "transforms.RandRotated", keys=keys, prob=prob, **ranges, **modes, padding_mode="zeros", keep_size=True
    )


def preset(s: BundleSpec, name: str, *, labelled: bool = True) -> dict[str, Any]:
    """The augmentation that the id ``name`` names, cutting the patch too; without a label it follows no label."""
    return ours(
        "data.augmentation.presets.Preset",
        name=ref(name),
        dims=s.spatial_dims,
        spacing=ref("spacing") if s.spacing and s.kept is None else None,
        patch=ref("patch"),
        flips=ref("mirror"),
        task=s.task if labelled else "self_supervised",
        **({"foreground": _FOREGROUND[s.crops](s.out_channels)} if s.dense and labelled else {}),
    )


def augment(s: BundleSpec) -> dict[str, Any]:
    """Which augmentation the source's and the target's cases get, by name."""
    names = "none, light, standard, colour (RGB), randomised or randomised_all"
    return {
        "augment": note(
            s.augment,
            f"of the target's cases: {names}",
            heading="augmentation, in millimetres (pictures: pixels)",
        ),
        "augment_source": note(s.augment_source, "of the source's cases, likewise"),
        "mirror": note(s.flips, "axes that images are mirrored in: where training does, the test may (tta)"),
    }


def random_transforms(s: BundleSpec) -> list[Any]:
    """All that is drawn anew for every labelled training item, by the part that it is of (joint training)."""
    own = {"source": [preset(s, "augment_source")]}
    return [ours("data.joint.SwitchOnd", key="part", cases=own, default=[preset(s, "augment")]), *side_flip(s)]


def side_flip(s: BundleSpec) -> list[Any]:
    """The flip from left to right in which the classes of the two sides change places, where that was asked for."""
    if not s.swap_sides:
        return []
    keys = {"keys": ["image", "label"], "label_keys": ["label"], "classes": ref("class_names")}
    if s.mapping is not None and s.kind.channels:  # the label still holds class numbers, not regions
        keys["classes"] = list(LabelMapping.from_dict(s.mapping).names)
    flip = ours("data.augmentation.side_flip.RandSideFlipd", **keys)
    return [note(flip, "left and right change places, in the image and in the label")]


def appearance(s: BundleSpec) -> dict[str, Any]:
    """The places for a user's own transforms, with examples that run as they are once uncommented."""
    return {
        "style": note(
            [],
            "before normalisation: towards the target site's look (for adapt, where source images train)",
            heading="appearance of the training images: more transforms, none by default. Put these lines in a file\n"
            "of your own and name it behind this one, or uncomment them; leave out those that you do not want.\n"
            + _examples(s),
        ),
        "augmentations": note([], "behind the random transforms of `train`"),
        "load_target": note(
            monai("transforms.Compose", transforms=[*read(["image"]), *space(s, ["image"])]),
            "how `style` reads a target image: on the training grid",
        ),
    }


def _examples(s: BundleSpec) -> str:
    keys = "[image, label]" if s.dense else "[image]"
    mode = "[bilinear, nearest]" if s.dense else "[bilinear]"
    elastic = (
        ["monai.transforms.Rand3DElasticd", f"  keys: {keys}", "  sigma_range: [4, 6]", "  magnitude_range: [60, 120]"]
        if s.spatial_dims == 3
        else ["monai.transforms.Rand2DElasticd", f"  keys: {keys}", "  spacing: [16, 16]", "  magnitude_range: [1, 3]"]
    )
    match = ["  keys: [image]", "  targets: $@lists.target_unlabelled", "  load: '@load_target'"]
    return "\n".join(
        [
            "style:",
            "- _target_: monai_transfer.data.fourier.FourierDomainAdaptd",
            *match,
            "- _target_: monai_transfer.data.histogram.HistogramMatchToTargetd",
            *match,
            "augmentations:",
            f"- _target_: {elastic[0]}",
            *elastic[1:],
            "  prob: 0.2",
            f"  mode: {mode}",
            "  padding_mode: zeros",
            "- _target_: monai_transfer.data.randomisation.RandAppearanced  # contrast, bias field, blur, noise ...",
            "  keys: [image]",
            "  prob: 0.3",
        ]
    )
