"""The arms that ``auto`` decides between: what each overrides, and which of them a bundle can run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_transfer.bundle.arm_overrides import ALONE, FROM_RANDOM, HEAD_ONLY, TUNED
from monai_transfer.bundle.run import config_files, open_workflow
from monai_transfer.data.augmentation.presets import RANDOMISED
from monai_transfer.data.lists import DataLists
from monai_transfer.errors import InputError

__all__ = ["TRAINED", "available_arms", "untrained"]

_BARE = {"_target_": "monai_transfer.strategies.base.Strategy"}

TRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "head_only": ("train", {"strategy": HEAD_ONLY, **ALONE}),
    **{name: ("train", overrides) for name, overrides in TUNED.items()},
    "self_trained": ("adapt", {"method": {"_target_": "monai_transfer.methods.self_training.SelfTraining"}}),
    "scratch": ("train", {**FROM_RANDOM, **ALONE}),
}
"""Arms that train: the workflow, and what they override in it."""


def untrained(pretrained: str, statistics: bool = False, weights: str | None = None) -> dict[str, Any]:
    """What an arm overrides in ``train`` that trains nothing: the source as it is, or with re-estimated statistics.

    Args:
        pretrained: the source's weights, for the record.
        statistics: whether norm layers' statistics are re-estimated on the target's images.
        weights: the weights that are taken instead, such as those of a candidate that has been trained already.
    """
    overrides: dict[str, Any] = {
        "prepared#_target_": "monai_transfer.engine.untrained.Untrained",
        "prepared#min_coverage": 0.999,  # all of it: a fresh head knows nothing
        "pretrained": weights or pretrained,
        "strategy": _BARE,
        "run_folder#pretrained": pretrained,
        "run": [
            "$@prepared.require()",
            "$@run_folder.start()",
            "$@prepared.save(@output_dir)",
            "$@test#evaluator.run()",
            "$@run_folder.finish()",
            "$@publisher.run()",
        ],
    }
    return overrides | ({"prepared#images": "$@labelled#images"} if statistics else {})


def available_arms(bundle: str | Path, overrides: Mapping[str, Any]) -> tuple[list[str], dict[str, str], DataLists]:
    """The arms that can be run, the others with the reason why not, and the data lists.

    Raises:
        InputError: not a bundle of this package.
    """
    flow = open_workflow(bundle, "train", overrides, log=False)
    flow.initialize()
    config = flow.parser.config
    lists = flow.parser.get_parsed_content("lists")
    if not isinstance(lists, DataLists):
        raise InputError(
            "its configs are not of this package: auto cannot decide here",
            path=bundle,
            hint="decide by `compare`, or make a bundle for these data with `monai-transfer new`",
        )
    source = config.get("pretrained")
    without = source is None or str(source).lower() in ("none", "")
    out: dict[str, str] = {}
    for name in ("source", "statistics", *(arm for arm in TRAINED if arm != "scratch")):
        if without:
            out[name] = "there is no source to start from (pretrained is none)"
    wanted = {"averaged": ["average_statistics"], "joint": ["joint"], "joint_averaged": ["joint", "average_statistics"]}
    for name, key in ((name, key) for name, keys in wanted.items() for key in keys):
        if key not in config:
            out.setdefault(name, f"this bundle's configs have no {key}; make it anew with `monai-transfer new --force`")
    if not _has_source_images(lists):
        for name in ("joint", "joint_averaged"):
            out.setdefault(name, "no labelled source image is at hand")
    if "images" not in config.get("labelled", {}):
        out.setdefault("statistics", "this bundle's configs have no loader of unlabelled target images")
    if not lists.labelled_patients and config.get("augment_source") in RANDOMISED:
        # validators prefer them all the same, at a price of .07 Dice on nuclei (docs/auto.md)
        kept = "the source was trained under randomised contrast, whose statistics serve both sites"
        out.setdefault("statistics", f"{kept}, and no label could tell better")
    try:
        config_files(bundle, "adapt")
        lists.target_unlabelled  # noqa: B018 - raises where there is none
        if not _has_source_images(lists):
            out.setdefault("self_trained", "it wants labelled source images, and none is at hand")
    except InputError as error:
        out.setdefault("self_trained", error.fault)
    everything = ["source", "statistics", *TRAINED]
    return [name for name in everything if name not in out], out, lists


def _has_source_images(lists: DataLists) -> bool:
    try:
        return any(item["part"] == "source" for item in lists.joint_training)
    except InputError:
        return False
