"""``monai-transfer predict``: images in, predictions in their own geometry out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monai_transfer.bundle.command_line import best_weights, config_files
from monai_transfer.errors import InputError, OutputError
from monai_transfer.options import BundleFolder, RunFolder, TrustSource, announce, byte_count, require
from monai_transfer.predict.formats import FORMATS

__all__ = ["predict"]


def predict(
    bundle: BundleFolder,
    inputs: Annotated[
        list[Path], typer.Argument(help="Images, folders of images, DICOM series folders, or a manifest (.json).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the predictions.")],
    run: RunFolder = None,
    format: Annotated[
        str, typer.Option(help="Of masks: nifti (PNG for pictures), or dicom-seg for DICOM input.")
    ] = "nifti",
    series: Annotated[
        str | None, typer.Option(help="Of a DICOM folder, only the series of this number or description (pattern).")
    ] = None,
    tta: Annotated[
        str | None, typer.Option(help="flips: the mean over mirror images; twice the time for each axis.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of a manifest, only this split.")] = None,
    trust_source: TrustSource = False,
    max_memory: Annotated[
        str | None, typer.Option(help="What the classes of one image may take beside the network, e.g. 8GiB.")
    ] = None,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Run the network in bfloat16: sooner, and rounding moves few voxels.")
    ] = False,
) -> None:
    """Predict on new images, in each image's own geometry; exit code 1 where some could not be predicted on."""
    require(*inputs)
    config_files(bundle, "infer")
    best_weights(bundle, run)
    if format not in FORMATS:
        raise InputError(f"no format {format!r}", hint=f"one of {', '.join(FORMATS)}")
    if output.is_file():
        raise InputError("is a file", path=output, hint="name a folder for the predictions")
    limit = None if max_memory is None else byte_count(max_memory, "--max-memory")
    announce(f"predict: {', '.join(map(str, inputs))} with {bundle}", err=True)
    from monai_transfer.predict.images import predict_images

    done = predict_images(
        bundle,
        inputs,
        output,
        run=run,
        format=format,
        series=series,
        split=split,
        tta=tta,
        progress=True,
        trust_source=trust_source,
        max_memory=limit,
        bf16=bf16,
    )
    for path in done.written:
        typer.echo(f"wrote {path}")
    if format == "dicom-seg" and done.written:
        typer.echo("note: DICOM SEG files carry the patient's identity, as the standard asks")
    for note in done.notes:
        typer.echo(f"note: {note}")
    if done.faults:
        alike = len({(fault.fault, fault.hint) for fault in done.faults}) == 1 and not done.written
        for fault in done.faults[:1] if alike else done.faults:
            typer.echo(f"error: {fault}", err=True)
        if alike and len(done.faults) > 1:
            typer.echo(f"the same of {len(done.faults) - 1} more", err=True)
        typer.echo(f"{len(done.faults)} of {done.n_images} images could not be predicted on", err=True)
        raise typer.Exit(2 if any(isinstance(fault, OutputError) for fault in done.faults) else 1)
