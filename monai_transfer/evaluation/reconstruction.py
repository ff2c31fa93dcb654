"""A picture of what masked autoencoding fills in: the scan, the scan with its blocks hidden, the scan filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from PIL import Image, ImageDraw, ImageFont

from monai_transfer.engine.processes import process_rank
from monai_transfer.files import atomic_path

__all__ = ["ReconstructionFigure"]

_PIXELS, _STRIP, _GAP = 260, 22, 6
_TITLES = ("scan", "hidden", "filled in")


class ReconstructionFigure:
    """Write ``figures/reconstruction.png`` of the first case after each validation: the middle slice, first channel.

    Args:
        output_dir: the run folder.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.path = Path(output_dir) / "figures" / "reconstruction.png"
        self._case: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator of a masked autoencoder; its batches are those of ``RandMaskBlocksd``."""
        engine.add_event_handler(Events.STARTED, self._forget)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep)
        engine.add_event_handler(Events.COMPLETED, self._draw)

    def _forget(self, engine: Any) -> None:
        self._case = None

    def _keep(self, engine: Any) -> None:
        if self._case is not None:
            return
        output = engine.state.output
        first = output[0] if isinstance(output, list) else {key: value[0] for key, value in output.items()}
        truth, mask = _slice(first["label"][0]), _slice(first["label"][-1])
        self._case = truth, mask, _slice(first["pred"][0])

    def _draw(self, engine: Any) -> None:
        if self._case is None or process_rank() != 0:
            return
        truth, mask, filled = self._case
        low, high = np.percentile(truth, [1, 99])
        panels = (truth, np.where(mask > 0, low, truth), np.where(mask > 0, filled, truth))
        scale = _PIXELS / max(truth.shape)
        size = tuple(max(1, round(n * scale)) for n in truth.shape[::-1])
        canvas = Image.new("RGB", (3 * size[0] + 2 * _GAP, size[1] + _STRIP), (12, 12, 14))
        pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
        for i, (panel, title) in enumerate(zip(panels, _TITLES, strict=True)):
            grey = (255 * np.clip((panel - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8)
            canvas.paste(Image.fromarray(grey).resize(size, Image.Resampling.NEAREST), (i * (size[0] + _GAP), 0))
            pen.text((i * (size[0] + _GAP) + 4, size[1] + 3), title, fill=(235, 235, 235), font=font)
        with atomic_path(self.path) as temporary:
            canvas.save(temporary, format="PNG", optimize=False)


def _slice(volume: Any) -> np.ndarray:
    """Rows down, columns right: a picture as it is, of a volume in RAS the middle axial slice as radiologists see it
    (anterior up, the patient's right on the left)."""
    array = volume.detach().float().cpu().numpy()
    return array.T if array.ndim == 2 else array[::-1, ::-1, array.shape[2] // 2].T
