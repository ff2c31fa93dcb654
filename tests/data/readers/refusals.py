"""A file that a reader has to refuse, and what the refusal says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError


def refused(path: Path, pattern: str, *, reader: Any = SafeReader, **options: Any) -> str:
    """The path is refused in one line that begins with it (or a path inside it) and matches ``pattern``."""
    with pytest.raises(InputError) as caught:
        reader(**options).read_volume(path)
    message = str(caught.value)
    assert re.search(pattern, message), message
    assert "\n" not in message and message.startswith(str(path)), message
    return message
