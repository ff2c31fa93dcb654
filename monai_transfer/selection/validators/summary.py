"""What validators need to know of a network's predictions on unlabelled cases, gathered with bounded memory.

Volumes arrive one by one and are reduced at once to a few sums and a small sample of voxels; no probability map is
kept. Every volume weighs the same, and inside a volume every class does:

    E_c[x] = sum_v p_c(v) x(v) / sum_v p_c(v),        mean over classes c, then over volumes

so neither the background (99 % of the voxels) nor the largest volumes drown the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.special import entr
from torch import Tensor

from monai_transfer.errors import InputError

__all__ = ["PredictionSummary", "summarise"]

_CHUNK = 1 << 19  # voxels worked on at once
_PER_VOLUME = 192  # voxels kept of one volume


class PredictionSummary:
    """Sums and a sample over class probabilities, fed by ``update``.

    Args:
        balanced: weigh classes equally inside a volume (above); ``False`` weighs voxels equally. Has no meaning for
            image-level predictions.
        rows: at most so many rows (cases, or voxels balanced over predicted classes) are kept as the sample.
        seed: of the sample.

    Attributes:
        cases: number of images or volumes seen.
        mean_entropy: mean entropy of the predictions in nats.
        mean_probabilities: mean prediction, C.
        class_share: share of cases (or voxels, each volume weighing the same) whose arg max is that class, C.
        class_cases: in how many cases that class is predicted at all, C.
        spread: largest standard deviation over cases of any class's mean probability; 0 when all cases look the same.

    >>> summary = PredictionSummary()
    >>> summary.update(np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]))
    >>> summary.cases, [round(float(share), 2) for share in summary.class_share]
    (3, [0.67, 0.33])
    """

    def __init__(self, *, balanced: bool = True, rows: int = 2048, seed: int = 0) -> None:
        self.balanced, self.rows, self.seed = balanced, rows, seed
        self.reset()

    def reset(self, stream: int = 0) -> None:
        """Forget everything. ``stream``: the process's rank, so that no two processes draw the same sample."""
        self.cases = 0
        self.spatial: bool | None = None
        self._sums: np.ndarray | None = None
        self._entropy = 0.0
        self._keys = np.empty(0)
        self._sample: np.ndarray | None = None
        self._features: np.ndarray | None = None
        self._rng = np.random.default_rng([self.seed, stream])

    @torch.no_grad()
    def update(self, probabilities: Tensor | np.ndarray, features: Tensor | np.ndarray | None = None) -> None:
        """Add B x C (image-level) or B x C x spatial (voxel-level) probabilities, and optionally B x F features.

        Raises:
            InputError: no such shape, NaN, values that are no probabilities, or another number of classes than before.
        """
        batch = torch.as_tensor(probabilities)
        if batch.ndim < 2 or batch.shape[1] < 2 or 0 in batch.shape:
            raise InputError(
                f"predictions must be B x C [x spatial] with C >= 2, not of shape {tuple(batch.shape)}",
                hint="of one channel give [1 - p, p]",
            )
        if self._sums is not None and (batch.shape[1] != self._sums.shape[1] or (batch.ndim > 2) != self.spatial):
            raise InputError(
                f"predictions of shape {tuple(batch.shape)} do not go with the earlier ones",
                hint="give batches of one network",
            )
        self.spatial = batch.ndim > 2
        if features is not None and (self.spatial or len(features) != len(batch)):
            raise InputError("features must be B x F beside image-level predictions", hint="pool over space first")
        if self._sums is None:
            # per class: mean probability, its square, share of arg max, cases with it
            self._sums = np.zeros((4, batch.shape[1]))
        if not self.spatial:
            self._add_images(batch, None if features is None else np.asarray(features, dtype=np.float64))
            return
        for one in batch:
            self._add_volume(one.flatten(1))

    def _add_images(self, batch: Tensor, features: np.ndarray | None) -> None:
        """``batch``: B x C, one row an image."""
        assert self._sums is not None
        start = 0
        for columns in self._chunks(batch.T):
            p = columns.T.cpu().numpy()
            beside = None if features is None else features[start : start + len(p)]
            start += len(p)
            votes = np.eye(p.shape[1])[p.argmax(1)].sum(0)
            self._sums += np.stack([p.sum(0), (p**2).sum(0), votes, votes])
            self._entropy += float(entr(p).sum())
            self.cases += len(p)
            self._keep(p, beside)

    def _add_volume(self, one: Tensor) -> None:
        """``one``: C x V, the voxels of a volume."""
        assert self._sums is not None
        n_classes, size = one.shape
        mass = np.zeros(n_classes)
        votes = np.zeros(n_classes)
        moments = np.zeros((n_classes, n_classes + 1))  # weighted sums of (probabilities, entropy), by weighting class
        for p in self._chunks(one):
            columns = torch.cat([p, torch.special.entr(p).sum(0, keepdim=True)])
            weights = p if self.balanced else torch.full_like(p, 1 / n_classes)
            moments += (weights @ columns.T).cpu().numpy()
            mass += weights.sum(1).cpu().numpy()
            votes += torch.bincount(p.argmax(0), minlength=n_classes).cpu().numpy()
        means = (moments / np.maximum(mass, np.finfo(float).tiny)[:, None]).mean(0)
        self._entropy += float(means[-1])
        self._sums += np.stack([means[:-1], means[:-1] ** 2, votes / size, votes > 0])
        self.cases += 1
        votes_of_voxels = one.argmax(0).cpu().numpy()
        present = np.unique(votes_of_voxels)
        quota = max(_PER_VOLUME // len(present), 1)
        parts = [np.flatnonzero(votes_of_voxels == c) for c in present]
        chosen = np.concatenate([self._rng.choice(part, min(quota, len(part)), replace=False) for part in parts])
        self._keep(one[:, torch.as_tensor(chosen, device=one.device)].double().T.cpu().numpy(), None)

    def _chunks(self, one: Tensor) -> Iterator[Tensor]:
        for start in range(0, one.shape[1], _CHUNK):
            p = one[:, start : start + _CHUNK].double()
            total = p.sum(0)
            if not torch.isfinite(total).all():
                raise InputError(
                    "predictions hold NaN or infinity", hint="the network diverged: look at its training loss"
                )
            if (p < -1e-4).any() or (total - 1).abs().max() > 1e-2:
                raise InputError("predictions are no probabilities over classes", hint="apply softmax or sigmoid first")
            yield p.clamp(0) / total

    def _keep(self, rows: np.ndarray, features: np.ndarray | None) -> None:
        """Keep some rows: each gets a random key, and the smallest keys stay (a uniform reservoir)."""
        keys = np.concatenate([self._keys, self._rng.random(len(rows))])
        sample = rows if self._sample is None else np.concatenate([self._sample, rows])
        keep = np.sort(np.argsort(keys, kind="stable")[: self.rows])
        self._keys, self._sample = keys[keep], sample[keep]
        if features is not None:
            known = features if self._features is None else np.concatenate([self._features, features])
            self._features = known[keep]

    def merge(self, others: list[dict[str, Any]]) -> None:
        """Add the ``state()`` of other processes, in their order."""
        for other in others:
            if not other["cases"]:
                continue
            if self._sums is None:
                self._sums = np.zeros_like(other["sums"])
                self.spatial = other["spatial"]
            self._sums = self._sums + other["sums"]
            self.cases += other["cases"]
            self._entropy += other["entropy"]
            keys = np.concatenate([self._keys, other["keys"]])
            keep = np.sort(np.argsort(keys, kind="stable")[: self.rows])
            for name in ("sample", "features"):
                mine, theirs = getattr(self, f"_{name}"), other[name]
                if theirs is not None:
                    setattr(self, f"_{name}", (theirs if mine is None else np.concatenate([mine, theirs]))[keep])
            self._keys = keys[keep]

    def state(self) -> dict[str, Any]:
        """Everything gathered, for ``merge`` in another process."""
        return {
            "cases": self.cases,
            "spatial": self.spatial,
            "entropy": self._entropy,
            "sums": self._sums,
            "keys": self._keys,
            "sample": self._sample,
            "features": self._features,
        }

    def _mean(self, row: int) -> np.ndarray:
        if self._sums is None:
            raise InputError(
                "no prediction was seen: a validator needs at least one case",
                hint="look at the unlabelled cases of the target",
            )
        return self._sums[row] / self.cases

    @property
    def n_classes(self) -> int:
        return len(self._mean(0))

    @property
    def mean_entropy(self) -> float:
        self._mean(0)
        return self._entropy / self.cases

    @property
    def mean_probabilities(self) -> np.ndarray:
        return self._mean(0)

    @property
    def class_share(self) -> np.ndarray:
        return self._mean(2)

    @property
    def class_cases(self) -> np.ndarray:
        self._mean(3)
        assert self._sums is not None
        return self._sums[3].astype(int)

    @property
    def spread(self) -> float:
        variance = self._mean(1) - self._mean(0) ** 2
        return math.sqrt(max(float(variance.max()), 0.0))

    @property
    def sample(self) -> np.ndarray:
        """The kept rows of probabilities, M x C."""
        self._mean(0)
        assert self._sample is not None
        return self._sample

    @property
    def features(self) -> np.ndarray:
        """The kept rows of features, M x F; without features, the centred log-probabilities (that is, the logits)."""
        if self._features is not None:
            return self._features
        logs = np.log(self.sample.clip(1e-7))
        return logs - logs.mean(1, keepdims=True)


def summarise(
    predictions: PredictionSummary | Tensor | np.ndarray, features: Tensor | np.ndarray | None = None
) -> PredictionSummary:
    """A summary of B x C [x spatial] probabilities; a summary is handed back as it is."""
    if isinstance(predictions, PredictionSummary):
        return predictions
    # every row of what was given at once is used: sampling is for streams
    summary = PredictionSummary(rows=max(2048, len(predictions)))
    summary.update(predictions, features)
    return summary
