"""What a source bundle says about itself: its preprocessing, its window, and the data it was trained on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_transfer.errors import InputError

__all__ = ["SourceBundle"]

_KINDS = ("json", "yaml", "yml")


class SourceBundle:
    """Reads the configs of a MONAI bundle. Everything here **runs the bundle's code**.

    Args:
        folder: the bundle.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def preprocessing(self) -> Callable[[dict[str, Any]], Any]:
        """The ``preprocessing`` of ``configs/inference.*``, which takes ``{"image": path}``.

        Raises:
            InputError: there is none, or it cannot be built.
        """
        parser, path = self._parser("inference")
        if parser is None or "preprocessing" not in parser.get():
            hint = "give preprocessing=... from Python"
            raise InputError("the bundle has no configs/inference.* with a preprocessing", path=self.folder, hint=hint)
        return self._content(parser, "preprocessing", path)

    def window(self) -> tuple[int, ...] | None:
        """``roi_size`` of its sliding window, or ``None`` where it looks at whole images."""
        parser, path = self._parser("inference")
        if parser is None or "inferer" not in parser.get():
            return None
        size = getattr(self._content(parser, "inferer", path), "roi_size", None)
        return tuple(int(n) for n in size) if size is not None and not isinstance(size, int) else None

    def training_data(self) -> tuple[Path, str | None] | None:
        """Manifest and site that the bundle's weights come from (ids ``manifest`` and ``source_site`` of its training
        config), or ``None`` where it names none that is here."""
        parser, path = self._parser("train")
        if parser is None or "manifest" not in parser.get():
            return None
        try:
            manifest = Path(str(self._content(parser, "manifest", path)))
            site = self._content(parser, "source_site", path) if "source_site" in parser.get() else None
        except InputError:
            return None
        return (manifest, str(site) if site else None) if manifest.is_file() else None

    def _parser(self, name: str) -> tuple[ConfigParser | None, Path]:
        for kind in _KINDS:
            path = self.folder / "configs" / f"{name}.{kind}"
            if path.is_file():
                parser = ConfigParser()
                try:
                    parser.read_config(str(path))
                except Exception as error:  # yaml, json and MONAI raise many kinds
                    raise InputError(f"cannot be read as a config ({error})", path=path) from error
                parser["bundle_root"] = str(self.folder)
                return parser, path
        return None, self.folder

    def _content(self, parser: ConfigParser, key: str, path: Path) -> Any:
        with _importable(self.folder):
            try:
                return parser.get_parsed_content(key)
            except Exception as error:  # whatever the bundle's code raises
                raise InputError(f"its {key} cannot be built ({error})", path=path) from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Bundles may name their own ``scripts.*`` modules."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
