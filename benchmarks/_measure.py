"""What the scripts here share: rounds that alternate between the peers, and one way to print and record ratios.

Times are processor seconds of one thread (`time.process_time`), so that others on a shared machine disturb them less;
waiting for a disk is not in them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

RESULTS = Path(__file__).with_name("RESULTS.md")


def arguments(doc: str | None) -> argparse.Namespace:
    """``--quick`` and ``--record``; one thread, so that ratios hold on other machines."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke test: too short to mean anything")
    parser.add_argument("--record", action="store_true", help="append the ratios to RESULTS.md")
    torch.set_num_threads(1)
    return parser.parse_args()


def medians(peers: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each peer's figure; the rounds alternate, so that a busy minute hits all of them."""
    figures: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, run in peers.items():
            figures[name].append(run())
    return {name: statistics.median(values) for name, values in figures.items()}


def kept_for_backward(
    run: Callable[[], torch.Tensor], weights: Iterable[torch.Tensor] = ()
) -> tuple[float, torch.Tensor]:
    """Bytes that autograd saves while ``run`` goes forward, ``weights`` left out; and what ``run`` returns."""
    known = {tensor.untyped_storage().data_ptr() for tensor in weights}
    sizes: dict[int, int] = {}
    alive = []  # a freed storage's address would be given out again

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = run()
    return float(sum(sizes.values())), output


def report(script: str, rows: Sequence[tuple[str, float]], record: bool) -> None:
    """Print the ratios, and append them to ``RESULTS.md`` on demand."""
    for name, ratio in rows:
        print(f"{name}: {ratio:.3f}")
    if record:
        head = f"torch {version('torch').split('+')[0]}, MONAI {version('monai')}, 1 thread, shared CPU"
        with RESULTS.open("a", encoding="utf-8") as stream:
            for name, ratio in rows:
                stream.write(f"| {date.today()} | {Path(script).stem} | {name} | {ratio:.3f} | {head} |\n")
