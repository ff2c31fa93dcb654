"""``pretrain.yaml``: training on the source's labelled cases, from fresh weights; stands on ``train.yaml``."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.augmentation import preset, side_flip
from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.parts import ours
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr, ref

__all__ = ["pretrain"]


def _selector(s: BundleSpec) -> dict[str, Any]:
    """What chooses the epoch, where that differs from ``train.yaml``."""
    if s.pretrain_select == s.select:
        return {}
    chosen = ref("validate#evaluator") if s.pretrain_select else None
    return {
        "selector": note(chosen, "whose key metric chooses the best epoch; null: the last one"),
        "run_folder::info::selected_by": note(s.key_metric if s.pretrain_select else "last epoch", "for run.json"),
    }


def pretrain(s: BundleSpec) -> dict[str, Any]:
    """The overlay."""
    return {
        "workflow": note("pretrain", "the name of a run begins with it"),
        "arm": note("source", "how reports name this run"),
        "pretrained": note("none", "from fresh weights"),
        "n_labelled": note(None, "all labelled cases"),
        "joint": note(False, "there is one side"),
        "augment": note(ref("augment_source"), "of its cases; auto: randomised where the target's contrast differs"),
        "chosen_augment": note(
            ours(
                "selection.augmentation_choice.augment_source",
                name=ref("augment"),
                manifest=ref("manifest"),
                source_site=ref("source_site"),
                target_site=ref("target_site"),
            ),
            "the preset of that name, chosen where it is auto",
        ),
        "train::random_transforms": note([preset(s, "chosen_augment"), *side_flip(s)], "all cases are the source's"),
        "+run_folder::info": note({"augment": ref("chosen_augment")}, "for run.json"),
        "run_folder::info::labelled_train": note(expr("len(@lists.source_training)"), "for run.json"),
        "regulariser": note(None, "nothing to hold on to yet"),
        "max_epochs": note(s.pretrain_epochs, "epochs of `steps_per_epoch` steps"),
        "lr": note(s.pretrain_lr, "learning rate"),
        **_selector(s),
        "train::dataset::data": note(expr("@lists.source_training"), "the source's cases"),
        "validate::dataset::data": note(expr("@lists.source_validation"), "choose the epoch"),
        "test::dataset::data": note(expr("@lists.source_test"), "at home: what the source can do where it belongs"),
        "run_folder::info::target_site": note(ref("source_site"), "the site that this run is tested at"),
    }
