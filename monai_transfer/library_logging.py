"""Silencing what libraries say on every normal run, so that the lines which matter are seen."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["heard_from", "silence_libraries"]

# logger, the level from which it is heard
_LOGGERS = {
    "monai.data.nvimgcodec_pydicom_plugin": logging.ERROR,  # an optional decoder that is not installed, per transform
    "monai.bundle.workflows": logging.ERROR,  # "Logging file is set to False"; "Setting logging properties"
}
_MESSAGES = (
    "NvImgCodecPydicomReader",
    r"Orientationd?\.__init__",
    ".*non-tuple sequence for multidimensional",
    "inverse has been called but no invertible transforms",  # once per image, of pictures that nothing resampled
)


class _From(logging.Filter):
    """Lets records through from a level on. A filter, since MONAI sets its loggers' levels anew when it is imported."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self.level


def silence_libraries() -> None:
    """Hide deprecation notes (they are for developers) and the notices that MONAI prints whatever one does."""
    for name, level in _LOGGERS.items():
        logger = logging.getLogger(name)
        if not any(isinstance(known, _From) for known in logger.filters):
            logger.addFilter(_From(level))
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category)
    for message in _MESSAGES:
        warnings.filterwarnings("ignore", message=message)


@contextmanager
def heard_from(levels: Mapping[str, int]) -> Iterator[None]:
    """Within it loggers let records through from these levels on; after it from theirs of before.

    >>> with heard_from({"a_library": logging.CRITICAL}):
    ...     logging.getLogger("a_library").level
    50
    >>> logging.getLogger("a_library").level
    0
    """
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
