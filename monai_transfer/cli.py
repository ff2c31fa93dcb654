"""The ``monai-transfer`` command. Thin: each command's work lies beside what it is about."""

from __future__ import annotations

import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated

import typer

from monai_transfer.errors import CoverageError, InputError
from monai_transfer.manifest.check_command import check
from monai_transfer.manifest.command import manifest
from monai_transfer.report.command import compare
from monai_transfer.selection.command import gap, rank

__all__ = ["app", "main"]

app = typer.Typer(
    name="monai-transfer",
    help="Transfer learning for medical imaging on MONAI: from scans to a verdict and a bundle.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("demo"),
    jobs: Annotated[int, typer.Option(help="Runs at the same time, one thread each.")] = 2,
    seeds: Annotated[int, typer.Option(help="Seeds per arm; fewer than 5 give numbers but no verdict.")] = 5,
    task: Annotated[
        str, typer.Option(help="segmentation (3D), classification (2D) or regression (3D).")
    ] = "segmentation",
) -> None:
    """The whole story on embedded (simulated) data, offline, in a few minutes."""
    from monai_transfer.demo import run_demo

    run_demo(out, task=task, jobs=jobs, seeds=seeds)


app.command("manifest")(manifest)
app.command("check")(check)
app.command("gap")(gap)
app.command("rank")(rank)


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(help="Folder of the new bundle; its name holds the task's word if it can.")],
    data: Annotated[Path, typer.Option(help="The manifest.")],
    source: Annotated[
        str, typer.Option(help="Bundle folder, checkpoint or run folder to start from; 'none': pretrain it yourself.")
    ] = "none",
    source_site: Annotated[str | None, typer.Option(help="Site with many labels (for pretrain and adapt).")] = None,
    target_site: Annotated[str | None, typer.Option(help="Site that the model is for.")] = None,
    n_labelled: Annotated[int | None, typer.Option(help="Labelled target cases to use; default all.")] = None,
    strategy: Annotated[str, typer.Option(help="full, head_only, ... or a full _target_ path.")] = "full",
    method: Annotated[str, typer.Option(help="coral, dann, ... or a full _target_ path.")] = "dann",
    spacing: Annotated[str | None, typer.Option(help="mm per axis, e.g. 1,1,3; default: the data's median.")] = None,
    patch: Annotated[str | None, typer.Option(help="Voxels per axis, e.g. 64,64,32; default: fitted.")] = None,
    size: Annotated[str | None, typer.Option(help="Network size without a source: small, medium, large.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of fine-tuning and adaptation.")] = None,
    pretrain_epochs: Annotated[int | None, typer.Option(help="Epochs of pretraining.")] = None,
    steps_per_epoch: Annotated[int | None, typer.Option(help="Optimizer steps per epoch, whatever the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Cases per step.")] = None,
    force: Annotated[bool, typer.Option(help="Overwrite the configs of an existing bundle.")] = False,
) -> None:
    """Write a standard MONAI bundle fitted to this data and source."""
    from monai_transfer.bundle.new import new_bundle

    numbers = {
        "epochs": epochs,
        "pretrain_epochs": pretrain_epochs,
        "steps_per_epoch": steps_per_epoch,
        "batch_size": batch_size,
    }
    spec = new_bundle(
        folder,
        data,
        source=source,
        source_site=source_site,
        target_site=target_site,
        n_labelled=n_labelled,
        strategy=strategy,
        method=method,
        spacing=_floats(spacing, "--spacing"),
        patch=[int(v) for v in _floats(patch, "--patch") or []] or None,
        size=size,
        force=force,
        **{key: value for key, value in numbers.items() if value is not None},
    )
    network = spec.network["_target_"].rsplit(".", 1)[-1]
    typer.echo(f"{folder}: {spec.spatial_dims}D {spec.task}, {network}, classes {', '.join(spec.class_names)}")
    typer.echo(f"patch {spec.patch}, spacing {spec.spacing or 'as it is'}")
    first = "pretrain" if source == "none" else "train"
    typer.echo(f"next: monai-transfer run {folder} {first}")


def _floats(text: str | None, option: str) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text!r} is not a list of numbers", mend=f"write it like {option} 1,1,3") from None


@app.command(context_settings=_EXTRA)
def run(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Bundle folder. Running it runs its code.")],
    workflow: Annotated[str, typer.Argument(help="pretrain, train (fine-tune), adapt, evaluate or infer.")],
    fresh: Annotated[bool, typer.Option(help="Start over instead of continuing.")] = False,
    run: Annotated[Path | None, typer.Option(help="For infer and evaluate: the run whose best weights to use.")] = None,
) -> None:
    """Run a workflow; any config id can be set with --id value."""
    from monai_transfer.bundle.run import equal_command, parse_overrides, run_workflow

    overrides = parse_overrides(context.args)
    if fresh:
        overrides["fresh"] = True
    if run is not None:
        best = run / "models" / "model.pt"
        if not best.is_file():
            raise InputError("this run has no models/model.pt", path=run, mend="name a run folder that has trained")
        overrides["ckpt"] = str(best.resolve())
        typer.echo(f"weights: {best}")
    typer.echo(equal_command(bundle, workflow, overrides))
    output = run_workflow(bundle, workflow, overrides)
    typer.echo(f"{workflow} done: {output}")
    _print_summary(output)


def _print_summary(output: Path) -> None:
    import json

    path = output / "summary.json"
    if not path.is_file():
        return
    summary = json.loads(path.read_text(encoding="utf-8"))
    typer.echo(
        f"{summary['split']}: {summary['cases']} cases of {summary['patients']} patients ({summary['interval']})"
    )
    for name, value in summary["metrics"].items():
        if value["mean"] is not None:
            interval = f"  [{value['low']:.3f}, {value['high']:.3f}]" if value["low"] is not None else ""
            typer.echo(f"  {name:<28} {value['mean']:.3f}{interval}")


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder. Using it runs its code.")],
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders of images, or DICOM series folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the predictions.")],
    run: Annotated[Path | None, typer.Option(help="The run whose best weights to use.")] = None,
) -> None:
    """Predict on new images, in each image's own geometry."""
    from monai_transfer.bundle.predict import predict_images

    for line in predict_images(bundle, inputs, output, run=run):
        typer.echo(line)


app.command("compare")(compare)


@app.command(context_settings=_EXTRA)
def study(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Bundle folder. Running it runs its code.")],
    arms: Annotated[
        str, typer.Option(help="scratch,source,fine_tuned,adapted,oracle, or name:workflow:key=value:key=value.")
    ] = "scratch,source,fine_tuned,adapted",
    seeds: Annotated[int, typer.Option(help="Seeds per arm; a verdict needs 5.")] = 5,
    fractions: Annotated[
        str | None, typer.Option(help="Labelled target cases: counts (4,8) or shares of the training split (0.1,0.5).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the runs; default BUNDLE/runs/study.")] = None,
    jobs: Annotated[int, typer.Option(help="Runs at the same time, one thread each.")] = 2,
) -> None:
    """Run several arms under one equal budget and compare them; continues where it was interrupted."""
    from monai_transfer.bundle.run import parse_overrides
    from monai_transfer.bundle.study import parse_arms, run_study

    reports = run_study(
        bundle,
        out if out is not None else bundle / "runs" / "study",
        parse_arms(arms),
        seeds=list(range(seeds)),
        fractions=_floats(fractions, "--fractions"),
        jobs=jobs,
        overrides=parse_overrides(context.args),
    )
    for report in reports:
        typer.echo(f"report: {report}")


@app.command()
def export(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder. Using it runs its code.")],
    to: Annotated[str, typer.Option(help="bundle, torchscript or onnx.")] = "bundle",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File or folder to write.")] = None,
    run: Annotated[Path | None, typer.Option(help="The run whose best weights to use.")] = None,
) -> None:
    """A deployable artefact that needs MONAI alone."""
    from monai_transfer.bundle.export import export_bundle

    typer.echo(f"wrote {export_bundle(bundle, to, output, run=run)}")


def _cause(error: BaseException) -> BaseException:
    """The user's error inside what MONAI wrapped around it (instantiation, transforms), else the error itself."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (InputError, CoverageError)):
            return seen
        seen = seen.__cause__ or seen.__context__
    return error


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 it ran and found problems, 2 wrong input or usage."""
    from monai_transfer.engine.guard import NonFiniteLossError

    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not debug:
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        app(words, standalone_mode=True)
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        cause = _cause(error)
        if isinstance(cause, (InputError, CoverageError)):
            print(f"error: {cause}", file=sys.stderr)
            sys.exit(2)
        if isinstance(cause, NonFiniteLossError):
            print(f"error: {cause}", file=sys.stderr)
            sys.exit(1)
        print(f"error: {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr)
        sys.exit(1)
