"""``@`` and ``%`` references and arithmetic of a MONAI config, resolved to plain values and components; nothing is run.

Follows ``monai.bundle.ConfigParser``: ``@a::b`` (or ``@a#b``) is the resolved value, ``%a::b`` a copy of the config,
``@##a`` is relative, ``$`` begins an expression. A ``_target_`` becomes a ``Component`` of the closed table. What
cannot be resolved becomes an ``Unread`` in its place, so that one unreadable handler spoils no preprocessing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from monai_transfer.bundle_reader.arithmetic import Unreadable, arithmetic
from monai_transfer.bundle_reader.component import Component, Unread
from monai_transfer.bundle_reader.limits import MAX_EXPRESSION, MAX_RESOLVED
from monai_transfer.bundle_reader.table import DROPPED, lookup
from monai_transfer.errors import InputError, printable
from monai_transfer.safe_parse import MAX_DEPTH

__all__ = ["Resolver"]

_SEPARATOR = "::"
_REFERENCE = re.compile(r"@(?:\w*)(?:::\w*)*")
_RELATIVE = re.compile(r"([@%])((?:::)+)")
# `scripts/boxes.py` of bundles for localization is made of these; the script itself is never run
_OURS = {
    f"$@functions['{name}']": f"monai_transfer.localization.prediction.{name}" for name in ("FindBoxes", "WriteBoxes")
}
_MISSING = object()
# what a config says about a component besides its arguments
_ABOUT = {"_target_", "_desc_", "_disabled_", "_mode_", "_requires_"}


class Resolver:
    """Resolves parts of one config.

    Args:
        config: the content of a bundle's config file or of several merged ones, as data.

    >>> resolver = Resolver({"size": 96, "roi": "$[@size, @size // 2]", "call": "$open('x')"})
    >>> resolver.get("roi"), resolver.get("call").reason
    ([96, 48], 'calls open')
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self._done: dict[str, tuple[Any, int]] = {}
        self._open: set[str] = set()
        self._total = 0

    def has(self, where: str) -> bool:
        """Whether the config has something at ``where``."""
        return self._raw(where) is not _MISSING

    def get(self, where: str, default: Any = None) -> Any:
        """The resolved value at ``where`` (``a::b::0``), or ``default`` where there is nothing.

        Raises:
            InputError: the config multiplies itself beyond ``MAX_RESOLVED`` values.
        """
        where = where.replace("#", _SEPARATOR)
        return self._at(where)[0] if self.has(where) else default

    def get_all(self) -> dict[str, Any]:
        """Every entry of the config, resolved.

        Raises:
            InputError: see ``get``.
        """
        return {str(key): self.get(str(key)) for key in self.config}

    def _raw(self, where: str) -> Any:
        node: Any = self.config
        for part in where.replace("#", _SEPARATOR).split(_SEPARATOR):
            if isinstance(node, Mapping) and part in node:
                node = node[part]
            elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
                node = node[int(part)]
            else:
                return _MISSING
        return node

    def _at(self, where: str) -> tuple[Any, int]:
        if where in self._done:
            return self._done[where]
        if where in self._open:
            return Unread(where, "", "refers to itself"), 1
        if len(self._open) > MAX_DEPTH:
            return Unread(where, "", f"is a chain of more than {MAX_DEPTH} references"), 1
        self._open.add(where)
        try:
            made = self._value(self._raw(where), where)
        finally:
            self._open.discard(where)
        self._done[where] = made
        return made

    def _value(self, raw: Any, where: str) -> tuple[Any, int]:
        if isinstance(raw, Mapping):
            return self._counted(self._mapping(raw, where))
        if isinstance(raw, list):
            items = [self._at(_below(where, str(n))) for n in range(len(raw))]
            kept = [value for value, _ in items if value is not _MISSING]
            return self._counted((kept, 1 + sum(size for _, size in items)))
        if isinstance(raw, str):
            return self._text(raw, where)
        return raw, 1

    def _counted(self, made: tuple[Any, int]) -> tuple[Any, int]:
        self._total += 1
        if max(made[1], self._total) > MAX_RESOLVED:
            raise InputError(
                f"the config has more than {MAX_RESOLVED:,} values, references written out",
                hint="open only the files of authors that you trust",
            )
        return made

    def _mapping(self, raw: Mapping[str, Any], where: str) -> tuple[Any, int]:
        about = {str(key) for key in raw if str(key) in _ABOUT}
        items = {str(key): self._at(_below(where, str(key))) for key in raw if str(key) not in _ABOUT}
        size = 1 + sum(size for _, size in items.values())
        values = {key: value for key, (value, _) in items.items() if value is not _MISSING}
        if "_target_" not in about:
            return values, size
        disabled = self._at(_below(where, "_disabled_"))[0] if "_disabled_" in about else False
        if isinstance(disabled, str):
            disabled = disabled.strip().lower() == "true"
        if isinstance(disabled, Unread):
            return Unread(where, str(raw["_target_"])[:80], f"may be disabled: {disabled.reason}"), 1
        if disabled:
            return _MISSING, 1
        if raw.get("_mode_", "default") != "default":
            return Unread(where, str(raw["_target_"])[:80], "is a function that is not called (_mode_)"), 1
        if raw["_target_"] == "torch.device":
            return "cpu", 1  # which device it is the user says
        ours = _OURS.get(str(raw["_target_"]))
        if ours is not None:  # a function that our own bundles carry as a script: the installed one is meant
            return Component(ours.rpartition(".")[2], "part", values, where, ours), size
        entry = lookup(raw["_target_"])
        if entry is None:
            return Unread(where, _short(raw["_target_"]), _foreign(raw["_target_"])), 1
        arguments = {key: value for key, value in values.items() if key not in DROPPED or entry.kind == "transform"}
        return Component(entry.name, entry.kind, arguments, where, entry.path), size

    def _text(self, raw: str, where: str) -> tuple[Any, int]:
        text = self._absolute(raw.replace("#", _SEPARATOR) if raw[:1] in ("@", "%", "$") else raw, where)
        if text is None:
            return Unread(where, _short(raw), "refers above the top of the config"), 1
        if text.startswith("%"):
            return self._macro(text, where)
        if text.startswith("$"):
            return self._expression(text[1:], where)
        if text.startswith("@") and _REFERENCE.fullmatch(text):
            return self._reference(text[1:], where)
        return raw, 1

    def _absolute(self, text: str, where: str) -> str | None:
        if not text.startswith(("@", "%", "$")):
            return text
        parts, above = where.split(_SEPARATOR), False

        def replace(match: re.Match[str]) -> str:
            nonlocal above
            levels = len(match[2]) // len(_SEPARATOR)
            above = above or levels > len(parts)
            kept = parts[: max(0, len(parts) - levels)]
            return match[1] + "".join(part + _SEPARATOR for part in kept)

        replaced = _RELATIVE.sub(replace, text)
        return None if above else replaced

    def _reference(self, target: str, where: str) -> tuple[Any, int]:
        if not self.has(target):
            return Unread(where, f"@{target}", "refers to something that is not there"), 1
        value, size = self._at(target)
        if isinstance(value, Unread):
            value = Unread(where, value.text, value.reason) if value.where != where else value
        return value, size

    def _macro(self, text: str, where: str) -> tuple[Any, int]:
        """``%id`` is a copy of the config at ``id``: read in its own place, it gives the same here."""
        if re.search(r"\.(json|ya?ml)(::|$)", text, re.IGNORECASE):
            return Unread(where, _short(text), "is a part of another file"), 1
        target = text[1:]
        raw = self._raw(target)
        if raw is _MISSING or (isinstance(raw, str) and raw.startswith("%")):
            return Unread(where, _short(text), "copies something that is not there"), 1
        value, size = self._at(target)
        if isinstance(value, Component):  # a copy is an object of its own
            value = Component(value.name, value.kind, value.arguments, where, value.path)
        return value, size

    def _expression(self, text: str, where: str) -> tuple[Any, int]:
        if re.match(r"\s*(import|from)\s", text):
            return Unread(where, _short(text), "imports a module"), 1
        names: dict[str, Any] = {}
        size = 1

        def replace(match: re.Match[str]) -> str:
            nonlocal size
            name = f"_reference_{len(names)}"
            value, count = self._reference(match[0][1:], where)
            if isinstance(value, Unread) and match[0].endswith("device"):
                value = "cpu"  # which device it is the user says
            size += count
            names[name] = value
            return name

        substituted = _REFERENCE.sub(replace, text)
        unread = next((value for value in names.values() if isinstance(value, Unread)), None)
        if unread is not None:
            return Unread(where, _short(text), unread.reason), 1
        if re.search(r"""(['"])[^'"]*_reference_\d""", substituted):
            return Unread(where, _short(text), "refers to something inside a text"), 1
        if re.match(r"\s*lambda\b", substituted):
            return self._function(substituted, names, where, text), size
        called = self._call(substituted, names, where)
        if called is not None:
            return called, size
        try:
            return arithmetic(substituted, names), size
        except Unreadable as error:
            return Unread(where, _short(text), _own_words(str(error), text)), 1

    def _function(self, text: str, names: dict[str, Any], where: str, original: str) -> Any:
        """``$lambda x: ...`` as a function of one tensor, with the values that it refers to put in."""
        from monai_transfer.bundle_reader.functions import TensorFunction

        for name, value in names.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                return Unread(where, _short(original), "is a function of more than numbers")
            text = re.sub(rf"\b{name}\b", repr(value), text)
        try:
            TensorFunction(text)
        except Unreadable as error:
            return Unread(where, _short(original), f"is a function that {error}")
        path = "monai_transfer.bundle_reader.functions.TensorFunction"
        return Component("TensorFunction", "part", {"text": text}, where, path)

    def _call(self, text: str, names: dict[str, Any], where: str) -> Component | None:
        """``monai.networks.nets.resnet10(spatial_dims=3)`` is the same as a ``_target_`` with arguments."""
        try:
            node = ast.parse(text.strip()[:MAX_EXPRESSION], mode="eval").body
            entry = lookup(ast.unparse(node.func)) if isinstance(node, ast.Call) else None
            if (
                entry is None
                or not isinstance(node, ast.Call)
                or node.args
                or any(k.arg is None for k in node.keywords)
            ):
                return None
            arguments = {str(k.arg): arithmetic(ast.unparse(k.value), names) for k in node.keywords}
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        return Component(entry.name, entry.kind, arguments, where, entry.path)


def _own_words(reason: str, text: str) -> str:
    """A reason without our names for the references in it."""
    return re.sub(r"\b_reference_\d+\b", "a reference", reason) if "_reference_" not in text else reason


def _below(where: str, part: str) -> str:
    return f"{where}{_SEPARATOR}{part}" if where else part


def _short(text: Any) -> str:
    return printable(str(text))[:120]


def _foreign(target: Any) -> str:
    name = str(target)
    if name.split(".")[0] == "scripts":
        return "is a class of the bundle's own scripts"
    last = name.rpartition(".")[2].removesuffix("d")
    if last in ("Lambda", "RandLambda"):
        return "calls a function"
    if last.startswith("Save"):
        return "writes files"
    if last.startswith("Rand"):
        return "is random"
    return "is no class that is read here"
