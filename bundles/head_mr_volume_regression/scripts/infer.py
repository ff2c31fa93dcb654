"""Predict on images with MONAI alone: ``python scripts/infer.py IMAGE_OR_FOLDER ... -o OUTPUT``."""

import argparse
from pathlib import Path

from monai.bundle import ConfigWorkflow

ROOT = Path(__file__).resolve().parents[1]
SUFFIX = ".nii.gz"


def find_images(inputs):
    """The image files named, and those in the folders named (a folder without any is taken as one DICOM series)."""
    images = []
    for item in map(Path, inputs):
        if not item.exists():
            raise SystemExit(f"{item}: no such file or folder")
        found = sorted(item.rglob(f"*{SUFFIX}")) if item.is_dir() else [item]
        images += found or [item]
    return [str(image.resolve()) for image in images]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--ckpt", default=str(ROOT / "models" / "model.pt"))
    arguments = parser.parse_args()
    images = find_images(arguments.inputs)
    # the deepest common folder keeps outputs of equally named files apart
    common = Path(images[0]).parent if len(images) == 1 else Path(*_common_parts(images))
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
