"""A method and a strategy of another package keep the same contract, through the installed functions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import monai_transfer
from monai_transfer.methods import Fields, Method
from monai_transfer.strategies import HeadOnly
from monai_transfer.testing import check_method, check_strategy


class MeanShift(Method):
    """A toy: the mean features of both domains are to be equal.

    Args:
        scale: factor of the term.
    """

    needs = frozenset({"source_features", "target_features"})
    tasks = ("classification", "segmentation", "regression")

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, fields: Fields, progress: float) -> torch.Tensor:
        means = [f.flatten(2).mean(2).mean(0) if f.ndim > 2 else f.mean(0) for f in fields.values()]
        return self.scale * (means[0] - means[1]).square().sum()


class Forgetful(MeanShift):
    """Keeps something that is not in its state.

    Args:
        scale: factor of the term.
    """

    tasks = ("classification",)
    limits = {"segmentation": "it is a toy", "regression": "it is a toy"}
    steps = 0

    def forward(self, fields, progress):
        self.steps += 1
        return self.steps * super().forward(fields, progress)


def test_a_method_of_another_package():
    check_method(MeanShift, tasks=["segmentation"], dims=[2])
    check_method(lambda: MeanShift(scale=0.5), tasks=["regression"], dims=[3])


def broken(**attributes):
    limits = {"segmentation": "it is a toy", "regression": "it is a toy"}
    standard = {"__doc__": MeanShift.__doc__, "tasks": ("classification",), "limits": limits}
    return type("Broken", (MeanShift,), {**standard, **attributes})


def not_a_number(method, fields, progress):
    return fields.source_features.sum() * torch.nan


@pytest.mark.parametrize(
    ("method", "breach"),
    [
        (broken(needs=frozenset({"source_fatures"})), "needs names .'source_fatures'.*no batch has"),
        (broken(tasks=("detection",)), "tasks are some of"),
        (broken(limits={}), "limits does not say why it is not for"),
        (broken(__doc__="Nothing of scale."), "does not say what scale is"),
        (broken(forward=not_a_number), "the term of Broken is not finite"),
        (Forgetful, "the resumed run's checkpoint"),
    ],
)
def test_a_breach_is_named(method, breach):
    with pytest.raises(AssertionError, match=breach):
        check_method(method, tasks=["classification"], dims=[2])


def test_a_strategy_of_another_package():
    class Mine(HeadOnly):
        """The head, by another name."""

    check_strategy(Mine, networks=["resnet"], dims=[2])

    class Leaky(HeadOnly):
        """Says that the head learns, and hands out everything."""

        def param_groups(self, network):
            parameters = [p.requires_grad_(True) for p in network.parameters()]
            return [{"params": parameters[1:]}]

    with pytest.raises(AssertionError, match="should learn, and no optimizer has them"):
        check_strategy(Leaky, networks=["resnet"], dims=[2])


def test_classes_come_without_their_file_names():
    from monai_transfer import methods, strategies, testtime
    from monai_transfer.methods.dann import Dann

    assert methods.Dann is Dann
    assert {"Dann", "Method", "L2Sp"} <= set(dir(methods))
    assert strategies.Lora().rank == strategies.lora.Lora().rank
    assert testtime.Tent.__module__ == "monai_transfer.testtime.tent"
    for package in (methods, strategies, testtime):
        with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
            _ = package.Nothing


@pytest.mark.parametrize("package", ["methods", "strategies", "testtime", "testing"])
def test_every_error_for_the_user_has_a_hint(package):
    without = [
        f"{path.name}:{node.lineno}"
        for path in (Path(monai_transfer.__file__).parent / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "InputError"
        and not any(keyword.arg == "hint" for keyword in node.keywords)
    ]
    assert without == []
