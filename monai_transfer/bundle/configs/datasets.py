"""Datasets and loaders: cases whose deterministic steps are computed once, draws that fill the steps."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.parts import monai, ours
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr, ref

__all__ = ["cached", "loader", "seeded", "transforms"]


def cached(s: BundleSpec, data: Any, transform: Any) -> dict[str, Any]:
    """A dataset whose deterministic steps are computed once."""
    return ours(
        "data.content_cache.ContentCacheDataset",
        data=data,
        transform=transform,
        cache_dir=ref("cache_dir"),
        cache_rate=s.cache_rate,
        num_workers=None,
        progress=False,
    )


def transforms(*lists: str) -> Any:
    """The lists of transforms one behind the other, as one pipeline."""
    return monai("transforms.Compose", transforms=expr(" + ".join(f"@{name}" for name in lists)))


def seeded(data: str) -> dict[str, Any]:
    """As many draws as the steps need, however few the cases: the same number of steps for every arm."""
    return {
        "_target_": "torch.utils.data.RandomSampler",
        "data_source": ref(data),
        "replacement": True,
        "num_samples": expr("@steps_per_epoch * @batch_size"),
    }


def loader(part: str, batch_size: Any, **more: Any) -> dict[str, Any]:
    """The loader of the dataset ``part#dataset``."""
    dataset = ref(f"{part}#dataset" if part else "dataset")
    return monai("data.DataLoader", dataset=dataset, batch_size=batch_size, **more)
