"""Segmenting a scan in slabs against MONAI's sliding window, inverse and argmax: time, agreement and peak memory.

    python benchmarks/prediction.py [--quick] [--record] [--device cuda] [--whole-body] [--many-classes]

Both sides have the same network, windows (64 x 64 x 64, overlap 0.5, Gaussian) and scan (axes swapped, resampled for
the network), and end in labels on the scan's own grid. ``spleen`` is the network of the model zoo's
spleen_ct_segmentation (U-Net 16 to 256, batch norm, 2 classes), untrained; ``30 classes`` a smaller one with many
outputs. Peak memory is that of a process of its own, less what it had before the prediction.

``--whole-body``: 104 classes of 512 x 512 x 600 in slabs with a limit of 8 GiB, windows with overlap 0.25; the network
is one pointwise convolution, since it is the memory beside the network that is asked about.
``--many-classes``: 104 classes of 160 x 160 x 160, both ways, for their agreement.
``--nnunet PYTHON [--window N] [--shape X,Y,Z] [--pointwise]``: the ``30 classes`` network (as TorchScript) on an image
of 320 x 320 x 256, beside nnU-Net's own predictor without mirroring; PYTHON is that of an environment with nnunetv2
2.8.1. Neither side resamples. Each is a process of its own, libraries and image included. ``--pointwise``: one
pointwise convolution, and windows that do not overlap: for the memory beside the network, soon.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import _measure
import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, Orientationd, Spacingd

from monai_transfer.predict.in_slabs import _channels_last
from monai_transfer.predict.slabs import Windows, segment

AFFINE = np.diag([-0.8, 0.8, 2.0, 1.0])[[1, 0, 2, 3]]
PREPARE = Compose(
    [
        EnsureChannelFirstd("image", channel_dim="no_channel"),
        Orientationd("image", "RAS", labels=None),
        Spacingd("image", (1.0, 1.0, 2.0), mode="bilinear"),
    ]
)
OVERLAP = 0.5


def network(kind: str) -> UNet:
    torch.manual_seed(0)
    if kind == "spleen":
        return UNet(3, 1, 2, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2, norm="BATCH").eval()
    return UNet(3, 1, 30, (8, 16), (2,), num_res_units=1, norm="BATCH").eval()


def scan(shape: tuple[int, ...]) -> dict[str, MetaTensor]:
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.normal(size=[1, 1, *(max(2, n // 8) for n in shape)]).astype(np.float32))
    voxels = torch.nn.functional.interpolate(coarse, shape, mode="trilinear")[0, 0]
    affine = torch.as_tensor(AFFINE, dtype=torch.float64)
    return {"image": MetaTensor(voxels, affine=affine, meta={"original_affine": AFFINE, "spatial_shape": shape})}


def straight(net: UNet, item: dict, size: int, device: str) -> torch.Tensor:
    """The way of a zoo bundle's config."""
    with torch.no_grad():
        scores = sliding_window_inference(item["image"][None].to(device), (size,) * 3, 4, net, OVERLAP, mode="gaussian")
    invert = Invertd("pred", PREPARE, "image", nearest_interp=False, to_tensor=True)
    return invert({**item, "pred": scores[0].cpu()})["pred"].argmax(0, keepdim=True).as_tensor()


def in_slabs(
    net: torch.nn.Module, item: dict, size: int, device: str, classes: int, limit: int | None = None
) -> torch.Tensor:
    windows = Windows((size,) * 3, 4, (OVERLAP,) * 3, "gaussian")
    with torch.inference_mode():
        return segment(item["image"], _channels_last(net, 3), windows, classes=classes, device=device, limit=limit)


def dice(one: torch.Tensor, two: torch.Tensor) -> float:
    """The least over the classes that either has."""
    found = [int(c) for c in torch.cat([one.unique(), two.unique()]).unique()]
    return min(2 * float(((one == c) & (two == c)).sum()) / float((one == c).sum() + (two == c).sum()) for c in found)


def peak(kind: str, way: str, shape: tuple[int, ...], size: int) -> float:
    """Bytes that one prediction adds to a fresh process."""
    words = [sys.executable, __file__, "--one", kind, way, *map(str, shape), str(size)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])


def high_water() -> int:
    """Most bytes that this process has held so far; ``getrusage`` would count its parent's too."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def one(kind: str, way: str, *numbers: str) -> None:
    """In a process of its own: predict once, print what it took."""
    *shape, size = map(int, numbers)
    torch.set_num_threads(1)
    net, item = network(kind), PREPARE(scan(tuple(shape)))
    before = high_water()
    classes = 2 if kind == "spleen" else 30
    straight(net, item, size, "cpu") if way == "straight" else in_slabs(net, item, size, "cpu", classes)
    print(high_water() - before)


def whole_body(record: bool, shape: tuple[int, ...] = (512, 512, 600)) -> None:
    global OVERLAP
    OVERLAP = 0.25
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, item = torch.nn.Conv3d(1, 104, 1), scan(shape)
    item = Compose([EnsureChannelFirstd("image", channel_dim="no_channel")])(item)
    since = _measure.now()
    labels = in_slabs(net, item, 96, "cpu", 104, limit=8 * 2**30)
    assert labels.shape[1:] == shape
    print(f"{_measure.now() - since:.0f} processor seconds, {len(labels.unique())} classes found", flush=True)
    gib = high_water() / 2**30
    rows = [(f"104 classes of {' x '.join(map(str, shape))} in slabs, peak of the whole process, GiB", gib)]
    _measure.report(__file__, rows, record)


def many_classes(record: bool, edge: int = 160) -> None:
    """104 classes where the straightforward way still fits: do both give the same mask?"""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, item = UNet(3, 1, 104, (8, 16), (2,), norm="BATCH").eval(), PREPARE(scan((edge,) * 3))
    whole = straight(net, item, 96, "cpu")
    rows = []
    for words, limit in (("", 2**33), (" under 1 GiB (sums in float16)", 2**30)):
        slabs = in_slabs(net, item, 96, "cpu", 104, limit=limit)
        same = float((whole == slabs).float().mean())
        print(f"{len(whole.unique())} classes found, {same:.7f} of the voxels equal{words}", flush=True)
        name = f"104 classes of {' x '.join([str(edge)] * 3)}: "
        rows.append((f"{name}least Dice of a class, in slabs{words} and straight", dice(whole, slabs)))
    _measure.report(__file__, rows, record)


def beside_nnunet(python: str, edge: int, shape: tuple[int, ...], pointwise: bool, record: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        net = torch.nn.Conv3d(1, 30, 1) if pointwise else network("30 classes")
        torch.jit.save(torch.jit.script(net), folder / "network.ts")
        np.save(folder / "image.npy", scan(shape)["image"].numpy().astype(np.float32)[None])
        theirs = [python, str(Path(__file__).with_name("_nnunet_predictor.py"))]
        found, overlap = {}, 0.0 if pointwise else OVERLAP
        for side, words in (("nnU-Net", theirs), ("slabs", [sys.executable, __file__, "--beside"])):
            more = map(
                str, (folder / "network.ts", folder / "image.npy", folder / f"{side}.npy", 30, overlap, *(edge,) * 3)
            )
            done = subprocess.run([*words, *more], capture_output=True, text=True, check=True)
            found[side] = [float(word) for word in done.stdout.split()[-2:]]
            print(f"{side}: {found[side][0]:.0f} processor seconds, {found[side][1] / 1e9:.2f} GB at most", flush=True)
        labels = [torch.from_numpy(np.load(folder / f"{side}.npy")) for side in found]
        which = ", a pointwise network" if pointwise else ""
        what = f"30 classes of {' x '.join(map(str, shape))}, windows of {edge}{which}: "
        rows = [
            (f"{what}nnU-Net's predictor / in slabs, processor time", found["nnU-Net"][0] / found["slabs"][0]),
            (f"{what}nnU-Net's predictor, peak of the whole process, GB", found["nnU-Net"][1] / 1e9),
            (f"{what}in slabs, peak of the whole process, GB", found["slabs"][1] / 1e9),
            (f"{what}least Dice of a class, in slabs and nnU-Net's", dice(*labels)),
            (f"{what}share of equal voxels", float((labels[0] == labels[1]).float().mean())),
        ]
    _measure.report(__file__, rows, record)


def beside(net: str, image: str, labels: str, classes: str, overlap: str, *window: str) -> None:
    """In a process of its own: our side of ``--nnunet``."""
    global OVERLAP
    OVERLAP = float(overlap)
    torch.set_num_threads(1)
    voxels = torch.from_numpy(np.load(image))
    item = {"image": MetaTensor(voxels, affine=torch.eye(4, dtype=torch.float64))}
    item["image"].meta |= {"original_affine": np.eye(4), "spatial_shape": np.array(voxels.shape[1:])}
    since = _measure.now()
    found = in_slabs(torch.jit.load(net), item, int(window[0]), "cpu", int(classes))
    spent = _measure.now() - since
    np.save(labels, found[0].numpy())
    print(spent, high_water())


def main() -> None:
    if sys.argv[1:2] in (["--one"], ["--beside"]):
        {"--one": one, "--beside": beside}[sys.argv[1]](*sys.argv[2:])
        return
    if "--nnunet" in sys.argv:
        given = dict(zip(sys.argv, sys.argv[1:], strict=False))
        shape = tuple(int(n) for n in given.get("--shape", "320,320,256").split(","))
        window, flags = int(given.get("--window", 64)), ["--pointwise" in sys.argv, "--record" in sys.argv]
        beside_nnunet(given["--nnunet"], window, shape, *flags)
        return
    if "--whole-body" in sys.argv:
        whole_body("--record" in sys.argv)
        return
    if "--many-classes" in sys.argv:
        many_classes("--record" in sys.argv)
        return
    options = _measure.arguments(__doc__)
    rows = []
    for kind, classes, shape in (("spleen", 2, (128, 128, 64)), ("30 classes", 30, (128, 128, 48))):
        size, rounds = (32, 1) if options.quick else (64, 2)
        rows += compare(kind, classes, (40, 36, 24) if options.quick else shape, size, rounds, options.device)
    _measure.report(__file__, rows, options.record, options.device)


def compare(
    kind: str, classes: int, shape: tuple[int, ...], size: int, rounds: int, device: str
) -> list[tuple[str, float]]:
    """Time and peak memory of MONAI's way over ours, and how well the labels agree."""
    net, item = network(kind).to(device), PREPARE(scan(shape))
    kept: dict[str, torch.Tensor] = {}

    def timed(name: str, run: Callable[[], torch.Tensor]) -> Callable[[], float]:
        def measure() -> float:
            since = _measure.now(device)
            kept[name] = run()
            return _measure.now(device) - since

        return measure

    def reduced() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16):
            return in_slabs(net, item, size, device, classes)

    peers = {
        "straight": timed("straight", lambda: straight(net, item, size, device)),
        "slabs": timed("slabs", lambda: in_slabs(net, item, size, device, classes)),
        "bf16": timed("bf16", reduced),
    }
    took = _measure.medians(peers, rounds)
    rows = [
        (f"{kind}: sliding window, inverse, argmax / in slabs, time", took["straight"] / took["slabs"]),
        (f"{kind}: sliding window, inverse, argmax / in slabs with bfloat16, time", took["straight"] / took["bf16"]),
        (f"{kind}: least Dice of a class, in slabs and straight", dice(kept["slabs"], kept["straight"])),
        (f"{kind}: the same with bfloat16", dice(kept["bf16"], kept["straight"])),
    ]
    if device == "cpu":
        whole, slabs = (peak(kind, way, shape, size) for way in ("straight", "slabs"))
        rows.append((f"{kind}: sliding window, inverse, argmax / in slabs, peak memory", whole / max(slabs, 1)))
    return rows


if __name__ == "__main__":
    main()
