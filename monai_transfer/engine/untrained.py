"""The source's network as it is, or with its norm layers' statistics re-estimated: an arm that trains nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from monai_transfer.engine.checkpoint import export_state, save_checkpoint
from monai_transfer.engine.prepare import Prepared
from monai_transfer.testtime.adabn import Adabn

__all__ = ["Untrained"]


class Untrained(Prepared):
    """Takes the place of ``Prepared`` in a config whose run trains nothing.

    Args:
        images: batches of unlabelled target images (dictionaries with ``image``), to re-estimate running statistics on
            (``testtime.adabn``); ``None`` leaves them as they are.
        words: of ``Prepared``.

    Raises:
        InputError: see ``Prepared``; or the network has no running statistics.

    >>> import tempfile, torch
    >>> network = torch.nn.Linear(2, 1)
    >>> folder = tempfile.mkdtemp()
    >>> Untrained(network=network).save(folder)
    >>> sorted(path.name for path in (Path(folder) / "models").iterdir())
    ['model.pt', 'model.pt.sha256']
    """

    def __init__(self, images: Iterable[Any] | None = None, **words: Any) -> None:
        super().__init__(**words)
        if images is not None:
            Adabn().fit(self.network, images)

    def save(self, output_dir: str | Path) -> None:
        """Write the network as the run's ``models/model.pt``."""
        models = Path(output_dir) / "models"
        models.mkdir(parents=True, exist_ok=True)
        save_checkpoint(export_state(self.network), models / "model.pt")
