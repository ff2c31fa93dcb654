"""Where every interval holds chance, no difference between arms says anything, and the report says so."""

from __future__ import annotations

import json

import numpy as np

from monai_transfer import compare_runs
from monai_transfer.evaluation.recorder import write_cases
from monai_transfer.metrics import classification_case


def runs(folder, knows):
    for arm in ("scratch", "source", "fine_tuned"):
        for seed in range(5):
            rng = np.random.default_rng([seed, len(arm)])
            rows = []
            for i in range(24):
                p = float(np.clip(0.5 + knows * (0.4 if i % 2 else -0.4) + 0.1 * rng.normal(), 0.01, 0.99))
                rows.append(
                    {"case": f"c{i}", "patient": f"p{i}", **classification_case([1 - p, p], i % 2, ["no", "yes"])}
                )
            out = folder / f"{arm}-{seed}"
            out.mkdir(parents=True)
            write_cases(out / "cases.csv", rows)
            record = {"status": "finished", "workflow": "train", "arm": arm, "seed": seed, "task": "classification"}
            (out / "run.json").write_text(json.dumps(record))
            yield out


def test_all_arms_at_chance_is_said(tmp_path):
    guessing = compare_runs(list(runs(tmp_path / "a", 0.0)))
    assert guessing.conclusion.startswith("All arms are at chance: every 95 % interval of AUC holds 0.500")
    assert "at chance" not in compare_runs(list(runs(tmp_path / "b", 1.0))).conclusion
