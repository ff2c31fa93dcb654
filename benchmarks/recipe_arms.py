"""Augmentation, joint training and averaged weights on public sets with few labels: each arm's Dice, home and abroad.

    python -m monai_transfer manifest ... -o hippocampus.json        (docs/real_data.md has the commands of the sets)
    python benchmarks/recipe_arms.py --set hippocampus --manifest hippocampus.json --out DIR [--seeds 3] [--write FILE]

The pieces of the package in stock MONAI trainers, one small network, equal steps for every arm, the last epoch: nothing
is chosen by a test case. Dice is that of the working grid, means over classes, then cases, then seeds. A killed run
goes on with the same command: each cell is a file DIR/<set>/<cell>-<seed>.json with its weights beside it.
The processor time of what is there and of what is left (estimated from it) is printed first. ``--render`` runs nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    Spacingd,
)
from monai.utils import set_determinism

from monai_transfer.data.augmentation import as_transforms, preset
from monai_transfer.data.joint import JointSampler, SwitchOnd
from monai_transfer.data.lists import DataLists
from monai_transfer.data.readers import SafeReader
from monai_transfer.engine.epoch_seed import EpochSeed
from monai_transfer.engine.source_average import average_states, tuned_share
from monai_transfer.engine.weight_average import WeightAverage
from monai_transfer.files import write_json, write_text
from monai_transfer.testtime.adabn import Adabn
from monai_transfer.testtime.flips import FlipInferer

SETS: dict[str, dict[str, Any]] = {
    "hippocampus": {"dims": 3, "sites": ("float32", "uint8"), "labelled": 2, "patch": [32, 48, 32], "flips": [0]},
    "sarcoma": {
        "dims": 3,
        "sites": ("GE", "Philips"),
        "labelled": 3,
        "patch": [48, 48, 48],
        "flips": [0],
        "spacing": 4.0,
    },
    "nuclei": {"dims": 2, "sites": ("fluorescence", "histology"), "labelled": 4, "patch": [128, 128], "flips": [0, 1]},
}
PRETRAIN, TUNE = 400, 200
SOURCES = ("light", "standard", "randomised", "randomised_all")
"""Augmentation at the source; ``randomised_all`` randomises every case, not half of each batch."""


# --------------------------------------------------------------------------------------------------- the set
class Bench:
    """One set: cached cases, scores, trainings; each cell is run once and kept."""

    def __init__(self, name: str, manifest: Path, out: Path, steps: float, device: torch.device) -> None:
        self.name, self.options, self.out, self.device = name, SETS[name], out / name, device
        self.out.mkdir(parents=True, exist_ok=True)
        self.dims, self.patch = self.options["dims"], self.options["patch"]
        self.pretrain, self.tune = max(2, int(PRETRAIN * steps)), max(2, int(TUNE * steps))
        self.lists = lambda seed, n: DataLists(manifest, *self.options["sites"], n, seed)
        self.batch = 4 if self.dims == 3 else 8
        self.classes = len(self.lists(0, None).manifest.labels)
        self._cached: dict[str, Any] = {}
        spacing = self.options.get("spacing")
        keys = ["image", "label"]
        space = [Orientationd(keys, "RAS", labels=None)] if self.dims == 3 else []
        if spacing:
            space.append(Spacingd(keys, [spacing] * 3, mode=["bilinear", "nearest"]))
        self.read = Compose(
            [
                LoadImaged(["image"], reader=SafeReader(mode="grey") if self.dims == 2 else SafeReader()),
                LoadImaged(["label"], reader=SafeReader(palette="index")),
                EnsureChannelFirstd(keys),
                *space,
                NormalizeIntensityd(["image"], channel_wise=True),
            ]
        )

    def cases(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The cases of a data list, read once."""
        for item in items:
            if item["image"] not in self._cached:
                found = self.read({"image": item["image"], "label": item["label"]})
                found["label"] = found["label"].to(torch.uint8)
                self._cached[item["image"]] = found
        return [{**item, **self._cached[item["image"]]} for item in items]

    def network(self, seed: int) -> UNet:
        torch.manual_seed(seed)
        channels = (16, 32, 64) if self.dims == 2 else (8, 16, 32)
        return UNet(self.dims, 1, self.classes, channels, (2, 2), num_res_units=1, norm="BATCH").to(self.device)

    def augment(self, name: str) -> list[dict[str, Any]]:
        configs = preset(
            "randomised" if name == "randomised_all" else name, self.dims, [self.options.get("spacing") or 1.0] *
            self.dims, self.patch, self.options["flips"], foreground=0.33,
        )  # fmt: skip
        for config in configs:
            if name == "randomised_all" and "share" in config:
                config["share"] = 1.0
        return configs

    # ----------------------------------------------------------------------------------------------- train and score
    def train(self, network: UNet, items: list[dict[str, Any]], augment: Any, steps: int, lr: float, seed: int) -> dict:
        """A stock trainer's run; returns the last weights and their running average."""
        set_determinism(seed)
        dataset = CacheDataset(self.cases(items), Compose([augment]), cache_rate=0.0, progress=False)
        epochs = max(1, steps // 20)
        each = max(1, steps // epochs) * self.batch
        parts = items if "part" in items[0] else [{**item, "part": "target"} for item in items]
        dataset.data = [{**case, "part": item["part"]} for case, item in zip(dataset.data, parts, strict=True)]
        loader = DataLoader(dataset, batch_size=self.batch, sampler=JointSampler(dataset, each), drop_last=True)
        optimizer = torch.optim.AdamW(network.parameters(), lr, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=True, squared_pred=True)
        last: dict[str, Any] = {}
        trainer = SupervisedTrainer(
            device=self.device, max_epochs=epochs, train_data_loader=loader, network=network, optimizer=optimizer,
            loss_function=lambda pred, label: loss(pred.as_tensor(), label.as_tensor()), decollate=False,
            train_handlers=[EpochSeed(seed), LrScheduleHandler(schedule, print_lr=False)],
        )  # fmt: skip
        trainer.add_event_handler(
            Events.COMPLETED, lambda e: last.update({k: v.detach().clone() for k, v in network.state_dict().items()})
        )
        WeightAverage(0.95).attach(trainer)
        trainer.run()
        return {"last": last, "average": {k: v.detach().clone() for k, v in network.state_dict().items()}}

    @torch.no_grad()
    def dice(self, network: UNet, items: list[dict[str, Any]], flips: list[int] | None = None) -> list[float]:
        """Mean Dice over the classes, of each case."""
        inferer = FlipInferer(SlidingWindowInferer(self.patch, 4, 0.25, "gaussian"), flips or [])
        network.eval()
        found = []
        for case in self.cases(items):
            image = case["image"].as_tensor()[None].to(self.device)
            pred = inferer(image, network).argmax(1)[0].cpu()
            label = case["label"].as_tensor()[0]
            scores = []
            for c in range(1, self.classes):
                both = (pred == c).sum() + (label == c).sum()
                scores.append(float(2 * ((pred == c) & (label == c)).sum() / both) if both else float("nan"))
            found.append(float(np.nanmean(scores)))
        return found

    # ----------------------------------------------------------------------------------------------- cells
    def cell(self, name: str, seed: int, run: Callable[[], dict[str, Any]], weights: bool = True) -> dict[str, Any]:
        """The result of a cell, run if it is not there: scores by name, and its weights."""
        path = self.out / f"{name}-{seed}.json"
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
        else:
            since = time.process_time()
            states = run()
            found = states.pop("scores")
            found["seconds"] = round(time.process_time() - since, 1)
            if weights:
                torch.save(states, path.with_suffix(".pt"))
            write_json(path, found)
            shown = ", ".join(f"{key} {np.mean(value):.3f}" for key, value in found.items() if isinstance(value, list))
            print(f"{self.name} {name}, seed {seed}: {shown} ({found['seconds']:.0f} s)", flush=True)
        if weights and path.with_suffix(".pt").is_file():
            found["states"] = torch.load(path.with_suffix(".pt"), weights_only=True)
        return found

    def source(self, kind: str, seed: int) -> dict[str, Any]:
        """Pretraining at home: scored there and, untouched, on the target."""
        lists = self.lists(seed, self.options["labelled"])

        def run() -> dict[str, Any]:
            network = self.network(seed)
            augment = as_transforms(self.augment(kind))
            states = self.train(network, lists.source_training, augment, self.pretrain, 2e-3, seed)
            network.load_state_dict(states["last"])
            flips = self.options["flips"]
            scores = {
                "target": self.dice(network, lists.target_test),
                "home": self.dice(network, lists.source_test),
                "target, flips": self.dice(network, lists.target_test, flips),
            }
            scores["labelled"] = self.dice(network, lists.target_training)
            Adabn().fit(network, self.target_batches(lists, seed))
            scores["target, statistics"] = self.dice(network, lists.target_test)
            return {**states, "scores": scores}

        return self.cell(f"source_{kind}", seed, run)

    def target_batches(self, lists: DataLists, seed: int) -> DataLoader:
        set_determinism(seed)
        cut = as_transforms(preset("none", self.dims, [1.0] * self.dims, self.patch))
        items = [{**item, "label": item["image"]} for item in lists.target_unlabelled]
        known = {item["image"]: item for item in lists.manifest.datalist("training", site=lists.target_site)}
        cases = self.cases([known[item["image"]] for item in items if item["image"] in known])
        return DataLoader(
            [cut(case) for case in cases for _ in range(4)], batch_size=self.batch, shuffle=True, drop_last=True
        )

    def tuned(self, name: str, seed: int, source: str | None, augment: str, joint: bool) -> dict[str, Any]:
        """Training with the labelled target cases: last weights, running average, flips, averages with the source."""
        lists = self.lists(seed, self.options["labelled"])

        def run() -> dict[str, Any]:
            network = self.network(seed)
            start = self.source(source, seed) if source else None
            if start:
                network.load_state_dict(start["states"]["last"])
            target = self.augment(augment)
            transform: Any = as_transforms(target)
            if joint:
                transform = SwitchOnd("part", {"target": target}, self.augment("light"))
            items = lists.joint_training if joint else lists.target_training
            states = self.train(network, items, transform, self.tune, 1e-3, seed)
            scores = {"running average": self.dice(network, lists.target_test)}
            network.load_state_dict(states["last"])
            scores["target"] = self.dice(network, lists.target_test)
            scores["flips"] = self.dice(network, lists.target_test, self.options["flips"])
            scores["home"] = self.dice(network, lists.source_test)
            if start:
                rule = tuned_share(float(np.mean(start["labelled"])))
                for which, share in (("half", 0.5), ("rule", rule)):
                    network.load_state_dict(average_states(start["states"]["last"], states["last"], share))
                    scores[f"averaged, {which}"] = self.dice(network, lists.target_test)
                    Adabn().fit(network, self.target_batches(lists, seed))
                    scores[f"averaged, {which}, statistics"] = self.dice(network, lists.target_test)
            return {"scores": scores}

        return self.cell(name, seed, run, weights=False)


CELLS: dict[str, Callable[[Bench, int], dict[str, Any]]] = {
    **{f"source_{kind}": (lambda b, s, kind=kind: b.source(kind, s)) for kind in SOURCES},
    "scratch": lambda b, s: b.tuned("scratch", s, None, "standard", False),
    "fine_tuned_light": lambda b, s: b.tuned("fine_tuned_light", s, "standard", "light", False),
    "fine_tuned": lambda b, s: b.tuned("fine_tuned", s, "standard", "standard", False),
    "joint_light": lambda b, s: b.tuned("joint_light", s, "standard", "light", True),
    "joint": lambda b, s: b.tuned("joint", s, "standard", "standard", True),
    "fine_tuned_randomised": lambda b, s: b.tuned("fine_tuned_randomised", s, "randomised", "standard", False),
    "joint_randomised": lambda b, s: b.tuned("joint_randomised", s, "randomised", "standard", True),
}


def blob(bench: Bench) -> float:
    """An ellipsoid in the middle of every test image; its size is the best on the training cases."""
    lists = bench.lists(0, bench.options["labelled"])

    def score(items: list[dict[str, Any]], share: float) -> float:
        found = []
        for case in bench.cases(items):
            label = case["label"].as_tensor()[0] > 0
            axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in label.shape], indexing="ij")
            inside = torch.as_tensor(sum(a**2 for a in axes) <= share**2)
            found.append(float(2 * (inside & label).sum() / (inside.sum() + label.sum())))
        return float(np.mean(found))

    share = max(np.linspace(0.1, 1.2, 23), key=lambda s: score(lists.source_training, s))
    return score(lists.target_test, share)


def table(bench: Bench, seeds: int) -> str:
    rows = []
    for name in CELLS:
        found = [
            json.loads(path.read_text(encoding="utf-8"))
            for seed in range(seeds)
            for path in [bench.out / f"{name}-{seed}.json"]
            if path.is_file()
        ]
        if not found:
            continue
        for key in [k for k, v in found[0].items() if isinstance(v, list) and k != "labelled"]:
            values = [float(np.mean(one[key])) for one in found]
            rows.append((name, key, np.mean(values), np.std(values), len(values)))
    lines = ["| cell | scored as | Dice | spread over seeds | seeds |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {key} | {mean:.3f} | {spread:.3f} | {n} |" for name, key, mean, spread, n in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--set", choices=sorted(SETS), default="nuclei")
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cells", default=",".join(CELLS), help="names, comma-separated")
    parser.add_argument(
        "--steps", type=float, default=1.0, help=f"times {PRETRAIN} at the source and {TUNE} on the target"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--write", type=Path, help="Markdown file that the table is written to")
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a smoke test on embedded data: two steps of two cells")
    words = parser.parse_args()
    torch.set_num_threads(1)
    names = words.cells.split(",")
    if words.quick:
        from monai_transfer.data.phantom import embedded_set

        words.manifest, words.out = Path(embedded_set("segmentation")) / "manifest.json", Path(tempfile.mkdtemp())
        found = DataLists(words.manifest).manifest
        SETS["embedded"] = SETS["hippocampus"] | {"sites": tuple(found.sites[:2]), "patch": [16, 16, 16]}
        words.set, words.seeds, words.steps, names = "embedded", 1, 0.005, ["source_standard", "joint"]
    bench = Bench(words.set, words.manifest, words.out, words.steps, torch.device(words.device))
    known = [json.loads(p.read_text(encoding="utf-8"))["seconds"] for p in bench.out.glob("*-[0-9].json")]
    missing = sum(not (bench.out / f"{n}-{s}.json").is_file() for n in names for s in range(words.seeds))
    left = f"about {missing * np.mean(known):.0f} s" if known else f"unknown: {missing} cells"
    print(f"{words.set}: processor seconds so far {sum(known):.0f}; left {left}", flush=True)
    if not words.render:
        for seed in range(words.seeds):
            for name in names:
                CELLS[name](bench, seed)
    text = f"{table(bench, words.seeds)}\n\nA centred blob: {blob(bench):.3f}."
    print(text)
    if words.write:
        told = f"{date.today()}, torch {version('torch')}, MONAI {version('monai')}"
        write_text(words.write, f"# {words.set}\n\n{told}; {words.seeds} seeds.\n\n{text}\n")


if __name__ == "__main__":
    main()
