"""Tables of key rules: how published weights name their tensors, and what MONAI's matching network calls them.

A dialect is a sign by which it is known and a list of regular-expression rules; no rule changes a value except by the
named reshaping. ``names-only`` means tested against published key names and shapes; ``verified`` means that outputs
were compared with the original code on the real weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

__all__ = ["DIALECTS", "Dialect"]


@dataclass(frozen=True)
class Dialect:
    """One way of naming tensors.

    Attributes:
        name: shown in the report.
        sign: a regular expression; the dialect is tried where some key matches it entirely. Empty: always tried.
        rules: ``(pattern, replacement)`` pairs, all applied in order with ``re.sub``; a replacement of ``None`` drops
            the key (it then counts as unused).
        reshape: ``(new name, tensor) -> tensor`` for the few dialects whose layout differs.
        status: what the rules were tested against.
        licence: of the published weights; ``None`` where there are many.
        reference: where names and weights were published.
    """

    name: str
    sign: str = ""
    rules: tuple[tuple[str, str | None], ...] = ()
    reshape: Callable[[str, Tensor], Tensor] | None = None
    status: Literal["names-only", "verified"] = "names-only"
    licence: str | None = None
    reference: str = ""

    def recognises(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether these keys look like this dialect."""
        return not self.sign or any(re.fullmatch(self.sign, name) for name in tensors)

    def apply(self, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
        """New name -> (old name, tensor). Where two keys meet, the first one stays."""
        renamed: dict[str, tuple[str, Tensor]] = {}
        for old, tensor in tensors.items():
            new = self._rename(old)
            if new is not None and new not in renamed:
                renamed[new] = (old, self.reshape(new, tensor) if self.reshape else tensor)
        return renamed

    def _rename(self, name: str) -> str | None:
        for pattern, replacement in self.rules:
            if replacement is not None:
                name = re.sub(pattern, replacement, name)
            elif re.search(pattern, name):
                return None
        return name


DIALECTS: tuple[Dialect, ...] = (Dialect("plain", status="verified"),)
