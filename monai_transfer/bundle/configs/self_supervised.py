"""The configs of a bundle for self-supervised pretraining, which has other workflows: masking and contrast."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.augmentation import crop, flips, pad, rotation
from monai_transfer.bundle.configs.datasets import cached, loader, seeded, transforms
from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.grid import grid, space
from monai_transfer.bundle.configs.handlers import checkpoint, validation_handler
from monai_transfer.bundle.configs.inference import inference_data, inference_engine, preprocessing, table
from monai_transfer.bundle.configs.intensities import normalise
from monai_transfer.bundle.configs.network import network_def, optimizer
from monai_transfer.bundle.configs.parts import monai, ours
from monai_transfer.bundle.configs.reading import read, readers
from monai_transfer.bundle.configs.training import data_ids, lists, run_folder
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import Expression, expr, ref
from monai_transfer.errors import InputError

__all__ = ["contrastive", "inference", "train"]

_KEYS = ["image"]


def _levels(s: BundleSpec) -> int:
    """How often the encoder halves an image.

    Raises:
        InputError: the network is no MONAI UNet, whose encoder alone is known here.
    """
    if s.network["_target_"] != "monai.networks.nets.UNet":
        raise InputError(f"no expression for the encoder of {s.network['_target_']}", hint="take monai's UNet")
    return len(s.network["strides"])


def _encoder(s: BundleSpec) -> Expression:
    parts, inner = ["@network_def.model[0]"], "@network_def.model[1].submodule"
    for _ in range(_levels(s) - 1):
        parts.append(f"{inner}[0]")
        inner += "[1].submodule"
    return expr(f"torch.nn.Sequential({', '.join([*parts, inner])}, @pool, @flatten)")


def _view(s: BundleSpec) -> list[int]:
    """Voxels per axis of a contrastive view: five sixths of a patch, divisible as the network needs it."""
    unit = 2 ** _levels(s)
    return [max(unit, n * 5 // 6 // unit * unit) for n in s.patch]


def _masking(**more: Any) -> dict[str, Any]:
    return ours(
        "pretraining.masking.RandMaskBlocksd",
        keys="image",
        block=ref("mask_block"),
        ratio=ref("mask_ratio"),
        **more,
    )


def _train(s: BundleSpec) -> dict[str, Any]:
    trainer = monai(
        "engines.SupervisedTrainer",
        max_epochs=ref("max_epochs"),
        device=ref("device"),
        train_data_loader=ref("train#dataloader"),
        network=ref("network"),
        loss_function=ref("loss"),
        optimizer=ref("optimizer"),
        inferer=ref("train#inferer"),
        train_handlers=ref("train#handlers"),
        decollate=False,
        amp=ref("amp"),
    )
    return {
        "loading_transforms": [*read(_KEYS), *space(s, _KEYS)],
        "padding_transforms": [pad(_KEYS)],
        "random_transforms": [crop(_KEYS), *flips(s, _KEYS), rotation(s, _KEYS), _masking()],
        "preprocessing": transforms(
            "train#loading_transforms", "normalise", "train#padding_transforms", "train#random_transforms"
        ),
        "dataset": cached(s, expr("@lists.self_supervised_training"), ref("train#preprocessing")),
        "sampler": seeded("train#dataset"),
        "dataloader": loader(
            "train", ref("batch_size"), sampler=ref("train#sampler"), num_workers=s.num_workers, drop_last=True
        ),
        "inferer": monai("inferers.SimpleInferer"),
        "handlers": note(
            [
                ours("engine.epoch_seed.EpochSeed", seed=ref("seed")),
                monai("handlers.LrScheduleHandler", lr_scheduler=ref("lr_scheduler"), print_lr=False),
                ours("engine.guard.StopOnNonFiniteLoss"),
                validation_handler(),
                ours("engine.progress.ProgressLine"),
                ours(
                    "engine.metrics_log.MetricsLog", output_dir=ref("output_dir"), validator=ref("validate#evaluator")
                ),
                checkpoint(s),
            ],
            "in this order: seed first, validation before what reads its score",
        ),
        "trainer": trainer,
    }


def _validate(s: BundleSpec) -> dict[str, Any]:
    metric = monai(
        "handlers.IgniteMetricHandler",
        loss_fn=ref("loss"),
        output_transform=expr("monai.handlers.from_engine(['pred', 'label'])"),
    )
    engine = monai(
        "engines.SupervisedEvaluator",
        device=ref("device"),
        val_data_loader=ref("validate#dataloader"),
        network=ref("learner"),
        inferer=ref("validate#inferer"),
        postprocessing=ref("validate#postprocessing"),
        key_val_metric=ref("validate#key_metric"),
        val_handlers=ref("validate#handlers"),
        amp=ref("amp"),
    )
    return {
        "random_transforms": [
            monai("transforms.CenterSpatialCropd", keys=_KEYS, roi_size=ref("patch")),
            _masking(seed=0),
        ],
        "preprocessing": transforms(
            "train#loading_transforms", "normalise", "train#padding_transforms", "validate#random_transforms"
        ),
        "dataset": cached(s, expr("@lists.self_supervised_validation"), ref("validate#preprocessing")),
        "dataloader": loader("validate", ref("batch_size"), num_workers=0),
        "inferer": monai("inferers.SimpleInferer"),
        "postprocessing": None,
        "key_metric": {s.key_metric: metric},
        "handlers": [ours("evaluation.reconstruction.ReconstructionFigure", output_dir=ref("output_dir"))],
        "evaluator": engine,
    }


def train(s: BundleSpec) -> dict[str, Any]:
    """``train.yaml``: masked autoencoding."""
    schedule = {key: value for key, value in optimizer(s).items() if key != "optimizer"}
    groups = expr("[p for p in @network.parameters() if p.requires_grad]")
    prepared = {id: ref(id) for id in ("pretrained", "strategy", "device")}
    info = {
        "n_labelled": 0,
        "steps": expr("@max_epochs * @steps_per_epoch"),
        "unlabelled_train": expr("len(@train#dataset#data)"),
        "unlabelled_validation": expr("len(@validate#dataset#data)"),
    }
    return {
        **data_ids(s, arm="masked", n_labelled=0, pretrained=note("none", "weights to go on from")),
        **grid(s),
        "mask_block": note(8, "voxels per side", heading="what to hide"),
        "mask_ratio": note(0.6, "share of the voxels that is hidden"),
        "max_epochs": note(s.pretrain_epochs, "epochs of `steps_per_epoch` steps", heading="how long and how fast"),
        "steps_per_epoch": note(s.steps_per_epoch, "however many the cases"),
        "batch_size": note(s.batch_size, "cases per step"),
        "lr": note(s.pretrain_lr, "learning rate"),
        "val_interval": note(s.val_interval, "epochs between validations"),
        "selector": note(ref("validate#evaluator"), "whose key metric chooses the best epoch; null: the last epoch"),
        **lists(s),
        **readers(s, labels=False),
        **normalise(s),
        **network_def(s, "the bare network", "network: returns an image, for the time being"),
        "strategy": note(ours("strategies.full.Full"), "which parameters learn"),
        "prepared": note(
            ours("engine.prepare.Prepared", network=ref("network_def"), **prepared, min_coverage=0.5),
            "the network with the weights to go on from",
        ),
        "learner": note(expr("@prepared.network"), "what learns"),
        "network": note(ref("learner"), "what is trained"),
        "optimizer": note(
            {"_target_": "torch.optim.AdamW", "params": groups, "lr": ref("lr"), "weight_decay": s.weight_decay},
            "over all that learns",
        ),
        **schedule,
        "loss": note(
            ours("pretraining.masked_autoencoding.MaskedReconstructionLoss", norm=note("l2", "or l1")),
            "of the hidden voxels",
        ),
        **run_folder(s, info),
        "train": note(_train(s), "", heading="training"),
        "validate": note(
            _validate(s), "unlabelled as well: the same blocks of each scan are hidden every time", heading="validation"
        ),
        "initialize": note(
            [expr("monai.utils.set_determinism(seed=@seed)")], "before anything is built", heading="run"
        ),
        "run": note(
            [expr("@run_folder.start()"), expr("@train#trainer.run()"), expr("@run_folder.finish()")],
            "the workflow, step by step",
        ),
    }


def contrastive(s: BundleSpec) -> dict[str, Any]:
    """``contrastive.yaml``: two views of each scan, all others are negatives; stands on ``train.yaml``."""
    view = ref("view")
    learner = ours(
        "pretraining.contrastive.SimClr",
        network=expr("@prepared.network"),
        image_size=view,
        layer=ref("layer"),
        in_channels=len(s.channel_names),
    )
    views = [
        monai("transforms.RandSpatialCropd", keys=_KEYS, roi_size=view, random_size=False),
        *flips(s, _KEYS),
        rotation(s, _KEYS, prob=0.5),
        ours("data.randomisation.RandAppearanced", keys=_KEYS, prob=0.5),
    ]
    two = "pretraining.views.TwoViewsd"
    contrast = ours("pretraining.contrastive.NtXent", temperature=ref("temperature"), gather=False)
    return {
        "workflow": note("contrastive", "the name of a run begins with it"),
        "arm": note("contrastive", "how reports name this run"),
        "layer": note(s.layer, "where the encoder ends"),
        "view": note(_view(s), "voxels per axis of a view"),
        "batch_size": note(8, "scans per step"),
        "max_epochs": note(s.pretrain_epochs // 4, "a step costs about three of masking"),
        "temperature": note(0.5, "of the contrast"),
        "selector": note(None, "the last epoch is kept"),
        "run_folder::info::selected_by": note("last epoch", "for run.json"),
        "learner": note(learner, "the encoder with a projection"),
        "loss": note(ours("pretraining.contrastive.NtXent", temperature=ref("temperature")), "the contrast in a batch"),
        "views": note(views, "what may differ between two views of a scan is what the encoder learns to ignore"),
        "train::random_transforms": note([ours(two, keys="image", transforms=ref("views"))], "two views of a scan"),
        "validate::random_transforms": note(
            [ours(two, keys="image", transforms=Expression("%views"), seed=0)],
            "a copy: seeding must not reach training",
        ),
        "validate::dataset::data": note(
            expr("@lists.self_supervised_validation if len(@lists.self_supervised_validation) > 1 else []"),
            "one scan has no contrast",
        ),
        "validate::dataloader::batch_size": note(expr("len(@validate#dataset#data) or 1"), "all in one batch"),
        "validate::handlers": note([], "no picture"),
        "validate::key_metric": note(
            {
                "val_contrast": monai(
                    "handlers.IgniteMetricHandler",
                    loss_fn=contrast,
                    output_transform=expr("lambda output: (output['pred'], None)"),
                )
            },
            "the contrast among the validation scans",
        ),
        "validate::evaluator::decollate": note(False, "the batch is the unit"),
    }


def inference(s: BundleSpec) -> dict[str, Any]:
    """``inference.yaml``: one row of features per image."""
    pool = {"_target_": f"torch.nn.AdaptiveAvgPool{s.spatial_dims}d", "output_size": 1}
    divisible = monai("transforms.DivisiblePadd", keys=_KEYS, k=2 ** _levels(s))
    return {
        **{key: value for key, value in inference_data(s).items() if key != "patch" or s.crop or s.resize},
        **network_def(s, "the whole network, which fills in hidden blocks"),
        "pool": note(pool, "one number per channel"),
        "flatten": note({"_target_": "torch.nn.Flatten"}, "as a row"),
        "encoder": note(_encoder(s), "the part of it that describes an image"),
        "network": note(expr("@encoder.to(@device)"), "on the device"),
        **preprocessing(s, divisible),
        "inferer": note(monai("inferers.SimpleInferer"), "whole images"),
        "postprocessing": note(
            monai("transforms.Compose", transforms=[monai("transforms.EnsureTyped", keys="pred")]), "as they are"
        ),
        **inference_engine("network_def", table()),
    }
