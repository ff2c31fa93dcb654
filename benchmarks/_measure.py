"""What the scripts here share: rounds that alternate between the peers, and one way to print and record ratios.

On a CPU times are processor seconds of one thread, so that others on a shared machine disturb them less; waiting for a
disk is not in them. With ``--device cuda`` they are seconds by the clock, the device's work finished.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

RESULTS = Path(__file__).with_name("RESULTS.md")


def arguments(doc: str | None) -> argparse.Namespace:
    """``--quick``, ``--record``, ``--device``; one thread, so that ratios hold on other machines."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke test: too short to mean anything")
    parser.add_argument("--record", action="store_true", help="append the ratios to RESULTS.md")
    parser.add_argument(
        "--device", default="cpu", choices=["cpu", "cuda"], help="where the networks run, if a script can"
    )
    torch.set_num_threads(1)
    return parser.parse_args()


def now(device: str = "cpu") -> float:
    """Seconds: of the processor, or of the clock once a GPU has done what it was given."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def medians(peers: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each peer's figure; the rounds alternate, so that a busy minute hits all of them."""
    figures: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, run in peers.items():
            figures[name].append(run())
    return {name: statistics.median(values) for name, values in figures.items()}


def paired(peers: dict[str, Callable[[], float]], base: str, rounds: int) -> dict[str, float]:
    """Each peer's figure over that of ``base`` in the same round, the median of these ratios; the order is shuffled.

    For ratios near 1: what the machine does in a minute hits both sides, and no peer always runs after the same other.
    """
    shuffled, ratios = random.Random(0), {name: [] for name in peers}  # type: ignore[var-annotated]
    for run in peers.values():
        run()  # warm
    for _ in range(rounds):
        took = {name: peers[name]() for name in shuffled.sample(list(peers), len(peers))}
        for name, seconds in took.items():
            ratios[name].append(seconds / took[base])
    return {name: statistics.median(values) for name, values in ratios.items()}


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


def report(script: str, rows: Sequence[tuple[str, float]], record: bool, device: str = "cpu") -> None:
    """Print the ratios, and append them to ``RESULTS.md`` on demand."""
    for name, ratio in rows:
        print(f"{name}: {ratio:.3f}")
    if record:
        where = torch.cuda.get_device_name() if device == "cuda" else "1 thread, shared CPU"
        head = f"torch {version('torch').split('+')[0]}, MONAI {version('monai')}, {where}"
        with RESULTS.open("a", encoding="utf-8") as stream:
            for name, ratio in rows:
                stream.write(f"| {date.today()} | {Path(script).stem} | {name} | {ratio:.3f} | {head} |\n")
