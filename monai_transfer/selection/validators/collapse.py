"""The collapse alarm: predictions that have become constant, or a class that is no longer predicted.

Adaptation without labels fails most often this way, and most validators are blind to it or even reward it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from monai_transfer.selection.validators.summary import PredictionSummary, summarise

__all__ = ["Collapse", "collapse"]

_CONSTANT = 1e-3  # spread of mean probabilities over cases below which all cases look the same


@dataclass(frozen=True)
class Collapse:
    """What went wrong, if anything; true when there is an alarm.

    Attributes:
        constant: every case gets the same prediction.
        vanished: indices of classes that are never predicted.
        messages: one plain sentence per alarm.

    >>> alarm = Collapse(constant=False, vanished=(1,), messages=("class 1 is never predicted",))
    >>> bool(alarm), bool(Collapse(False, (), ()))
    (True, False)
    """

    constant: bool
    vanished: tuple[int, ...]
    messages: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.messages)


def collapse(
    predictions: PredictionSummary | Tensor | np.ndarray,
    *,
    expected: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
) -> Collapse:
    """Look for a collapse in B x C [x spatial] probabilities of at least two cases.

    Args:
        expected: share of each class, C, e.g. among the source's labels; a class vanishes when it falls below a tenth
            of it. Without it, a class vanishes when no case (no voxel) is given to it; for image-level predictions only
            when there are at least five cases per class, since fewer may well lack one.
        class_names: C names for the messages.

    Raises:
        InputError: no probabilities, or none at all.

    >>> import numpy as np
    >>> from monai_transfer.selection.validators.collapse import collapse
    >>> alarm = collapse(np.tile([0.99, 0.01], (10, 1)), class_names=["healthy", "pneumonia"])
    >>> bool(alarm)
    True
    """
    summary = summarise(predictions)
    share, n = summary.class_share, summary.cases
    names = list(class_names) if class_names is not None else [f"class {c}" for c in range(summary.n_classes)]
    messages = []
    winner = int(share.argmax())
    alone = bool(n >= 2 and share[winner] > 1 - 1e-12)
    # one class alone, or the same probabilities for every case (undecided between classes, say)
    constant = alone or (n >= 2 and summary.spread < _CONSTANT)
    if alone:
        what = "voxel of every volume" if summary.spatial else "case"
        messages.append(f"predictions have collapsed: every {what} ({n} cases) is called {names[winner]}")
    elif constant:
        messages.append(f"predictions have collapsed: all {n} cases get the same probabilities")
    if expected is not None:
        wanted = np.asarray(expected, dtype=float)
        vanished = [c for c in range(len(share)) if wanted[c] > 0 and share[c] < 0.1 * wanted[c]]
    elif summary.spatial or n >= 5 * summary.n_classes:
        vanished = [c for c in range(len(share)) if share[c] == 0]
    else:
        vanished = []
    if vanished and not alone:
        listed = ", ".join(names[c] for c in vanished)
        rarely = "hardly ever" if share[vanished].any() else "never"
        messages.append(f"{listed} {'is' if len(vanished) == 1 else 'are'} {rarely} predicted in {n} cases")
    return Collapse(constant, tuple(vanished), tuple(messages))
