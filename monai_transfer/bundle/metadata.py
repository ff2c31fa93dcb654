"""A bundle's ``configs/metadata.json``: what MONAI's tools read, and what ``check --source`` and ``predict`` do."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import monai

import monai_transfer
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import refuse_keys_of_monai, to_config

__all__ = ["SCHEMA", "metadata"]

SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"


def metadata(spec: BundleSpec) -> dict[str, Any]:
    """The metadata. MONAI's workflows read them as a part of the config, so names are written as there.

    Raises:
        InputError: a site or a class is called like a word of MONAI's configs.
    """
    refuse_keys_of_monai(spec.data_statistics, "the manifest's sites and classes")
    spatial = spec.patch
    image_format = spec.modality or "magnitude"
    image = {
        "type": "image",
        "format": image_format,
        "modality": spec.modality or "unknown",
        "num_channels": len(spec.channel_names),
        "spatial_shape": spatial,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": spec.dense,
        "channel_def": {str(i): name for i, name in enumerate(spec.channel_names)},
    }
    output = {
        "type": spec.kind.output_type,
        "format": spec.kind.output_format or image_format,
        "num_channels": spec.out_channels,
        "spatial_shape": spatial if spec.dense else [],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": spec.dense,
        "channel_def": {str(i): name for i, name in enumerate(spec.class_names)},
    }
    told = {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "first version"},
        "monai_version": monai.__version__,
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {
            "nibabel": version("nibabel"),
            "itk-io": version("itk-io"),
            "pytorch-ignite": version("pytorch-ignite"),
            "monai-transfer": monai_transfer.__version__,
        },
        "name": spec.name,
        "task": f"{spec.spatial_dims}D {spec.task}",
        "description": spec.description or f"{spec.spatial_dims}D {spec.task}, transferred from one site to another",
        "authors": "monai_transfer authors",
        "copyright": "Copyright (c) monai_transfer authors",
        "data_source": spec.data_source or "the user's own manifest",
        "data_type": "image",
        "intended_use": "Research. Not a medical device; evaluate on your own labelled cases before any use.",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": output}},
        # beyond the schema: what `monai-transfer check --source` and `predict` read
        "transfer": {
            "task": spec.task,
            "spacing": spec.spacing,
            "orientation": "RAS" if spec.oriented else None,
            **({"label_mapping": spec.mapping} if spec.mapping is not None else {}),
            **({"channels_may_be_missing": True} if spec.channel_dropout else {}),
            "source_site": spec.source_site,
            "target_site": spec.target_site,
            "data_statistics": spec.data_statistics,
            "weights": spec.weights_note,
        },
    }
    return to_config(told)
