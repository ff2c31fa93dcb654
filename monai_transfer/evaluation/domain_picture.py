"""``DomainPicture``: the handler that leaves a picture of source and target features, before and after, in a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from monai_transfer.engine.processes import process_rank
from monai_transfer.engine.state import bare_network
from monai_transfer.evaluation.domain_features import DomainView, alignment_numbers, draw_alignment, view_domain
from monai_transfer.files import atomic_path, write_json

__all__ = ["DomainPicture"]


class DomainPicture:
    """A handler for a trainer: looks at both sites as the run starts and as it ends.

    Writes ``figures/domains.png`` and ``alignment.json`` (the numbers of ``report.domain_features``, ``before`` and
    ``after``) into the run folder. Attach it after ``Adapt`` and ``Checkpoint``. Nothing is learnt or chosen by it; a
    label is read only to tell a classification's classes apart. It draws no random number that training would draw.
    A resumed run remembers what it saw at its start (``figures/domains_before.npz``, without names, until it ends).
    Under DDP rank 0 looks.

    Args:
        output_dir: the run folder.
        source, target: datasets without random transforms.
        inferer: as the evaluator's; None: the whole image at once.
        layer: as ``Adapt``'s.
        names: class names by index.
        cases: at most so many of each site.
    """

    def __init__(
        self,
        output_dir: str | Path,
        source: Any,
        target: Any,
        *,
        inferer: Callable[..., Any] | None = None,
        layer: str | None = None,
        names: Sequence[str] = (),
        cases: int = 60,
    ) -> None:
        self.folder = Path(output_dir)
        self.datasets = (source, target)
        self.inferer, self.layer, self.names, self.cases = inferer, layer, list(names or ()), cases
        self._before: tuple[DomainView, DomainView] | None = None

    @property
    def _kept(self) -> Path:
        return self.folder / "figures" / "domains_before.npz"

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        if process_rank() or not all(len(dataset) for dataset in self.datasets):
            return
        if engine.state.epoch:  # resumed: the weights of the start are gone
            self._before = _load(self._kept) if self._kept.is_file() else None
            return
        self._before = self._look(engine)
        arrays: dict[str, Any] = {}
        for side, view in zip(("source", "target"), self._before, strict=True):
            groups = np.unique(view.patients, return_inverse=True)[1]
            arrays |= {f"{side}_features": view.features, f"{side}_patients": groups}
            arrays |= {f"{side}_rows": view.rows, f"{side}_classes": view.classes}
        with atomic_path(self._kept) as temporary:
            np.savez(temporary, **arrays)

    def _finish(self, engine: Engine) -> None:
        if process_rank() or not all(len(dataset) for dataset in self.datasets):
            return
        after = self._look(engine)
        views = {"before": self._before, "after": after} if self._before else {"after": after}
        numbers = {name: alignment_numbers(*pair) for name, pair in views.items() if pair}
        panels = {}
        for name, pair in views.items():
            distance = numbers[name]["proxy_a_distance"]
            title = name if distance is None else f"{name}: proxy A-distance {distance:.2f}"
            panels[title] = pair
        draw_alignment(self.folder / "figures" / "domains.png", panels, self.names)  # type: ignore[arg-type]
        counts = {side: len(v.features) for side, v in zip(("source", "target"), after, strict=True)}
        write_json(self.folder / "alignment.json", {"layer": self.layer, "cases": counts, **numbers})
        self._kept.unlink(missing_ok=True)

    def _look(self, engine: Engine) -> tuple[DomainView, DomainView]:
        network, device = bare_network(engine), torch.device(engine.state.device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            source, target = (
                view_domain(network, dataset, inferer=self.inferer, layer=self.layer, cases=self.cases, device=device)
                for dataset in self.datasets
            )
        return source, target


def _load(path: Path) -> tuple[DomainView, DomainView]:
    with np.load(path, allow_pickle=False) as kept:
        source, target = (
            DomainView(
                kept[f"{side}_features"],
                [str(p) for p in kept[f"{side}_patients"]],
                kept[f"{side}_rows"],
                kept[f"{side}_classes"],
            )
            for side in ("source", "target")
        )
    return source, target
