"""What the packaged bundles were trained on, in numbers: measured on the embedded sets and kept beside this file.

``python -m bundles.packaged_statistics`` measures anew; a slow test compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from monai_transfer.bundle.fit import fit_data
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.data.phantom import embedded_set
from monai_transfer.files import write_json
from monai_transfer.manifest import Manifest

__all__ = ["embedded_task", "measured_statistics", "packaged_statistics"]

_FILE = Path(__file__).with_suffix(".json")


def embedded_task(spec: BundleSpec) -> str:
    """The task of the embedded set that a bundle is trained on."""
    return spec.task if spec.kind.judged else "segmentation"  # whose images are enough where no label is read


def packaged_statistics(name: str) -> dict[str, Any]:
    """The kept ``data_statistics`` of a packaged bundle; empty where none were measured."""
    return json.loads(_FILE.read_text(encoding="utf-8")).get(name, {})


def measured_statistics(spec: BundleSpec) -> dict[str, Any]:
    """The same from the embedded set: every training image of the source site first, then of the target site."""
    manifest = Manifest.load(Path(embedded_set(embedded_task(spec))) / "manifest.json")
    return fit_data(manifest, [spec.source_site, spec.target_site], n=10_000).statistics()


def main() -> None:
    """Measure and keep."""
    from bundles.packaged import packaged_specs  # which reads what is written here

    write_json(_FILE, {spec.name: measured_statistics(spec) for spec in packaged_specs()})
    print(_FILE)


if __name__ == "__main__":
    main()
