"""DEV: the target risk, estimated from source losses by importance weights and a control variate.

    w(x) = N_s/N_t * P(target | x) / P(source | x)                      from a domain classifier on features
    L_i  = w(x_i) l_i,   eta = -cov(L, w)/var(w),   risk = mean L + eta mean w - eta

The returned value is -risk, so that higher is better; with ``control_variate=False`` it is plain importance-weighted
validation. Weights need overlapping domains; a warning says when they hardly do.

Paper: You, Wang, Long, Jordan, Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation, ICML 2019;
Sugiyama, Krauledat, Mueller, Covariate Shift Adaptation by Importance Weighted Cross Validation, JMLR 2007
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_transfer.errors import InputError
from monai_transfer.selection.inputs import as_features, as_labels

__all__ = ["dev", "importance_weights"]


def importance_weights(source_features: Any, target_features: Any, *, seed: int = 0) -> np.ndarray:
    """Density ratio target/source at each of N x F source features, by out-of-fold logistic regression; N.

    Raises:
        InputError: shapes that do not fit, NaN, or fewer than two cases in a domain.

    Source cases that lie where the target is count more:

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> source, target = rng.normal(0, 1, (60, 1)), rng.normal(1.5, 1, (60, 1))
    >>> weights = importance_weights(source, target)
    >>> bool(weights[source[:, 0] > 1].mean() > 3 * weights[source[:, 0] < 0].mean())
    True
    """
    source, target = as_features(source_features, "source features"), as_features(target_features, "target features")
    if source.shape[1] != target.shape[1]:
        raise InputError(
            f"source has {source.shape[1]} features and target {target.shape[1]}",
            hint="take the features of one layer of one network",
        )
    folds = min(5, len(source), len(target))
    if folds < 2:
        raise InputError("a density ratio needs at least two cases in each domain", hint="give more cases")
    features = np.vstack([source, target])
    domain = np.repeat([0, 1], [len(source), len(target)])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    # out of fold: a classifier that has seen a case is too sure of its domain
    is_target = cross_val_predict(model, features, domain, cv=splitter, method="predict_proba")[: len(source), 1]
    is_target = is_target.clip(1e-6, 1 - 1e-6)
    return is_target / (1 - is_target) * len(source) / len(target)


def dev(
    source_features: Any, target_features: Any, source_losses: Any, *, control_variate: bool = True, seed: int = 0
) -> float:
    """Minus the estimated target risk.

    Args:
        source_features: N x F features of held-out source cases.
        target_features: M x F features of target cases.
        source_losses: N losses of the held-out source cases (e.g. cross entropy, or 1 - Dice).
        control_variate: without, plain importance-weighted validation.
        seed: of the folds of the domain classifier.

    Raises:
        InputError: shapes that do not fit, NaN, or fewer than two cases in a domain.

    Of two models the one that is good where the target lies:

    >>> rng = np.random.default_rng(0)
    >>> source, target = rng.normal(0, 1, (100, 1)), rng.normal(1, 1, (100, 1))
    >>> good_there, good_elsewhere = (source[:, 0] < 0.5) * 1.0, (source[:, 0] > 0.5) * 1.0  # losses
    >>> dev(source, target, good_there) > dev(source, target, good_elsewhere)
    True
    """
    weights = importance_weights(source_features, target_features, seed=seed)
    losses = as_labels(source_losses, len(weights)).astype(np.float64)
    effective, mean = weights.sum() ** 2 / (weights**2).sum(), weights.mean()
    # a density ratio averages 1 over the source; far less means that the target lies where no source case is
    if effective < max(2.0, 0.05 * len(weights)) or not 0.5 < mean < 2:
        warnings.warn(
            f"DEV: the domains hardly overlap (mean weight {mean:.2f} where 1 is due, {effective:.0f} effective source "
            f"cases of {len(weights)}): do not rely on it",
            stacklevel=2,
        )
    weighted = weights * losses
    variance = weights.var()
    if not control_variate or variance < 1e-12:
        return -float(weighted.mean())
    eta = -((weighted - weighted.mean()) * (weights - weights.mean())).mean() / variance
    return -float(weighted.mean() + eta * weights.mean() - eta)
