"""One arm for every method of the package, each beside the control that it has to beat, for a table of what helps.

Methods are found in their folders, so a new file is in the next table. All stand at their own defaults.

- A method that looks at the target runs in the ``adapt`` workflow, without a target label. Its control is the same run
  with weight 0, ``target_statistics``: what the target's BatchNorm statistics and more source training bring by
  themselves.
- A method for fine-tuning (one that asks for no target image) runs in ``train`` on the bundle's few labelled target
  cases; its control is plain fine-tuning.
- An input-space method changes the source's images and nothing else; its control is ``source_longer``, the same steps
  of plain source training. Random intensities alone are such arms too: controls that every method should beat.
- A test-time method adapts the untouched source, which is its control.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_transfer.bundle.run import open_workflow
from monai_transfer.data.order import with_order
from monai_transfer.discovery import classes_in
from monai_transfer.errors import InputError
from monai_transfer.methods.base import Method
from monai_transfer.study.run_arms import PRESETS, Arm
from monai_transfer.tasks import get_task
from monai_transfer.testtime.base import SourceFree

__all__ = ["MethodArm", "find_method_arms"]

_ADAPT = "monai_transfer.engine.adapt.Adapt"
_APPEARANCE = "monai_transfer.data.randomisation.RandAppearanced"
_TRAINED = ["$@run_folder.start()", "$@train#trainer.run()", "$@test#evaluator.run()", "$@run_folder.finish()"]


@dataclass(frozen=True)
class MethodArm:
    """An arm, and what it is compared with.

    Attributes:
        arm: as a study runs it.
        group: ``reference``, ``control``, or what it learns from: ``no target labels``, ``few target labels``,
            ``input space``, ``test time``.
        controls: names of the arms that it has to beat, beside the untouched source.
        refused: why it cannot be run on this bundle; empty where it can.
        remark: what its class says of itself, for the table.
    """

    arm: Arm
    group: str
    controls: tuple[str, ...] = ()
    refused: str = ""
    remark: str = ""

    @property
    def name(self) -> str:
        """The arm's name."""
        return self.arm.name


@dataclass(frozen=True)
class _Configs:
    """What the bundle's configs say before anything is built."""

    adapt: dict[str, Any]
    task: str
    dims: int


def find_method_arms(bundle: str | Path) -> list[MethodArm]:
    """Every method of the package on this bundle, after the references and controls. Opening a bundle runs its code.

    Raises:
        InputError: not a bundle, or not one with ``train`` and ``adapt`` workflows of this package.
    """
    configs = _read(bundle)
    found = [*_references(), *_controls(configs)]
    found += [_term(name, kind, configs) for name, kind in classes_in("methods", Method).items()]
    found += _input_space(configs)
    found += [_test_time(name, kind, configs) for name, kind in classes_in("testtime", SourceFree).items()]
    if "domain_picture" in configs.adapt:  # costs time, and tells nothing that the table shows
        for trial in found:
            if trial.arm.workflow == "adapt":
                trial.arm.overrides["domain_picture"] = False
    own = "a network of its own, in place of the bundle's"
    return [*found, MethodArm(Arm("mil", "train"), "few target labels", refused=own)]


def _read(bundle: str | Path) -> _Configs:
    adapt = open_workflow(bundle, "adapt", {}, log=False).parser.config
    try:
        return _Configs(
            adapt,
            str(adapt["run_folder"]["info"]["task"]),
            int(adapt["run_folder"]["info"]["spatial_dims"]),
        )
    except KeyError as error:
        raise InputError(
            f"its configs have no {error}", path=bundle, hint="make the bundle with `monai-transfer new`"
        ) from error


def _path(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _refusal(kind: Any, configs: _Configs) -> str:
    trained = get_task(configs.task).as_method_sees_it
    if trained not in kind.tasks:
        return f"not for {configs.task}"
    return "" if configs.dims in kind.dims else f"not for {configs.dims}D"


def _remark(kind: Any) -> str:
    return "experimental" if kind.experimental else ""


def _references() -> list[MethodArm]:
    last = {"selector": None}  # no arm chooses its epoch: selecting uses labels, and costs validation
    return [
        MethodArm(PRESETS["source"], "reference"),
        MethodArm(Arm("scratch", "train", {"pretrained": "none", **last}), "reference"),
        MethodArm(Arm("fine_tuned", "train", last), "control", ("scratch",)),
        MethodArm(Arm("oracle", "train", {"n_labelled": None, **last}), "reference"),
    ]


def _without_term(configs: _Configs, **more: Any) -> dict[str, Any]:
    """Plain source training in the adapt workflow: the handler that shows target images is taken out."""
    handlers = [h for h in configs.adapt["train"]["handlers"] if h.get("_target_") != _ADAPT]
    return {"train#handlers": handlers, **more}


def _controls(configs: _Configs) -> list[MethodArm]:
    def augmented(name: str, **arguments: Any) -> MethodArm:
        extra = {"_target_": _APPEARANCE, "keys": ["image"], **arguments}
        overrides = {"augmentations": [extra], "run_folder#info#method": name}
        return MethodArm(Arm(name, "adapt", _without_term(configs, **overrides)), "control", ("source_longer",))

    return [
        MethodArm(Arm("source_longer", "adapt", _without_term(configs, **{"run_folder#info#method": None})), "control"),
        MethodArm(Arm("target_statistics", "adapt", {"weight": 0.0, "statistics": "target"}), "control"),
        augmented("intensity_randomisation"),
        augmented("inversion", prob=0.0, invert=0.5),
    ]


def _term(name: str, kind: Any, configs: _Configs) -> MethodArm:
    """A method that adds a term to the loss."""
    method: dict[str, Any] = {"_target_": _path(kind)}
    refused, needs = _refusal(kind, configs), kind.needs
    overrides: dict[str, Any] = {}
    if not any(field.startswith("target_") for field in needs):
        overrides |= {"selector": None, "regulariser": method}
        overrides["run_folder#info#selected_by"] = "last epoch"
        arm = Arm(name, "train", overrides)
        return MethodArm(arm, "few target labels", ("fine_tuned", "scratch"), refused, _remark(kind))
    if "layer" in inspect.signature(kind).parameters:
        method["layer"] = "@layer"  # it taps by itself, and must tap where the handler does
    if kind.default_pool is None:
        overrides["layer"] = None  # unpooled features go into class heads: those before the network's own
    overrides["method"] = method
    if "target_order" in needs:
        overrides["target#dataset#data"] = {"_target_": _path(with_order), "items": "$@lists.target_unlabelled"}
    return MethodArm(Arm(name, "adapt", overrides), "no target labels", ("target_statistics",), refused, _remark(kind))


def _input_space(configs: _Configs) -> list[MethodArm]:
    """Methods that change the source's images: before normalisation, or by a translation behind it."""
    from monai_transfer.data.translation import Translation

    trials = []
    for name, path in (
        ("fourier", "monai_transfer.data.fourier.FourierDomainAdaptd"),
        ("histogram", "monai_transfer.data.histogram.HistogramMatchToTargetd"),
    ):
        look = {"_target_": path, "keys": ["image"], "targets": "$@lists.target_unlabelled", "load": "@load_target"}
        arm = Arm(name, "adapt", _without_term(configs, style=[look], **{"run_folder#info#method": path}))
        trials.append(MethodArm(arm, "input space", ("source_longer",)))
    translate = {
        "_target_": "monai_transfer.data.translate.TranslateToTargetd",
        "keys": ["image"],
        "translation": "@method",
        "prob": 0.0,  # while the translation itself is learnt
    }
    overrides: dict[str, Any] = {
        "method": {"_target_": _path(Translation)},
        "augmentations": [translate],
        "run": [
            _TRAINED[0],
            "$@method.fit(@train#dataloader, @target#dataloader)",
            "$setattr(@augmentations[-1], 'prob', 1.0)",
            *_TRAINED[1:],
        ],
    }
    arm = Arm("translation", "adapt", _without_term(configs, **overrides))
    said = "steps of its own to fit it"
    return [*trials, MethodArm(arm, "input space", ("source_longer",), _refusal(Translation, configs), said)]


def _test_time(name: str, kind: Any, configs: _Configs) -> MethodArm:
    """A method that adapts the source's network without its data: by ``fit`` before the test, or by ``wrap`` in it."""
    steps = {"run_folder#info#steps": 0}
    overrides: dict[str, Any] = {"method": {"_target_": _path(kind)}, **_without_term(configs), **steps}
    if hasattr(kind, "fit"):
        overrides["run"] = [_TRAINED[0], "$@method.fit(@network, @target#dataloader)", *_TRAINED[2:]]
    else:
        overrides |= {"test#evaluator#network": "$@method.wrap(@network)", "run": [_TRAINED[0], *_TRAINED[2:]]}
    return MethodArm(Arm(name, "adapt", overrides), "test time", (), _refusal(kind, configs), _remark(kind))
