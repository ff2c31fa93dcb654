"""Class weights, where classes of a classification are unlike in number."""

from __future__ import annotations

from collections import Counter

from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.manifest import Manifest

__all__ = ["class_weights"]

_UNLIKE = 2.0
_MOST = 10.0


def class_weights(
    manifest: Manifest, sites: list[str | None], classes: list[int], reasons: Reasons
) -> list[float] | None:
    """Weights of the loss, the inverse of the classes' numbers of labelled training cases, of mean 1 over the cases.

    ``None`` where the commonest class has less than twice the cases of the rarest. At most 10 times between classes.

    Args:
        manifest: of a classification.
        sites: whose training cases count; ``None`` is all.
        classes: numbers of the classes.
        reasons: where the reason goes.
    """
    cases = [case for site in dict.fromkeys(sites) for case in manifest.cases("training", site=site, labelled=True)]
    counts = Counter(int(case.label) for case in cases if isinstance(case.label, (int, float)))
    numbers = [counts.get(value, 0) for value in classes]
    if min(numbers, default=0) < 1 or max(numbers) < _UNLIKE * min(numbers):
        reasons.add("class_weights", None, f"classes have {', '.join(map(str, numbers))} training cases: alike enough")
        return None
    most = max(numbers)
    raw = [min(_MOST, most / n) for n in numbers]
    mean = sum(w * n for w, n in zip(raw, numbers, strict=True)) / sum(numbers)
    weights = [round(w / mean, 4) for w in raw]
    why = f"classes have {', '.join(map(str, numbers))} training cases: inverse of their numbers"
    return list(reasons.add("class_weights", weights, why))
