"""Handlers of training: what happens around its steps, in the order in which it must happen."""

from __future__ import annotations

import math
from typing import Any

from monai_transfer.bundle.configs.intensities import scaled
from monai_transfer.bundle.configs.parts import monai, ours, told
from monai_transfer.bundle.planning.budget import ENOUGH_PATIENTS
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr, ref
from monai_transfer.data.augmentation.presets import RANDOMISED
from monai_transfer.selection.auto_rule import telling_patients

__all__ = ["checkpoint", "train_handlers", "validation_handler"]


def validation_handler() -> dict[str, Any]:
    """Runs the validation."""
    return monai(
        "handlers.ValidationHandler",
        validator=ref("validate#evaluator"),
        interval=ref("val_interval"),
        epoch_level=True,
    )


def checkpoint(s: BundleSpec) -> dict[str, Any]:
    """Keeps the best and the last weights, and all that resuming needs."""
    return ours(
        "engine.checkpoint.Checkpoint",
        output_dir=ref("output_dir"),
        validator=ref("selector"),
        save={"lr_scheduler": ref("lr_scheduler")},
        run_folder=ref("run_folder"),
        mode="max" if s.higher_is_better else "min",
    )


def train_handlers(s: BundleSpec) -> list[Any]:
    """Seed first, validation before what reads its score."""
    scale = {"scale": ref("label_scale#std")} if scaled(s) else {}
    return [
        ours("engine.refuse_probabilities.RefuseProbabilities"),
        ours("engine.memory.MemoryAdvice"),
        ours("engine.epoch_seed.EpochSeed", seed=ref("seed"), loaders=ref("extra_loaders")),
        monai("handlers.LrScheduleHandler", lr_scheduler=ref("lr_scheduler"), print_lr=False),
        ours("strategies.base.follow", strategy=ref("strategy")),
        ours("engine.guard.StopOnNonFiniteLoss"),
        ours("engine.training_metrics.TrainingMetrics", task=s.task, **scale),
        ours(
            "engine.weight_average.WeightAverage",
            decay=ref("ema"),
            validator=ref("validate#evaluator"),
            _disabled_=expr("@ema is None"),
        ),
        validation_handler(),
        ours("engine.progress.ProgressLine"),
        ours(
            "engine.metrics_log.MetricsLog",
            output_dir=ref("output_dir"),
            validator=ref("validate#evaluator"),
            also=ref("extra_validators"),
        ),
        checkpoint(s),
        ours(
            "engine.early_stop.EarlyStop",
            patience=ref("patience"),
            validator=ref("selector"),
            cases=ref("validate#dataset#data"),
            mode="max" if s.higher_is_better else "min",
            least=ENOUGH_PATIENTS,
            run_folder=ref("run_folder"),
            _disabled_=expr("@patience is None"),
        ),
        ours("engine.time_estimate.TimeEstimate"),
        ours(
            "engine.source_average.AverageWithSource",
            network=ref("network"),
            output_dir=ref("output_dir"),
            share=_share(s),
            evaluator=ref("labelled#evaluator"),
            chance=s.kind.metric(s.primary_metric).chance or 0.0,
            statistics=expr(
                "@labelled#images if @average_statistics and not "
                f"(@average_statistics == 'rule' and @augment_source in {tuple(RANDOMISED)}) else None"
            ),
            report=expr("@prepared.report"),
            _disabled_=expr("@average is None or @prepared.report is None"),
        ),
        ours(
            "engine.adapt.Adapt",
            method=ref("regulariser"),
            name="regulariser",
            **told(s),
            _disabled_=expr("@regulariser is None"),
        ),
    ]


def _share(s: BundleSpec) -> Any:
    """The tuned weights' share; halves where the source's score on the labelled cases tells the rule nothing."""
    least = telling_patients(s.kind.metric(s.primary_metric))
    by_rule = f"(None if len(@lists.labelled_patients) >= {least} else 0.5)" if math.isfinite(least) else "0.5"
    return expr(f"{by_rule} if @average == 'rule' else @average")
