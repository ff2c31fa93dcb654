"""Two samples of patients that are compared, also where some patients are in both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from monai_transfer.errors import InputError

__all__ = ["TwoSamples"]


class TwoSamples:
    """The patients of two samples A and B. Statistics take two arrays of indices, into the patients of A and of B.

    Args:
        patients_a, patients_b: the patient of each case.
        seed: of every random choice.

    Raises:
        InputError: fewer than two patients in a sample (four in all, if the samples are the same).

    >>> samples = TwoSamples(["p1", "p1", "p2", "p3"], ["q1", "q2"])
    >>> ages = samples.means_a([np.array([v]) for v in (40.0, 50.0, 60.0, 70.0)])  # two cases of p1 count once
    >>> samples.patients_a, ages.ravel().tolist()
    (3, [45.0, 60.0, 70.0])
    """

    def __init__(self, patients_a: Sequence[str], patients_b: Sequence[str], *, seed: int = 0) -> None:
        self.seed = seed
        self._names_a, self._case_a = np.unique(np.asarray(patients_a, dtype=str), return_inverse=True)
        self._names_b, self._case_b = np.unique(np.asarray(patients_b, dtype=str), return_inverse=True)
        both, self._both_a, self._both_b = np.intersect1d(self._names_a, self._names_b, return_indices=True)
        self._only_a = np.setdiff1d(np.arange(len(self._names_a)), self._both_a)
        self._only_b = np.setdiff1d(np.arange(len(self._names_b)), self._both_b)
        self.patients_a, self.patients_b, self.shared = len(self._names_a), len(self._names_b), len(both)
        given_to_a = self.shared // 2 if len(self._only_a) >= len(self._only_b) else (self.shared + 1) // 2
        sizes = len(self._only_a) + given_to_a, len(self._only_b) + self.shared - given_to_a
        self._given_to_a = given_to_a
        self.smaller_side, self.larger_side = sorted(sizes)
        if self.smaller_side < 2:
            raise InputError(
                f"a gap needs at least two patients on each side, and there are {sizes[0]} and {sizes[1]}",
                hint="add patients" + (" (a set against itself needs four)" if self.shared else ""),
            )

    def splits(self, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """``n`` ways to put every patient on one side only; the same one each time where nobody is shared."""
        rng = np.random.default_rng(self.seed)
        previous = np.arange(self.shared)
        for i in range(n):
            order = rng.permutation(self.shared)
            if i % 2:  # every split is followed by its mirror image, so that signed gaps of a set with itself cancel
                order = previous[::-1]
            previous = order
            to_a, to_b = order[: self._given_to_a], order[self._given_to_a :]
            yield (
                np.concatenate([self._only_a, self._both_a[to_a]]),
                np.concatenate([self._only_b, self._both_b[to_b]]),
            )

    def value(self, statistic: Callable[[np.ndarray, np.ndarray], float]) -> float:
        """The statistic; where patients are shared, its mean over splits."""
        return float(np.mean([statistic(a, b) for a, b in self.splits(100 if self.shared else 1)]))

    def replicates(self, statistic: Callable[[np.ndarray, np.ndarray], float], n: int) -> np.ndarray:
        """``n`` values of the statistic on resampled patients (drawn with replacement on each side)."""
        rng = np.random.default_rng(self.seed + 1)
        return np.array(
            [
                statistic(a[rng.integers(0, len(a), len(a))], b[rng.integers(0, len(b), len(b))])
                for a, b in self.splits(n)
            ]
        )

    def means_a(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """Case values (K each, NaN unknown) averaged over the patients of A: patients x K."""
        return _means(np.stack(values), self._case_a, self.patients_a)

    def means_b(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """The same for B."""
        return _means(np.stack(values), self._case_b, self.patients_b)

    def rows_a(self, patients: np.ndarray) -> np.ndarray:
        """Cases of A that belong to these patients."""
        return np.flatnonzero(np.isin(self._case_a, patients))

    def rows_b(self, patients: np.ndarray) -> np.ndarray:
        """Cases of B that belong to these patients."""
        return np.flatnonzero(np.isin(self._case_b, patients))

    def patient_of_a(self, rows: np.ndarray) -> np.ndarray:
        """Patient of each of these cases of A, as an index."""
        return self._case_a[rows]

    def patient_of_b(self, rows: np.ndarray) -> np.ndarray:
        """Patient of each of these cases of B, as an index."""
        return self._case_b[rows]


def _means(values: np.ndarray, members: np.ndarray, n: int) -> np.ndarray:
    known = np.isfinite(values)
    sums, counts = np.zeros((n, values.shape[1])), np.zeros((n, values.shape[1]))
    np.add.at(sums, members, np.where(known, values, 0))
    np.add.at(counts, members, known)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
