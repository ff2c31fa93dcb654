"""Predict on images with MONAI alone: ``python scripts/infer.py IMAGE_OR_FOLDER ... -o OUTPUT``."""

import argparse
import re
from pathlib import Path

from monai.bundle import ConfigWorkflow

ROOT = Path(__file__).resolve().parents[1]
SUFFIX = ".nii.gz"
CHANNELS = 1


def find_images(inputs):
    """The image files named, and those in the folders named (a folder without any is taken as one DICOM series).

    With several channels, CASE_0000, CASE_0001, ... are one image: a list of its files.
    """
    images = []
    for item in map(Path, inputs):
        if not item.exists():
            raise SystemExit(f"{item}: no such file or folder")
        found = sorted(item.rglob(f"*{SUFFIX}")) if item.is_dir() else [item]
        images += found or [item]
    images = [str(image.resolve()) for image in images]
    return group_channels(images) if CHANNELS > 1 else images


def group_channels(images):
    single, groups = [], {}
    for image in images:
        numbered = re.match(r"(.*)_(\d{4})(\.[a-z.]+)$", image)
        if numbered:
            groups.setdefault((numbered[1], numbered[3]), []).append(image)
        else:
            single.append(image)
    for (stem, _), files in groups.items():
        if len(files) != CHANNELS:
            raise SystemExit(f"{stem}: {len(files)} channel files, and the model takes {CHANNELS}")
    return single + [sorted(files) for files in groups.values()]


def refuse_equal_names(images):
    """MONAI names an output by its (first) file without the suffix: no prediction may be written over another."""
    seen = {}
    for image in images:
        name = Path(image).with_suffix("")
        name = name.with_suffix("") if image.endswith(".gz") else name
        other = seen.setdefault(name, image)
        if other != image:
            raise SystemExit(f"{image}: its prediction would be written over that of {other}; rename one")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--ckpt", default=str(ROOT / "models" / "model.pt"))
    arguments = parser.parse_args()
    images = find_images(arguments.inputs)
    first = [image if isinstance(image, str) else image[0] for image in images]
    refuse_equal_names(first)
    # the deepest common folder keeps outputs of equally named files apart
    common = Path(first[0]).parent if len(first) == 1 else Path(*_common_parts(first))
    workflow = ConfigWorkflow(
        workflow_type="infer",
        config_file=str(ROOT / "configs" / "inference.yaml"),
        meta_file=str(ROOT / "configs" / "metadata.json"),
        logging_file=str(ROOT / "configs" / "logging.conf"),
        bundle_root=str(ROOT),
        dataset_dir=str(common),
        output_dir=str(Path(arguments.output).resolve()),
        ckpt=arguments.ckpt,
        **{"dataset#data": [{"image": image} for image in images]},
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def _common_parts(paths):
    parts = [Path(path).parent.parts for path in paths]
    common = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return common or ["."]


if __name__ == "__main__":
    main()
