"""Which rule of choosing loses least? Several fixed rules over the arms' tables, each set judged by the others' choice.

    python benchmarks/auto_rules.py sweep BUNDLE --study DIR --fractions 1,2,4 [--seeds 5] [--first-seed 0] [--jobs 2]
    python benchmarks/auto_rules.py rows BUNDLE --study DIR --out ROWS.csv [--name SET]     # of a finished study's runs
    python benchmarks/auto_rules.py table ROWS.csv [ROWS.csv ...] [--fewer-than 8] [--write FILE.md]
    python benchmarks/auto_rules.py held-out --study DIR --out HELD_OUT.csv --name SET      # what auto cross-validated
    python benchmarks/auto_rules.py choices HELD_OUT.csv [HELD_OUT.csv ...] --rows ROWS.csv [ROWS.csv ...]

The rows behind ``docs/auto.md`` are kept in ``benchmarks/measured/auto``, a file for each study.

``sweep`` runs that study with three trainings a cell instead of five: an averaged arm keeps the network that it has
averaged, so the arms fine_tuned and joint are tests of those. The same command again continues, and with more seeds or
numbers of labels adds to what is there.

``rows`` reads a study of the arms scratch, source, fine_tuned, joint, averaged, joint_averaged and head_only, or of
some of them (the table takes those that all sets have), with ``--fractions`` or without. It scores the untouched source
on each run's labelled cases (training and validation, never test cases), which trains nothing, and adds one row per
seed, number of labels and arm: ``set,seed,k,arm,score,level,patients,telling``. ``score`` is the test mean, larger
better (errors negated, over the spread of the truth); ``level`` is how much the source knows there, ``telling``
from how many patients on that is sure.

``table`` prints, for every rule, the mean regret against the best arm of each cell and against the arm with the best
mean over seeds, the worst of both, and how often the result is more than .02 below the untouched source; then, set by
set, the rule that the *other* sets chose (least mean regret) and what it costs here; then every arm's mean, and that of
what ``auto``'s fixed rule takes. A rule sees ``level``, ``patients`` and which arms there are, never a score.
``--fewer-than 8`` leaves out the cells with as many labelled patients or more, in which ``auto`` follows no fixed rule
but cross-validates. Where the arm ``auto`` was run itself, a last table has what it reached.

``held-out`` keeps what every candidate of those runs scored on the labelled patients that it had not trained on;
``choices`` asks what other ways of choosing by the same scores would have cost on the test cases.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from _run_scores import score_of

from monai_transfer.arm_names import arm_name
from monai_transfer.bundle.arm_overrides import AVERAGED, TUNED
from monai_transfer.bundle.auto.arms import untrained
from monai_transfer.bundle.auto.run import guess_of, level_of, patient_scores
from monai_transfer.bundle.run import run_workflow
from monai_transfer.files import write_text
from monai_transfer.metrics.base import case_number
from monai_transfer.report.run import Run
from monai_transfer.runs.record import read_status
from monai_transfer.selection.auto_rule import by_cross_validation, by_fixed_rule, telling_patients
from monai_transfer.study.arms import parse_arms
from monai_transfer.study.run_arms import run_study
from monai_transfer.tables import write_table

Cell = dict[str, Any]
BELOW = 0.02


def _always(arm: str) -> Callable[[Cell], str]:
    return lambda cell: arm if arm in cell["scores"] else "fine_tuned"


def _by_level(at: float, above: str, below: str) -> Callable[[Cell], str]:
    """A level that is not known, such as an AUC of cases of one class, is none to doubt the source by."""

    def rule(cell: Cell) -> str:
        return _always(below if cell["level"] < at else above)(cell)

    return rule


def _shipped(images: bool) -> Callable[[Cell], str]:
    """The fixed rule of ``strategy=auto``; without source images joint training is no candidate."""

    def rule(cell: Cell) -> str:
        arms = [arm for arm in cell["scores"] if arm != "source" and (images or arm not in WITH_IMAGES)]
        words = {"patients": cell["patients"], "telling": cell["telling"]}
        return by_fixed_rule(cell["level"], arms, home=cell["home"], **words).taken

    return rule


RULES: dict[str, Callable[[Cell], str]] = {
    "always joint": _always("joint"),
    "always joint averaged": _always("joint_averaged"),
    "always fine-tuned": _always("fine_tuned"),
    "always averaged": _always("averaged"),
    "always scratch": _always("scratch"),
    "always the untouched source": _always("source"),
    "joint if level >= .1, else scratch": _by_level(0.1, "joint", "scratch"),
    "joint averaged if level >= .1, else scratch": _by_level(0.1, "joint_averaged", "scratch"),
    "joint averaged if level >= .1, else joint": _by_level(0.1, "joint_averaged", "joint"),
    "joint averaged if level >= .5, else joint": _by_level(0.5, "joint_averaged", "joint"),
    "source if level >= .5, else joint averaged": _by_level(0.5, "source", "joint_averaged"),
    "auto's fixed rule": _shipped(True),
    "auto's fixed rule, weights alone": _shipped(False),
    "averaged if level >= .1, else fine-tuned": _by_level(0.1, "averaged", "fine_tuned"),
    "averaged if level >= .5, else fine-tuned": _by_level(0.5, "averaged", "fine_tuned"),
    "averaged if level >= .1, else scratch": _by_level(0.1, "averaged", "scratch"),
    "fine-tuned if level >= .1, else scratch": _by_level(0.1, "fine_tuned", "scratch"),
}
COMPARED = ("scratch", "source", "fine_tuned", "averaged", "joint", "joint_averaged")
"""The arms of a sweep."""
ARMS = {*COMPARED, "head_only"}
"""What the rules choose among."""
WITH_IMAGES = {"joint", "joint_averaged"}
"""Arms that want the source's images."""
WEIGHTS_ALONE = [name for name in RULES if "joint" not in name and name != "auto's fixed rule"]


# --------------------------------------------------------------------------------------------------- sweep
def sweep(
    bundle: Path,
    study: Path,
    fractions: Sequence[float],
    seeds: Sequence[int],
    jobs: int,
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """The study of all arms; what an averaged arm averaged is tested as the arm of its own that it equals."""
    arms = parse_arms(",".join(["scratch", "source", *AVERAGED]))
    run_study(bundle, study, arms, seeds=seeds, fractions=fractions, jobs=jobs, overrides=overrides)
    for averaged, arm in AVERAGED.items():
        for path in sorted(study.glob(f"labelled-*/{averaged}-*")):
            seed = int(path.name.rsplit("-", 1)[1])
            out = path.with_name(f"{arm}-{seed}")
            if seed in seeds and read_status(out) != "finished":
                tuned = str(path / "models" / "fine_tuned.pt")
                given = {"n_labelled": int(path.parent.name.split("-")[1]), "seed": seed, "output_dir": str(out)}
                own = {**TUNED[arm], **untrained(_weights_of(bundle, study, path), weights=tuned), "arm": arm}
                run_workflow(bundle, "train", {**(overrides or {}), **given, **own}, log=False)
    # all are finished: this reports them together, label_efficiency.html too
    arms = parse_arms(",".join(["scratch", "source", *TUNED]))
    run_study(bundle, study, arms, seeds=seeds, fractions=fractions, jobs=jobs, overrides=overrides)


def _weights_of(bundle: Path, study: Path, run: Path) -> str:
    """The source's weights that a run of the study started from."""
    weights = bundle / "models" / "model.pt"
    if not weights.is_file():
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        weights = study / "pretrain-0" / "models" / record["pretrained"]
    return str(weights)


# --------------------------------------------------------------------------------------------------- rows
def rows_of(bundle: Path, study: Path, name: str) -> list[dict[str, Any]]:
    """One row for each run of the study; scores the source on the labelled cases where that was not done yet."""
    found = []
    folders = sorted(study.glob("labelled-*"))
    source = next((study / "any-labelled" if folders else study).glob("source-*"))
    base, _ = score_of(source)
    for folder in folders or [study]:
        seeds = sorted({int(path.parent.name.rsplit("-", 1)[1]) for path in folder.glob("fine_tuned-*/run.json")})
        if not seeds:
            continue  # not finished
        first = json.loads((folder / f"fine_tuned-{seeds[0]}" / "run.json").read_text(encoding="utf-8"))
        count = int(folder.name.split("-")[1]) if folders else int(first["n_labelled"])
        for seed in seeds:
            look = study / "levels" / f"{count}-{seed}"
            if read_status(look) != "finished":
                weights = _weights_of(bundle, study, folder / f"fine_tuned-{seed}")
                given = {"n_labelled": count, "seed": seed, "output_dir": str(look), "lists#held_out": [0, 1]}
                run_workflow(bundle, "train", {**given, **untrained(weights), "arm": "source"}, log=False)
            own = Run.load(look)
            told = {"set": name, "seed": seed, "k": count, "level": round(level_of(own), 6), "home": ""}
            told |= {
                "patients": len({row["patient"] for row in own.cases}),
                "telling": telling_patients(own.metric(own.kind.primary_metric)),
            }
            found.append({**told, "arm": "source", "score": base, "taken": ""})
            for path in sorted(folder.glob(f"*-{seed}")):
                if read_status(path) == "finished" and not path.name.startswith(("source-", "pretrain-")):
                    score, run = score_of(path)
                    record = json.loads((path / "run.json").read_text(encoding="utf-8"))
                    taken = (record.get("auto") or {}).get("taken", "")
                    found.append({**told, "arm": run.arm, "score": round(score, 6), "taken": taken})
    return found


# --------------------------------------------------------------------------------------------------- table
def cells_of(rows: Sequence[Mapping[str, str]]) -> list[Cell]:
    """One cell for each set, seed and number of labels: all arms' scores and what is known beforehand."""
    cells: dict[tuple[str, str, str], Cell] = {}
    for row in rows:
        key = (row["set"], row["seed"], row["k"])
        cell = cells.setdefault(
            key,
            {"set": row["set"], "k": int(row["k"]), "level": case_number(row["level"]),
             "home": case_number(row.get("home", "")), "patients": int(row.get("patients") or 0),
             "telling": float(row.get("telling") or "inf"), "scores": {}},
        )  # fmt: skip
        cell["scores"][row["arm"]] = float(row["score"])
    own: dict[str, set[str]] = {}
    for cell in cells.values():
        own.setdefault(cell["set"], set()).update(cell["scores"])
    shared = set.intersection(*own.values()) & ARMS if own else set()  # the arms that all sets have
    found = []
    for cell in cells.values():
        if shared <= cell["scores"].keys():
            found.append({**cell, "scores": {arm: cell["scores"][arm] for arm in sorted(shared)}})
    return found


def regret(cell: Cell, rule: str, images: bool = True) -> float:
    """How far a rule's choice is behind the best arm of the cell, by the test cases; without images, of those that want
    none."""
    scores = {arm: value for arm, value in cell["scores"].items() if images or arm not in WITH_IMAGES}
    return float(max(scores.values()) - cell["scores"][RULES[rule](cell)])


def regret_of_means(cells: Sequence[Cell], rule: str, images: bool = True) -> float:
    """The same of the means over seeds, averaged over numbers of labels: the best arm is not the luckiest of a cell."""
    found = []
    for count in sorted({cell["k"] for cell in cells}):
        own = [cell for cell in cells if cell["k"] == count]
        arms = [arm for arm in own[0]["scores"] if images or arm not in WITH_IMAGES]
        best = max(np.mean([cell["scores"][arm] for cell in own]) for arm in arms)
        found.append(best - np.mean([cell["scores"][RULES[rule](cell)] for cell in own]))
    return float(np.mean(found))


def below_source(cell: Cell, rule: str) -> bool:
    return bool(cell["scores"][RULES[rule](cell)] < cell["scores"]["source"] - BELOW)


def table(cells: Sequence[Cell]) -> str:
    """All tables as Markdown."""
    sets = sorted({cell["set"] for cell in cells})
    of_set = {name: [cell for cell in cells if cell["set"] == name] for name in sets}

    def mean_regret(some: Sequence[Cell], rule: str, images: bool) -> float:
        return float(np.mean([regret(cell, rule, images) for cell in some]))

    lines = [
        "| rule | mean regret | of means over seeds | worst set of these | worst cell | below the source by > .02 "
        "| mean regret among arms without images | of means over seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rule in RULES:
        per_set = [mean_regret(own, rule, True) for own in of_set.values()]
        of_means = [regret_of_means(own, rule) for own in of_set.values()]
        worst = max(regret(cell, rule) for cell in cells)
        share = np.mean([below_source(cell, rule) for cell in cells])
        line = f"| {rule} | {np.mean(per_set):.3f} | {np.mean(of_means):.3f} | {max(of_means):.3f} | {worst:.3f} "
        alone = " | "
        if rule in WEIGHTS_ALONE:
            cellwise = np.mean([mean_regret(own, rule, False) for own in of_set.values()])
            alone = f"{cellwise:.3f} | {np.mean([regret_of_means(own, rule, False) for own in of_set.values()]):.3f}"
        lines.append(f"{line}| {share:.2f} | {alone} |")
    lines += [
        "",
        "| set (cells) | images at hand: rule that the others chose | regret | weights alone: rule | regret |",
        "|---|---|---|---|---|",
    ]
    for name in sets:
        others = [cell for cell in cells if cell["set"] != name] or of_set[name]
        sites = sorted({cell["set"] for cell in others})
        row = [f"| {name} ({len(of_set[name])})"]
        for rules, images in ((list(RULES), True), (WEIGHTS_ALONE, False)):

            def of_others(
                rule: str, images: bool = images, others: list[Cell] = others, sites: list[str] = sites
            ) -> float:
                per_set = [mean_regret([c for c in others if c["set"] == site], rule, images) for site in sites]
                return float(np.mean(per_set))

            chosen = min(rules, key=of_others)
            row.append(f"{chosen} | {mean_regret(of_set[name], chosen, images):.3f}")
        lines.append(" | ".join(row) + " |")
    arms = sorted(set.intersection(*[set(cell["scores"]) for cell in cells]))
    lines += ["", f"| set | {' | '.join(arms)} | auto's fixed rule | the same, weights alone |"]
    lines.append("|---" * (len(arms) + 3) + "|")
    for name, own in of_set.items():
        means = [float(np.mean([cell["scores"][arm] for cell in own])) for arm in arms]
        for rule in ("auto's fixed rule", "auto's fixed rule, weights alone"):
            means.append(float(np.mean([cell["scores"][RULES[rule](cell)] for cell in own])))
        lines.append(f"| {name} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return "\n".join(lines)


def decided(rows: Sequence[Mapping[str, str]]) -> str:
    """What ``auto`` itself reached, cross-validation and all, means over the seeds in which it was run."""
    groups: dict[tuple[str, int], dict[str, dict[str, float]]] = {}
    taken: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        key = (row["set"], int(row["k"]))
        groups.setdefault(key, {}).setdefault(row["seed"], {})[row["arm"]] = float(row["score"])
        if row["arm"] == "auto":
            taken.setdefault(key, []).append(row["taken"].replace("_", " "))
    lines = [
        f"| set | labelled | seeds | {' | '.join(COMPARED)} | `auto` | regret | what it took |",
        "|---" * (len(COMPARED) + 6) + "|",
    ]
    for key in sorted(taken):
        seeds = [scores for scores in groups[key].values() if {"auto", *COMPARED} <= scores.keys()]
        if not seeds:
            continue
        means = {arm: float(np.mean([scores[arm] for scores in seeds])) for arm in (*COMPARED, "auto")}
        best = max(value for arm, value in means.items() if arm != "auto")
        times = ", ".join(f"{arm} {taken[key].count(arm)}" for arm in dict.fromkeys(sorted(taken[key])))
        shown = " | ".join(f"{means[arm]:.3f}" for arm in (*COMPARED, "auto"))
        lines.append(f"| {key[0]} | {key[1]} | {len(seeds)} | {shown} | {best - means['auto']:.3f} | {times} |")
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------- choices
def held_out(study: Path, name: str) -> list[dict[str, Any]]:
    """Every candidate's score on each labelled patient, of the study's cross-validated runs of ``auto``."""
    found = []
    for path in sorted(study.glob("labelled-*/auto-*/run.json")):
        record = json.loads(path.read_text(encoding="utf-8")).get("auto") or {}
        if record.get("rule") != "cross-validation":
            continue
        parts: dict[str, list[Run]] = {}
        for run in sorted(path.parent.glob("candidates/*/run.json")):
            arm = run.parent.name.rsplit("-", 1)[0]
            if arm in record["scores"]:
                parts.setdefault(arm, []).append(Run.load(run.parent))
        for arm, runs in parts.items():
            whole = replace(runs[0], cases=[row for run in runs for row in run.cases])
            told: Cell = {"set": name, "seed": path.parent.name.split("-")[1], "k": path.parts[-3].split("-")[1]}
            told |= {"guess": round(guess_of(whole), 6), "arm": arm}
            for number, value in enumerate(dict(sorted(patient_scores(whole).items())).values()):
                found.append({**told, "patient": number, "score": round(value, 6)})
    return found


def _best_mean(scores: Mapping[str, Mapping[str, float]], guess: float) -> str:
    means = by_cross_validation(scores, guess).scores
    return max(means, key=lambda arm: means[arm])


def _whatever(arm: str) -> Callable[[Mapping[str, Mapping[str, float]], float], str]:
    return lambda scores, guess: arm


CHOICES: dict[str, Callable[[Mapping[str, Mapping[str, float]], float], str]] = {
    "auto: the simplest within one standard error": lambda scores, guess: by_cross_validation(scores, guess).taken,
    "the best mean": _best_mean,
    **{f"always {arm_name(arm)}": _whatever(arm) for arm in COMPARED},
}


def choices(looked: Sequence[Mapping[str, str]], rows: Sequence[Mapping[str, str]]) -> str:
    """What each way of choosing loses to the cell's best arm on the test cases, set by set."""
    truth: dict[tuple[str, str, str], dict[str, float]] = {}
    untrained_ones: dict[str, float] = {}
    for row in rows:
        own = truth.setdefault((row["set"], row["k"], row["seed"]), {})
        own[row["taken"] or row["arm"]] = float(row["score"])
        if row["taken"] == "statistics":  # nothing is trained: of all seeds
            untrained_ones[row["set"]] = float(row["score"])
    cells: dict[tuple[str, str, str], dict[str, dict[str, float]]] = {}
    guesses = {}
    for row in looked:
        key = (row["set"], row["k"], row["seed"])
        cells.setdefault(key, {}).setdefault(row["arm"], {})[row["patient"]] = case_number(row["score"])
        guesses[key] = case_number(row["guess"])
    sets = sorted({key[0] for key in cells})
    lines = [f"| taken | {' | '.join(sets)} | mean over sets |", "|---" * (len(sets) + 2) + "|"]
    for name, choose in CHOICES.items():
        lost: dict[str, list[float]] = {own: [] for own in sets}
        for key, scores in cells.items():
            known = {**({"statistics": untrained_ones[key[0]]} if key[0] in untrained_ones else {}), **truth[key]}
            lost[key[0]].append(max(known.values()) - known[choose(scores, guesses[key])])
        means = [float(np.mean(own)) for own in lost.values()]
        lines.append(f"| {name} | {' | '.join(f'{mean:.3f}' for mean in means)} | {np.mean(means):.3f} |")
    return "\n".join(lines)


def quick() -> None:
    """All commands on a study of two steps, to see that they run."""
    bundle = Path(__file__).parents[1] / "bundles" / "head_mr_slice_classification"
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        short = {"max_epochs": 1, "steps_per_epoch": 2, "val_interval": 1}
        sweep(bundle, study, [2], [0], 1, short)
        rows = [{key: str(value) for key, value in row.items()} for row in rows_of(bundle, study, "quick")]
        print(f"rows: {len(rows)}\n{table(cells_of(rows))}")


def _read(paths: Sequence[Path]) -> list[dict[str, str]]:
    read: list[dict[str, str]] = []
    for path in paths:
        with path.open(newline="", encoding="utf-8") as stream:
            read += list(csv.DictReader(stream))
    return read


def main(argv: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if argv is None else list(argv)
    if given == ["--quick"]:
        quick()
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    swept = commands.add_parser("sweep")
    swept.add_argument("bundle", type=Path)
    swept.add_argument("--study", type=Path, required=True)
    swept.add_argument("--fractions", type=lambda text: [float(part) for part in text.split(",")], required=True)
    swept.add_argument("--seeds", type=int, default=5, help="how many")
    swept.add_argument("--first-seed", type=int, default=0)
    swept.add_argument("--jobs", type=int, default=2)
    rows = commands.add_parser("rows")
    rows.add_argument("bundle", type=Path)
    rows.add_argument("--study", type=Path, required=True)
    rows.add_argument("--out", type=Path, required=True)
    rows.add_argument("--name")
    shown = commands.add_parser("table")
    shown.add_argument("rows", type=Path, nargs="+")
    shown.add_argument("--fewer-than", type=int, metavar="PATIENTS")
    shown.add_argument("--write", type=Path)
    kept = commands.add_parser("held-out")
    kept.add_argument("--study", type=Path, required=True)
    kept.add_argument("--out", type=Path, required=True)
    kept.add_argument("--name", required=True)
    asked = commands.add_parser("choices")
    asked.add_argument("held_out", type=Path, nargs="+")
    asked.add_argument("--rows", type=Path, nargs="+", required=True)
    words = parser.parse_args(given)
    if words.command == "sweep":
        seeds = range(words.first_seed, words.first_seed + words.seeds)
        sweep(words.bundle, words.study.resolve(), words.fractions, seeds, words.jobs)
        return
    if words.command == "rows":
        write_table(words.out, rows_of(words.bundle, words.study, words.name or words.bundle.resolve().name))
        return
    if words.command == "held-out":
        write_table(words.out, held_out(words.study, words.name))
        return
    if words.command == "choices":
        print(choices(_read(words.held_out), _read(words.rows)))
        return
    read = _read(words.rows)
    cells = [c for c in cells_of(read) if words.fewer_than is None or c["patients"] < words.fewer_than]
    if not cells:
        sys.exit("no cell holds all arms")
    held = f"\n\n{decided(read)}" if any(row["arm"] == "auto" for row in read) else ""
    text = f"{len(cells)} cells of {len({cell['set'] for cell in cells})} sets; {date.today()}.\n\n{table(cells)}{held}"
    print(text)
    if words.write:
        write_text(words.write, text + "\n")


if __name__ == "__main__":
    main()
