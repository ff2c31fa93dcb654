"""What a source bundle says about itself: its preprocessing, its window, and the data it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_transfer.bundle_reader.reading import config_file, read_bundle
from monai_transfer.bundle_reader.references import Resolver
from monai_transfer.bundle_reader.running import TrustedConfig
from monai_transfer.bundle_reader.trust import decide, untrusted
from monai_transfer.errors import InputError
from monai_transfer.safe_parse import read_mapping

__all__ = ["SourceBundle"]


class SourceBundle:
    """Reads the configs of a MONAI bundle; none of its code runs but for those who trust it.

    Args:
        folder: the bundle.
        trust_source: run its own code where a part cannot be read without.
    """

    def __init__(self, folder: Path, trust_source: bool = False) -> None:
        self.folder = folder
        self.described = read_bundle(folder)
        self.trust = decide(folder, trust_source)
        self.trust_source = trust_source

    @property
    def note(self) -> str | None:
        """That its own code was run, with the hash of what was trusted; ``None``: none of it was."""
        if self.trust is None or not (self.trust_source or self.described.unread_of("network", "preprocessing")):
            return None
        return f"the own code of {self.folder.resolve().name} was run, as decided (SHA-256 {self.trust.sha256})"

    def preprocessing(self) -> Callable[[dict[str, Any]], Any]:
        """The ``preprocessing`` of ``configs/inference.*``, which takes ``{"image": path}``.

        Raises:
            InputError: there is none, or it needs the bundle's own code, or it cannot be built.
        """
        unread = self.described.unread_of("preprocessing")
        if (unread or self.trust_source) and self.trust is not None:
            config = TrustedConfig(self.trust, "inference")
            if config.has("preprocessing"):
                return config.get("preprocessing")
        if unread:
            raise untrusted(self.folder, unread, "preprocessing")
        if not self.described.preprocessing:
            hint = "give preprocessing=... from Python"
            raise InputError("the bundle has no configs/inference.* with a preprocessing", path=self.folder, hint=hint)
        key, made = self.described.image_key, self.described.build_preprocessing()
        if key == "image":
            return made

        def renamed(item: dict[str, Any]) -> dict[str, Any]:
            return {"image": made({key: item["image"]})[key]}

        return renamed

    def window(self) -> tuple[int, ...] | None:
        """``roi_size`` of its sliding window, or ``None`` where it looks at whole images."""
        size = self.described.roi_size
        return tuple(size) if size is not None else None

    def training_data(self) -> tuple[Path, str | None] | None:
        """Manifest and site that the bundle's weights come from (ids ``manifest`` and ``source_site`` of its training
        config), or ``None`` where it names none that is here."""
        path = config_file(self.folder, "train")
        if path is None:
            return None
        resolver = Resolver({**read_mapping(path), "bundle_root": str(self.folder)})
        manifest, site = resolver.get("manifest"), resolver.get("source_site")
        if not isinstance(manifest, str) or not Path(manifest).is_file():
            return None
        return Path(manifest), site if isinstance(site, str) and site else None
