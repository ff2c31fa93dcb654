"""Rows of the table that ``monai-transfer rank`` compares with: what one source brought to one target.

    python benchmarks/measured_transfers.py row BUNDLE --study DIR --manifest TARGET.json --out ROWS.json \\
        --source NAME --target NAME
    python benchmarks/measured_transfers.py table ROWS.json [ROWS.json ...] [--write FILE.json]

``row`` reads a finished study of BUNDLE with the arms scratch, source and fine_tuned (of one with ``--fractions`` name
the folder of one number of labels, ``DIR/labelled-4``), ranks the bundle's own weights
(``models/model.pt``) on at most 16 labelled target training cases, and adds one row. ``table`` joins rows, says how
good forecasts from them are, each target left out in turn, and writes them where the package looks them up
(``monai_transfer/selection/measured_transfers.json``).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from _run_scores import score_of

from monai_transfer.data.phantom import embedded_set
from monai_transfer.files import write_text
from monai_transfer.selection.measured_transfers import MeasuredTransfer, forecast_gain, leave_one_target_out
from monai_transfer.selection.rank import rank_sources
from monai_transfer.study.arms import parse_arms
from monai_transfer.study.run_arms import run_study

CASES = 16
ARMS = "scratch", "untouched", "fine-tuned"


def row_of(
    bundle: Path, study: Path, manifest: Path, source: str, target: str, permutations: int = 200
) -> MeasuredTransfer:
    """One row, of a finished study and of what ``rank`` says about the bundle's weights."""
    runs = {arm: sorted(study.glob(f"{arm}-[0-9]*")) for arm in ("scratch", "source", "fine_tuned")}
    runs["source"] = runs["source"] or sorted((study.parent / "any-labelled").glob("source-[0-9]*"))
    scores = {arm: [score_of(folder)[0] for folder in folders] for arm, folders in runs.items() if folders}
    means = {arm: float(np.mean(values)) for arm, values in scores.items()}
    started = json.loads((runs["fine_tuned"][0] / "run.json").read_text(encoding="utf-8"))
    ranking = rank_sources(
        manifest, [bundle], site=started["target_site"], max_cases=CASES, permutations=permutations, gap=False
    )
    found = ranking.rows[0]
    if found.fault is not None or found.probe is None or found.untrained_probe is None:
        raise SystemExit(f"{bundle} cannot be ranked: {found.fault}")
    score = found.scores["LogME"]
    beyond = (score.score - score.quantiles[0.5]) / max(score.quantiles[0.95] - score.quantiles[0.5], 1e-12)
    untouched = means.get("source", math.nan)
    return MeasuredTransfer(
        source, target, ranking.task, int(started["n_labelled"]),
        round(found.probe, 4), round(found.untrained_probe, 4), round(beyond, 3),
        round(means["scratch"], 4), None if math.isnan(untouched) else round(untouched, 4),
        round(means["fine_tuned"], 4), len(runs["fine_tuned"]), str(date.today()),
    )  # fmt: skip


def table(rows: Sequence[MeasuredTransfer]) -> str:
    """The rows as Markdown, and how good forecasts are."""
    lines = [
        "| source | target | labelled | probe (untrained) | LogME over its null | scratch | untouched | fine-tuned |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for one in rows:
        untouched = "" if one.untouched is None else f"{one.untouched:.3f}"
        lines.append(
            f"| {one.source} | {one.target} | {one.labelled} | {one.probe:.3f} ({one.untrained_probe:.3f}) | "
            f"{one.logme:.1f} | {one.scratch:.3f} | {untouched} | {one.fine_tuned:.3f} |"
        )
    error, of_mean, right, pairs = leave_one_target_out(rows)
    lines += ["", f"Each target left out: mean error {error:.3f}; of the mean of all {of_mean:.3f}; "]
    lines[-1] += f"{right} of {pairs} pairs of sources in the right order."
    lines += ["", "Order of the pairs by single scores:", *_orders(rows)]
    return "\n".join(lines)


def _orders(rows: Sequence[MeasuredTransfer]) -> list[str]:
    """How many pairs of sources for one target each score puts in the right order."""
    found = []
    for name in ("advantage", "probe", "logme", "untouched"):
        right = pairs = 0
        for i, one in enumerate(rows):
            for other in rows[:i]:
                a, b = getattr(one, name), getattr(other, name)
                if one.target == other.target and a is not None and b is not None:
                    pairs += 1
                    right += (a - b) * (one.gain - other.gain) > 0
        found.append(f"- {name}: {right} of {pairs}")
    return found


def quick() -> None:
    """A row of a study of two steps, to see that it runs."""
    bundle = Path(__file__).parents[1] / "bundles" / "head_mr_slice_classification"
    with tempfile.TemporaryDirectory() as folder:
        short: dict[str, Any] = {"max_epochs": 1, "steps_per_epoch": 2, "val_interval": 1}
        study, manifest = Path(folder) / "study", Path(embedded_set("classification")) / "manifest.json"
        run_study(bundle, study, parse_arms("scratch,source,fine_tuned"), seeds=[0], jobs=1, overrides=short)
        row = row_of(bundle, study, manifest, "site A", "site B", permutations=5)
        other = MeasuredTransfer(**(asdict(row) | {"target": "elsewhere"}))
        print(table([row, other]))
        print(forecast_gain(row.task, row.probe, row.untrained_probe, transfers=[row, other]))


def main(argv: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if argv is None else list(argv)
    if given == ["--quick"]:
        quick()
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    row = commands.add_parser("row")
    row.add_argument("bundle", type=Path)
    for name in ("study", "manifest", "out"):
        row.add_argument(f"--{name}", type=Path, required=True)
    for name in ("source", "target"):
        row.add_argument(f"--{name}", required=True)
    joined = commands.add_parser("table")
    joined.add_argument("rows", type=Path, nargs="+")
    joined.add_argument("--write", type=Path)
    words = parser.parse_args(given)
    if words.command == "row":
        before = json.loads(words.out.read_text(encoding="utf-8")) if words.out.is_file() else []
        made = row_of(words.bundle, words.study, words.manifest, words.source, words.target)
        write_text(words.out, json.dumps([*before, asdict(made)], indent=1) + "\n")
        return
    rows = [MeasuredTransfer(**one) for path in words.rows for one in json.loads(path.read_text(encoding="utf-8"))]
    print(table(rows))
    if words.write:
        write_text(words.write, json.dumps([asdict(one) for one in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
