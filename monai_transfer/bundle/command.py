"""The commands that make and use bundles: ``new``, ``run`` and ``export``."""

from __future__ import annotations

import json
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from monai_transfer.bundle.command_line import (
    AUTO,
    WORKFLOWS,
    best_weights,
    check_roots,
    config_files,
    equal_command,
    named_strategy,
    parse_overrides,
)
from monai_transfer.bundle.planning.budget import asked_for, in_short
from monai_transfer.discovery import file_names
from monai_transfer.errors import InputError
from monai_transfer.options import (
    BundleFolder,
    RunFolder,
    TrustSource,
    announce,
    begins_with,
    given_paths,
    number_list,
    require,
    require_name,
    whole_number_list,
)
from monai_transfer.runs.record import collapse_alarms, read_record
from monai_transfer.stopping import keeps

__all__ = ["export", "new", "run"]

_AUGMENT = ("auto", "none", "light", "standard", "colour", "randomised", "randomised_all")
_DATA = ("dataset_dir", "manifest")
"""Config ids that say where the cases are: what follows a run needs them again."""

KINDS = ("bundle", "torchscript", "onnx", "nnunet")
_STRATEGIES = file_names("strategies")
_METHODS = [*file_names("methods"), *file_names("testtime"), "fourier", "histogram", "translation"]
_WORKFLOWS = f"{', '.join(WORKFLOWS)}; train is fine-tuning."


def new(
    folder: Annotated[Path, typer.Argument(help="Folder of the new bundle; its name holds the task's word if it can.")],
    data: Annotated[Path, typer.Option(help="The manifest.")],
    source: Annotated[
        str,
        typer.Option(
            help="Bundle, run or nnU-Net results folder, or checkpoint file to start from; 'none': pretrain one."
        ),
    ] = "none",
    source_head: Annotated[
        str | None,
        typer.Option(help="What the source's outputs are, where it does not say: softmax, sigmoid or regression."),
    ] = None,
    source_site: Annotated[str | None, typer.Option(help="Site with many labels (for pretrain and adapt).")] = None,
    target_site: Annotated[str | None, typer.Option(help="Site that the model is for.")] = None,
    n_labelled: Annotated[int | None, typer.Option(help="Labelled target cases to use; default all.", min=0)] = None,
    strategy: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(file_names('strategies'))}, or a full _target_ path.",
            autocompletion=begins_with(file_names("strategies")),
        ),
    ] = "full",
    method: Annotated[
        str,
        typer.Option(
            help="auto: self-training with a mean teacher for masks, cdan or mcc for classes; or "
            f"{', '.join(_METHODS)}, or a full _target_ path.",
            autocompletion=begins_with(["auto", *_METHODS]),
        ),
    ] = "auto",
    spacing: Annotated[str | None, typer.Option(help="mm per axis, e.g. 1,1,3; default: the data's median.")] = None,
    patch: Annotated[str | None, typer.Option(help="Voxels per axis, e.g. 64,64,32; default: fitted.")] = None,
    size: Annotated[str | None, typer.Option(help="Network size without a source: small, medium, large.")] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="Of a checkpoint file: the class in monai.networks.nets, where names and shapes do not tell it. "
            "Without a source: UNet or DynUNet; default: planned."
        ),
    ] = None,
    network_args: Annotated[
        list[str] | None,
        typer.Option(help='Arguments of that class, e.g. "feature_size=48 depths=[2,2,2,2]"; may be repeated.'),
    ] = None,
    residual: Annotated[
        bool, typer.Option("--residual", help="A DynUNet with residual blocks, for a segmentation without a source.")
    ] = False,
    resize: Annotated[
        str | None, typer.Option(help="Pixels per axis that every picture is brought to first, e.g. 512,512.")
    ] = None,
    channels: Annotated[
        str | None, typer.Option(help="grey or rgb, for pictures; default: as the source or the pictures are.")
    ] = None,
    budget: Annotated[str, typer.Option(help="quick, standard, full, or a number of optimizer steps.")] = "quick",
    preprocessing: Annotated[
        str, typer.Option(help="source: what the source does to images is kept; data: all is fitted to the data.")
    ] = "source",
    epochs: Annotated[int | None, typer.Option(help="Epochs of fine-tuning and adaptation.", min=1)] = None,
    pretrain_epochs: Annotated[int | None, typer.Option(help="Epochs of pretraining.", min=1)] = None,
    steps_per_epoch: Annotated[
        int | None, typer.Option(help="Optimizer steps per epoch, whatever the data.", min=1)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Cases per step.", min=1)] = None,
    no_flip: Annotated[
        bool, typer.Option("--no-flip", help="Never mirror images; classes named by side forbid it anyway.")
    ] = False,
    keep_classes: Annotated[
        bool | None,
        typer.Option(
            help="Classes that the source knows and the manifest does not annotate stay outputs, held to the source's "
            "answers in fine-tuning; default: in segmentations and among findings, unless they are many."
        ),
    ] = None,
    balance: Annotated[
        str,
        typer.Option(
            help="Of classes unlike in number: weights (of the loss), sampling, none; auto: weights where needed."
        ),
    ] = "auto",
    missing_channels: Annotated[
        str,
        typer.Option(
            help="Cases that lack a channel: leave-out; zeros, with channel dropout; auto: zeros where any does."
        ),
    ] = "auto",
    channel_dropout: Annotated[
        float | None,
        typer.Option(help="Probability of leaving out each channel in training; default .25 where cases lack one."),
    ] = None,
    swap_sides: Annotated[
        bool,
        typer.Option(
            "--swap-sides",
            help="Classes of the two sides are each other's mirror image: flip, and let them change places.",
        ),
    ] = False,
    augment: Annotated[
        str,
        typer.Option(
            help="auto: randomised contrast at the source where grey values of both sites lie far apart, else "
            "standard; or none, light, standard, colour (RGB), randomised (half of the cases), randomised_all.",
            autocompletion=begins_with(_AUGMENT),
        ),
    ] = "auto",
    trust_source: TrustSource = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the configs of an existing bundle.")] = False,
) -> None:
    """Write a standard MONAI bundle fitted to this data and source; it runs without editing a config."""
    grid, crop = number_list(spacing, "--spacing"), whole_number_list(patch, "--patch")
    require(data)
    require_name(strategy, _STRATEGIES, "strategy")
    require_name(method, ["auto", *_METHODS], "method")
    if augment not in _AUGMENT:
        raise InputError(f"no augmentation preset {augment!r}", hint=f"one of {', '.join(_AUGMENT)}")
    keeps("the bundle is not whole; give the same command with --force")
    announce(f"new: fitting {folder} to {data}; loading MONAI takes some seconds")
    from monai_transfer.bundle.bare_checkpoint import parse_network_args
    from monai_transfer.bundle.new import new_bundle
    from monai_transfer.bundle.planning.reasons import short
    from monai_transfer.weights.provenance import is_non_commercial

    spec = new_bundle(
        folder,
        data,
        source=source,
        source_head=source_head,
        source_site=source_site,
        target_site=target_site,
        n_labelled=n_labelled,
        strategy=strategy,
        method=method,
        spacing=grid,
        patch=crop,
        resize=whole_number_list(resize, "--resize"),
        size=size,
        network=network,
        network_args=parse_network_args(network_args),
        residual=residual,
        channels=channels,
        budget=budget,
        epochs=epochs,
        pretrain_epochs=pretrain_epochs,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        preprocessing=preprocessing,
        augment=augment,
        flip=not no_flip,
        trust_source=trust_source,
        keep_classes=keep_classes,
        swap_sides=swap_sides,
        balance=balance,
        missing_channels=missing_channels,
        channel_dropout=channel_dropout,
        force=force,
    )
    typer.echo(f"{folder}: {spec.spatial_dims}D {spec.task}, outputs {', '.join(spec.class_names)}")
    for name, entry in spec.recipe.items():
        typer.echo(f"  {name} {short(entry['value'])}: {entry['reason']}")
    typer.echo("  (configs/recipe.json)")
    if spec.regulariser is not None:
        term = str(spec.regulariser["_target_"]).rpartition(".")[2]
        does = "holds what the source knows" if spec.regulariser.get("kept") else "looks at no target image"
        typer.echo(f"{term} {does}: it is the regulariser of `train`")
    if spec.trusted:
        typer.echo(
            f"the source's own code was run, as decided: {spec.trusted['bundle']}, SHA-256 "
            f"{spec.trusted['code_sha256']} (models/source.json; each run.json)"
        )
    if spec.weights_note:
        weights = spec.weights_note["weights"]
        typer.echo(
            f"weights from {spec.weights_note['description']}: {weights['coverage']:.0%} of the parameters; "
            f"{len(weights['adapted'])} tensors adapted, {len(weights['skipped']) + len(weights['missing'])} fresh "
            "(models/source.json)"
        )
        if "folds" in spec.weights_note:
            typer.echo(spec.weights_note["folds"])
        for note in dict.fromkeys(note for note in weights["notes"].values() if note.startswith("input channels")):
            typer.echo(note)
        if "network" in spec.weights_note:
            typer.echo(f"network: {spec.weights_note['network']}")
        if "preprocessing" in spec.weights_note or spec.kept is not None:
            typer.echo(f"preprocessing: {spec.weights_note.get('preprocessing', spec.kept and spec.kept.said)}")
        if "parity" in spec.weights_note:
            parity = spec.weights_note["parity"]
            typer.echo(f"parity: {parity['compared']}: apart by at most {parity['apart']:.3g}")
        if spec.weights_note["licence"]:
            binding = (
                " (NON-COMMERCIAL: it binds this bundle too)" if is_non_commercial(spec.weights_note["licence"]) else ""
            )
            typer.echo(f"licence of the weights: {spec.weights_note['licence']}{binding}; listed in large_files.yml")
    first = "pretrain" if str(source).lower() in ("none", "") else "train"
    typer.echo(f"next: monai-transfer run {folder} {first}")


def run(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Bundle folder. Running it runs its code.")],
    workflow: Annotated[
        str,
        typer.Argument(help=_WORKFLOWS, autocompletion=begins_with(WORKFLOWS)),
    ],
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of continuing.")] = False,
    run: Annotated[Path | None, typer.Option(help="For infer and evaluate: the run whose best weights to use.")] = None,
    log: Annotated[
        str | None, typer.Option(help="Losses and scores also to tensorboard or mlflow, in the run folder.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="How long to train: quick, standard, full, a number of optimizer steps, or a time such as 2h or "
            "30min, turned into steps once by a few timed ones. More than a finished run had prolongs it."
        ),
    ] = None,
) -> None:
    """Run a workflow of a bundle; any config id can be set with --id value. An unfinished run continues.

    train --strategy auto decides between the untouched source, fine-tuning, joint training and others, from the
    labelled target cases and unlabelled scans alone, and leaves one model.
    """
    config_files(bundle, workflow)
    overrides = named_strategy(parse_overrides(context.args), workflow)
    check_roots(bundle, workflow, overrides)
    require(*given_paths(overrides))
    if log is not None:
        if log not in ("tensorboard", "mlflow"):
            raise InputError(f"no log is called {log!r}", hint="choose tensorboard or mlflow")
        if workflow in ("infer", "evaluate"):
            raise InputError(f"--log does not go with {workflow}", hint="it is for workflows that train")
        if find_spec(log) is None:
            raise InputError(f"--log {log} needs the package {log}", hint=f"pip install 'monai-transfer[{log}]'")
    if fresh:
        overrides["fresh"] = True
    if budget is not None:
        asked_for(budget)  # a word that means nothing is answered at once
        if workflow in ("infer", "evaluate"):
            raise InputError(f"--budget does not go with {workflow}", hint="it is for workflows that train")
    if run is not None:
        if workflow not in ("infer", "evaluate"):
            raise InputError(f"--run does not go with {workflow}", hint="to start from a run use --pretrained FILE")
        best = best_weights(bundle, run)
        overrides["ckpt"] = str(best.resolve())
        typer.echo(f"weights: {best}")
    auto = overrides.get("strategy") == AUTO
    if budget is not None:
        announce(f"budget {budget}: looking at {bundle}; loading MONAI takes some seconds")
        from monai_transfer.bundle.timed_budget import budget_overrides

        plain = {key: value for key, value in overrides.items() if not (auto and key == "strategy")}
        found, known = budget_overrides(bundle, workflow, budget, plain)
        overrides |= found
        typer.echo(in_short(known))
    if auto:
        announce(f"auto: looking at {bundle}; loading MONAI takes some seconds")
        from monai_transfer.bundle.auto.run import run_auto

        output = run_auto(bundle, overrides, log_to=log, say=typer.echo)
    else:
        announce(f"equal command: {equal_command(bundle, workflow, overrides)}")
        from monai_transfer.bundle.run import run_workflow

        output = run_workflow(bundle, workflow, overrides, log_to=log)
    typer.echo(f"{workflow} done: {output}")
    _print_summary(output)
    for message in collapse_alarms(output):
        typer.echo(f"COLLAPSE: {message}: do not use these weights (models/model.pt)", err=True)
    if workflow == "adapt":
        _print_home_price(bundle, output, {key: overrides[key] for key in _DATA if key in overrides})


def _print_home_price(bundle: Path, output: Path, given: dict[str, Any]) -> None:
    """How to see what adapting cost where the network came from: on embedded masks .2 Dice (docs/truth_table.md)."""
    home = (read_record(output) or {}).get("source_site")
    if home and (output / "models" / "model.pt").is_file():
        options = {"run": output, "target_site": home, "output_dir": output / "at_home", **given}
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        command = shlex.join(["monai-transfer", "run", str(bundle), "evaluate", *words])
        typer.echo(f"what it costs at the source's site: {command}")


def _print_summary(output: Path) -> None:
    path = output / "summary.json"
    if not path.is_file():
        return
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    typer.echo(
        f"{summary['split']}: {summary['cases']} cases of {summary['patients']} patients ({summary['interval']})"
    )
    for name, value in summary["metrics"].items():
        if value["mean"] is not None:
            interval = f"  [{value['low']:.3f}, {value['high']:.3f}]" if value["low"] is not None else ""
            typer.echo(f"  {name:<28} {value['mean']:.3f}{interval}")


def export(
    bundle: BundleFolder,
    to: Annotated[
        str, typer.Option(help="bundle, torchscript, onnx or nnunet.", autocompletion=begins_with(KINDS))
    ] = "bundle",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File or folder to write.")] = None,
    run: RunFolder = None,
    trust_source: TrustSource = False,
) -> None:
    """A deployable artefact that needs MONAI (or a runtime, or nnU-Net) alone, never this package."""
    if to not in KINDS:
        raise InputError(f"no export {to!r}", hint=f"one of {', '.join(KINDS)}")
    config_files(bundle, "infer")
    best_weights(bundle, run)
    announce(f"export: {bundle} as {to}")
    from monai_transfer.bundle.export import export_bundle

    typer.echo(f"wrote {export_bundle(bundle, to, output, run=run, trust_source=trust_source)}")
