"""``export``: what comes out runs where this package is not importable, and gives what the bundle gives."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_transfer.bundle.export import export_bundle
from monai_transfer.bundle.run import open_workflow
from monai_transfer.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = ["head_mr_segmentation", "head_mr_slice_classification"]


def reference(bundle: Path, shape: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """An input of another size than the metadata's, and the network's output for it."""
    network = open_workflow(bundle, "infer", {}, log=False).parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    image = torch.randn(1, 1, *shape)
    with torch.no_grad():
        return image.numpy(), network(image).numpy()


def outside(code: str, cwd: Path) -> None:
    """Run code in a Python in which this package cannot be imported."""
    block = "import sys; sys.modules['monai_transfer'] = None\n"
    done = subprocess.run([sys.executable, "-c", block + code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["torchscript", "onnx"])
def test_one_file(packaged, tmp_path, name, kind):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    bundle = packaged / name
    segmentation = "segmentation" in name
    suffix = {"torchscript": ".ts", "onnx": ".onnx"}[kind]
    path = export_bundle(bundle, kind, tmp_path / f"model{suffix}")
    assert path == tmp_path / f"model{suffix}" and [p.name for p in tmp_path.iterdir()] == [path.name]
    if kind == "torchscript":  # MONAI Deploy looks for its configs below the file's own name
        names = zipfile.ZipFile(path).namelist()
        assert {f"model/extra/{name}.json" for name in ("metadata", "inference")} <= set(names)
    shape = [32, 40, 24] if segmentation else [64, 64]
    image, expected = reference(bundle, shape)
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "expected.npy", expected)
    call = (
        "got = torch.jit.load('model.ts').eval()(torch.from_numpy(image)).detach().numpy()"
        if kind == "torchscript"
        else "import onnxruntime; got, = onnxruntime.InferenceSession('model.onnx').run(None, {'image': image})"
    )
    code = f"import numpy, torch; image = numpy.load('image.npy'); {call}\n"
    outside(code + "numpy.testing.assert_allclose(got, numpy.load('expected.npy'), atol=1e-3, rtol=1e-3)", tmp_path)


def test_a_bundle_that_needs_monai_alone(packaged, tmp_path):
    out = export_bundle(packaged / "head_mr_slice_classification", "bundle", tmp_path / "deploy")
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names >= {
        "configs/inference.yaml",
        "configs/metadata.json",
        "models/model.pt",
        "LICENSE",
        "scripts/infer.py",
    }
    assert not {name for name in names if "train" in name or "adapt" in name}
    outside("from monai.bundle import run; run(config_file='configs/inference.yaml')", out)
    assert (out / "predictions" / "predictions.csv").is_file()


def test_default_places_and_refusals(packaged, tmp_path):
    import shutil

    bundle = Path(shutil.copytree(packaged / "head_mr_slice_classification", tmp_path / "b"))
    assert export_bundle(bundle, "torchscript") == bundle / "models" / "model.ts"
    assert export_bundle(bundle, "bundle") == tmp_path / "b_deploy"
    with pytest.raises(InputError, match="exists already"):
        export_bundle(bundle, "bundle")
    with pytest.raises(InputError, match="cannot export to 'tflite'; one of bundle, torchscript, onnx"):
        export_bundle(bundle, "tflite")
    with pytest.raises(InputError, match="no such run"):
        export_bundle(bundle, "onnx", run="nothing")
    config = bundle / "configs" / "inference.yaml"
    config.write_text(config.read_text() + "extra: $monai_transfer.__version__\n")
    with pytest.raises(InputError, match="inference.yaml: .*imports monai_transfer"):
        export_bundle(bundle, "bundle", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_weights_of_a_run(packaged, tmp_path):
    run = tmp_path / "run"
    (run / "models").mkdir(parents=True)
    weights = torch.load(packaged / NAMES[1] / "models" / "model.pt", weights_only=True)
    torch.save(
        {name: value * 0 if value.is_floating_point() else value for name, value in weights.items()},
        run / "models" / "model.pt",
    )
    path = export_bundle(packaged / NAMES[1], "torchscript", tmp_path / "zero.ts", run=run)
    extra = {"metadata.json": ""}
    script = torch.jit.load(str(path), _extra_files=extra).eval()
    assert float(script(torch.randn(1, 1, 64, 64)).abs().max()) == 0
    assert json.loads(extra["metadata.json"])["task"] == "2D classification"
