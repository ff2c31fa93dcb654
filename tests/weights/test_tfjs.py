"""TensorFlow.js layers models: a real published one against numpy alone, and every way in which one can be wrong."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from monai_transfer.errors import InputError
from monai_transfer.files import sha256_file
from monai_transfer.weights import Source, load_weights
from monai_transfer.weights.tfjs import sha256_tfjs, tfjs_network


@pytest.fixture
def meshnet(real_data) -> Path:
    folder = real_data / "weights" / "meshnet_gw"
    if not folder.is_dir():
        pytest.skip("brainchop's meshnet_gw is not among the real data")
    return folder


def head(meshnet: Path, *box: slice) -> np.ndarray:
    """A part of the T1 head, scaled to [0, 1] by the whole as brainchop does."""
    image = np.asarray(nibabel.load(meshnet / "t1_crop.nii.gz").dataobj, dtype=np.float32)
    return (image / image.max())[box]


def keras_chain(path: Path, x: np.ndarray) -> np.ndarray:
    """The model run by its definition, in float64, with neither torch nor our reader: shifts, products, sums."""
    model = json.loads(path.read_text())
    manifest = model["weightsManifest"][0]
    data = np.fromfile(path.parent / manifest["paths"][0], "<f4").astype(np.float64)
    weights, at = {}, 0
    for entry in manifest["weights"]:
        count = int(np.prod(entry["shape"]))
        weights[entry["name"]], at = data[at : at + count].reshape(entry["shape"]), at + count
    x = x.astype(np.float64)[..., None]
    for layer in model["modelTopology"]["model_config"]["config"]["layers"]:
        config = layer["config"]
        if layer["class_name"] == "Activation":
            assert config["activation"] == "relu"
            x = np.maximum(x, 0)
        elif layer["class_name"] == "Conv3D":
            kernel, step = weights[f"{config['name']}/kernel"], config["dilation_rate"][0]
            side, reach = kernel.shape[0], kernel.shape[0] // 2 * step
            padded = np.pad(x, [(reach, reach)] * 3 + [(0, 0)])
            out = np.zeros((*x.shape[:3], kernel.shape[-1])) + weights[f"{config['name']}/bias"]
            for i, j, k in itertools.product(range(side), repeat=3):
                corner = zip((i * step, j * step, k * step), x.shape[:3], strict=True)
                out += padded[tuple(slice(start, start + size) for start, size in corner)] @ kernel[i, j, k]
            x = out
    return x


def test_real_weights_give_the_output_of_their_definition(meshnet):
    network = tfjs_network(meshnet / "model.json").eval()
    report = load_weights(network, meshnet)
    assert report.coverage == 1 and len(report.loaded) == 20 and report.unused == []
    assert report.licence == "MIT" and report.source_sha256 == sha256_file(meshnet / "group1-shard1of1.bin")
    image = head(meshnet, slice(100, 140), slice(90, 130), slice(100, 132))
    with torch.no_grad():
        ours = network(torch.from_numpy(image)[None, None])[0].permute(1, 2, 3, 0).numpy()
    theirs = keras_chain(meshnet / "model.json", image)
    assert len(np.unique(theirs.argmax(-1))) == 3  # background, white and grey matter are all there
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


@pytest.mark.slow
def test_real_weights_segment_a_real_head(meshnet):
    """No reference labels are at hand: in T1 white matter is brighter than grey, and that brighter than the rest."""
    network = tfjs_network(meshnet / "model.json").eval()
    load_weights(network, meshnet)
    image = head(meshnet, slice(64, 192), slice(80, 176), slice(64, 192))
    with torch.no_grad():
        labels = network(torch.from_numpy(image)[None, None])[0].argmax(0).numpy()
    inner = (slice(24, -24),) * 3  # padding disturbs the rim
    rest, white, grey = (image[inner][labels[inner] == label] for label in range(3))
    assert np.median(white) > np.percentile(grey, 75) > np.median(grey) > np.percentile(rest, 75)
    assert 0.1 < white.size / labels[inner].size < 0.6 and 0.1 < grey.size / labels[inner].size < 0.6


def test_real_weights_start_another_task(meshnet):
    network = tfjs_network(meshnet / "model.json")
    network.output = torch.nn.Conv3d(5, 2, 1)
    names = {"source_classes": ["background", "white", "grey"], "target_classes": ["background", "grey"]}
    report = load_weights(network, meshnet, **names)
    assert report.coverage == 1 and report.adapted == ["output.weight", "output.bias"]
    assert torch.equal(network.output.weight, load_state(meshnet)["output.weight"][[0, 2]])


def load_state(folder: Path) -> dict[str, torch.Tensor]:
    return dict(Source.load(folder / "model.json").state_dict)


def write(folder: Path, layers: list[dict], arrays: dict[str, np.ndarray], *, extra: bytes = b"", **more) -> Path:
    entries = [{"name": n, "shape": list(a.shape), "dtype": "float32", **more} for n, a in arrays.items()]
    blob = b"".join(a.astype("<f4").tobytes() for a in arrays.values()) + extra
    (folder / "a.bin").write_bytes(blob[:40])
    (folder / "b.bin").write_bytes(blob[40:])
    topology = {"model_config": {"config": {"layers": layers}}}
    content = {"modelTopology": topology, "weightsManifest": [{"paths": ["a.bin", "b.bin"], "weights": entries}]}
    path = folder / "model.json"
    path.write_text(json.dumps(content))
    return path


def conv(name: str, **more) -> dict:
    config = {"name": name, "strides": [1, 1], "padding": "same", "dilation_rate": [1, 1], "use_bias": True}
    return {"class_name": "Conv2D", "config": {**config, "groups": 1, "activation": "linear", **more}}


NORM = {"class_name": "BatchNormalization", "config": {"name": "n", "axis": [3], "epsilon": 0.01, "momentum": 0.9}}


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"c/kernel": (3, 3, 2, 4), "c/bias": (4,)}
    norms = dict.fromkeys(("n/gamma", "n/beta", "n/moving_mean", "n/moving_variance"), (4,))
    return {name: rng.uniform(0.5, 1.5, shape) for name, shape in (shapes | norms).items()}


def test_a_flat_chain_with_norm_and_several_shards(tmp_path):
    given = arrays()
    path = write(tmp_path, [conv("c", activation="relu"), NORM], given)
    network = tfjs_network(path).eval()
    assert list(dict(network.named_children())) == ["c", "c_activation", "n"]
    assert load_weights(network, path).coverage == 1
    assert len(sha256_tfjs(path)) == 64
    x = torch.randn(1, 2, 6, 5)
    kernel = torch.tensor(given["c/kernel"].transpose(3, 2, 0, 1), dtype=torch.float32)
    y = torch.nn.functional.conv2d(x, kernel, torch.tensor(given["c/bias"]).float(), padding=1).relu()
    n = {k: torch.tensor(given[f"n/{k}"]).float()[:, None, None] for k in ("gamma", "beta", "moving_mean")}
    spread = torch.tensor(given["n/moving_variance"] + 0.01).float().sqrt()[:, None, None]
    expected = (y - n["moving_mean"]) / spread * n["gamma"] + n["beta"]
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


def test_damaged_and_other_models_are_named(tmp_path):
    path = write(tmp_path, [conv("c"), NORM], arrays(), extra=b"1234")
    with pytest.raises(InputError, match="model.json.*4 bytes too many"):
        load_weights(tfjs_network(path), path)
    path = write(tmp_path, [conv("c")], arrays(), dtype="uint8")
    with pytest.raises(InputError, match="c/kernel is uint8.*without quantisation"):
        Source.load(path)
    path = write(tmp_path, [conv("c"), NORM], arrays())
    (tmp_path / "b.bin").write_bytes(b"1234")
    with pytest.raises(InputError, match="shards end within c/kernel"):
        Source.load(path)
    (tmp_path / "b.bin").unlink()
    with pytest.raises(InputError, match="b.bin.*no such file.*copy model.json"):
        Source.load(path)
    path.write_text(path.read_text().replace("b.bin", "../b.bin"))
    with pytest.raises(InputError, match="another folder"):
        Source.load(path)
    path.write_text("{}")
    with pytest.raises(InputError, match="no weightsManifest"):
        tfjs_network(path)


@pytest.mark.parametrize(
    ("layer", "fault"),
    [
        (conv("c", strides=[2, 2]), "'c' is no odd convolution"),
        (conv("c", padding="valid"), "'c' is no odd convolution"),
        (conv("c", activation="swish"), "'swish'"),
        ({"class_name": "Dense", "config": {"name": "d"}}, "'d' is a Dense"),
        ({**NORM, "inbound_nodes": [[["other", 0, 0, {}]]]}, "no chain"),
    ],
)
def test_layers_that_are_not_read_are_named(tmp_path, layer, fault):
    path = write(tmp_path, [{"class_name": "InputLayer", "config": {"name": "in"}}, layer], arrays())
    with pytest.raises(InputError, match=fault):
        tfjs_network(path)
