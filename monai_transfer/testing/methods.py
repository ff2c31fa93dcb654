"""The contract of a method, as functions; ``check_method`` runs all of it."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.inferers import SimpleInferer

from monai_transfer.engine.checkpoint import Checkpoint, load_checkpoint
from monai_transfer.engine.epoch_seed import EpochSeed
from monai_transfer.methods.base import FIELDS, Method
from monai_transfer.tasks import independent_tasks, method_tasks
from monai_transfer.tasks.for_methods import VOXEL_CLASSES
from monai_transfer.testing.problems import DEVICE, batches_for, network_for, same, trainer_for
from monai_transfer.testtime.base import SourceFree

__all__ = [
    "check_declarations",
    "check_method",
    "check_precision",
    "check_resumes",
    "check_test_time",
    "check_trains",
    "check_unpooled",
]

TASKS = method_tasks()

Factory = Callable[[], Any]


def check_method(
    method: Factory, *, tasks: Sequence[str] | None = None, dims: Sequence[int] | None = None, paper: bool = False
) -> None:
    """Hold a method to the whole contract, on the CPU (or the GPU that torch sees) in seconds.

    Declarations and documentation; two epochs in a stock trainer with accumulation for each task and dimension that it
    declares, with its state saved, loaded before its parts are sized, and coming back entirely; a run that is
    interrupted and resumed, bit by bit; bfloat16; features that are not pooled. Of a ``SourceFree`` that it adapts.

    Args:
        method: its class, or a function without arguments that makes one.
        tasks, dims: a part of what it declares; default: all.
        paper: the docstring of its module must have a line ``Paper: ...``, as ours do.

    Raises:
        AssertionError: a breach, which it names.

    >>> from monai_transfer.methods.coral import Coral
    >>> check_method(Coral, tasks=["classification"], dims=[2])
    """
    made = method()
    check_declarations(method, paper=paper)
    for task in made.tasks if tasks is None else tasks:
        for number in made.dims if dims is None else dims:
            if isinstance(made, SourceFree):
                check_test_time(method, task, number)
                continue
            check_trains(method, task, number)
            check_resumes(method, task, number)
            check_precision(method, task, number)
            if task in VOXEL_CLASSES and any("features" in need for need in made.needs):
                check_unpooled(method, number)


def check_declarations(method: Factory, *, paper: bool = False) -> None:
    """What the class says of itself: tasks, dimensions, needs, norm statistics, arguments, and its paper.

    Raises:
        AssertionError: a breach.
    """
    made = method()
    cls = type(made)
    name = cls.__name__
    assert isinstance(made, (Method, SourceFree)), f"{name} is neither a Method nor a SourceFree"
    assert cls.__doc__, f"{name} has no docstring"
    tasks, dims = set(made.tasks), set(made.dims)
    able = {*TASKS, *independent_tasks()}
    assert tasks and tasks <= able, f"{name}.tasks are some of {sorted(able)}, not {made.tasks}"
    assert dims and dims <= {2, 3}, f"{name}.dims are 2, 3 or both, not {made.dims}"
    assert cls.norm_statistics, f"{name}.norm_statistics does not say what happens to normalisation statistics"
    for task in set(TASKS) - tasks:
        assert made.limits.get(task), f"{name}.limits does not say why it is not for {task}"
    if isinstance(made, Method):
        unknown = set(made.needs) - FIELDS
        assert not unknown, f"{name}.needs names {sorted(unknown)}, which no batch has"
    else:
        assert hasattr(made, "wrap") or hasattr(made, "fit"), f"{name} has neither wrap(network) nor fit(network, ...)"
    for argument in list(inspect.signature(cls.__init__).parameters)[1:]:
        if argument not in ("args", "kwargs"):
            found = re.search(rf"^ +{argument}(, \w+)*:", cls.__doc__ or "", re.MULTILINE)
            assert found, f"{name}'s docstring does not say what {argument} is"
    if paper:
        text = sys.modules[cls.__module__].__doc__ or ""
        assert re.search(r"^Paper: .+", text, re.MULTILINE), f"{cls.__module__} has no line `Paper: ...`"


def check_trains(method: Factory, task: str, dims: int) -> None:
    """Two epochs in a stock trainer: the term is finite, the network learns, the state comes back entirely.

    Raises:
        AssertionError: a breach.
    """
    made, network = method(), network_for(task, dims)
    start = {k: v.clone() for k, v in network.state_dict().items()}
    handler, trainer = trainer_for(made, task, dims, network)
    trainer.run()
    name = type(made).__name__
    assert _finite(trainer.state.adapt_log["adapt_loss"]), f"the term of {name} is not finite"
    learnt = [k for k, v in network.named_parameters() if not torch.equal(v.cpu(), start[k])]
    assert learnt, f"with {name} the network did not learn"
    assert network.state_dict().keys() == start.keys(), f"{name} left something in the network"
    state = handler.state_dict()
    again, trainer = trainer_for(method(), task, dims, network_for(task, dims), epochs=1, state=state)
    trainer.run()
    again.load_state_dict(state)
    for key, value in made.state_dict().items():
        same(again.method.state_dict()[key], value, f"{name}'s state: {key}")


def check_unpooled(method: Factory, dims: int) -> None:
    """Feature maps in place of pooled features (``Adapt(pool=None)``), in a segmentation.

    Raises:
        AssertionError: the term is not finite.
    """
    made = method()
    (task,) = VOXEL_CLASSES
    _, trainer = trainer_for(made, task, dims, network_for(task, dims), epochs=1, pool=None)
    trainer.run()
    assert _finite(trainer.state.adapt_log["adapt_loss"]), f"on feature maps the term of {type(made).__name__} is not"


class HalfInferer(SimpleInferer):
    """The network alone in bfloat16; losses and terms in what they are given."""

    def __call__(self, inputs: Any, network: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(inputs.device.type, torch.bfloat16):
            return super().__call__(inputs, network, *args, **kwargs)


def check_precision(method: Factory, task: str, dims: int, where: str = "trainer") -> None:
    """Terms stay finite in bfloat16.

    Args:
        method, task, dims: as of ``check_method``.
        where: ``"trainer"``: loss, term and critic inside autocast; ``"inferer"``: the network alone.

    Raises:
        AssertionError: the term or a parameter is not finite.
    """
    whole: Any = torch.autocast("cpu", torch.bfloat16) if DEVICE.type == "cpu" else contextlib.nullcontext()
    options: dict[str, Any] = {"amp": True} if DEVICE.type == "cuda" else {}  # MONAI's amp is CUDA's
    if where == "inferer":
        whole, options = contextlib.nullcontext(), {"inferer": HalfInferer()}
    made, network = method(), network_for(task, dims)
    with whole:
        _, trainer = trainer_for(made, task, dims, network, epochs=1, **options)
        trainer.run()
    finite = _finite(trainer.state.adapt_log["adapt_loss"])
    assert finite, f"in bfloat16 the term of {type(made).__name__} is not finite"
    assert all(torch.isfinite(p).all() for p in network.parameters()), "in bfloat16 a parameter is not finite"


def check_resumes(method: Factory, task: str, dims: int, *, close: bool = False) -> None:
    """A run that is interrupted and resumed gives what the uninterrupted run gives.

    Args:
        method, task, dims: as of ``check_method``.
        close: nearly so: some of torch's operations on CUDA sum in any order.

    Raises:
        AssertionError: it does not.
    """

    def run(folder: Path, interrupt: bool = False) -> None:
        torch.manual_seed(0)
        handlers = [EpochSeed(7), Checkpoint(folder)]
        _, trainer = trainer_for(method(), task, dims, network_for(task, dims), epochs=3, handlers=handlers)
        if interrupt:

            @trainer.on(Events.ITERATION_COMPLETED)
            def stop(engine: Any) -> None:
                if engine.state.epoch == 2:
                    raise KeyboardInterrupt

            with contextlib.suppress(KeyboardInterrupt):
                trainer.run()
            return
        trainer.run()

    with tempfile.TemporaryDirectory() as home, torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
        whole, cut = Path(home) / "whole", Path(home) / "cut"
        run(whole)
        run(cut, interrupt=True)
        run(cut)
        first, second = (load_checkpoint(folder / "models" / "last.pt") for folder in (whole, cut))
    if close:
        for key, value in first["network"].items():
            torch.testing.assert_close(second["network"][key], value, rtol=1e-3, atol=1e-5, msg=key)
    else:
        same(first, second, "the resumed run's checkpoint")


def check_test_time(method: Factory, task: str, dims: int) -> None:
    """A source-free method adapts a network and gives finite outputs; ``wrap`` leaves the network given as it is.

    Raises:
        AssertionError: a breach.
    """
    made, network = method(), network_for(task, dims)
    loader = batches_for(task, dims, 1, False)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    made.for_task(task)
    adapted = made.wrap(network) if hasattr(made, "wrap") else made.fit(network, loader)
    output = adapted.eval()(loader[0]["image"])
    assert torch.isfinite(output).all(), f"the outputs of {type(made).__name__} are not finite"
    if hasattr(made, "wrap"):
        same(dict(network.state_dict()), before, "the network given")


def _finite(value: float) -> bool:
    return bool(torch.isfinite(torch.tensor(value)))
