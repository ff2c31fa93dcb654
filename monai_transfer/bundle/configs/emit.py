"""From a dictionary to a commented YAML file that MONAI reads back as the same dictionary.

PyYAML writes no comments, and ruamel.yaml knows nothing of what MONAI does to text; what is needed beside PyYAML's own
scalars is indentation. The file is ASCII (other characters are escaped), since MONAI opens it in the locale's encoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from monai_transfer.config_text import to_config

__all__ = ["Commented", "comments", "note", "to_yaml", "uncommented"]

WIDTH = 120


@dataclass(frozen=True)
class Commented:
    """A value with what is said about it.

    Attributes:
        value: the value.
        comment: one line or several.
        heading: opens a section of the file above it.
    """

    value: Any
    comment: str = ""
    heading: str = ""


def note(value: Any, comment: str, *, heading: str = "") -> Commented:
    """``value`` with a comment, and a section's heading where one begins.

    >>> print(to_yaml({"lr": note(0.001, "learning rate"), "keys": ["image"]}, []), end="")
    lr: 0.001  # learning rate
    keys: [image]
    """
    return Commented(value, comment, heading)


def uncommented(config: Any) -> Any:
    """``config`` as a YAML reader gives it back: no comments, data in the form in which MONAI leaves them alone."""
    return to_config(_bare(config))


def _bare(config: Any) -> Any:
    if isinstance(config, Commented):
        return _bare(config.value)
    if isinstance(config, Mapping):
        return {str(key): _bare(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_bare(value) for value in config]
    return config


def comments(config: Mapping[str, Any]) -> dict[str, str]:
    """The comment of each root key that has one."""
    return {key: value.comment for key, value in config.items() if isinstance(value, Commented) and value.comment}


def to_yaml(config: Mapping[str, Any], header: Sequence[str]) -> str:
    """The file: ``header`` as comment lines, then every key with its comment.

    Raises:
        TypeError: a value is neither text, number, truth value, ``None`` nor a container of them.
    """
    lines = [line for text in header for line in _comment_lines(text, "")]
    lines += _mapping(config, "")
    return "\n".join(lines) + "\n"


def _comment_lines(text: str, indent: str) -> list[str]:
    """Comment lines; no text can leave them."""
    ascii_only = text.encode("ascii", "backslashreplace").decode()
    return [
        f"{indent}# {''.join(c if c.isprintable() else ' ' for c in line)}".rstrip() for line in ascii_only.splitlines()
    ]


def _mapping(config: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in config.items():
        said = value if isinstance(value, Commented) else Commented(value)
        if said.heading:
            yield ""
            yield from _comment_lines(f"---- {said.heading}", indent)
        yield from _entry(f"{_scalar(str(key), flow=True)}:", said, indent, nested=indent + "  ")


def _entry(start: str, said: Commented, indent: str, nested: str) -> Iterator[str]:
    """``start`` (``key:`` or ``-``) with its value, on its line where that fits, else below."""
    value = said.value
    room = WIDTH - len(indent) - len(start) - 1
    flow = _inline(value, room)
    comment = said.comment
    if comment and flow is not None and "\n" not in comment and len(flow) + len(comment) + 4 <= room:
        (line,) = _comment_lines(comment, "")
        yield f"{indent}{start} {flow}  {line}"
        return
    if comment and (flow is not None or "\n" in comment or len(comment) + 4 > room):
        yield from _comment_lines(comment, indent)
        comment = ""
    if flow is not None:
        yield f"{indent}{start} {flow}"
        return
    tail = f"  {_comment_lines(comment, '')[0]}" if comment else ""
    if isinstance(value, Mapping):
        lines = list(_mapping(value, nested))
    else:
        nested = indent if start != "-" else nested  # a list's dashes stand below its key's first letter
        lines = [line for item in value for line in _item(item, nested)]
    if start == "-":  # the first line follows the dash
        yield f"{indent}- {lines[0].lstrip()}{tail}"
        yield from lines[1:]
    else:
        yield f"{indent}{start}{tail}"
        yield from lines


def _item(item: Any, indent: str) -> Iterator[str]:
    said = item if isinstance(item, Commented) else Commented(item)
    if said.comment and not _inline(said.value, WIDTH - len(indent) - 2):  # the dash's line begins the value
        yield from _comment_lines(said.comment, indent)
        said = Commented(said.value)
    yield from _entry("-", said, indent, nested=indent + "  ")


def _inline(value: Any, room: int) -> str | None:
    """The value on one line, or ``None`` where it needs several, or is read better so."""
    if not isinstance(value, (Mapping, list, tuple)):
        return _scalar(to_config(value), flow=False)
    if value and not _small(value):
        return None
    text = _flow(value)
    return text if len(text) <= room else None


def _small(value: Any) -> bool:
    items = list(value.values()) if isinstance(value, Mapping) else list(value)
    if isinstance(value, (list, tuple)):  # steps are read one below the other
        return not any(isinstance(i, (Mapping, Commented)) or str(i)[:1] == "$" for i in items)
    simple = [i for i in items if not isinstance(i, (Mapping, Commented))]
    return len(simple) == len(items) and all(_small(i) for i in items if isinstance(i, (list, tuple)))


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_scalar(str(k), flow=True)}: {_flow(v)}" for k, v in value.items())
        return f"{{{inner}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_flow, value))}]"
    return _scalar(to_config(value), flow=True)


def _scalar(value: Any, *, flow: bool) -> str:
    """A scalar that PyYAML reads back as it is, in ASCII, without quotes where they are not needed."""
    if isinstance(value, str):
        return _text(value, flow)
    if value is None or isinstance(value, (bool, int, float)):
        return str(yaml.representer.SafeRepresenter().represent_data(value).value)
    raise TypeError(f"no value for a config: {type(value).__name__}")


@lru_cache(maxsize=4096)
def _text(text: str, flow: bool) -> str:
    if text.isascii() and text.isprintable():
        for candidate in (text, "'" + text.replace("'", "''") + "'"):
            try:
                if yaml.safe_load(f"[{candidate}]" if flow else f"k: {candidate}") == ([text] if flow else {"k": text}):
                    return candidate
            except yaml.YAMLError:
                pass
    dumped = yaml.safe_dump(text, default_style='"', width=float("inf"), allow_unicode=False)
    return str(dumped).strip()
