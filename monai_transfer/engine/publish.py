"""Putting a run's best weights into the bundle, for programs that read nothing but ``models/model.pt``.

Training never overwrites a bundle's weights, with this one exception: a config's ``publish: true``, off by default.
MONAI Label needs it: it trains with ``configs/train.yaml`` and then predicts with ``models/model.pt``.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from monai_transfer.engine.processes import process_rank
from monai_transfer.errors import InputError
from monai_transfer.files import atomic_path, sha256_file, write_text
from monai_transfer.weights.hashes import renew_hashes

__all__ = ["PublishWeights"]

logger = logging.getLogger(__name__)


class PublishWeights:
    """Copy a finished run's best weights to the bundle's ``models/model.pt``; stands in a config's ``run``.

    The old file is kept beside the new one as ``model-<first 8 digits of its SHA-256>.pt``.

    Args:
        output_dir: the run folder, which holds ``models/model.pt``.
        bundle_root: the bundle's folder.
        enabled: the config's ``publish``.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> root = Path(tempfile.mkdtemp())
        >>> for folder, text in (("bundle", "old"), ("run", "new")):
        ...     (root / folder / "models").mkdir(parents=True)
        ...     _ = (root / folder / "models" / "model.pt").write_text(text)
        >>> PublishWeights(root / "run", root / "bundle", enabled=True).run()
        >>> (root / "bundle/models/model.pt").read_text(), len(list((root / "bundle/models").glob("model-*.pt")))
        ('new', 1)
    """

    def __init__(self, output_dir: str | Path, bundle_root: str | Path, enabled: bool = False) -> None:
        self.output_dir, self.bundle_root, self.enabled = Path(output_dir), Path(bundle_root), enabled

    def run(self) -> None:
        """Do it, on the first rank alone; nothing where it is not enabled.

        Raises:
            InputError: the run left no weights.
        """
        if not self.enabled or process_rank() != 0:
            return
        new, place = self.output_dir / "models" / "model.pt", self.bundle_root / "models" / "model.pt"
        if not new.is_file():
            raise InputError("left no weights to publish", path=self.output_dir, hint="look at the run's log")
        digest = sha256_file(new)
        if place.is_file() and (old := sha256_file(place)) != digest:
            kept = place.with_name(f"model-{old[:8]}.pt")
            with atomic_path(kept) as temporary:
                shutil.copyfile(place, temporary)
            logger.info("the bundle's weights until now are kept as %s", kept)
        folds = place.with_name("folds.pt")  # of the source: they would be predicted with instead
        if folds.is_file():
            folds.replace(folds.with_name(f"folds-{sha256_file(folds)[:8]}.pt"))
        with atomic_path(place) as temporary:
            shutil.copyfile(new, temporary)
        write_text(place.with_name("model.pt.sha256"), f"{digest}  model.pt\n")
        renew_hashes(self.bundle_root, "models/model.pt", "models/model.pt.sha256")
        logger.info("published %s as %s", new, place)
