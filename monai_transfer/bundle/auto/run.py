"""Running ``auto``: candidates are scored on labelled target patients that they did not learn from, or without labels
on target images; one is taken by the rules of ``selection.auto_rule``, and the run folder holds it.

Test cases are read once, by the model that was taken. Candidates lie in ``candidates`` inside the run folder (beside it
while the work goes on, so that it can be continued), without their weights.
"""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_transfer.arm_names import arm_name
from monai_transfer.bundle.arm_overrides import AVERAGED
from monai_transfer.bundle.auto.arms import TRAINED, untrained
from monai_transfer.bundle.auto.plan import UNLABELLED, Plan, make_plan
from monai_transfer.bundle.run import config_files, open_workflow, run_workflow
from monai_transfer.errors import CoverageError, InputError
from monai_transfer.evaluation.patients import patient_values
from monai_transfer.evaluation.summary import summarise
from monai_transfer.evaluation.unlabelled_scores import UnlabelledScores
from monai_transfer.files import write_json
from monai_transfer.metrics.base import Metric, case_number
from monai_transfer.report.alarms import chance_of
from monai_transfer.report.run import Run
from monai_transfer.runs.record import read_status
from monai_transfer.safe_parse import read_json
from monai_transfer.selection.auto_rule import (
    AT_CHANCE,
    Decision,
    by_cross_validation,
    by_fixed_rule,
    by_validators,
    telling_patients,
)
from monai_transfer.selection.validators.metric import DEFAULT_SCORES

__all__ = ["level_of", "run_auto"]

logger = logging.getLogger(__name__)
_UNFIT = (InputError, CoverageError)
_UNTESTED = ["$@prepared.require()", "$@run_folder.start()", "$@train#trainer.run()", "$@run_folder.finish()"]


def run_auto(
    bundle: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    log: bool = True,
    log_to: str | None = None,
    say: Callable[[str], None] = logger.info,
) -> Path:
    """Decide and train; returns the run folder, which holds one model and, in ``run.json``, the decision.

    Args:
        bundle, overrides, log, log_to: as of ``run_workflow``; a ``strategy`` among the overrides is left out.
        say: is told what will be done and what was decided.

    Raises:
        InputError: the folder holds a finished run, or candidates of another configuration; whatever the bundle is
            refused for.
    """
    given = {"arm": "auto", **(overrides or {})}
    given.pop("strategy", None)
    fresh = bool(given.pop("fresh", False))
    flow = open_workflow(bundle, "train", given, log=False)
    output = Path(flow.parser.get_parsed_content("output_dir")).absolute()
    if read_status(output) == "finished" and not fresh:
        hint = "pass --fresh to start over, or another --output_dir"
        raise InputError("holds a finished run", path=output, hint=hint)
    work = output.with_name(f"{output.name}.candidates")
    if fresh:
        shutil.rmtree(work, ignore_errors=True)
    plan = make_plan(bundle, given)
    say(plan.words)
    _claim(bundle, work, given)
    bench = _Bench(bundle, given, work, str(flow.parser.get_parsed_content("pretrained")), plan)
    decision = bench.decide()
    say(f"auto takes {arm_name(decision.taken)}: {decision.reason}")
    record = {
        "taken": decision.taken,
        "rule": decision.rule,
        "reason": decision.reason,
        "labelled_patients": plan.patients,
        "labelled_cases": plan.cases,
        "metric": bench.metric if decision.rule != "validators" else "share of the other arms that it is ahead of",
        "scores": {arm: _rounded(value) for arm, value in decision.scores.items()},
        "left_out": bench.left_out,
        "cost": round(plan.cost, 3),
        **bench.told,
    }
    workflow, chosen = bench.arm(decision.taken)
    info = open_workflow(bundle, workflow, given, log=False).parser.config["run_folder"]["info"]
    final = {**given, "run_folder#info": {**info, "auto": record}, **chosen, "workflow": "train"}
    run_workflow(bundle, workflow, {**final, **({"fresh": True} if fresh else {})}, log=log, log_to=log_to)
    _file_away(work, output / "candidates")
    return output


class _Bench:
    """Runs candidates, each in a folder of its own, and reads what they scored."""

    def __init__(self, bundle: str | Path, given: dict[str, Any], work: Path, pretrained: str, plan: Plan) -> None:
        self.bundle, self.given, self.work, self.pretrained, self.plan = bundle, given, work, pretrained, plan
        self.arms, self.left_out = list(plan.arms), dict(plan.left_out)
        self.told: dict[str, Any] = {}
        self.metric = ""
        self._weights: dict[str, str] = {}

    # ------------------------------------------------------------------ the three ways
    def decide(self) -> Decision:
        """By what is there."""
        if not self.plan.patients:
            return self._without_labels()
        source = self._run("source", "source", held_out=(0, 1)) if "source" in self.arms else None
        level = level_of(source) if source is not None else math.nan
        if source is not None:
            self.metric = source.kind.primary_metric
            self.told["source_score"] = _rounded(_mean(source))
        self.told["source_level"] = _rounded(level)
        if self.plan.compared:
            return self._cross_validated(source)
        home = math.nan
        telling = math.inf if source is None else telling_patients(_primary(source))
        by_luck = source is not None and bool(_primary(source).chance) and self.plan.patients < telling
        if (level < AT_CHANCE or by_luck) and "joint" in self.arms:
            own = {"test#dataset#data": "$@lists.source_validation or @lists.source_test"}
            at_home = self._run("source", "source_at_home", own)
            home = level_of(at_home, surely=by_luck) if at_home is not None else math.nan
            self.told["source_level_at_home"] = _rounded(home)
        trainable = [arm for arm in self.arms if arm in TRAINED and arm != "self_trained"]
        decision = by_fixed_rule(level, trainable, home=home, patients=self.plan.patients, telling=telling)
        scores = {} if source is None else {"source": _mean(source)}
        return Decision(decision.taken, decision.rule, decision.reason, scores)

    def _cross_validated(self, source: Run | None) -> Decision:
        scores = {} if source is None else {"source": patient_scores(source)}
        guess = math.nan if source is None else guess_of(source)
        if "statistics" in self.arms:
            run = self._run("statistics", "statistics", held_out=(0, 1))
            if run is not None:
                scores["statistics"] = patient_scores(run)
        for arm in self.plan.compared:
            runs = [self._fold(arm, fold) for fold in range(self.plan.folds) if arm not in self.left_out]
            done = [run for run in runs if run is not None]
            if len(done) == self.plan.folds:
                whole = replace(done[0], cases=[row for run in done for row in run.cases])
                self.metric = whole.kind.primary_metric
                scores[arm] = patient_scores(whole)
                guess = guess_of(whole)
        if not scores:
            raise InputError("no arm could be run", hint="; ".join(f"{a}: {r}" for a, r in self.left_out.items()))
        try:
            return by_cross_validation(scores, guess)
        except ValueError:
            # a metric of the whole set that these few cases do not give, such as an AUC of one class
            trainable = [arm for arm in self.plan.compared if arm not in self.left_out]
            return by_fixed_rule(self.told["source_level"] or math.nan, trainable, patients=self.plan.patients)

    def _fold(self, arm: str, fold: int) -> Run | None:
        held_out = (fold, self.plan.folds)
        averaged = next((name for name, of in AVERAGED.items() if of == arm), None)
        if averaged in self.plan.compared and averaged not in self.left_out:
            # what was averaged, before it was: no training of its own
            weights = self.work / f"{averaged}-{fold}" / "models" / "fine_tuned.pt"
            self._weights[arm] = str(weights)
            try:
                return self._run(arm, f"{arm}-{fold}", held_out=held_out)
            finally:
                del self._weights[arm]
        short = {
            "max_epochs": self.plan.fold_epochs,
            "steps_per_epoch": self.plan.fold_steps,
            "val_interval": self.plan.fold_epochs + 1,  # the last epoch counts: nobody is there to choose by
            "selector": None,
            "run_folder#info#selected_by": "last epoch",
        }
        return self._run(arm, f"{arm}-{fold}", short, held_out=held_out)

    def _without_labels(self) -> Decision:
        self.metric = "validators"
        scores: dict[str, dict[str, float]] = {}
        alarms: dict[str, list[str]] = {}
        for arm in UNLABELLED:
            if arm not in self.arms:
                continue
            found = self._unlabelled(arm)
            if found is None:
                continue
            known = found["scores"]
            scores[arm] = {n: math.nan if known[n] is None else float(known[n]) for n in DEFAULT_SCORES if n in known}
            alarms[arm] = list(found["alarm"])
        if "source" not in self.arms:
            said = "; ".join(f"{arm}: {reason}" for arm, reason in self.left_out.items())
            raise InputError("there is neither a labelled target case nor a source to start from", hint=said)
        self.told["validators"] = {arm: {n: _rounded(v) for n, v in own.items()} for arm, own in scores.items()}
        if "source" not in scores:
            reason = f"without target labels the untouched source stays: {self.left_out.get('validators', '')}"
            return Decision("source", "validators", reason.rstrip(": "))
        return by_validators(scores, alarms)

    # ------------------------------------------------------------------ one candidate
    def arm(self, name: str) -> tuple[str, dict[str, Any]]:
        """The workflow and the overrides of an arm, as it is trained in the end."""
        nothing = {"run_folder#info#steps": 0, "run_folder#info#selected_by": None}
        if name in ("source", "statistics"):
            return "train", {**untrained(self.pretrained, name == "statistics"), **nothing}
        if name in self._weights:  # it has been trained already
            steps = {"run_folder#info#steps": "$@max_epochs * @steps_per_epoch"}
            return "train", {**untrained(self.pretrained, weights=self._weights[name]), **nothing, **steps}
        workflow, own = TRAINED[name]
        config = open_workflow(self.bundle, workflow, {}, log=False).parser.config
        return workflow, {key: value for key, value in own.items() if key != "joint" or "joint" in config}

    def _run(
        self, arm: str, name: str, more: Mapping[str, Any] | None = None, held_out: tuple[int, int] | None = None
    ) -> Run | None:
        """A candidate's run, with further overrides; or None where it cannot be run, which is noted."""
        folder = self.work / name
        if read_status(folder) != "finished":
            parts = {"lists#held_out": list(held_out)} if held_out is not None else {}
            own = {**self.given, **self.arm(arm)[1], **(more or {}), **parts}
            try:
                run_workflow(self.bundle, "train", {**own, **self._in(arm, folder)}, log=False)
            except _UNFIT as error:
                logger.warning("auto leaves out %s: %s", arm, error)
                self.left_out[arm] = str(error)
                if arm in self.arms:
                    self.arms.remove(arm)
                return None
        return Run.load(folder)

    def _in(self, arm: str, folder: Path) -> dict[str, Any]:
        known = open_workflow(self.bundle, "train", {}, log=False).parser.config
        return {"arm": arm, "output_dir": str(folder)} | ({"publish": False} if "publish" in known else {})

    def _unlabelled(self, arm: str) -> dict[str, Any] | None:
        """What the validators say of an arm; it is trained for that where it trains."""
        folder = self.work / arm
        path = folder / "validators.json"
        own = {**self.given, "run": _UNTESTED, "domain_picture": False, **TRAINED["self_trained"][1]}
        try:
            if arm == "self_trained" and read_status(folder) != "finished":
                run_workflow(self.bundle, "adapt", {**own, **self._in(arm, folder)}, log=False)
            if arm != "self_trained" and not path.is_file():
                self._score(arm)
        except _UNFIT as error:
            logger.warning("auto leaves out %s: %s", arm, error)
            self.left_out["validators" if arm == "source" else arm] = str(error)
            return None
        if not path.is_file():
            self.left_out[arm] = "no validator fits this task"
            return None
        if arm == "self_trained":
            self._weights[arm] = str(folder / "models" / "model.pt")
        return read_json(path)

    def _score(self, arm: str) -> None:
        """Writes what the validators say of a network that trains nothing."""
        config_files(self.bundle, "adapt")
        own = untrained(self.pretrained)
        own["prepared#images"] = "$@target#dataloader" if arm == "statistics" else None
        flow = open_workflow(self.bundle, "adapt", {**self.given, **own, "output_dir": str(self.work / arm)}, log=False)
        flow.initialize()
        prepared, scored, inferer, names = (
            flow.parser.get_parsed_content(key) for key in ("prepared", "scored", "validate#inferer", "class_names")
        )
        task = str(flow.parser.config["run_folder"]["info"]["task"])
        device = flow.parser.get_parsed_content("device")
        (self.work / arm).mkdir(parents=True, exist_ok=True)
        looker = UnlabelledScores(self.work / arm, scored, task=task, inferer=inferer, class_names=names)
        looker.look(prepared.network, device)


def level_of(run: Run, surely: bool = False) -> float:
    """How much a run's model knows of its cases: 0 is guessing, 1 is perfect; NaN where these cases cannot tell.

    Guessing is the metric's chance; of a Dice, calling everything foreground; of a quantity, the mean of the truth.
    ``surely``: by the lower end of the interval over patients, which a ranking by luck does not lift above guessing.
    """
    metric, guess = _primary(run), guess_of(run)
    if metric.better < 0:
        return 1.0 + _mean(run) / guess if guess < 0 else math.nan
    high = metric.high if math.isfinite(metric.high) else 1.0
    return (_mean(run, surely) - guess) / (high - guess)


def guess_of(run: Run) -> float:
    """What guessing scores on a run's cases, larger is better; NaN where they cannot tell."""
    metric = _primary(run)
    if metric.better < 0:
        truth = np.array([case_number(row.get("label")) for row in run.cases])
        return -float(np.abs(truth - truth.mean()).mean()) if len(truth) > 1 else math.nan
    return chance_of({run.arm: {run.seed: run}}, metric) or 0.0


def _primary(run: Run) -> Metric:
    return run.metric(run.kind.primary_metric)


def _mean(run: Run, low: bool = False) -> float:
    try:
        found = summarise(run.cases, run.task, intervals=low)
    except InputError:
        return math.nan
    score = found.get(run.kind.primary_metric)
    if score is None:
        return math.nan
    return score.low if low else score.mean


def patient_scores(run: Run) -> dict[str, float]:
    """Patient -> score, larger is better; empty where these cases do not give the metric."""
    metric = _primary(run)
    sign = -1.0 if metric.better < 0 else 1.0
    try:
        return {p: sign * v for p, v in patient_values(run.cases, metric.full_name, run.task).items()}
    except InputError:
        return {}


def _rounded(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def _claim(bundle: str | Path, work: Path, given: Mapping[str, Any]) -> None:
    """Refuse to go on with candidates that were made under other settings."""
    told = {key: str(value) for key, value in sorted(given.items()) if key not in ("output_dir", "arm", "publish")}
    files = sorted(Path(bundle).glob("configs/*.*"))
    configs = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
    settings = {**told, "configs": configs}
    path = work / "settings.json"
    if path.is_file():
        if read_json(path) != settings:
            raise InputError(
                "holds candidates that were made under other settings",
                path=work,
                hint="pass --fresh to start over, or another --output_dir",
            )
        return
    work.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def _file_away(work: Path, place: Path) -> None:
    """Keep what candidates scored, without their weights."""
    for models in work.glob("*/models"):
        shutil.rmtree(models)
    shutil.rmtree(place, ignore_errors=True)
    work.replace(place)
