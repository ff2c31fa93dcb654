"""MONAI Deploy's own bundle operator on our exports: the result equals ``predict``."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

pytest.importorskip("monai.deploy", reason="MONAI Deploy is not installed: make test-consumers")

from monai.deploy.core import AppContext, Fragment, Image, IOType
from monai.deploy.operators import MonaiBundleInferenceOperator
from monai.deploy.operators.monai_bundle_inference_operator import IOMapping

from monai_transfer.bundle.export import export_bundle
from monai_transfer.data.phantom import embedded_set
from monai_transfer.manifest import Manifest
from monai_transfer.predict.images import predict_images

pytestmark = pytest.mark.filterwarnings("ignore")


class Port(dict):
    """What the graph engine hands to an operator: named values in, named values out."""

    def receive(self, name):
        return self[name]

    def get(self, name):
        return None

    def emit(self, value, name):
        self[name] = value

    def set(self, value, name):
        self[name] = value


def operator(path: Path, output: str, kind: type) -> MonaiBundleInferenceOperator:
    context = AppContext.__new__(AppContext)  # its models are looked up by the application, which does not run here
    context.models = None
    return MonaiBundleInferenceOperator(
        Fragment(),
        app_context=context,
        input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
        output_mapping=[IOMapping(output, kind, IOType.IN_MEMORY)],
        bundle_path=path,
    )


def as_dicom_source(path: Path) -> Image:
    """A NIfTI scan as Deploy's DICOM operator would hand it over: D x H x W voxels and their affine."""
    scan = nibabel.load(path)
    spacing = scan.header.get_zooms()
    metadata = {
        "row_pixel_spacing": float(spacing[0]),
        "col_pixel_spacing": float(spacing[1]),
        "depth_pixel_spacing": float(spacing[2]),
        "nifti_affine_transform": scan.affine,
        "space": "RAS",
    }
    return Image(np.swapaxes(np.asarray(scan.dataobj, np.float32), 0, 2), metadata)


@pytest.mark.parametrize("bundle", ["head_mr_segmentation"], indirect=True)
@pytest.mark.parametrize("form", ["torchscript", "bundle"])
def test_segmentation_equals_predict(bundle, form, tmp_path):
    manifest = Manifest.load(Path(embedded_set("segmentation")) / "manifest.json")
    scan = Path(manifest.cases("test", site="site_b")[0].images[0])
    done = predict_images(bundle, [scan], tmp_path / "ours")
    ours = np.asarray(nibabel.load(done.written[0]).dataobj)
    exported = export_bundle(bundle, form, tmp_path / ("model.ts" if form == "torchscript" else "deployed"))
    results = Port()
    operator(exported, "pred", Image).compute(Port(image=as_dicom_source(scan)), results, None)
    theirs = np.swapaxes(results["pred"].asnumpy(), 0, 2)
    assert theirs.shape == ours.shape and ours.any()
    assert (theirs == ours).mean() > 0.9999


@pytest.mark.parametrize("bundle", ["head_mr_slice_classification"], indirect=True)
def test_classification_finds_its_configs(bundle, tmp_path):
    exported = export_bundle(bundle, "torchscript", tmp_path / "model.ts")
    found = operator(exported, "pred", dict)
    assert [type(t).__name__ for t in found._preproc.transforms] and found._postproc.transforms
    network = torch.jit.load(str(exported))
    assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 2)
