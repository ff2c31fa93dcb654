"""``evaluate.yaml``: weights on the target's test cases, nothing trained; stands on ``train.yaml``."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.parts import ours
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr, ref

__all__ = ["evaluate"]


def evaluate(s: BundleSpec) -> dict[str, Any]:
    """The overlay."""
    fitted = {"prepared::source_classes": note(None, "these weights are fitted already")} if s.source_classes else {}
    folds = {"prepared::folds": note(True, "the untouched source is the mean of its folds")} if s.folds else {}
    none = {
        f"run_folder::info::{name}": note(0, "nothing is trained")
        for name in ("n_labelled", "steps", "labelled_train", "labelled_validation")
    }
    return {
        "workflow": note("evaluate", "the name of a run begins with it"),
        "arm": note("source", "how reports name this run"),
        "n_labelled": note(None, "no budget: nothing is trained; a federated client is judged by all validation cases"),
        "prepared::pretrained": note(ref("ckpt"), "the weights that are evaluated"),
        "prepared::min_coverage": note(0.999, "all of them"),
        **fitted,
        **folds,
        "strategy": note(ours("strategies.base.Strategy"), "nothing is frozen or added"),
        "run_folder::pretrained": note(ref("ckpt"), "named in run.json"),
        **none,
        "run_folder::info::selected_by": note(None, "no epoch is chosen"),
        "run": note(
            [
                expr("@prepared.require()"),
                expr("@run_folder.start()"),
                expr("@test#evaluator.run()"),
                expr("@run_folder.finish()"),
            ],
            "the workflow, step by step",
        ),
    }
