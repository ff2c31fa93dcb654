"""``monai-transfer predict``: images in, predictions in their own geometry out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monai_transfer.options import BundleFolder, RunFolder

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
    split: Annotated[str | None, typer.Option(help="Of a manifest, only this split.")] = None,
) -> None:
    """Predict on new images, in each image's own geometry; exit code 1 where some could not be predicted on."""
    from monai_transfer.predict.images import predict_images

    done = predict_images(bundle, inputs, output, run=run, format=format, series=series, split=split, progress=True)
    for path in done.written:
        typer.echo(f"wrote {path}")
    if format == "dicom-seg" and done.written:
        typer.echo("note: DICOM SEG files carry the patient's identity, as the standard asks")
    if done.faults:
        for fault in done.faults:
            typer.echo(f"error: {fault}", err=True)
        typer.echo(f"{len(done.faults)} of {done.n_images} images could not be predicted on", err=True)
        raise typer.Exit(1)
