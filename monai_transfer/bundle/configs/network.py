"""Network: its definition, the source's weights, the strategy, the optimizer; how it is applied to whole images."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.parts import in_bundle, monai, ours
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr, ref

__all__ = ["FOLDS", "inferer", "network_def", "optimizer", "prepared"]

FOLDS = "models/folds.pt"
"""All networks of a source of several folds, fitted to the bundle."""


def network_def(s: BundleSpec, comment: str, heading: str = "") -> dict[str, Any]:
    """The bare network; training and inference share it to the letter."""
    return {"network_def": note(s.network, comment, heading=heading)}


def inferer(s: BundleSpec, *, alone: bool = False) -> dict[str, Any]:
    """How the network is applied to a whole image; ``alone``: in a config that needs MONAI alone."""
    if s.kept is not None:
        return s.kept.inferer_config(alone=alone)
    if not s.dense:
        return monai("inferers.SimpleInferer")
    return monai("inferers.SlidingWindowInferer", roi_size=ref("patch"), sw_batch_size=4, overlap=0.25, mode="gaussian")


def prepared(s: BundleSpec) -> dict[str, Any]:
    """From the bare network to the one that is trained."""
    arguments: dict[str, Any] = {
        "network": ref("network_def"),
        "pretrained": ref("pretrained"),
        "strategy": ref("strategy"),
        "device": ref("device"),
        "target_classes": ref("class_names"),
    }
    if s.source_classes:
        arguments["source_classes"] = s.source_classes
    if s.loading:
        arguments["loading"] = s.loading
    if s.kept_classes and s.source_classes:  # scratch has the outputs, and no source
        given = {"source": in_bundle(s.start), "source_classes": s.source_classes, **s.loading}
        given = {"source": in_bundle(FOLDS)} if s.folds else given  # these are fitted
        arguments["reference"] = note(given, "the untouched source, for comparison where no case can tell")
    arguments |= {
        "min_coverage": s.min_coverage,
        "channels_last": ref("channels_last"),
        "checkpoint_activations": ref("checkpoint_activations"),
        "missing_later": True,
    }
    return {
        "class_names": note(s.class_names, "of the network's outputs, in order"),
        "strategy": note(s.strategy, "which parameters learn, how fast, when"),
        "regulariser": note(
            s.regulariser,
            "a term that holds fine-tuning to its source: {_target_: monai_transfer.methods.l2_sp.L2Sp}, Ewc, Bss,\n"
            "CoTuning, Distillation (docs/methods.md says which of them help where); null for none",
        ),
        "prepared": note(ours("engine.prepare.Prepared", **arguments), "the network with the source's weights"),
        "network": note(expr("@prepared.network"), "what is trained"),
    }


def _schedule(s: BundleSpec) -> dict[str, Any]:
    course = ours(
        "engine.learning_rate.warm_up_cosine",
        optimizer=ref("optimizer"),
        epochs=ref("train#trainer#max_epochs"),
        warm_up=ref("warm_up"),
    )
    return {
        "warm_up": note(s.warm_up, "share of the epochs over which the learning rate rises"),
        "lr_scheduler": note(course, "it rises, then falls to 0 along a cosine; again where a run is prolonged"),
    }


def optimizer(s: BundleSpec) -> dict[str, Any]:
    """The optimizer over the strategy's groups and the course of its learning rate."""
    decay = expr(f"0.0 if getattr(@regulariser, 'replaces_weight_decay', False) else {s.weight_decay!r}")
    groups = expr("@prepared.param_groups(@network)")
    return {
        "optimizer": note(
            {"_target_": "torch.optim.AdamW", "params": groups, "lr": ref("lr"), "weight_decay": decay},
            "over the strategy's groups of parameters",
        ),
        **_schedule(s),
    }
