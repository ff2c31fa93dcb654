"""The metadata of what is exported from a run: they describe the data that this run was trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_transfer.bundle.fit import fit_data
from monai_transfer.bundle_reader.metadata_kinds import usable_metadata
from monai_transfer.bundle_reader.references import Resolver
from monai_transfer.files import sha256_file
from monai_transfer.inspection.run_statistics import run_statistics
from monai_transfer.manifest import Manifest
from monai_transfer.runs.record import read_record
from monai_transfer.safe_parse import read_mapping

__all__ = ["run_metadata"]

logger = logging.getLogger("monai_transfer")


def run_metadata(bundle: str | Path, run: str | Path | None = None) -> dict[str, Any]:
    """A bundle's ``configs/metadata.json``, with ``transfer`` fitted to the run that the weights come from.

    The sites are the run's, and ``data_statistics`` begin with the site that it was trained at (the source's for a
    pretraining; for an adaptation the target's, the source's stand under ``other_sites``). They come from the metadata,
    as these were when it ran; where these do not describe its site or its manifest, from some of the images; and
    where the manifest is no longer there or has changed, they are left out, which the log says: another site's numbers
    would mislead ``check --source``.

    Args:
        bundle: its folder.
        run: a run folder; ``None`` for the bundle's own weights, whose metadata stay as they are.

    Raises:
        InputError: the metadata or the run's record cannot be read.
    """
    path = Path(bundle) / "configs" / "metadata.json"
    metadata = usable_metadata(_read(path))
    transfer = metadata.get("transfer")
    if run is None or not isinstance(transfer, dict) or "data_statistics" not in transfer:
        return metadata
    run = Path(run)
    record = read_record(run) or {}
    config = _read(run / "config.yaml") if (run / "config.yaml").is_file() else {}
    told = usable_metadata(config.get("_meta_")).get("transfer") or transfer
    site = record.get("target_site")
    statistics = run_statistics(told, site) if record and _same_manifest(Path(bundle), config) else None
    if statistics is None:
        statistics = _measured(config, record, site)
    if statistics is None:
        logger.warning("what %s was trained on is not known any more: the export has no data_statistics", run)
    sites = {key: record[key] for key in ("source_site", "target_site") if key in record}
    return metadata | {"transfer": transfer | sites | {"data_statistics": statistics or {}}}


def _read(path: Path) -> dict[str, Any]:
    return read_mapping(path)


def _same_manifest(bundle: Path, config: Mapping[str, Any]) -> bool:
    """Whether the run read the manifest that the bundle names, which its metadata describe."""
    ours = next((p for p in sorted((bundle / "configs").glob("train.*")) if p.is_file()), None)
    if ours is None or "manifest" not in config:
        return True
    named = _read(ours)
    return all(config.get(key) == named.get(key) for key in ("manifest", "dataset_dir"))


def _measured(config: Mapping[str, Any], record: Mapping[str, Any], site: Any) -> dict[str, Any] | None:
    """From some images of the run's manifest, if it is still the one that the run read."""
    if "manifest" not in config:
        return None
    try:
        path = Path(str(Resolver({key: value for key, value in config.items() if key != "_meta_"}).get("manifest")))
        if not path.is_file() or sha256_file(path) != record.get("manifest_sha256"):
            return None
        sites = list(site) if isinstance(site, list) else [site]
        return fit_data(Manifest.load(path), sites).statistics()
    except Exception as error:  # moved images, a config that no longer resolves: the weights are what is exported
        logger.warning("the run's data cannot be read (%s)", error)
        return None
