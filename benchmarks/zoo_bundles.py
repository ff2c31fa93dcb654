"""Bundles of the MONAI model zoo as sources: read, built, made into a bundle for other data, the same image seen.

    git clone https://github.com/Project-MONAI/model-zoo
    python -m benchmarks.zoo_bundles model-zoo/models spleen_ct_segmentation brats_mri_segmentation ...

Weights are random (the zoo keeps them elsewhere), images synthetic, one per case. "Same image": the largest difference
between an image after the source's own steps and after those of the new bundle.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from PIL import Image

from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle_reader import BundleDescription, read_bundle
from monai_transfer.errors import InputError

COLUMNS = ("bundle", "network", "read", "built", "steps kept", "same image")


def synthetic(folder: Path, found: BundleDescription, segments: bool) -> Path:
    """Four cases with as many dimensions and channels as the source takes, and their manifest."""
    draw, channels, items = np.random.default_rng(0), found.in_channels or 1, []
    for number in range(4):
        case = {"case": f"c{number}", "patient": f"p{number}", "site": "a"}
        if found.dims == 3:
            shape, affine = (40, 36, 24), np.diag([-2.0, 2.0, 4.0, 1.0])
            images = [f"c{number}_{channel}.nii.gz" for channel in range(channels)]
            for name in images:
                nib.save(nib.Nifti1Image(np.abs(draw.normal(60, 80, shape)).astype(np.float32), affine), folder / name)
            label = f"c{number}_label.nii.gz"
            nib.save(nib.Nifti1Image((draw.random(shape) > 0.7).astype(np.uint8), affine), folder / label)
        else:
            size = (96, 96, 3) if channels == 3 else (96, 96)
            images, label = [f"c{number}.png"], f"c{number}_label.png"
            Image.fromarray(draw.integers(0, 255, size).astype(np.uint8)).save(folder / images[0])
            Image.fromarray((draw.random((96, 96)) > 0.7).astype(np.uint8)).save(folder / label)
        image = images[0] if len(images) == 1 else images
        items.append({"image": image, "label": label if segments else number % 2, **case})
    made = {
        "name": "synthetic",
        "task": "segmentation" if segments else "classification",
        "modality": found.modality or "unknown",
        "labels": {"0": "background", "1": "thing"} if segments else {"0": "no", "1": "yes"},
        "channel_names": {str(channel): f"channel {channel}" for channel in range(channels)},
        "training": items[:2],
        "validation": items[2:3],
        "test": items[3:],
    }
    (folder / "manifest.json").write_text(json.dumps(made))
    return folder / "manifest.json"


def row(bundle: Path, work: Path) -> dict[str, Any]:
    """What became of one bundle."""
    copy = shutil.copytree(bundle, work / bundle.name)
    found = read_bundle(copy)
    result: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"bundle": bundle.name, "read": "yes"}
    if found.network is None:
        unread = found.unread_of("network")
        return result | {"read": f"needs trust: {unread[0] if unread else 'no network'}"[:160]}
    result["network"] = found.network.name
    try:
        torch.manual_seed(0)
        (copy / "models").mkdir(exist_ok=True)
        torch.save(found.build_network().state_dict(), copy / "models" / "model.pt")
        result["built"] = "yes"
        data = work / f"{bundle.name}_data"
        data.mkdir()
        manifest = synthetic(data, found, "seg" in bundle.name or found.roi_size is not None)
        made = work / f"{bundle.name}_new_segmentation"
        new_bundle(made, manifest, source=copy, epochs=1, steps_per_epoch=1, batch_size=2)
        note = json.loads((made / "models" / "source.json").read_text())
        kept = note["preprocessing"]
        result["steps kept"] = "yes" if "parity" in note else kept.removeprefix("fitted to the data: ")[:160]
        result["same image"] = f"{note['parity']['apart']:.1g}" if "parity" in note else ""
    except InputError as error:
        result["steps kept" if result["built"] else "built"] = f"no: {error.fault}"[:200]
    return result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="the folder of the zoo's bundles")
    parser.add_argument("bundles", nargs="+")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for name in given.bundles:
        with tempfile.TemporaryDirectory() as work:
            found = row(given.models / name, Path(work))
        print("| " + " | ".join(str(found[column]) for column in COLUMNS) + " |", flush=True)


if __name__ == "__main__":
    main()
