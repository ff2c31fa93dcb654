"""Every file in ``methods/`` and ``testtime/`` keeps the contract of ``monai_transfer.testing``; new ones are found.

A file holds one class, named as the file in CamelCase, constructed without arguments. It is one of these kinds:
a ``Method`` (a term, fed by ``Adapt`` in a stock trainer), or a ``SourceFree`` (``wrap`` or ``fit``).
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from monai_transfer.discovery import classes_in
from monai_transfer.methods.base import Method
from monai_transfer.testing import methods as contract
from monai_transfer.testing.problems import DEVICE, network_for, trainer_for
from monai_transfer.testtime.base import SourceFree

TERMS = {f"methods.{name}": kind for name, kind in classes_in("methods", Method).items()}
SOURCE_FREE = {f"testtime.{name}": kind for name, kind in classes_in("testtime", SourceFree).items()}
CELLS, FREE_CELLS = (
    [(name, task, dims) for name, kind in kinds.items() for task in kind.tasks for dims in kind.dims]
    for kinds in (TERMS, SOURCE_FREE)
)

STATEFUL = ("dann", "dsbn", "label_spreading", "mean_teacher", "pseudo_label")
"""A critic, norm layers, a memory, a moving average and thresholds: each kind of state once."""


def first_task(cell) -> bool:
    return cell[1] == TERMS[cell[0]].tasks[0]


def slow(cells, quick):
    """The cells, those for which ``quick`` is false marked as slow."""
    return [pytest.param(*cell, marks=() if quick(cell) else pytest.mark.slow) for cell in cells]


@pytest.mark.parametrize("package", ["methods", "testtime"])
def test_every_file_is_of_a_kind(package):
    base = Method if package == "methods" else SourceFree
    assert classes_in(package) == classes_in(package, base)


@pytest.mark.parametrize("name", [*TERMS, *SOURCE_FREE])
def test_names_paper_and_declarations(name):
    cls = {**TERMS, **SOURCE_FREE}[name]
    assert cls.__name__ in importlib.import_module(cls.__module__).__all__
    contract.check_declarations(cls, paper=True)


@pytest.mark.parametrize(("name", "task", "dims"), CELLS)
def test_runs_two_epochs_in_a_stock_trainer_and_comes_back(name, task, dims):
    contract.check_trains(TERMS[name], task, dims)


@pytest.mark.parametrize(("name", "task", "dims"), FREE_CELLS)
def test_adapts_without_source_data(name, task, dims):
    contract.check_test_time(SOURCE_FREE[name], task, dims)


@pytest.mark.parametrize(
    ("name", "task", "dims"),
    [c for c in CELLS if c[1] == "segmentation" and any("features" in n for n in TERMS[c[0]].needs)],
)
def test_unpooled_features(name, task, dims):
    contract.check_unpooled(TERMS[name], dims)


@pytest.mark.parametrize("where", ["trainer", "inferer"])
@pytest.mark.parametrize(("name", "task", "dims"), slow(CELLS, lambda c: first_task(c) and c[2] == 2))
def test_reduced_precision(name, task, dims, where):
    contract.check_precision(TERMS[name], task, dims, where)


@pytest.mark.parametrize(
    ("name", "task", "dims"), slow(CELLS, lambda c: first_task(c) and c[2] == 2 and c[0].endswith(STATEFUL))
)
def test_an_interrupted_run_goes_on_bit_by_bit(name, task, dims):
    # mcd and mme resize score maps, whose gradient torch sums in any order on CUDA
    close = DEVICE.type == "cuda" and task == "segmentation" and name.endswith(("mcd", "mme"))
    contract.check_resumes(TERMS[name], task, dims, close=close)


# ---------------------------------------------------------------------- two ranks
def _rank(rank: int, folder: str, cells: list) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = {}
    for name, task, dims in cells:
        torch.manual_seed(0)
        network = network_for(task, dims)
        torch.manual_seed(1 + rank)  # nothing may hang on equal generators
        try:
            cls = TERMS[name]
            repeated = {"repeats": 2} if "repeats" in inspect.signature(cls).parameters else {}
            handler, trainer = trainer_for(cls(**repeated), task, dims, network, rank=rank)
            trainer.run()
            method = {f"method.{k}": v.detach() for k, v in handler.method.named_parameters()}
            found[name, task, dims] = {**{k: v.detach() for k, v in network.named_parameters()}, **method}
            found[name, task, dims]["log"] = torch.tensor(trainer.state.adapt_log["adapt_loss"])
        except Exception as error:
            found[name, task, dims] = f"{type(error).__name__}: {error}"
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(DEVICE.type == "cuda", reason="gloo on the CPU")
@pytest.mark.parametrize("dims", [2, 3])
def test_two_ranks_stay_together(dims, tmp_path):
    """Every method in one pair of processes with unequal data: the ranks' parameters, the method's too, stay equal."""
    mp.spawn(_rank, args=(str(tmp_path), [cell for cell in CELLS if cell[2] == dims]), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    failed = {cell: states for cell, states in one.items() if not isinstance(states, dict)}
    assert not failed, "\n".join(f"{cell}: {fault[:300]}" for cell, fault in failed.items())
    for cell, states in one.items():
        for name, value in states.items():
            if name == "log":
                assert torch.isfinite(value), cell
            else:
                torch.testing.assert_close(value, two[cell][name], rtol=0, atol=0, msg=f"{cell}: {name}")
