"""What a classifier said about one case, and the metrics of many, tested against scikit-learn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.metrics.base import Metric, Rows, case_number, table_of
from monai_transfer.metrics.reading import finite_array

__all__ = ["CLASS_METRICS", "binary_auc", "class_scores", "classification_case", "has_class", "roc_auc"]

SMALLEST = 1e-7  # a probability of 0 for the true class would cost infinitely much: about the step of float32


def classification_case(probabilities: Any, label: int | None, class_names: Sequence[str]) -> dict[str, Any]:
    """What a classifier said about one case.

    Args:
        probabilities: (C,) probabilities that sum to 1, array or tensor.
        label: index of the true class; ``None`` if it is unknown.
        class_names: C names.

    Returns:
        ``label`` and ``prediction`` (names; an unknown label is ""), ``p_<name>`` for each class, ``correct`` (0 or
        1) and ``log_loss`` (nats; at most 16.1, since probabilities are not taken below 1e-7). The last two are NaN
        for an unknown label.

    Raises:
        InputError: NaN, not a probability distribution, or the number of classes differs.

    >>> classification_case([0.25, 0.75], 0, ["normal", "lesion"])["prediction"]
    'lesion'
    """
    p = finite_array(probabilities, "prediction").astype(float).reshape(-1)
    if len(p) != len(class_names):
        raise InputError(
            f"prediction has {len(p)} classes, the task has {len(class_names)}: {', '.join(class_names)}",
            hint="predict with the network that was made for these classes",
        )
    if p.min() < -1e-6 or abs(p.sum() - 1.0) > 1e-3:
        raise InputError(
            f"prediction is no distribution over classes: it sums to {p.sum():.4g}",
            hint="apply the softmax or sigmoid that the network's last layer lacks",
        )
    if label is not None and not 0 <= int(label) < len(class_names):
        raise InputError(
            f"label {label} is not one of the {len(class_names)} classes",
            hint="count classes from 0, in the order of the labels",
        )
    row: dict[str, Any] = {"label": class_names[int(label)] if label is not None else ""}
    row["prediction"] = class_names[int(p.argmax())]
    row |= {f"p_{name}": float(value) for name, value in zip(class_names, p, strict=True)}
    row["correct"] = float(int(p.argmax()) == int(label)) if label is not None else math.nan
    row["log_loss"] = float(-np.log(max(p[int(label)], SMALLEST))) if label is not None else math.nan
    return row


def has_class(row: Mapping[str, Any]) -> bool:
    """Whether a case has a true class.

    Args:
        row: of ``cases.csv``.

    >>> has_class({"label": "benign"}), has_class({"label": ""})
    (True, False)
    """
    return row.get("label") not in ("", None)


def class_scores(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Scores from confusion matrices (..., truth, prediction): macro means over the classes that occur, and each class.

    As in scikit-learn, a class that was never predicted has precision 0, one that is predicted but never true counts
    with 0 in the mean recall, and one that is neither does not count. Balanced accuracy is the mean recall over the
    true classes. What cannot be told is NaN: the recall of a class that is never true, and balanced accuracy where one
    class alone is true, so that draws of cases without a rare class do not widen its interval.

    Args:
        confusion: counts, (..., C, C): truth by prediction.
        classes: their C names.

    Of three healthy cases one is called ill, and the one ill case is found:

    >>> import numpy as np
    >>> scores = class_scores(np.array([[2, 1], [0, 1]]), ["healthy", "ill"])
    >>> round(float(scores["balanced_accuracy"]), 3), float(scores["precision_ill"])
    (0.833, 0.5)
    """
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, said = confusion.sum(-1), confusion.sum(-2)
    occurs = (true + said) > 0
    each = {}
    for name, above, below in (("precision", hit, said), ("recall", hit, true), ("f1", 2 * hit, true + said)):
        each[name] = np.where(occurs, above / np.maximum(below, 1e-12), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)  # the mean of no class at all is NaN
        result = {name: np.nanmean(value, axis=-1) for name, value in each.items()}
        each["recall"] = np.where(true > 0, each["recall"], np.nan)
        several = (true > 0).sum(-1) > 1
        result["balanced_accuracy"] = np.where(several, np.nanmean(each["recall"], axis=-1), np.nan)
    for i, label in enumerate(classes):
        result |= {f"{name}_{label}": value[..., i] for name, value in each.items()}
    return result


def roc_auc(p: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve: (n, C) probabilities, (n,) class indices, weights (B, n) of the cases -> (B,).

    Two classes: of the second one. More: the mean over one class against the rest, for the classes that are both
    true and not true of some case. NaN where only one class is left. Ties count one half.

    Args:
        p: probabilities, (n, C).
        truth: class indices, (n,).
        weights: (B, n), how often each case counts in each of B draws.

    Three of the four pairs of a case with and a case without the class are ranked right:

    >>> import numpy as np
    >>> p = np.array([0.1, 0.6, 0.4, 0.9])
    >>> roc_auc(np.stack([1 - p, p], 1), np.array([0, 0, 1, 1])).tolist()
    [0.75]
    """
    w = np.ones((1, len(truth))) if weights is None else np.asarray(weights, dtype=float)
    columns = [1] if p.shape[1] == 2 else list(range(p.shape[1]))
    areas = np.stack([binary_auc(p[:, c], truth == c, w) for c in columns])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)
        return np.nanmean(areas, axis=0)


def binary_auc(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under one ROC curve: (n,) scores, (n,) truth as booleans, weights (B, n) -> (B,); NaN where one side lacks.

    Args:
        score: (n,), larger for the class.
        positive: (n,), whether a case is of the class.
        weights: (B, n).

    >>> binary_auc(np.array([0.1, 0.4, 0.8]), np.array([False, True, True]), np.ones((1, 3))).tolist()
    [1.0]
    """
    if len(weights) * len(score) > 2**22:  # a piece at a time: the memory of all resamples at once is much
        parts = np.array_split(weights, 1 + weights.size // 2**22)
        return np.concatenate([binary_auc(score, positive, part) for part in parts if len(part)])
    order = np.argsort(score, kind="stable")
    w, is_positive = weights[:, order], positive[order]
    up, down = w * is_positive, w * ~is_positive
    below = np.concatenate([np.zeros((len(w), 1)), np.cumsum(down, axis=1)], axis=1)
    first = np.searchsorted(score[order], score[order], side="left")  # ties share one place
    last = np.searchsorted(score[order], score[order], side="right")
    wins = (up * 0.5 * (below[:, first] + below[:, last])).sum(axis=1)
    total = up.sum(axis=1) * down.sum(axis=1)
    return np.where(total > 0, wins / np.where(total > 0, total, 1.0), np.nan)


def _read(rows: Rows) -> tuple[list[str], np.ndarray]:
    """Class names, and the true class of each case."""
    classes = [name.removeprefix("p_") for name in rows[0] if name.startswith("p_")]
    index = {name: i for i, name in enumerate(classes)}
    return classes, np.array([index[str(row["label"])] for row in rows])


def _auc(rows: Rows, weights: np.ndarray) -> dict[str, np.ndarray]:
    classes, truth = _read(rows)
    p = np.array([[case_number(row[f"p_{name}"]) for name in classes] for row in rows])
    return {"": roc_auc(p, truth, weights)}


def _from_confusion(metric: str):
    def of_set(rows: Rows, weights: np.ndarray) -> dict[str, np.ndarray]:
        classes, truth = _read(rows)
        index = {name: i for i, name in enumerate(classes)}
        predicted = np.array([index[str(row["prediction"])] for row in rows])
        cells = np.zeros((len(rows), len(classes) ** 2))
        cells[np.arange(len(rows)), truth * len(classes) + predicted] = 1.0
        scores = class_scores((weights @ cells).reshape(-1, len(classes), len(classes)), classes)
        parts = {name: scores[f"{metric}_{name}"] for name in classes if f"{metric}_{name}" in scores}
        return {"": scores[metric]} | parts

    return of_set


def _shares(rows: Rows) -> np.ndarray:
    """The share of each class that occurs."""
    counts = np.unique(_read(rows)[1], return_counts=True)[1]
    return np.asarray(counts / counts.sum(), dtype=float)


def _guessed(value: Callable[[np.ndarray], float]) -> Callable[[Rows], dict[str, float]]:
    return lambda rows: {"": float(value(_shares(rows)))}


_SHARE: dict[str, Any] = {"better": 1, "low": 0.0, "high": 1.0}

CLASS_METRICS = table_of(
    [
        Metric(
            "auc",
            "AUC",
            "Probability that a case with the finding gets a higher score than one without: 1 is perfect, 0.5 is "
            "chance. With more than two classes: each class against the rest, averaged.",
            of_set=_auc,
            chance=0.5,
            resamples=1000,  # ranking costs more than counting
            **_SHARE,
        ),
        Metric(
            "accuracy",
            "accuracy",
            "Share of cases that got the right class; always naming the commonest class gives that class's share.",
            column="correct",
            chance_of=_guessed(np.max),
            **_SHARE,
        ),
        Metric(
            "balanced_accuracy",
            "balanced accuracy",
            "Share of each class's cases that were recognised, averaged over classes: 1 is perfect, one over the "
            "number of classes is chance.",
            of_set=_from_confusion("balanced_accuracy"),
            chance_of=_guessed(lambda shares: 1 / len(shares)),
            **_SHARE,
        ),
        Metric(
            "precision",
            "precision",
            "Of the cases called so, the share that really are; averaged over classes.",
            of_set=_from_confusion("precision"),
            **_SHARE,
        ),
        Metric(
            "recall",
            "recall",
            "Of the cases that are so, the share that were called so; averaged over classes.",
            of_set=_from_confusion("recall"),
            **_SHARE,
        ),
        Metric(
            "f1",
            "F1",
            "Balance of precision and recall (harmonic mean); averaged over classes.",
            of_set=_from_confusion("f1"),
            **_SHARE,
        ),
        Metric(
            "log_loss",
            "log loss",
            "Penalty for confident mistakes: 0 is perfect.",
            better=-1,
            low=0.0,
            chance_of=_guessed(lambda shares: -(shares * np.log(shares)).sum()),
        ),
    ]
)
"""Of a classification's cases."""
