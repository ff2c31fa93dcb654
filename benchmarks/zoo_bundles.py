"""Bundles of the MONAI model zoo as sources: read, built, made into a bundle for other data, the same image seen.

    git clone https://github.com/Project-MONAI/model-zoo
    python -m benchmarks.zoo_bundles model-zoo/models spleen_ct_segmentation brats_mri_segmentation ...

Weights are random (the zoo keeps them elsewhere), images synthetic, one per case. "Same image": the largest difference
between an image after the source's own steps and after those of the new bundle. "Trained": an epoch of one step.
"Same mask": of the trained run, what ``predict`` writes and what MONAI's ``ConfigWorkflow`` writes with the exported
bundle: the share of voxels that are equal (or the largest difference of a probability). "TorchScript": exported, its
output compared by ``export``. Sliding windows larger than ``--window`` are cut to it, and training patches with them:
a processor does not go over 240 x 240 x 160 voxels in minutes.
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
from monai.bundle import ConfigWorkflow
from PIL import Image

from monai_transfer.bundle.export import export_bundle
from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.bundle_reader import BundleDescription, read_bundle
from monai_transfer.errors import InputError, describe
from monai_transfer.networks.input_sizes import input_sizes
from monai_transfer.predict.images import predict_images

COLUMNS = ("bundle", "network", "read", "built", "steps kept", "same image", "trained", "same mask", "TorchScript")


def least_size(found: BundleDescription) -> int:
    """Voxels per axis that the network takes at least: 64 where it halves its input five times."""
    strides = found.network.arguments.get("strides", []) if found.network is not None else []
    deep = len([s for s in strides if s != 1]) >= 5 if isinstance(strides, list) else False
    return 64 if deep or (found.network is not None and found.network.name == "SwinUNETR") else 32


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


def cut_windows(folder: Path, window: int) -> None:
    """Sliding windows in the copied configs, cut to so many voxels per axis."""
    for path in (folder / "configs").glob("*.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        for part in [config, *[value for value in config.values() if isinstance(value, dict)]]:
            inferer = part.get("inferer") if isinstance(part, dict) else None
            size = inferer.get("roi_size") if isinstance(inferer, dict) else None
            if isinstance(size, list):
                inferer["roi_size"] = [min(window, n) if isinstance(n, int) else window for n in size]
            elif isinstance(size, str):
                inferer["roi_size"] = [window] * 3
        path.write_text(json.dumps(config), encoding="utf-8")


def plain_predictions(exported: Path, images: Path, pattern: str, out: Path) -> list[np.ndarray]:
    """As ``python -m monai.bundle run`` predicts with the exported bundle."""
    flow = ConfigWorkflow(
        str(exported / "configs" / "inference.yaml"), meta_file=str(exported / "configs" / "metadata.json"),
        logging_file=False, bundle_root=str(exported), dataset_dir=str(images), output_dir=str(out), pattern=pattern,
    )  # fmt: skip
    flow.initialize()
    flow.run()
    flow.finalize()
    return outputs(out)


def outputs(folder: Path) -> list[np.ndarray]:
    """Masks or table of a folder of predictions."""
    for suffix in ("*.nii.gz", "*.png"):
        found = sorted(folder.rglob(suffix))
        if found:
            return [np.asarray(nib.load(p).dataobj) if suffix != "*.png" else np.asarray(Image.open(p)) for p in found]
    tables = sorted(folder.rglob("*.csv"))
    lines = tables[0].read_text(encoding="utf-8").splitlines() if tables else []
    rows = [np.asarray([float(v) for v in line.split(",") if _is_number(v)]) for line in lines]
    return [row for row in rows if row.size]  # a heading has no numbers; MONAI's saver writes none


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def used(made: Path, data: Path, manifest: Path, work: Path) -> dict[str, str]:
    """The new bundle trained for a step, predicting two ways, exported."""
    result: dict[str, str] = {}
    step = "trained"
    try:
        run = run_workflow(made, "train", {"max_epochs": 1, "steps_per_epoch": 1}, log=False)
        result[step], step = "yes", "same mask"
        case = json.loads(manifest.read_text(encoding="utf-8"))["test"][0]
        images = [case["image"]] if isinstance(case["image"], str) else case["image"]
        if len(images) > 1:
            result[step] = "not compared: several files make an image"
            predict_images(made, [manifest], work / "ours", run=run, split="test")
            result[step] += f"; predict wrote {len(outputs(work / 'ours'))}"
        else:
            predict_images(made, [data / images[0]], work / "ours", run=run)
            exported = export_bundle(made, "bundle", work / "exported", run=run)
            theirs = plain_predictions(exported, data, images[0], work / "plain")
            result[step] = agreement(outputs(work / "ours"), theirs)
        step = "TorchScript"
        export_bundle(made, "torchscript", work / "model.ts", run=run)
        result[step] = "yes"
    except InputError as error:
        result[step] = f"no: {error.fault}"[:200]
    except Exception as error:  # what a network or MONAI says is the result
        result[step] = f"no: {describe(error)}"[:200]
    return result


def agreement(ours: list[np.ndarray], theirs: list[np.ndarray]) -> str:
    """Share of equal voxels, or the largest difference of two rows of numbers."""
    if len(ours) != len(theirs) or not ours or any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
        return f"no: {[a.shape for a in ours]} and {[b.shape for b in theirs]}"
    if ours[0].ndim == 1:
        return f"apart by {max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)):.1g}"
    return f"{min(float((a == b).mean()) for a, b in zip(ours, theirs, strict=True)):.5f}"


def row(bundle: Path, work: Path, window: int) -> dict[str, Any]:
    """What became of one bundle."""
    copy = shutil.copytree(bundle, work / bundle.name)
    cut_windows(copy, max(window, least_size(read_bundle(copy))))
    for listed in copy.glob("large_files.y*ml"):  # it tells the checksums of the real weights
        listed.unlink()
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
        sizes = input_sizes(found.build_network(), found.in_channels or 1, found.dims or 3)
        manifest = synthetic(data, found, found.roi_size is not None or (sizes is not None and sizes.dense))
        made = work / f"{bundle.name}_new_segmentation"
        whole = json.loads(manifest.read_text(encoding="utf-8"))["task"] != "segmentation"
        patch = [least_size(found)] * (found.dims or 3)
        more = {} if whole else {"patch": patch}
        new_bundle(made, manifest, source=copy, epochs=1, steps_per_epoch=1, batch_size=2, budget="quick", **more)
        note = json.loads((made / "models" / "source.json").read_text())
        kept = note["preprocessing"]
        result["steps kept"] = "yes" if "parity" in note else kept.removeprefix("fitted to the data: ")[:160]
        result["same image"] = f"{note['parity']['apart']:.1g}" if "parity" in note else ""
    except InputError as error:
        result["steps kept" if result["built"] else "built"] = f"no: {error.fault}"[:200]
        return result
    return result | used(made, data, manifest, work)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="the folder of the zoo's bundles")
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--window", type=int, default=48, help="voxels per axis of the largest window")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for name in given.bundles:
        with tempfile.TemporaryDirectory() as work:
            found = row(given.models / name, Path(work), given.window)
        print("| " + " | ".join(str(found[column]) for column in COLUMNS) + " |", flush=True)


if __name__ == "__main__":
    main()
