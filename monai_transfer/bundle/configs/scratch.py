"""``scratch.yaml``: what a user without the source would train on these data; stands on ``train.yaml``.

A comparison with training from scratch is honest only where scratch may choose its own network, patch, spacing and
intensities: those of the source may be wrong for the data.
"""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.emit import note, uncommented
from monai_transfer.bundle.configs.training import train
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr

__all__ = ["scratch"]

_OWN = ("imports", "bundle_root", "pretrained", "ckpt", "publisher", "run", "joint", "workflow", "arm", "output_dir")


def scratch(s: BundleSpec) -> dict[str, Any]:
    """The overlay: every id of ``train.yaml`` that the plan without the source has otherwise."""
    assert s.scratch is not None
    with_source, without = train(s), train(s.scratch)
    before, after = uncommented(with_source), uncommented(without)
    changed = {key: value for key, value in without.items() if key not in _OWN and after[key] != before.get(key)}
    return {
        "workflow": note("scratch", "the name of a run begins with it"),
        "arm": note("scratch", "how reports name this run"),
        "pretrained": note("none", "random weights"),
        "joint": note(False, "the labelled target cases alone"),
        **changed,
        "run": note(
            [
                expr("@prepared.require()"),
                expr("@run_folder.start()"),
                expr("@train#trainer.run()"),
                expr("@test#evaluator.run()"),
                expr("@run_folder.finish()"),
            ],
            "the workflow; its weights are of another network than the bundle's, so they are never published",
        ),
    }
