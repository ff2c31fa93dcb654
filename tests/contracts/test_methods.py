"""Every file in ``monai_transfer/methods`` and ``monai_transfer/testtime`` keeps the contract; new ones are found here.

A file holds one class, named as the file in CamelCase, constructed without arguments. It is one of these kinds:
a ``Method`` (a term, fed by ``Adapt`` in a stock trainer), a ``SourceFree`` (``wrap`` or ``fit``), or a network or
transform that is fitted and used by itself, which its own test covers.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet
from torch import nn

import monai_transfer.methods
import monai_transfer.testtime
from monai_transfer.engine.adapt import Adapt
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


def network_for(task: str, dims: int) -> nn.Module:
    if task == "segmentation":
        return UNet(dims, 1, 2, (4, 8), (2,), norm="batch")
    conv, norm, pool = {
        2: (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d),
        3: (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveAvgPool3d),
    }[dims]
    outputs = 1 if task == "regression" else 3
    return nn.Sequential(conv(1, 6, 3), norm(6), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(6, outputs))


def batches_for(task: str, dims: int, seed: int, labelled: bool) -> list[dict[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(3):
        image = torch.randn(4, 1, *[8] * dims, generator=g) + seed
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
    return nn.MSELoss() if task == "regression" else nn.CrossEntropyLoss()


def train(method: Method, task: str, dims: int, network: nn.Module, epochs: int = 2, state=None):
    """Two epochs in a stock trainer, accumulating over two batches; returns handler and trainer."""
    pool = getattr(method, "default_pool", "mean")
    handler = Adapt(method, batches_for(task, dims, 1, False), pool=pool)
    if state is not None:
        handler.load_state_dict(state)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=batches_for(task, dims, 0, True),
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), 1e-2),
        loss_function=loss_for(task),
        accumulation_steps=2,
        train_handlers=[handler],
    )
    trainer.run()
    return handler, trainer


@pytest.mark.parametrize(("path", "task", "dims"), CELLS)
def test_runs_two_epochs_in_a_stock_trainer_and_resumes(path, task, dims):
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
    learnt = [k for k, v in network.named_parameters() if not torch.equal(v, start[k])]
    assert learnt, "the network did not learn"
    assert not any("discriminator" in k or "teacher" in k or "peer" in k for k in network.state_dict())
    # a state may come before the method's parts are sized, and comes back entirely
    state = handler.state_dict()
    again, _ = train(cls(), task, dims, network_for(task, dims), epochs=1, state=state)
    again.load_state_dict(state)
    for key, value in method.state_dict().items():
        torch.testing.assert_close(again.method.state_dict()[key], value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("path", "task", "dims"), [c for c in CELLS if c[2] == 2])
def test_reduced_precision(path, task, dims):
    """Terms stay finite when the forward pass runs in bfloat16."""
    cls = method_class(path)
    if not issubclass(cls, Method):
        pytest.skip("not a term")
    network = network_for(task, dims)
    with torch.autocast("cpu", torch.bfloat16):
        _, trainer = train(cls(), task, dims, network, epochs=1)
    assert torch.isfinite(torch.tensor(trainer.state.adapt_log["adapt_loss"]))
