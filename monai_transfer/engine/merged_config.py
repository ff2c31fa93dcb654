"""The config of the workflow that is being instantiated, as given: all files merged, every override in it.

``config.yaml`` of a run folder must repeat the run, also one that plain ``python -m monai.bundle run ... --key value``
or a ``ConfigWorkflow`` in Python made. MONAI 1.6.1 offers a component no way to it (tried, see ARCHITECTURE.md):

- a component's arguments are resolved first: references carry values, not what stood in the config, and an override of
  whatever no argument refers to is lost;
- a macro (``"%"``) does copy the merged config, but MONAI then instantiates the copy, network and all; hidden from that
  in a tuple by a YAML alias it is copied into itself at each ``initialize()`` (2.6 kB, then 12 MB), keeps the values of
  the first, and cannot be written as JSON;
- expressions see resolved values (``__local_refs``) and imported modules, nothing else;
- ``sys.argv`` knows nothing of overrides that are given in Python, and ``tracking`` writes the config only where the
  caller asks for it.

So the one place that knows is asked: the parser that is at work, found as the caller of its ``get_parsed_content``.
"""

from __future__ import annotations

import inspect
from typing import Any

from monai.bundle import ConfigParser

__all__ = ["merged_config"]

_AT_WORK = ConfigParser.get_parsed_content.__code__


def merged_config() -> dict[str, Any] | None:
    """The merged config of the parser that instantiates the component which calls this; None outside of one.

    Returns:
        Keys and values as files and overrides gave them, before references and expressions; the dictionary is the
        caller's own, what is nested in it is the parser's.

    A component is handed resolved arguments; this gives it what they were made of:

    >>> from monai.bundle import ConfigParser
    >>> parser = ConfigParser({"lr": 0.1, "config": "$monai_transfer.engine.merged_config.merged_config()"})
    >>> parser.globals["monai_transfer"] = __import__("monai_transfer.engine.merged_config")
    >>> parser["lr"] = 0.5  # as `--lr 0.5` does
    >>> parser.get_parsed_content("config")["lr"]
    0.5
    >>> print(merged_config())  # nobody is instantiating
    None
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is _AT_WORK:
            return dict(frame.f_locals["self"].config)
        frame = frame.f_back
    return None
