"""Every network of MONAI that segments or classifies, through what a bundle does with it: does it work, or why not?

    python -m benchmarks.network_sweep                      prints the table (a few minutes on one CPU core)
    python -m benchmarks.network_sweep --only DynUNet VNet
    python -m benchmarks.network_sweep --write docs/networks.md

One step of each: training alone, one method of each kind (alignment of features, a domain critic, a teacher, a peer, a
pull to the source's weights), two ways of adapting without the source, and a prediction through MONAI's sliding window
(or as a whole). A cell holds "yes", or the first line of the refusal.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.networks import nets
from torch import Tensor, nn

from monai_transfer.engine.adapt import Adapt
from monai_transfer.engine.memory import MemoryAdvice
from monai_transfer.engine.prepare import Prepared
from monai_transfer.engine.refuse_probabilities import RefuseProbabilities
from monai_transfer.engine.training_metrics import TrainingMetrics
from monai_transfer.files import write_text
from monai_transfer.methods.coral import Coral
from monai_transfer.methods.cps import Cps
from monai_transfer.methods.dann import Dann
from monai_transfer.methods.l2_sp import L2Sp
from monai_transfer.methods.mean_teacher import MeanTeacher
from monai_transfer.networks.deep_supervision import HeadsLoss
from monai_transfer.networks.output_forms import main_output
from monai_transfer.testtime.adabn import Adabn
from monai_transfer.testtime.tent import Tent

BEGIN, END = "<!-- generated: python -m benchmarks.network_sweep --write docs/networks.md -->", "<!-- end -->"
METHODS: dict[str, Callable[[], Any]] = {
    "alignment (Coral)": lambda: Coral(),
    "critic (Dann)": lambda: Dann(),
    "teacher (MeanTeacher)": lambda: MeanTeacher(),
    "peer (Cps)": lambda: Cps(),
    "weights (L2Sp)": lambda: L2Sp(),
}
COLUMNS = ["train", *METHODS, "AdaBN", "Tent", "predict"]


@dataclass(frozen=True)
class Entry:
    """One network: how it is built, on what.

    Attributes:
        build: with fresh weights, for one input channel (unless ``channels``) and three classes.
        size: voxels per axis.
        segments: else it classifies.
        channels: of the images.
    """

    build: Callable[[], nn.Module]
    size: tuple[int, ...]
    segments: bool = True
    channels: int = 1


def _dynunet(deep: bool) -> nn.Module:
    return nets.DynUNet(3, 1, 3, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[4, 6, 8, 8], deep_supervision=deep,
                        deep_supr_num=2)  # fmt: skip


def _dints() -> nn.Module:
    code = [np.ones((6, 7)), np.ones((6, 7), dtype=int)]  # every path, one operation in each cell
    topology = nets.TopologyInstance(code, channel_mul=0.2, num_blocks=6, num_depths=3, spatial_dims=3)
    return nets.DiNTS(topology, 1, 3, node_a=torch.ones(7, 3), spatial_dims=3)


CUBE, WIDE = (32, 32, 32), (64, 64, 64)
NETWORKS: dict[str, Entry] = {
    "AHNet": Entry(
        lambda: nets.AHNet((2, 2, 2, 2), spatial_dims=3, in_channels=1, out_channels=3, psp_block_num=3), WIDE
    ),
    "AttentionUnet": Entry(lambda: nets.AttentionUnet(3, 1, 3, (4, 8, 8), (2, 2)), CUBE),
    "BasicUNet": Entry(lambda: nets.BasicUNet(3, 1, 3, (4, 4, 8, 8, 8, 4)), CUBE),
    "BasicUNetPlusPlus": Entry(lambda: nets.BasicUNetPlusPlus(3, 1, 3, (4, 4, 8, 8, 8, 4)), CUBE),
    "BasicUNetPlusPlus, deep supervision": Entry(
        lambda: nets.BasicUNetPlusPlus(3, 1, 3, (4, 4, 8, 8, 8, 4), deep_supervision=True), CUBE
    ),
    "DAF3D": Entry(lambda: nets.DAF3D(1, 3), CUBE),
    "DiNTS": Entry(_dints, CUBE),
    "DynUNet": Entry(lambda: _dynunet(False), CUBE),
    "DynUNet, deep supervision": Entry(lambda: _dynunet(True), CUBE),
    "FlexibleUNet": Entry(
        lambda: nets.FlexibleUNet(1, 3, "efficientnet-b0", decoder_channels=(32, 16, 8, 8, 8), spatial_dims=3), CUBE
    ),
    "HighResNet": Entry(lambda: nets.HighResNet(3, 1, 3), (16, 16, 16)),
    "HoVerNet": Entry(lambda: nets.HoVerNet(mode="fast", in_channels=3, out_classes=3), (256, 256), channels=3),
    "HyenaNDUNETR": Entry(lambda: nets.HyenaNDUNETR(1, 3, (True, False, False, False), feature_size=12), WIDE),
    "MedNeXt": Entry(lambda: nets.MedNeXt(3, 4, 1, 3, blocks_down=(1, 1), blocks_up=(1, 1), blocks_bottleneck=1), CUBE),
    "MedNeXt, deep supervision": Entry(
        lambda: nets.MedNeXt(3, 4, 1, 3, blocks_down=(1, 1), blocks_up=(1, 1), blocks_bottleneck=1,
                             deep_supervision=True), CUBE,
    ),
    "Quicknat": Entry(lambda: nets.Quicknat(num_classes=3, num_channels=1, num_filters=8), (64, 64)),
    "RegUNet": Entry(lambda: nets.RegUNet(3, 1, 4, depth=2, out_channels=3, out_activation=None), CUBE),
    "SegResNet": Entry(lambda: nets.SegResNet(3, 8, 1, 3), CUBE),
    "SegResNetDS": Entry(lambda: nets.SegResNetDS(3, 8, 1, 3, blocks_down=(1, 1, 1), dsdepth=3), CUBE),
    "SegResNetDS2": Entry(lambda: nets.SegResNetDS2(3, 8, 1, 3, blocks_down=(1, 1, 1), dsdepth=2), CUBE),
    "SegResNetVAE": Entry(lambda: nets.SegResNetVAE(CUBE, spatial_dims=3, init_filters=8, out_channels=3), CUBE),
    "SwinUNETR": Entry(
        lambda: nets.SwinUNETR(1, 3, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2)), WIDE
    ),
    "UNETR": Entry(lambda: nets.UNETR(1, 3, CUBE, feature_size=4, hidden_size=24, mlp_dim=24, num_heads=2), CUBE),
    "UNet": Entry(lambda: nets.UNet(3, 1, 3, (4, 8, 8), (2, 2), num_res_units=1, norm="batch"), CUBE),
    "VISTA3D": Entry(lambda: nets.vista3d132(encoder_embed_dim=16, in_channels=1), WIDE),
    "VNet": Entry(lambda: nets.VNet(3, 1, 3), CUBE),
    "Classifier": Entry(lambda: nets.Classifier((1, *CUBE), 3, (4, 8), (2, 2)), CUBE, False),
    # wide: of 32 voxels per axis one is left at its end, and BatchNorm of two values makes gradients explode
    "DenseNet121": Entry(lambda: nets.DenseNet121(3, 1, 3), WIDE, False),
    "EfficientNetBN": Entry(
        lambda: nets.EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=3, in_channels=1, num_classes=3),
        CUBE, False,
    ),
    "ResNet": Entry(lambda: nets.resnet10(spatial_dims=3, n_input_channels=1, num_classes=3), CUBE, False),
    "SENet154": Entry(lambda: nets.SENet154(spatial_dims=2, in_channels=1, num_classes=3), (64, 64), False),
    "SEResNet50": Entry(lambda: nets.SEResNet50(spatial_dims=2, in_channels=1, num_classes=3), (64, 64), False),
    "SEResNext50": Entry(lambda: nets.SEResNext50(spatial_dims=2, in_channels=1, num_classes=3), (64, 64), False),
    "ViT": Entry(
        lambda: nets.ViT(1, CUBE, (16, 16, 16), 24, 24, 2, 2, classification=True, num_classes=3,
                         post_activation=""), CUBE, False,
    ),
    "MILModel": Entry(lambda: nets.MILModel(3, pretrained=False), (4, 3, 32, 32), False),
    "TorchVisionFCModel": Entry(
        lambda: nets.TorchVisionFCModel("resnet18", num_classes=3, pretrained=False), (64, 64), False, 3
    ),
}  # fmt: skip


def loss_of(entry: Entry) -> nn.Module:
    """The loss of all heads, as in a bundle."""
    plain: nn.Module = DiceCELoss(to_onehot_y=True, softmax=True) if entry.segments else nn.CrossEntropyLoss()
    return HeadsLoss(plain, dims=len(entry.size))


def batch_of(entry: Entry, seed: int = 0) -> dict[str, Tensor]:
    """Two cases."""
    draw = torch.Generator().manual_seed(seed)
    image = torch.rand((2, entry.channels, *entry.size), generator=draw)
    label = (2.99 * image[:, :1]).floor() if entry.segments else torch.tensor([0, 2])
    return {"image": image, "label": label}


def train_step(entry: Entry, method: Any = None) -> None:
    """Two iterations in MONAI's trainer, with what a bundle's trainer holds."""
    torch.manual_seed(0)
    network = Prepared(entry.build()).network
    handlers: list[Any] = [MemoryAdvice(), RefuseProbabilities()]
    handlers.append(TrainingMetrics("segmentation" if entry.segments else "classification"))
    if method is not None:
        handlers.append(Adapt(method, [batch_of(entry, 1)]))
    trainer = SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=1, train_data_loader=[batch_of(entry)] * 2, network=network,
        optimizer=torch.optim.SGD(network.parameters(), 1e-3), loss_function=loss_of(entry), train_handlers=handlers,
        decollate=False,
    )  # fmt: skip
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    trainer.run()
    moved = [name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])]
    if not all(bool(torch.isfinite(p).all()) for p in network.parameters()):
        raise RuntimeError("a parameter is not finite after two steps")
    if not moved:
        raise RuntimeError("nothing was learned")


def adapt_alone(entry: Entry, name: str) -> None:
    """Adaptation on the target alone."""
    network, batch = entry.build(), batch_of(entry)
    if name == "AdaBN":
        Adabn().fit(network, [batch])
        return
    with torch.no_grad():
        main_output(Tent().wrap(network)(batch["image"]), len(entry.size), network)


def predict(entry: Entry) -> None:
    """As a bundle infers: one tensor of scores on the image's grid."""
    network = Prepared(entry.build()).network.eval()
    size = tuple(n + n // 2 for n in entry.size) if entry.segments else entry.size
    image = torch.rand(1, entry.channels, *size)
    inferer = SlidingWindowInferer(entry.size, 2, 0.25) if entry.segments else SimpleInferer()
    with torch.no_grad():
        output = inferer(image, network)
    wanted = (1, 3, *size) if entry.segments else (1, 3)
    if not isinstance(output, Tensor) or tuple(output.shape) != wanted:
        raise RuntimeError(f"gives {getattr(output, 'shape', type(output).__name__)}, not {wanted}")


def sweep(name: str, columns: list[str]) -> dict[str, str]:
    """ "yes" or the first line of what was said, for each column."""
    entry, cells = NETWORKS[name], {}
    for column in columns:
        try:
            if column == "train":
                train_step(entry)
            elif column in METHODS:
                train_step(entry, METHODS[column]())
            elif column == "predict":
                predict(entry)
            else:
                adapt_alone(entry, column)
            cells[column] = "yes"
        except Exception as error:
            cells[column] = " ".join(str(error).split())[:160] or type(error).__name__
    return cells


def main() -> None:
    """Sweep and print, or write between the marks of a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NETWORK")
    parser.add_argument("--write", type=Path, help="a page with the two marks, whose middle is replaced")
    parser.add_argument("--quick", action="store_true", help="one network alone")
    given = parser.parse_args()
    if given.quick:
        given.only = ["UNet"]
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rows, notes = [], []
    for name in given.only:
        cells = sweep(name, COLUMNS)
        print(name, cells, flush=True)
        marks = []
        for text in dict.fromkeys(cells.values()):
            if text != "yes":
                notes.append(f"{len(notes) + 1}. {name}: {text}")
        said = {text: str(number) for number, text in ((n.partition(".")[0], n.partition(": ")[2]) for n in notes)}
        said = {note.partition(": ")[2]: note.partition(".")[0] for note in notes if f" {name}: " in note}
        marks = [cells[column] if cells[column] == "yes" else f"no ({said[cells[column]]})" for column in COLUMNS]
        kind = f"{len(NETWORKS[name].size)}D, {'segments' if NETWORKS[name].segments else 'classifies'}"
        rows.append(f"| {name} | {kind} | " + " | ".join(marks) + " |")
    head = ["network", "here", *COLUMNS]
    table = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *rows, "", *notes]
    if given.write is None:
        print("\n".join(table))
        return
    text = given.write.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    write_text(given.write, f"{before}{BEGIN}\n" + "\n".join(table) + f"\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
