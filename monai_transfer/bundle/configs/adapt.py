"""``adapt.yaml``: labelled source and unlabelled target cases, and a method's term; stands on ``train.yaml``."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.components import method_kind
from monai_transfer.bundle.configs.augmentation import pad, preset
from monai_transfer.bundle.configs.datasets import cached, loader, transforms
from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.grid import space
from monai_transfer.bundle.configs.parts import monai, ours, told
from monai_transfer.bundle.configs.reading import read
from monai_transfer.bundle.configs.training import train_part
from monai_transfer.bundle.configs.validation import batch_size, evaluator
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr, ref
from monai_transfer.data.augmentation.presets import RANDOMISED, randomised_parts

__all__ = ["adapt"]


def _method(s: BundleSpec) -> dict[str, Any]:
    out = {
        "workflow": note("adapt", "the name of a run begins with it"),
        "arm": note("adapted", "how reports name this run"),
        "n_labelled": note(0, "labelled target cases that join in"),
        "joint": note(False, "the method's own way of joining both sides"),
        "average": note(None, "the run's result is the adapted network"),
        "augment": note(ref("augment_source"), "all cases are augmented as the source's"),
        "lr": note(s.adapt_lr, "learning rate"),
        "layer": note(s.layer, "module whose output the method aligns; null: what enters the class head"),
        "weight": note(s.method_weight, "of the method's term"),
        "statistics": note(
            # measured on nuclei, on validation images: docs/fine_tuning.md
            "both" if s.augment_source in RANDOMISED and not s.weights_note else "target",
            "whose batches count in BatchNorm's running averages: the target's alone, both (where the source was\n"
            "trained under randomised contrast), or kept: nobody's, the source's stay",
        ),
        "method": note(s.method, "what is added to the loss"),
        "domain_picture": note(
            True, "figures/domains.png: features of both sites before and after; labels teach nothing in it"
        ),
    }
    if s.kind.exclusive:
        out["unlabelled_scores"] = note(
            True, "validators.json, for `compare --choose-by`: arms chosen without target labels"
        )
        out["scored"] = note(
            monai(
                "data.Dataset",
                data=expr("@lists.target_unlabelled"),
                transform=transforms("target#deterministic_transforms"),
            ),
            "what these scores are computed on",
        )
    return out


def _strong_view(s: BundleSpec) -> dict[str, Any]:
    """As far from the plain view as the source's own training went."""
    parts = {"transforms": randomised_parts("strong")} if s.augment_source in RANDOMISED else {}
    return ours("data.randomisation.StrongViewd", **parts)


def _data(s: BundleSpec) -> dict[str, Any]:
    sampler = ours(
        "data.balanced.BalancedSampler",
        data_source=ref("train#dataset"),
        num_samples=expr("@steps_per_epoch * @batch_size"),
        alpha=ref("balance"),
        **({"label": "label"} if s.balanced_draws else {}),
    )
    views = {
        f"strong_{domain}": note(
            ours("data.randomisation.strong_views", method=ref("method"), view=ref("strong_view"), domain=domain),
            f"it, where the method asks for it on {domain} images",
        )
        for domain in ("target", "source")
    }
    return {
        "balance": note(
            0,
            "sites in the labelled batches: 0 equally, 1 by their numbers of cases; for --n_labelled, several sources",
        ),
        "strong_view": note(
            _strong_view(s),
            "a second, strongly augmented look at each case (self_training, mean_teacher, fixmatch)",
        ),
        **views,
        "train::preprocessing": note(train_part(s, more=("strong_source",)), "as in train.yaml, and the strong view"),
        "train::dataset::data": note(
            expr("@lists.source_and_target_training"), "labelled: the source's, and n_labelled of the target's"
        ),
        "train::sampler": note(sampler, "sites balanced"),
        "validate::dataset::data": note(expr("@lists.source_validation"), "labelled ones: the source's"),
        "feature_cache::enabled": note(False, "the method looks at images"),
        "regulariser": note(None, "`method` is the term here"),
        "extra_loaders": note([ref("target#dataloader")], "seeded anew with every epoch"),
        "run_folder::info::labelled_train": note(expr("len(@train#dataset#data)"), "for run.json"),
        "run_folder::info::labelled_target": note(expr("len(@lists.target_training)"), "for run.json"),
        "run_folder::info::unlabelled_target": note(expr("len(@target#dataset#data)"), "for run.json"),
    }


def _choice(s: BundleSpec) -> dict[str, Any]:
    if not s.kind.exclusive:
        return {
            "selector": note(None, f"a {s.task} has no class probabilities that could choose an epoch without labels"),
            "run_folder::info::selected_by": note("last epoch", "for run.json"),
        }
    metric = ours(
        "selection.validators.metric.UnlabelledValidator",
        name=expr("@choose_by or 'entropy'"),
        task=s.kind.as_method_sees_it,
        class_names=ref("class_names"),
    )
    dataset = cached(s, expr("@lists.target_unlabelled_validation if @choose_by else []"), ref("choose#preprocessing"))
    run = evaluator("choose", network=expr("@prepared.network"), key_val_metric=ref("choose#key_metric"))
    return {
        "choose_by": note(
            None,
            "the epoch is chosen by the target's validation images without their labels, if at all: entropy,\n"
            "information_maximisation, snd, bnm or class_clustering; null: the last one. None is reliable.",
        ),
        "selector": note(expr("@choose#evaluator if @choose_by else None"), "whose key metric chooses the epoch"),
        "extra_validators": note(
            expr("[@choose#evaluator] if @choose_by else []"), "whose scores go to metrics.csv as well"
        ),
        "run_folder::info::selected_by": note(expr("@choose_by or 'last epoch'"), "for run.json"),
        "validate::handlers": note(
            [
                monai(
                    "handlers.ValidationHandler",
                    validator=ref("choose#evaluator"),
                    interval=1,
                    _disabled_=expr("not @choose_by"),
                )
            ],
            "the choice follows every validation",
        ),
        "choose": note(
            {
                "preprocessing": transforms("target#deterministic_transforms"),
                "dataset": dataset,
                "dataloader": loader("choose", batch_size(s), num_workers=0),
                "key_metric": {"unlabelled": metric},
                "evaluator": run,
            },
            "the validation without labels",
        ),
    }


def _target(s: BundleSpec) -> dict[str, Any]:
    keys = ["image"]
    padding = [pad(keys)] if s.dense else []
    return {
        "loading_transforms": [*read(keys), *space(s, keys)],
        "deterministic_transforms": expr("@target#loading_transforms + @normalise"),
        "random_transforms": note(
            [*padding, preset(s, "augment", labelled=False)], "as for the source, without the label"
        ),
        "preprocessing": transforms("target#deterministic_transforms", "target#random_transforms", "strong_target"),
        "dataset": cached(s, expr("@lists.target_unlabelled"), ref("target#preprocessing")),
        "dataloader": loader(
            "target",
            ref("batch_size"),
            shuffle=True,
            num_workers=s.num_workers,
            drop_last=expr("len(@target#dataset#data) >= @batch_size"),
        ),
    }


def _handlers(s: BundleSpec) -> list[Any]:
    names = {"names": ref("class_names")} if s.kind.exclusive else {}
    out = [
        ours(
            "engine.adapt.Adapt",
            method=ref("method"),
            target_loader=ref("target#dataloader"),
            layer=ref("layer"),
            weight=ref("weight"),
            statistics=ref("statistics"),
            **told(s),
        ),
        ours(
            "evaluation.domain_picture.DomainPicture",
            output_dir=ref("output_dir"),
            source=ref("validate#dataset"),
            target=ref("test#dataset"),
            inferer=ref("validate#inferer"),
            layer=ref("layer"),
            **names,
            _disabled_=expr("not @domain_picture"),
        ),
    ]
    if s.kind.exclusive:
        out.append({**_scores(s), "_disabled_": expr("not @unlabelled_scores")})
    return out


def _scores(s: BundleSpec) -> dict[str, Any]:
    return ours(
        "evaluation.unlabelled_scores.UnlabelledScores",
        output_dir=ref("output_dir"),
        dataset=ref("scored"),
        task=s.kind.as_method_sees_it,
        inferer=ref("validate#inferer"),
        class_names=ref("class_names"),
    )


def _source_free(s: BundleSpec) -> dict[str, Any]:
    """In place of a training: the method adapts the source's network, on target images alone."""
    run = ours(
        "engine.source_free.SourceFreeRun",
        method=ref("method"),
        network=ref("network"),
        loader=ref("target#dataloader"),
        output_dir=ref("output_dir"),
        **told(s),
    )
    looked = [expr("@unlabelled.look(@adaptation.network)")] if s.kind.exclusive else []
    steps = [
        expr("@prepared.require()"),
        expr("@run_folder.start()"),
        expr("@adaptation.run(@test#evaluator)"),
        *looked,
        expr("@test#evaluator.run()"),
        expr("@run_folder.finish()"),
        expr("@publisher.run()"),
    ]
    return {
        "method": note(s.method, "adapts the source's network without source data; nothing is trained"),
        "adaptation": note(run, "fits it, or has it adapt while it is evaluated"),
        "test::evaluator::network": note(expr("@adaptation.network"), "the adapted one"),
        "train::dataset::data": note(expr("@lists.target_unlabelled"), "nothing is trained on them here"),
        **(
            {"unlabelled": note(_scores(s), "validators.json, and the alarm where predictions collapse")}
            if looked
            else {}
        ),
        "run_folder::info::labelled_train": note(0, "for run.json"),
        "run_folder::info::labelled_target": note(0, "for run.json"),
        "run_folder::info::steps": note(0, "for run.json: no step of training"),
        "+train::handlers": note([], "behind those of train.yaml"),
        "run": note(steps, "the workflow, step by step"),
    }


def _input_space(s: BundleSpec) -> dict[str, Any]:
    """Plain training on source images in the target's look."""
    look = {**s.method, "keys": ["image"], "targets": expr("@lists.target_unlabelled"), "load": ref("load_target")}
    return {
        "style": note([look], "gives the source's images the target's look, before normalisation"),
        "method": note(None, "no term of the loss: see `style`"),
        "run_folder::info::method": note(s.method["_target_"], "for run.json"),
        "+train::handlers": note(_handlers(s)[1:], "behind those of train.yaml"),
    }


def _translated(s: BundleSpec) -> dict[str, Any]:
    """Plain training on source images that a translation, fitted before, gives the target's look."""
    translate = ours("data.translate.TranslateToTargetd", keys=["image"], translation=ref("translation"), prob=0.0)
    steps = [
        expr("@prepared.require()"),
        expr("@run_folder.start()"),
        expr("@translation.fit(@train#dataloader, @target#dataloader)"),
        expr("setattr(@augmentations[-1], 'prob', 1.0)"),
        expr("@train#trainer.run()"),
        expr("@test#evaluator.run()"),
        expr("@run_folder.finish()"),
        expr("@publisher.run()"),
    ]
    return {
        "translation": note(dict(s.method), "learns the target's look from images of both sites (`steps` of its own)"),
        "augmentations": note([translate], "gives it to the source's images; prob is 0 while it is being learnt"),
        "method": note(None, "no term of the loss: see `translation`"),
        "run_folder::info::method": note(s.method["_target_"], "for run.json"),
        "+train::handlers": note(_handlers(s)[1:], "behind those of train.yaml"),
        "run": note(steps, "the workflow, step by step"),
    }


def adapt(s: BundleSpec) -> dict[str, Any]:
    """The overlay."""
    others = {"source_free": _source_free, "input": _input_space, "translation": _translated}
    kind = method_kind(s.method)
    return _term(s) | (others[kind](s) if kind in others else {})


def _term(s: BundleSpec) -> dict[str, Any]:
    return {
        **_method(s),
        **_data(s),
        **_choice(s),
        "run_folder::info::method": note(ours("engine.class_path.class_path", thing=ref("method")), "for run.json"),
        "target": note(_target(s), "images without labels"),
        "+train::handlers": note(_handlers(s), "behind those of train.yaml"),
    }
