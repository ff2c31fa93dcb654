"""Loading and preprocessing, every run anew and once per content: ratios measured in one run.

    python benchmarks/loading.py [--quick] [--record]

Simulated CT-like volumes as compressed NIfTI, 160 x 160 x 64 at 0.8 x 0.8 x 2.5 mm with a label, through MONAI's load,
orient, resample, scale and a random crop. Peers: MONAI's Dataset, its PersistentDataset and its CacheDataset; ours:
ContentCacheDataset, whose start in a second run is measured too, and SafeReader against MONAI's NibabelReader.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import _measure
import nibabel
import numpy as np
from monai.data import CacheDataset, Dataset, NibabelReader, PersistentDataset
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    RandSpatialCropd,
    ScaleIntensityRanged,
    Spacingd,
)
from torch.utils.data import Dataset as TorchDataset

from monai_transfer.data.content_cache import ContentCacheDataset
from monai_transfer.data.readers import SafeReader

KEYS = ["image", "label"]


def write_cases(folder: Path, cases: int, shape: tuple[int, int, int]) -> list[dict[str, str]]:
    rng = np.random.default_rng(0)
    affine = np.diag([0.8, 0.8, 2.5, 1.0])
    items = []
    for case in range(cases):
        image = (rng.standard_normal(shape).cumsum(0) * 20).astype(np.int16)
        item = {"image": str(folder / f"{case}.nii.gz"), "label": str(folder / f"{case}_label.nii.gz")}
        nibabel.save(nibabel.Nifti1Image(image, affine), item["image"])
        nibabel.save(nibabel.Nifti1Image((image > 0).astype(np.uint8), affine), item["label"])
        items.append(item)
    return items


def pipeline(crop: int) -> Compose:
    return Compose([
        LoadImaged(KEYS),
        EnsureChannelFirstd(KEYS),
        Orientationd(KEYS, "RAS", labels=None),
        Spacingd(KEYS, (1.0, 1.0, 2.0), mode=("bilinear", "nearest")),
        ScaleIntensityRanged("image", -200, 200, 0, 1, clip=True),
        RandSpatialCropd(KEYS, [crop] * 3, random_size=False),
    ])  # fmt: skip


def epoch(dataset: TorchDataset) -> float:
    since = time.process_time()
    for index in range(len(dataset)):  # type: ignore[arg-type]
        dataset[index]
    return time.process_time() - since


def start(make: Callable[[], TorchDataset]) -> float:
    """From nothing to the end of the first epoch: what a new run waits for."""
    since = time.process_time()
    epoch(make())
    return time.process_time() - since


def read_all(reader: object, items: list[dict[str, str]]) -> float:
    load = LoadImaged(KEYS, reader=reader)
    since = time.process_time()
    for item in items:
        load(item)
    return time.process_time() - since


def main() -> None:
    options = _measure.arguments(__doc__)
    cases, shape, crop, rounds = (2, (32, 32, 16), 16, 1) if options.quick else (8, (160, 160, 64), 64, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = write_cases(folder, cases, shape)
        chain = pipeline(crop)
        quiet = {"progress": False, "num_workers": None}
        plain = Dataset(items, chain)
        persistent = PersistentDataset(items, chain, cache_dir=folder / "persistent")
        cached = CacheDataset(items, chain, **quiet)
        disk = ContentCacheDataset(items, chain, cache_dir=folder / "content", cache_rate=0.0, **quiet)
        memory = ContentCacheDataset(items, chain, cache_dir=folder / "content", **quiet)
        for dataset in (persistent, disk):
            epoch(dataset)  # fills it
        took = _measure.medians(
            {
                "Dataset": lambda: epoch(plain),
                "PersistentDataset": lambda: epoch(persistent),
                "CacheDataset": lambda: epoch(cached),
                "disk": lambda: epoch(disk),
                "memory": lambda: epoch(memory),
                "new CacheDataset": lambda: start(lambda: CacheDataset(items, chain, **quiet)),
                "new memory": lambda: start(
                    lambda: ContentCacheDataset(items, chain, cache_dir=folder / "content", **quiet)
                ),
                "NibabelReader": lambda: read_all(NibabelReader(), items),
                "SafeReader": lambda: read_all(SafeReader(), items),
            },
            rounds,
        )
    rows = [
        ("Dataset / ContentCacheDataset on disk, an epoch", took["Dataset"] / took["disk"]),
        ("Dataset / ContentCacheDataset in memory, an epoch", took["Dataset"] / took["memory"]),
        ("PersistentDataset / ContentCacheDataset on disk, an epoch", took["PersistentDataset"] / took["disk"]),
        ("CacheDataset / ContentCacheDataset in memory, an epoch", took["CacheDataset"] / took["memory"]),
        ("CacheDataset / ContentCacheDataset, a second run's start", took["new CacheDataset"] / took["new memory"]),
        ("SafeReader / NibabelReader, reading alone", took["SafeReader"] / took["NibabelReader"]),
    ]
    _measure.report(__file__, rows, options.record)


if __name__ == "__main__":
    main()
