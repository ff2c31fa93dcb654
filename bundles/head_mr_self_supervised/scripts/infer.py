"""Predict on images with MONAI alone: ``python scripts/infer.py IMAGE_OR_FOLDER ... -o OUTPUT``."""

import argparse
import json
import re
from pathlib import Path

from monai.bundle import ConfigParser, ConfigWorkflow

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "inference.yaml"


def channels():
    """Files per image."""
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return metadata["network_data_format"]["inputs"]["image"]["num_channels"]


def as_text(path):
    """A path in a form in which MONAI leaves it alone, whatever is in it: it would turn a # into ::."""
    escaped = {ord(character): f"\\x{ord(character):02x}" for character in "$@%#"}
    return "$" + ascii(str(path)).translate(escaped) if set("$@%#") & set(str(path)) else str(path)


def find_images(inputs):
    """The image files named, and those in the folders named (a folder without any is taken as one DICOM series).

    With several channels, CASE_0000, CASE_0001, ... are one image: a list of its files.
    """
    pattern = ConfigParser(ConfigParser.load_config_file(str(CONFIG))).get_parsed_content("pattern")
    images: list[Path] = []
    for item in map(Path, inputs):
        if not item.exists():
            raise SystemExit(f"{item}: no such file or folder")
        found = sorted(item.glob(pattern)) if item.is_dir() else [item]
        images += found or [item]
    names = [str(image.resolve()) for image in images]
    return group_channels(names, channels()) if channels() > 1 else names


def group_channels(images, number):
    """Lists of the ``number`` files of each image."""
    single: list[str] = []
    groups: dict[tuple[str, str], list[str]] = {}
    for image in images:
        numbered = re.match(r"(.*)_(\d{4})(\.[a-z.]+)$", image)
        if numbered:
            groups.setdefault((numbered[1], numbered[3]), []).append(image)
        else:
            single.append(image)
    for (stem, _), files in groups.items():
        if len(files) != number:
            raise SystemExit(f"{stem}: {len(files)} channel files, and the model takes {number}")
    return single + [sorted(files) for files in groups.values()]


def refuse_equal_names(images):
    """MONAI names an output by its (first) file without the suffix: no prediction may be written over another."""
    seen: dict[Path, str] = {}
    for image in images:
        name = Path(image).with_suffix("")
        name = name.with_suffix("") if image.endswith(".gz") else name
        other = seen.setdefault(name, image)
        if other != image:
            raise SystemExit(f"{image}: its prediction would be written over that of {other}; rename one")


def protected(image):
    return as_text(image) if isinstance(image, str) else [as_text(file) for file in image]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--ckpt", help="default: the bundle's weights")
    arguments = parser.parse_args()
    images = find_images(arguments.inputs)
    first = [image if isinstance(image, str) else image[0] for image in images]
    refuse_equal_names(first)
    # the deepest common folder keeps outputs of equally named files apart
    common = Path(first[0]).parent if len(first) == 1 else Path(*_common_parts(first))
    workflow = ConfigWorkflow(
        workflow_type="infer",
        config_file=str(CONFIG),
        meta_file=str(ROOT / "configs" / "metadata.json"),
        logging_file=str(ROOT / "configs" / "logging.conf"),
        bundle_root=as_text(ROOT),
        dataset_dir=as_text(common),
        output_dir=as_text(Path(arguments.output).resolve()),
        **({"ckpt": as_text(arguments.ckpt)} if arguments.ckpt else {}),
        **{"dataset#data": [{"image": protected(image)} for image in images]},
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
