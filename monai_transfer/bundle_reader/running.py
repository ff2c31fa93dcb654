"""The one place where a foreign bundle's configs are run, by MONAI's own parser, for those who decided to trust it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_transfer.bundle_reader.reading import config_file
from monai_transfer.bundle_reader.trust import Trust
from monai_transfer.errors import InputError
from monai_transfer.safe_parse import read_mapping

__all__ = ["TrustedConfig", "own_scripts"]


class TrustedConfig:
    """Parts of a trusted bundle's config as MONAI makes them. **Runs the bundle's code.**

    Args:
        trust: the user's decision.
        names: config files to look for, the first that is there: ``inference``, ``train``.

    Raises:
        InputError: there is no such config.
    """

    def __init__(self, trust: Trust, *names: str) -> None:
        from monai.bundle import ConfigParser

        self.folder = trust.folder
        path = config_file(self.folder, *(names or ("inference", "train")))
        if path is None:
            raise InputError("has no config", path=self.folder, hint="name a MONAI bundle")
        self.path = path
        read_mapping(path)  # within the limits
        self.parser = ConfigParser()
        self.parser.read_config(str(path))
        self.parser["bundle_root"] = str(self.folder.resolve())
        if "device" in self.parser.get():
            self.parser["device"] = "$torch.device('cpu')"

    def has(self, key: str) -> bool:
        """Whether the config has an id."""
        return key in self.parser.get()

    def get(self, key: str, overrides: Mapping[str, Any] | None = None) -> Any:
        """The parsed content of an id.

        Args:
            key: the id.
            overrides: arguments of it to set.

        Raises:
            InputError: whatever its code raises, in one line.
        """
        for argument, value in (overrides or {}).items():
            self.parser[f"{key}::{argument}"] = value
        with own_scripts(self.folder):
            try:
                return self.parser.get_parsed_content(key)
            except Exception as error:  # whatever the bundle's code raises
                cause: BaseException = error
                while cause.__cause__ is not None:
                    cause = cause.__cause__
                text = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:160]
                hint = "its code does not run here: look at it, or ask its author"
                raise InputError(f"its {key} cannot be built ({text})", path=self.path, hint=hint) from error


@contextmanager
def own_scripts(folder: str | Path) -> Iterator[None]:
    """Make ``scripts.*`` of a bundle importable, and of this bundle only: modules of another one are put aside."""
    folder = str(Path(folder).resolve())
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "scripts"}
    for name in before:
        del sys.modules[name]
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
            del sys.modules[name]
        sys.modules.update(before)
