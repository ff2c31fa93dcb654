"""The readme of a bundle for self-supervised pretraining."""

from __future__ import annotations

from monai_transfer.bundle.spec import BundleSpec

__all__ = ["readme"]


def readme(spec: BundleSpec) -> str:
    """The bundle's ``docs/README.md``."""
    return f"""# {spec.name}

{spec.description}.

Channels: {", ".join(spec.channel_names)}. Sites: {spec.source_site}, {spec.target_site}.
It learns from all their training and unlabelled images, whatever their labels; validation images choose the epoch; test
images are never seen.

| workflow | config files | expect |
|---|---|---|
| masked autoencoding (`train`) | train.yaml | {spec.expect["train"]} |
| SimCLR (`contrastive`) | train.yaml, contrastive.yaml | {spec.expect["contrastive"]} |
| features of images (`infer`) | inference.yaml (MONAI alone) | {spec.expect["inference"]} |

Run `python -m monai.bundle run --config_file configs/train.yaml` in this folder, or `monai-transfer run . train` from
anywhere; `figures/reconstruction.png` of the run shows what is filled in. Own scans: `--dataset_dir DIR` with a
`manifest.json` in it; labels may be missing.

## To start another bundle from it

    monai-transfer run ../head_mr_segmentation train --pretrained {spec.name}/models/model.pt

The network there must be the same up to its last block. `weights.json` of that run lists what came over: here 96 % of
the parameters. The last block is skipped (it fills in intensities, the other one tells classes) and stays as
initialised. Of `contrastive` runs the encoder comes over and the decoder is missing.
In Python: `load_weights(network, "{spec.name}")`.

Whether it helps was measured: `docs/self_supervised.md` of the project.
Opening a bundle runs the code in its configs: open only those whose author you trust.
"""
