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
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monai_transfer.bundle.run import open_workflow
from monai_transfer.data.order import with_order
from monai_transfer.discovery import classes_in
from monai_transfer.errors import InputError
from monai_transfer.methods.base import Method
from monai_transfer.runs.record import read_record
from monai_transfer.study.arms import ALL, PRESETS, Arm, are_default
from monai_transfer.tasks import get_task
from monai_transfer.testtime.base import SourceFree

__all__ = ["MethodArm", "cost_of", "find_method_arms", "resolve_arms"]

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
    found = [*_references(configs), *_controls(configs)]
    found += [_term(name, kind, configs) for name, kind in classes_in("methods", Method).items()]
    found += _input_space(configs)
    found += [_test_time(name, kind, configs) for name, kind in classes_in("testtime", SourceFree).items()]
    if "domain_picture" in configs.adapt:  # costs time, and tells nothing that the table shows
        for method_arm in found:
            if method_arm.arm.workflow == "adapt":
                method_arm.arm.overrides["domain_picture"] = False
    if "adaptation" in configs.adapt:  # its adapt trains nothing on the source
        free = "this bundle adapts without source data"
        found = [
            replace(t, refused=t.refused or free) if t.arm.workflow == "adapt" and t.group != "test time" else t
            for t in found
        ]
    own = "a network of its own, in place of the bundle's"
    return [*found, MethodArm(Arm("mil", "train"), "few target labels", refused=own)]


def resolve_arms(bundle: str | Path, arms: Sequence[Arm]) -> tuple[list[Arm], list[str]]:
    """Arms that were called by a method's name, with what they override, and sentences on those left out.

    Each says in its run's record what it is, which the report shows.

    Raises:
        InputError: a method named does not fit the bundle's task or dimensions.
    """
    if not any(arm.of_method for arm in arms):
        return list(arms), []
    found = {method_arm.name: method_arm for method_arm in find_method_arms(bundle)}
    infos = {name: _info(bundle, name) for name in ("train", "adapt")}
    chosen: dict[str, Arm] = {}
    said = []
    for arm in arms:
        if arm.name == ALL and arm.of_method:
            chosen |= {name: _described(one, infos) for name, one in found.items() if not one.refused}
            said += [f"{name} is left out: {one.refused}" for name, one in found.items() if one.refused]
        elif arm.of_method:
            method_arm = found[arm.name]
            if method_arm.refused and are_default(arms):
                said.append(f"{arm.name} is left out: {method_arm.refused}")
                continue
            if method_arm.refused:
                fit = ", ".join(name for name, other in found.items() if not other.refused)
                raise InputError(f"{arm.name}: {method_arm.refused}", path=bundle, hint=f"arms that fit are {fit}")
            chosen[arm.name] = _described(method_arm, infos)
            if missing := [c for c in method_arm.controls if c not in {a.name for a in arms}]:
                said.append(f"{arm.name} has to beat {', '.join(missing)} as well: add it to --arms")
        else:
            chosen[arm.name] = arm
    return list(chosen.values()), said


_WHAT = {
    "control": "a control, which a method has to beat",
    "no target labels": "adapts with target scans that have no labels",
    "few target labels": "a way of fine-tuning on the labelled target cases",
    "input space": "trains on source images in the target's look",
    "test time": "adapts the source model without source data",
}


def _info(bundle: str | Path, workflow: str) -> dict[str, Any]:
    return dict(open_workflow(bundle, workflow, {}, log=False).parser.config["run_folder"]["info"])


def _described(method_arm: MethodArm, infos: Mapping[str, dict[str, Any]]) -> Arm:
    words = "; ".join(filter(None, [_WHAT.get(method_arm.group, ""), method_arm.remark]))
    info = infos.get(method_arm.arm.workflow)
    if not words or info is None:
        return method_arm.arm
    # the whole of it first: a bundle's config knows no such entry, and what the arm changes in it comes after
    return replace(method_arm.arm, overrides={"run_folder#info": {**info, "about": words}, **method_arm.arm.overrides})


def cost_of(bundle: str | Path, arms: Sequence[Arm], seeds: int, jobs: int, overrides: Mapping[str, Any]) -> str:
    """What a study of these arms will take, in one line: runs, steps, and hours by what finished runs here took."""
    flow = open_workflow(bundle, "adapt", dict(overrides), log=False)
    steps = int(flow.parser.get_parsed_content("max_epochs")) * int(flow.parser.get_parsed_content("steps_per_epoch"))
    runs = sum(seeds if arm.seeded else 1 for arm in arms)
    trained = sum(seeds for arm in arms if arm.seeded and arm.overrides.get("run_folder#info#steps") != 0)
    text = f"{len(arms)} arms: {runs} runs, {trained} of them of {steps} steps"
    rates = []
    for path in sorted(Path(bundle).glob("runs/**/run.json")):
        record = read_record(path.parent) or {}
        if record.get("status") == "finished" and record.get("steps") and record.get("workflow") in ("train", "adapt"):
            rates.append(float(record.get("seconds") or 0) / record["steps"])
    if not rates:
        return f"{text}; how long that is one finished run would tell (monai-transfer run {bundle} adapt)"
    hours = statistics.median(rates) * steps * trained / 3600
    return f"{text}; about {hours:.1f} h of processor time by {len(rates)} finished runs here, {jobs} at a time"


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
    if not get_task(configs.task).fits(kind.tasks):
        return f"not for {configs.task}"
    return "" if configs.dims in kind.dims else f"not for {configs.dims}D"


def _remark(kind: Any) -> str:
    return "experimental" if kind.experimental else ""


def _alone(configs: _Configs) -> dict[str, Any]:
    """The target's cases alone; bundles of before joint training know nothing else."""
    return {"joint": False} if "joint" in configs.adapt else {}


def _references(configs: _Configs) -> list[MethodArm]:
    last = {"selector": None} | _alone(configs)  # no arm chooses its epoch: selecting uses labels, and costs validation
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
        overrides |= {"selector": None, "regulariser": method} | _alone(configs)
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

    method_arms = []
    for name, path in (
        ("fourier", "monai_transfer.data.fourier.FourierDomainAdaptd"),
        ("histogram", "monai_transfer.data.histogram.HistogramMatchToTargetd"),
    ):
        look = {"_target_": path, "keys": ["image"], "targets": "$@lists.target_unlabelled", "load": "@load_target"}
        arm = Arm(name, "adapt", _without_term(configs, style=[look], **{"run_folder#info#method": path}))
        method_arms.append(MethodArm(arm, "input space", ("source_longer",)))
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
    return [*method_arms, MethodArm(arm, "input space", ("source_longer",), _refusal(Translation, configs), said)]


def _test_time(name: str, kind: Any, configs: _Configs) -> MethodArm:
    """A method that adapts the source's network without its data: by ``fit`` before the test, or by ``wrap`` in it."""
    steps = {"run_folder#info#steps": 0}
    overrides: dict[str, Any] = {"method": {"_target_": _path(kind)}, **_without_term(configs), **steps}
    told = f"@method.for_task({configs.task!r})"
    if hasattr(kind, "fit"):
        overrides["run"] = [_TRAINED[0], f"${told}.fit(@network, @target#dataloader)", *_TRAINED[2:]]
    else:
        per_scan = "$@method.attach(@test#evaluator.network, @test#evaluator)"
        overrides["test#evaluator#network"] = f"${told}.wrap(@network)"
        overrides["run"] = [_TRAINED[0], per_scan, *_TRAINED[2:]]
    return MethodArm(Arm(name, "adapt", overrides), "test time", (), _refusal(kind, configs), _remark(kind))
