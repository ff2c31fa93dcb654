"""Linear probe: cross-validated accuracy of a linear model on frozen features, the reference beside every score.

A linear model on frozen features, cross-validated so that no patient stands in training and test fold; its
regularisation is chosen inside the training folds, by patient too.

Paper: Alain and Bengio, Understanding intermediate layers using linear classifier probes, ICLR Workshop 2017,
arXiv:1610.01644
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_transfer.errors import InputError
from monai_transfer.selection.inputs import as_classes, as_features, as_labels, is_regression

__all__ = ["LinearProbe", "linear_probe"]

_STRENGTHS = (1e-3, 1e-1, 1e1)  # C of the logistic regression, 1/alpha of the ridge; features are standardised


@dataclass(frozen=True)
class LinearProbe:
    """Result of ``linear_probe``.

    Attributes:
        value: balanced accuracy or R^2 over all out-of-fold predictions. Chance is 1/K, respectively 0.
        interval: 95 % bootstrap interval over patients.
        metric: ``"balanced accuracy"`` or ``"R2"``.
        predictions: out-of-fold predictions, N, in the labels' own terms.
        folds: number of folds.

    >>> labels = np.repeat([0, 1], 20)
    >>> found = linear_probe(np.random.default_rng(0).standard_normal((40, 2)) + 9 * labels[:, None], labels)
    >>> found.metric, found.value, found.predictions.shape
    ('balanced accuracy', 1.0, (40,))
    """

    value: float
    interval: tuple[float, float]
    metric: str
    predictions: np.ndarray
    folds: int


def linear_probe(
    features: Any, labels: Any, groups: Any = None, *, folds: int = 5, seed: int = 0, regression: bool | None = None
) -> LinearProbe:
    """Cross-validated linear model of N ``labels`` on N x D ``features``, grouped by patient (``groups``, N).

    Args:
        groups: patients; without it every row is its own patient.
        folds: at most so many; fewer where a class has fewer patients.
        regression: whether labels are quantities; by default a float dtype says so.

    Raises:
        InputError: shapes that do not fit, NaN, a class with a single patient, or fewer than two patients.

    >>> import numpy as np
    >>> from monai_transfer.selection.linear_probe import linear_probe
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 30)
    >>> features = rng.standard_normal((60, 4)) + 4 * labels[:, None]
    >>> linear_probe(features, labels).value > 0.9  # balanced accuracy, out of fold
    True
    """
    features = as_features(features)
    n = len(features)
    labels = as_labels(labels, n)
    if labels.ndim != 1:
        raise InputError(
            "a linear probe takes one label a row", hint="give class indices, or one quantity for each row"
        )
    regression = is_regression(labels) if regression is None else regression
    patients = np.arange(n) if groups is None else np.unique(as_labels(groups, n), return_inverse=True)[1]
    names = None if regression else np.unique(labels)
    targets = labels.astype(float) if regression else as_classes(labels, n)[0]
    # a rotation into the span of the data changes no penalised linear fit, and makes N < D cheap
    features = StandardScaler().fit_transform(features)
    if n < features.shape[1]:
        left, singular, _ = np.linalg.svd(features, full_matrices=False)
        features = left * singular
    parts = _split(targets, patients, folds, seed, regression)
    if not parts:
        raise InputError("a class has a single patient: nothing can be cross-validated", hint="add labelled patients")
    predictions = np.empty_like(targets)
    for train, test in parts:
        model = _fit(features[train], targets[train], patients[train], seed, regression)
        predictions[test] = model.predict(features[test])
    measure = r2_score if regression else balanced_accuracy_score
    interval = _interval(measure, targets, predictions, patients, seed)
    return LinearProbe(
        value=float(measure(targets, predictions)),
        interval=interval,
        metric="R2" if regression else "balanced accuracy",
        predictions=predictions if names is None else names[predictions],
        folds=len(parts),
    )


def _split(
    targets: np.ndarray, patients: np.ndarray, folds: int, seed: int, regression: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Patient-grouped folds; none where some class (or the whole set) has a single patient."""
    if regression:
        folds = min(folds, len(np.unique(patients)))
        if folds < 2:
            return []
        return list(GroupKFold(folds, shuffle=True, random_state=seed).split(targets, groups=patients))
    folds = min([folds, *(len(np.unique(patients[targets == c])) for c in np.unique(targets))])
    if folds < 2:
        return []
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = list(splitter.split(targets, targets, groups=patients))
    # a fold can lose a class where a patient has several; such a fold cannot train a classifier of all classes
    return [(a, b) for a, b in parts if len(b) and len(np.unique(targets[a])) > 1]


def _fit(features: np.ndarray, targets: np.ndarray, patients: np.ndarray, seed: int, regression: bool) -> Any:
    """The linear model with the regularisation that does best on inner, patient-grouped folds."""
    inner = _split(targets, patients, 3, seed, regression)
    scores = []
    for strength in _STRENGTHS if inner else ():
        errors = []
        for train, test in inner:
            model = _model(strength, regression)
            _quiet_fit(model, features[train], targets[train])
            if regression:
                errors.append(np.mean((model.predict(features[test]) - targets[test]) ** 2))
            else:
                errors.append(-balanced_accuracy_score(targets[test], model.predict(features[test])))
        scores.append(float(np.mean(errors)))
    best = _STRENGTHS[int(np.argmin(scores))] if scores else _STRENGTHS[1]
    model = _model(best, regression)
    _quiet_fit(model, features, targets)
    return model


def _model(strength: float, regression: bool) -> Any:
    if regression:
        return make_pipeline(StandardScaler(with_std=False), Ridge(alpha=1 / strength))
    return LogisticRegression(C=strength, class_weight="balanced", max_iter=500)


def _quiet_fit(model: Any, features: np.ndarray, targets: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # separable few-case folds have no finite optimum to reach
        model.fit(features, targets)


def _interval(
    measure: Any, targets: np.ndarray, predictions: np.ndarray, patients: np.ndarray, seed: int
) -> tuple[float, float]:
    """Percentile bootstrap over patients of the out-of-fold predictions; resamples that lose a class are redrawn."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(patients == p) for p in np.unique(patients)]
    wanted = len(np.unique(targets)) if targets.dtype.kind != "f" else 2
    values: list[float] = []
    for _ in range(2000):
        drawn = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        if len(np.unique(targets[drawn])) >= wanted:
            values.append(float(measure(targets[drawn], predictions[drawn])))
        if len(values) == 300:
            break
    if not values:
        return float("nan"), float("nan")
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
