"""Training: data, batches, trainer; ``train.yaml`` is put together here."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.augmentation import appearance, augment, pad, random_transforms
from monai_transfer.bundle.configs.datasets import cached, transforms
from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.grid import grid, space
from monai_transfer.bundle.configs.handlers import train_handlers
from monai_transfer.bundle.configs.intensities import label_scale, normalise
from monai_transfer.bundle.configs.labels import encode, label_mapping, targets
from monai_transfer.bundle.configs.loss import loss
from monai_transfer.bundle.configs.network import network_def, optimizer, prepared
from monai_transfer.bundle.configs.parts import amp, device, image_keys, in_bundle, monai, ours
from monai_transfer.bundle.configs.reading import read, readers
from monai_transfer.bundle.configs.testing import boxes, test
from monai_transfer.bundle.configs.validation import labelled, validate
from monai_transfer.bundle.planning.budget import ENOUGH_PATIENTS
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr, ref

__all__ = ["data_ids", "lists", "run_folder", "train", "train_part"]


def data_ids(s: BundleSpec, *, arm: str, n_labelled: int | None, pretrained: Any) -> dict[str, Any]:
    """What is trained on, and where the results go."""
    return {
        "imports": note(
            [expr("import os"), expr("import torch"), expr("from monai_transfer.data.phantom import embedded_set")],
            "modules that expressions below use",
        ),
        "bundle_root": note(".", "the bundle's folder"),
        "device": device(),
        "amp": amp(),
        "dataset_dir": note(s.dataset_dir, "folder of the data", heading="what to train on"),
        "manifest": note(s.manifest, "cases, labels, sites, splits"),
        "source_site": note(s.source_site, "site or sites whose labels are many"),
        "target_site": note(s.target_site, "site or sites that the model is for"),
        "n_labelled": note(n_labelled, "labelled target cases; null: all of the target's training split"),
        "seed": note(0, "of all that is random"),
        "workflow": note("train", "the name of a run begins with it"),
        "arm": note(arm, "how reports name this run"),
        "output_dir": note(
            expr("os.path.join(@bundle_root, 'runs', '%s-%s' % (@workflow, @seed))"), "the run's folder"
        ),
        "pretrained": pretrained,
        "ckpt": note(_evaluated(s), "weights that are evaluated where no other are named"),
        "fresh": note(False, "start over instead of continuing an unfinished run"),
        "publish": note(False, "put the run's weights into models/model.pt, the old ones beside it (for MONAI Label)"),
        "cache_dir": note(
            None, "a folder that keeps preprocessed cases from run to run, by their content; guard it like the data"
        ),
    }


def _evaluated(s: BundleSpec) -> Any:
    return ours("nnunet.steps.bundle_weights", root=ref("bundle_root")) if s.folds else in_bundle(s.weights)


def _budget(s: BundleSpec) -> dict[str, Any]:
    return {
        "max_epochs": note(s.epochs, "epochs of `steps_per_epoch` steps", heading="how long and how fast"),
        "steps_per_epoch": note(s.steps_per_epoch, "however many the cases"),
        "batch_size": note(s.batch_size, "cases per step"),
        "accumulation_steps": note(1, "batches per optimizer step: larger batches in the memory of small ones"),
        "lr": note(s.lr, "learning rate"),
        "val_interval": note(s.val_interval, "epochs between validations"),
        "bf16": note(False, "bfloat16 in training, on any device (in place of float16 on CUDA)"),
        "channels_last": note(
            expr("'cpu' in str(@device)"), "layout of the weights: faster on a CPU, equal to rounding"
        ),
        "checkpoint_activations": note(False, "compute them again in the backward pass: less memory, more time"),
        "selector": note(
            ref("validate#evaluator") if s.select else None,
            "whose key metric chooses the best epoch; null: the last one (few validation cases choose by chance)",
        ),
        "patience": note(
            None, f"stop after so many validations without a new best; wants {ENOUGH_PATIENTS} patients who choose it"
        ),
        "budget": note(None, "for the record: what max_epochs was made of (`monai-transfer run --budget` writes it)"),
        "extra_loaders": note([], "seeded anew with every epoch, beside the trainer's own"),
        "extra_validators": note([], "whose scores go to metrics.csv as well"),
    }


def _recipe(s: BundleSpec) -> dict[str, Any]:
    """What keeps a tuned network from losing what its source knew."""
    return {
        "joint": note(
            s.joint,
            "every batch half source, half labelled target; false: the target alone",
            heading="what keeps the source's knowledge (docs/fine_tuning.md of the package)",
        ),
        "n_replay": note(None, "source cases that joint training sees; null: all"),
        "ema": note(None, "decay of a running average of the weights that is handed on (0.95); null: the last weights"),
        "average": note(None, "at the end, average with the source: the tuned weights' share (0.5), or rule; null: no"),
        "average_statistics": note(
            False,
            "then estimate BatchNorm's statistics anew, on target images; rule: not where the source was trained\n"
            "under randomised contrast, whose statistics serve both sites",
        ),
        "tta": note(None, "flips: the test sees the mean over mirror images; null: no"),
    }


def lists(s: BundleSpec, n_labelled: Any = None) -> dict[str, Any]:
    """The manifest's cases, by their use."""
    ids = (
        "manifest",
        "source_site",
        "target_site",
        "n_labelled",
        "seed",
        *(("n_replay",) if s.kind.judged else ()),
    )
    more = {"kept_classes": note(s.added_classes, "the source's: no case was looked at for them")}
    arguments = {id: ref(id) for id in ids} | (more if s.added_classes and s.kind.in_manifest else {})
    if s.missing_channels != "refuse":
        arguments["missing_channels"] = note(s.missing_channels, "what becomes of cases that lack a channel")
    return {"lists": note(ours("data.lists.DataLists", **arguments), "the cases, by their use")}


def run_folder(s: BundleSpec, info: dict[str, Any]) -> dict[str, Any]:
    """The folder with all that a run leaves behind, and what its run.json says."""
    whose = {"bundle": s.name, "task": s.task, "spatial_dims": s.spatial_dims}
    labels = {"labels": {str(key): name for key, name in s.labels.items()}} if s.kind.judged else {}
    arguments = {
        "output_dir": ref("output_dir"),
        "manifest": ref("manifest"),
        "pretrained": ref("pretrained"),
        "weights": expr("@prepared.report"),
        "fresh": ref("fresh"),
        "info": {
            **{id: ref(id) for id in ("workflow", "arm", "seed")},
            **whose,
            **labels,
            "primary_metric": s.primary_metric,
            "higher_is_better": s.higher_is_better,
            "source_site": ref("source_site"),
            "target_site": ref("target_site"),
            **info,
            **({"trusted": dict(s.trusted)} if s.trusted else {}),
            "selected_by": s.key_metric if s.select else "last epoch",
        },
    }
    return {"run_folder": note(ours("engine.run_folder.RunFolder", **arguments), "what a run leaves behind")}


def train_part(s: BundleSpec, *, more: tuple[str, ...] = ()) -> dict[str, str]:
    """The expression of training's transforms, with ``more`` lists at its end."""
    middle = ["normalise"] + (["train#padding_transforms"] if s.dense else [])
    middle += ["train#label_transforms"] if s.kind.label_transforms(s.outputs) else []
    last = ["train#channel_dropout"] if s.channel_dropout else []
    last += ["train#target_transforms"] if targets(s) else []
    return transforms(
        "train#loading_transforms", "style", *middle, "train#random_transforms", "augmentations", *more, *last
    )


def _feature_cache() -> dict[str, Any]:
    return {
        "feature_cache": note(
            ours(
                "engine.auto_cache.FeatureCache",
                network=ref("network"),
                loader=ref("train#dataloader"),
                inferer=ref("train#inferer"),
                enabled=note(expr("'auto' if @regulariser is None else False"), "a term looks at the network"),
                views=note(
                    None,
                    "keep so many augmented views of each case; null: what is augmented at random is not cached",
                ),
                seed=ref("seed"),
            ),
            "a frozen backbone runs once per case, where that is valid; the log says what was decided, and why",
        )
    }


def _train(s: BundleSpec) -> dict[str, Any]:
    keys = image_keys(s)
    part: dict[str, Any] = {"loading_transforms": [*read(keys), *encode(s), *space(s, keys)]}
    if s.dense:
        part["padding_transforms"] = [pad(keys)]
    part["random_transforms"] = random_transforms(s)
    if s.channel_dropout:
        drop = ours("data.missing.RandChannelDropoutd", keys=["image"], prob=s.channel_dropout)
        part["channel_dropout"] = note([drop], "so that the network learns to do without a channel; never the last one")
    if last := targets(s):
        part["target_transforms"] = note(last, "last: what each case can tell of each class")
    if on_labels := s.kind.label_transforms(s.outputs):
        part["label_transforms"] = on_labels
    trainer = monai(
        "engines.SupervisedTrainer",
        max_epochs=ref("max_epochs"),
        device=ref("device"),
        train_data_loader=expr("@feature_cache.loader"),
        epoch_length=expr("len(@train#dataloader)"),
        network=ref("network"),
        loss_function=ref("loss"),
        optimizer=ref("optimizer"),
        inferer=expr("@feature_cache.inferer"),
        train_handlers=ref("train#handlers"),
        decollate=False,
        accumulation_steps=ref("accumulation_steps"),
        amp=expr("@amp and not @bf16"),
    )
    return part | {
        "preprocessing": train_part(s),
        "dataset": cached(
            s, expr("@lists.joint_training if @joint else @lists.target_training"), ref("train#preprocessing")
        ),
        "sampler": note(
            ours(
                "data.joint.JointSampler",
                data_source=ref("train#dataset"),
                num_samples=expr("@steps_per_epoch * @batch_size"),
                **({"label": "label"} if s.balanced_draws else {}),
            ),
            f"the same number of steps for every arm, however few the cases; sites{' and classes' * s.balanced_draws}"
            " balanced",
        ),
        "dataloader": monai(
            "data.DataLoader",
            dataset=ref("train#dataset"),
            batch_size=ref("batch_size"),
            sampler=ref("train#sampler"),
            num_workers=s.num_workers,
            drop_last=True,
        ),
        "inferer": ours("engine.precision.AutocastInferer", enabled=ref("bf16")),
        "handlers": note(train_handlers(s), "in this order: seed first, validation before what reads its score"),
        "trainer": trainer,
    }


def train(s: BundleSpec) -> dict[str, Any]:
    """``train.yaml``: fine-tuning on the target's labelled cases; every other training config stands on it."""
    said = " ".join(s.weights_note[key] for key in ("own_validation", "folds") if s.weights_note.get(key))
    info = {
        "n_labelled": ref("n_labelled"),
        "steps": expr("@max_epochs * @steps_per_epoch"),
        "budget": ref("budget"),
        "labelled_train": ours("data.joint.target_count", items=ref("train#dataset#data")),
        "joint": ref("joint"),
        "labelled_validation": expr("len(@validate#dataset#data)"),
        **({"source_says": said} if said else {}),
    }
    start = note(in_bundle(s.start), "weights to start from; none: from scratch")
    return {
        **data_ids(s, arm="fine_tuned", n_labelled=s.n_labelled, pretrained=start),
        **grid(s),
        **label_scale(s),
        **label_mapping(s),
        **boxes(s),
        **_budget(s),
        **_recipe(s),
        **augment(s),
        **lists(s),
        **readers(s, labels=s.dense),
        **normalise(s),
        **appearance(s),
        **network_def(s, "the bare network", "network: fresh, then the source's weights, then the strategy"),
        **prepared(s),
        **optimizer(s),
        **loss(s),
        **_feature_cache(),
        **run_folder(s, info),
        "train": note(_train(s), "", heading="training"),
        "labelled": note(labelled(s), "the labelled target cases as they are: for the rule of `average`"),
        "validate": note(validate(s), "cases that choose the epoch", heading="validation"),
        "test": note(
            test(s),
            "predictions are brought back to each image's own grid; the truth is never resampled"
            if s.dense
            else "cases that no training or selection has seen",
            heading="test",
        ),
        "publisher": note(
            ours(
                "engine.publish.PublishWeights",
                output_dir=ref("output_dir"),
                bundle_root=ref("bundle_root"),
                enabled=ref("publish"),
            ),
            "the run's weights to the bundle, where `publish` says so",
        ),
        "initialize": note(
            [expr("monai.utils.set_determinism(seed=@seed)")], "before anything is built", heading="run"
        ),
        "run": note(
            [
                expr("@prepared.require()"),
                expr("@run_folder.start()"),
                expr("@train#trainer.run()"),
                expr("@test#evaluator.run()"),
                expr("@run_folder.finish()"),
                expr("@publisher.run()"),
            ],
            "the workflow, step by step",
        ),
    }
