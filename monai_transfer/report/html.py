"""Reports as HTML files: everything inside them, nothing loaded from anywhere, for a clinician and for paper."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from monai_transfer.arm_names import arm_name, arm_note
from monai_transfer.files import write_text
from monai_transfer.metrics.base import case_number
from monai_transfer.report.adaptation import feature_alignment, game_sentences, home_sentences
from monai_transfer.report.alignment import SCRATCH
from monai_transfer.report.own_arms import describe_run
from monai_transfer.report.plots import arm_colours, curves, dots, forest, label_curves
from monai_transfer.report.statistics import HELPED, HURT, MIN_SEEDS, NO_EVIDENCE
from monai_transfer.report.wording import number, share, shares, signed, span
from monai_transfer.tables import write_table
from monai_transfer.tasks import get_task

if TYPE_CHECKING:
    from monai_transfer.report.label_efficiency import LabelEfficiency
    from monai_transfer.report.run import Run
    from monai_transfer.report.transfer_report import TransferReport

__all__ = ["render", "write_efficiency", "write_html"]

_CLASS = {HELPED: "good", HURT: "bad", NO_EVIDENCE: "open"}
_PATH = re.compile(r"(?:[A-Za-z]:)?[\\/](?:[^\s\\/'\"]+[\\/])+")


def write_html(report: TransferReport, path: str | Path) -> Path:
    """Write the page, atomically; returns its path."""
    write_text(path, render(report))
    return Path(path)


def render(report: TransferReport) -> str:
    """The page's text."""
    environment = _environment()
    environment.filters["metric"] = lambda name: report.describe(name).heading
    environment.globals |= {
        "shares": shares,
        "explain": lambda name: report.describe(name).sentence,
        "arm_note": lambda name: arm_note(name) or _about(report, name),
        "min_seeds": MIN_SEEDS,
        "gain": "Gain over" if report.measure.better else "Difference to",
    }
    first = next(iter(next(iter(report.runs.values())).values()))
    others = _other_metrics(report)
    told = {name: _could_tell(first.cases, report.describe(name).part) for name in others}
    return environment.get_template("report.html.j2").render(
        report=report,
        colours=arm_colours(report.arms),
        verdict_class=_CLASS,
        tone=_tone(report),
        record=dict.fromkeys(("bundle", "source_site", "target_site", "spatial_dims")) | first.record,
        contours=first.kind.label.is_path,
        others=others,
        told={name: count for name, count in told.items() if count is not None},
        explained=[report.metric, *[m for m in others if m != report.metric]],
        by_patient=report.measure.of_set is None,
        forest=forest(report),
        dots=dots(report),
        curves=curves(report),
        alignment=feature_alignment(report),
        remarks=[*home_sentences(report), *game_sentences(report)],
        examples=_examples(report),
        weights=_weights(report),
        versions=first.record.get("versions") or {},
        sites=sorted({row.get("site") or "" for row in first.cases} - {""}),
    )


def write_efficiency(efficiency: LabelEfficiency, path: str | Path) -> Path:
    """Write the page of a study over several numbers of labels, and beside it a ``.csv`` of the same name.

    Both appear when they are whole; returns the page's path.
    """
    write_table(Path(path).with_suffix(".csv"), efficiency.rows())
    page = _environment().get_template("label_efficiency.html.j2")
    write_text(
        path,
        page.render(
            efficiency=efficiency,
            colours=arm_colours(efficiency.curves),
            figure=label_curves(efficiency),
            min_seeds=MIN_SEEDS,
        ),
    )
    return Path(path)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("monai_transfer.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"number": number, "signed": signed, "arm": arm_name, "share": share}
    environment.globals["span"] = span
    return environment


def _tone(report: TransferReport) -> str:
    words = {j.word for j in report.judgements.values()}
    if any(j.has_lost or j.below for j in report.judgements.values()):
        return "bad"
    return "bad" if HURT in words and HELPED not in words else "good" if HELPED in words else "open"


def _other_metrics(report: TransferReport) -> list[str]:
    """The metrics of the second table: the overall ones; per class only where there are several."""
    found = [report.describe(name) for name in next(iter(report.arms.values())).metrics]
    found = [metric for metric in found if metric.overview]
    overall = {metric.name for metric in found if not metric.part}
    parts = Counter(metric.name for metric in found if metric.part)
    found = [m for m in found if not m.part or m.name not in overall or parts[m.name] > 1]
    return [m.full_name for m in found if m.full_name != report.metric][:24]


def _could_tell(rows: list[dict[str, str]], part: str) -> int | None:
    """In how many cases a class was looked for; None where that is not recorded (or it is no class)."""
    for column in (f"objects_true_{part}", f"label_{part}"):
        if part and column in rows[0]:
            return sum(row[column] != "" for row in rows)
    return None


def _examples(report: TransferReport) -> list[dict[str, Any]]:
    """Best, median and worst case of the arm that is looked at, with the same case of every arm beside it.

    Ranked by the mean over seeds of that arm, among the cases of which every arm has a picture.
    """
    sign = -1.0 if report.measure.better < 0 else 1.0
    candidates = list(report.judgements) or [a for a in report.arms if a != "oracle"]
    chosen = max(candidates, key=lambda a: np.nan_to_num(sign * report.arms[a].mean, nan=-np.inf))
    ranking = report.measure  # of one case; one of the whole set, or without a direction, cannot rank cases
    if ranking.of_set is not None or not ranking.better:
        ranking = report.describe(get_task(report.task).example_metric)
    column = ranking.case_column
    scores: dict[str, list[float]] = {}
    for run in report.runs[chosen].values():
        for row in run.cases:
            scores.setdefault(row["case"], []).append(case_number(row.get(column)))
    shown = {arm: next(iter(seeds.values())) for arm, seeds in report.runs.items()}
    drawn = set.intersection(*[_pictures(run) for run in shown.values()])
    ranked = sorted(
        (c for c in scores if c in drawn and not np.all(np.isnan(scores[c]))),
        key=lambda c: (-ranking.better * float(np.nanmean(scores[c])), c),
    )
    if not ranked:
        return []
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    places = places if len(ranked) > 2 else {"": 0} if len(ranked) == 1 else {"best": 0, "worst": 1}
    examples = []
    for title, place in places.items():
        case = ranked[place]
        images = []
        for arm, run in shown.items():
            row = next(r for r in run.cases if r["case"] == case)
            value = case_number(row.get(column))
            images.append({"arm": arm, "seed": run.seed, "value": value, "uri": _jpeg(_figure(run, case))})
        examples.append({"title": title, "case": case, "images": images, "chosen": chosen, "metric": ranking.full_name})
    return examples


def _figure(run: Run, case: str) -> Path:
    return run.folder / "figures" / f"{case}.png"


def _pictures(run: Run) -> set[str]:
    return {row["case"] for row in run.cases if _figure(run, row["case"]).is_file()}


def _jpeg(path: Path) -> str:
    stream = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(stream, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _weights(report: TransferReport) -> dict[str, Any] | None:
    """The weight report of the first arm that started from the source, without paths of the machine."""
    for arm, seeds in report.runs.items():
        for run in seeds.values():
            content = run.weights
            if arm not in SCRATCH and content and (content.get("loaded") or content.get("adapted")):
                lists = {k: content.get(k) or [] for k in ("loaded", "adapted", "skipped", "missing", "unused")}
                return {
                    "arm": arm,
                    "lists": lists,
                    "notes": content.get("notes") or {},
                    "coverage": float(content.get("coverage") or 0.0),
                    "source": _PATH.sub("", str(content.get("source") or "")),
                    "dialect": content.get("dialect"),
                    "licence": content.get("licence"),
                    "trusted": run.record.get("trusted"),
                }
    return None


def _about(report: TransferReport, arm: str) -> str:
    """What an arm without a name of ours is, by its first run."""
    runs = report.runs.get(arm) or {}
    return next((describe_run(run) for run in runs.values()), "")
