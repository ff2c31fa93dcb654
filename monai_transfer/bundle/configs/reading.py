"""Reading: training through our checks, inference with MONAI alone; a test holds that both give the same voxels."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.parts import monai, ours
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr, ref

__all__ = ["load", "read", "readers"]


def readers(s: BundleSpec, *, labels: bool) -> dict[str, Any]:
    """The readers of training, as root ids."""
    image = ours("data.readers.SafeReader", **({"mode": s.picture} if s.picture else {}))
    out: dict[str, Any] = {
        "image_reader": note(
            image,
            "e.g. --image_reader::max_memory 8GiB, --image_reader::spacing_limits [0.001,50]",
            heading="reading: right, or refused in one line",
        )
    }
    if labels:
        out["label_reader"] = note(
            ours("data.readers.SafeReader", palette="index"), "a palette's indices are the classes"
        )
    return out


def read(keys: list[str]) -> list[Any]:
    """Training's steps from paths to arrays with a channel first."""
    loaders = [monai("transforms.LoadImaged", keys=[key], reader=ref(f"{key}_reader")) for key in keys]
    return [*loaders, monai("transforms.EnsureChannelFirstd", keys=keys)]


def load(s: BundleSpec) -> list[Any]:
    """Inference's steps from paths to arrays with a channel first; MONAI and Pillow alone."""
    loader = monai("transforms.LoadImaged", keys=["image"])
    if s.picture:
        grey = "lambda image: image if image.mode in ('1', 'L', 'I', 'I;16', 'F') else image.convert('L')"
        to_mode = grey if s.picture == "grey" or s.deep_grey else "lambda image: image.convert('RGB')"
        steps = [expr("ImageOps.exif_transpose"), expr(to_mode)]
        said = "upright, one channel; 16 bits stay" if s.picture == "grey" or s.deep_grey else "upright, three channels"
        converter = monai("transforms.Compose", transforms=steps)
        loader["reader"] = note(monai("data.PILReader", converter=converter), said)
    # MONAI Label puts a string `image_path` beside the image, which MONAI's Spacingd would take for its meta data
    forget = monai("transforms.DeleteItemsd", keys=["image_path"])
    thrice = monai("transforms.RepeatChanneld", keys=["image"], repeats=3)  # Pillow has no colours of 16 bits
    after = [thrice] if s.deep_grey else [] if s.picture else [forget]
    return [loader, monai("transforms.EnsureChannelFirstd", keys=["image"]), *after]
