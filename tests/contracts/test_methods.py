"""Every file in ``monai_transfer/methods`` and ``monai_transfer/testtime`` keeps the contract; new ones are found here.

A file holds one class, named as the file in CamelCase, constructed without arguments. It is one of these kinds:
a ``Method`` (a term, fed by ``Adapt`` in a stock trainer), a ``SourceFree`` (``wrap`` or ``fit``), or a network or
transform that is fitted and used by itself, which its own test covers.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from monai.networks.nets import UNet
from torch import nn

import monai_transfer.methods
import monai_transfer.testtime
from monai_transfer.engine.adapt import Adapt
from monai_transfer.engine.checkpoint import Checkpoint, load_checkpoint
from monai_transfer.engine.epoch_seed import EpochSeed
from monai_transfer.methods.base import FIELDS, Method
from monai_transfer.testtime.base import SourceFree

TASKS = {"classification", "segmentation", "regression"}
FILES = [
    f"{package.__name__}.{module.name}"
    for package in (monai_transfer.methods, monai_transfer.testtime)
    for module in pkgutil.iter_modules(package.__path__)
    if module.name != "base"
]


def method_class(path: str) -> type:
    name = "".join(part.capitalize() for part in path.rsplit(".", 1)[1].split("_"))
    module = importlib.import_module(path)
    assert hasattr(module, name), f"{path} should hold a class {name}"
    return getattr(module, name)


CELLS = [
    (path, task, dims)
    for path in FILES
    if issubclass(method_class(path), (Method, SourceFree))
    for task in method_class(path).tasks
    for dims in method_class(path).dims
]


@pytest.mark.parametrize("path", FILES)
def test_names_paper_and_declarations(path):
    module, cls = importlib.import_module(path), method_class(path)
    assert re.search(r"^Paper: .+", module.__doc__, re.MULTILINE), "the module docstring names its paper"
    assert cls.__name__ in module.__all__
    assert cls.__doc__
    cls()  # without arguments
    assert set(cls.tasks) <= TASKS
    assert cls.tasks
    assert set(cls.dims) <= {2, 3}
    assert cls.norm_statistics
    if issubclass(cls, Method):
        assert set(cls().needs) <= FIELDS
    if issubclass(cls, SourceFree):
        assert hasattr(cls, "wrap") or hasattr(cls, "fit")


@pytest.mark.parametrize("path", FILES)
def test_arguments_are_documented(path):
    cls = method_class(path)
    for name in list(inspect.signature(cls.__init__).parameters)[1:]:
        if name not in ("args", "kwargs"):
            assert re.search(rf"^ +{name}(, \w+)*:", cls.__doc__, re.MULTILINE), f"{name} is not documented"


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TERMS = [cell for cell in CELLS if issubclass(method_class(cell[0]), Method)]

STATEFUL = ("dann", "dsbn", "label_spreading", "mean_teacher", "pseudo_label")
"""A critic, norm layers, a memory, a moving average and thresholds: each kind of state once."""


def first_task(cell) -> bool:
    return cell[1] == method_class(cell[0]).tasks[0]


def slow(cells, quick):
    """The cells, those for which ``quick`` is false marked as slow."""
    return [pytest.param(*cell, marks=() if quick(cell) else pytest.mark.slow) for cell in cells]


def network_for(task: str, dims: int) -> nn.Module:
    if task == "segmentation":
        return UNet(dims, 1, 2, (4, 8), (2,), norm="batch", dropout=0.1)
    conv, norm, pool = {
        2: (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d),
        3: (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveAvgPool3d),
    }[dims]
    outputs = 1 if task == "regression" else 3
    return nn.Sequential(
        conv(1, 6, 3), norm(6), nn.ReLU(), pool(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(6, outputs)
    )


def batches_for(task: str, dims: int, seed: int, labelled: bool, rank: int = 0) -> list[dict[str, torch.Tensor]]:
    """Three batches of one site; a labelled batch is of the source, but for its last case, a labelled target case."""
    g = torch.Generator().manual_seed(seed + 100 * rank)
    batches = []
    for _ in range(3):
        image = torch.randn(4, 1, *[8] * dims, generator=g) + seed
        if labelled:
            image[-1] += 1
        batch = {"image": image, "strong": image + 0.1 * torch.randn(image.shape, generator=g)}
        batch["order"] = torch.rand(4, generator=g)
        if labelled:
            batch["label"] = {
                "classification": torch.tensor([0, 1, 2, 0]),
                "segmentation": (image > image.mean()).float(),
                "regression": image.flatten(1).mean(1, keepdim=True),
            }[task]
        batches.append(batch)
    return batches


def loss_for(task: str):
    if task == "segmentation":
        return lambda pred, label: nn.functional.cross_entropy(pred, label[:, 0].long())
    if task == "regression":  # on CUDA, torch's has no backward pass for two dtypes
        return lambda pred, label: nn.functional.mse_loss(pred.float(), label)
    return nn.CrossEntropyLoss()


def build(method, task, dims, network, epochs=2, state=None, handlers=(), rank=0, pool="mean", **more):
    """A stock trainer that accumulates over two batches, and its handler."""
    handler = Adapt(method, batches_for(task, dims, 1, False, rank), pool=pool)
    if state is not None:
        handler.load_state_dict(state)
    network = network.to(DEVICE)
    wrapped = nn.parallel.DistributedDataParallel(network) if dist.is_initialized() else network
    trainer = SupervisedTrainer(
        device=DEVICE,
        max_epochs=epochs,
        train_data_loader=batches_for(task, dims, 0, True, rank),
        network=wrapped,
        optimizer=torch.optim.Adam(wrapped.parameters(), 1e-2),
        loss_function=loss_for(task),
        accumulation_steps=2,
        train_handlers=[*handlers, handler],
        **more,
    )
    return handler, trainer


def train(method: Method, task: str, dims: int, network: nn.Module, **options):
    handler, trainer = build(method, task, dims, network, **options)
    trainer.run()
    return handler, trainer


@pytest.mark.parametrize(("path", "task", "dims"), CELLS)
def test_runs_two_epochs_in_a_stock_trainer_and_comes_back(path, task, dims):
    cls = method_class(path)
    network = network_for(task, dims)
    if issubclass(cls, SourceFree):
        loader = batches_for(task, dims, 1, False)
        adapted = cls().wrap(network) if hasattr(cls, "wrap") else cls().fit(network, loader)
        output = adapted(loader[0]["image"])
        assert torch.isfinite(output).all()
        return
    method = cls()
    start = {k: v.clone() for k, v in network.state_dict().items()}
    handler, trainer = train(method, task, dims, network)
    assert torch.isfinite(torch.tensor(trainer.state.adapt_log["adapt_loss"]))
    learnt = [k for k, v in network.named_parameters() if not torch.equal(v.cpu(), start[k])]
    assert learnt, "the network did not learn"
    assert network.state_dict().keys() == start.keys(), "the method left something in the network"
    # a state may come before the method's parts are sized, and comes back entirely
    state = handler.state_dict()
    again, _ = train(cls(), task, dims, network_for(task, dims), epochs=1, state=state)
    again.load_state_dict(state)
    for key, value in method.state_dict().items():
        torch.testing.assert_close(again.method.state_dict()[key], value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("path", "task", "dims"),
    [c for c in TERMS if c[1] == "segmentation" and any("features" in n for n in method_class(c[0]).needs)],
)
def test_unpooled_features(path, task, dims):
    """``Adapt(pool=None)`` gives feature maps, with which every method that reads features gets along."""
    _, trainer = train(method_class(path)(), task, dims, network_for(task, dims), epochs=1, pool=None)
    assert torch.isfinite(torch.tensor(trainer.state.adapt_log["adapt_loss"]))


class HalfInferer(SimpleInferer):
    """The network alone in bfloat16; losses and terms in what they are given."""

    def __call__(self, inputs, network, *args, **kwargs):
        with torch.autocast(inputs.device.type, torch.bfloat16):
            return super().__call__(inputs, network, *args, **kwargs)


@pytest.mark.parametrize("where", ["trainer", "inferer"])
@pytest.mark.parametrize(("path", "task", "dims"), slow(TERMS, lambda c: first_task(c) and c[2] == 2))
def test_reduced_precision(path, task, dims, where):
    """Terms stay finite in bfloat16: loss, term and critic inside autocast (a trainer's AMP), or the network alone."""
    whole = torch.autocast("cpu", torch.bfloat16) if DEVICE.type == "cpu" else contextlib.nullcontext()
    options = {"amp": True} if DEVICE.type == "cuda" else {}  # MONAI's amp is CUDA's
    if where == "inferer":
        whole, options = contextlib.nullcontext(), {"inferer": HalfInferer()}
    with whole:
        _, trainer = train(method_class(path)(), task, dims, network_for(task, dims), epochs=1, **options)
    assert torch.isfinite(torch.tensor(trainer.state.adapt_log["adapt_loss"]))
    assert all(torch.isfinite(p).all() for p in trainer.network.parameters())


def same(a, b, where="state"):
    if isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=lambda m: f"{where}: {m}")
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


@pytest.mark.parametrize(
    ("path", "task", "dims"), slow(TERMS, lambda c: first_task(c) and c[2] == 2 and c[0].endswith(STATEFUL))
)
def test_an_interrupted_run_goes_on_bit_by_bit(path, task, dims, tmp_path):
    def run(folder, interrupt=False):
        torch.manual_seed(0)
        handlers = [EpochSeed(7), Checkpoint(tmp_path / folder)]
        _, trainer = build(method_class(path)(), task, dims, network_for(task, dims), epochs=3, handlers=handlers)
        if interrupt:

            @trainer.on(Events.ITERATION_COMPLETED)
            def stop(engine):
                if engine.state.epoch == 2:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                trainer.run()
        else:
            trainer.run()

    with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):  # what MONAI's set_determinism asks of it
        run("whole")
        run("cut", interrupt=True)
        run("cut")
    whole, cut = (load_checkpoint(tmp_path / folder / "models" / "last.pt") for folder in ("whole", "cut"))
    if DEVICE.type == "cuda" and task == "segmentation" and path.endswith(("mcd", "mme")):
        # they resize score maps, whose gradient torch sums in any order there
        for key, value in whole["network"].items():
            torch.testing.assert_close(cut["network"][key], value, rtol=1e-3, atol=1e-5, msg=key)
    else:
        same(whole, cut)


# ---------------------------------------------------------------------- two ranks
def _rank(rank: int, folder: str, cells: list) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = {}
    for path, task, dims in cells:
        torch.manual_seed(0)
        network = network_for(task, dims)
        torch.manual_seed(1 + rank)  # nothing may hang on equal generators
        try:
            cls = method_class(path)
            repeated = {"repeats": 2} if "repeats" in inspect.signature(cls).parameters else {}
            handler, trainer = train(cls(**repeated), task, dims, network, rank=rank)
            method = {f"method.{k}": v.detach() for k, v in handler.method.named_parameters()}
            found[path, task, dims] = {**{k: v.detach() for k, v in network.named_parameters()}, **method}
            found[path, task, dims]["log"] = torch.tensor(trainer.state.adapt_log["adapt_loss"])
        except Exception as error:
            found[path, task, dims] = f"{type(error).__name__}: {error}"
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(DEVICE.type == "cuda", reason="gloo on the CPU")
@pytest.mark.parametrize("dims", [2, 3])
def test_two_ranks_stay_together(dims, tmp_path):
    """Every method in one pair of processes with unequal data: the ranks' parameters, the method's too, stay equal."""
    mp.spawn(_rank, args=(str(tmp_path), [cell for cell in TERMS if cell[2] == dims]), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    failed = {cell: states for cell, states in one.items() if not isinstance(states, dict)}
    assert not failed, "\n".join(f"{cell}: {fault[:300]}" for cell, fault in failed.items())
    for cell, states in one.items():
        for name, value in states.items():
            if name == "log":
                assert torch.isfinite(value), cell
            else:
                torch.testing.assert_close(value, two[cell][name], rtol=0, atol=0, msg=f"{cell}: {name}")
