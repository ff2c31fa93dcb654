"""The one place where a foreign bundle's configs are run, by MONAI's own parser, for those who decided to trust it."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_transfer.bundle_reader.description import BundleDescription
from monai_transfer.bundle_reader.reading import config_file, read_bundle
from monai_transfer.bundle_reader.trust import Trust, scripts_folder
from monai_transfer.errors import InputError
from monai_transfer.safe_parse import read_mapping

__all__ = ["TrustedConfig", "own_scripts", "read_trusted"]

_NO_DATA = object()
_REFERENCE = re.compile(r"@(?:\w*)(?:::\w*)*")
_ABOUT = ("_desc_", "_disabled_", "_requires_", "_mode_")
_SAME_NETWORK = ("to", "cpu", "cuda", "eval", "train", "float")
"""Calls of a network that give the network itself."""


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
        run = self.folder / "config.yaml"
        is_run = run.is_file() and (self.folder / "run.json").is_file()
        path = run if is_run else config_file(self.folder, *(names or ("inference", "train")))
        if path is None:
            raise InputError("has no config", path=self.folder, hint="name a MONAI bundle")
        self.path = path
        read_mapping(path)  # within the limits
        self.parser = ConfigParser()
        self.parser.read_config(str(path))
        self.parser["bundle_root"] = str(scripts_folder(self.folder).resolve())
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
        with own_scripts(scripts_folder(self.folder)):
            try:
                return self.parser.get_parsed_content(key)
            except Exception as error:  # whatever the bundle's code raises
                cause: BaseException = error
                while cause.__cause__ is not None:
                    cause = cause.__cause__
                text = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:160]
                hint = "its code does not run here: look at it, or ask its author"
                raise InputError(f"its {key} cannot be built ({text})", path=self.path, hint=hint) from error

    def as_data(self, key: str) -> Any:
        """The config at an id without expressions and references: what they give stands in their place.

        A class or function becomes ``{"_target_": path, "_mode_": "callable"}``, an expression that makes an object
        (``$Net(1, n=@n)``) the ``_target_`` with its arguments by name.

        Args:
            key: the id.

        Raises:
            InputError: an expression gives what no config can say; or what its code raises.
        """
        with own_scripts(scripts_folder(self.folder)):
            self.parser.parse(True)  # macros are copied, relative ids written out
            return self._data(key.replace("#", "::"))

    def _data(self, where: str) -> Any:
        raw = self.parser[where]
        if isinstance(raw, Mapping):
            if "_disabled_" in raw and str(self._data(f"{where}::_disabled_")).strip().lower() == "true":
                return _NO_DATA
            inner = {key: self._data(f"{where}::{key}") for key in raw if key not in (*_ABOUT, "_target_")}
            inner = {key: value for key, value in inner.items() if value is not _NO_DATA}
            if "_target_" not in raw:
                return inner
            target = raw["_target_"]
            if target[:1] in ("$", "@"):
                target = self._data(f"{where}::_target_")["_target_"]
            mode = {} if raw.get("_mode_", "default") == "default" else {"_mode_": raw["_mode_"]}
            return {"_target_": target, **mode, **inner}
        if isinstance(raw, list):
            items = [self._data(f"{where}::{n}") for n in range(len(raw))]
            return [item for item in items if item is not _NO_DATA]
        if isinstance(raw, str) and raw.startswith("@") and _REFERENCE.fullmatch(raw):
            return self._data(raw[1:])
        if isinstance(raw, str) and raw.startswith("$"):
            return self._evaluated(raw[1:].strip(), where)
        return raw

    def _evaluated(self, text: str, where: str) -> Any:
        """What an expression gives, as data; where it makes an object, its class and arguments."""
        made = _as_data(self._value(text))
        if made is not _NO_DATA:
            return made
        references: dict[str, str] = {}

        def named(match: re.Match[str]) -> str:
            references[name := f"reference_{len(references)}_"] = match[0]
            return name

        def written(node: ast.AST) -> str:
            text = ast.unparse(node)
            for name, reference in references.items():
                text = text.replace(name, reference)
            return text

        try:
            node: Any = ast.parse(_REFERENCE.sub(named, text), mode="eval").body
        except SyntaxError:
            node = None
        while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _SAME_NETWORK:
            node = node.func.value
        if isinstance(node, ast.Name) and node.id in references:
            return self._data(references[node.id][1:])
        called: Any = self._value(written(node.func)) if isinstance(node, ast.Call) else None
        path = _as_data(called)
        if not isinstance(path, dict):
            fault = f"{where} gives what no config can hold ({text[:80]})"
            raise InputError(fault, path=self.path, hint="write it as a _target_ with arguments")
        given = [self._evaluated(written(argument), where) for argument in node.args]
        words = {str(k.arg): self._evaluated(written(k.value), where) for k in node.keywords}
        try:
            bound = inspect.signature(called).bind(*given, **words)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{where} is called wrongly ({error})", path=self.path, hint="tell whoever made the bundle"
            ) from error
        arguments: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = bound.signature.parameters[name].kind
            if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
                fault = f"{where} hands arguments without names to {path['_target_']}"
                raise InputError(fault, path=self.path, hint="write it as a _target_ with arguments by name")
            arguments |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
        return {"_target_": path["_target_"], **arguments}

    def _value(self, text: str) -> Any:
        self.parser[_ASKED] = f"${text}"
        try:
            return self.get(_ASKED)
        finally:
            del self.parser.config[_ASKED]
            self.parser.ref_resolver.reset()


_ASKED = "monai_transfer_asked"


def _as_data(value: Any) -> Any:
    """Plain data of a value, ``_NO_DATA`` where there is none."""
    import numpy
    import torch

    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, numpy.generic):
        return value.item()
    if isinstance(value, torch.device):
        return "cpu"  # which device it is the user says
    if isinstance(value, (list, tuple, set)):
        items = [_as_data(item) for item in value]
        return _NO_DATA if any(item is _NO_DATA for item in items) else items
    if isinstance(value, dict):
        found = {key: _as_data(item) for key, item in value.items()}
        plain = all(isinstance(key, (str, int)) for key in found) and not any(v is _NO_DATA for v in found.values())
        return found if plain else _NO_DATA
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not callable(value) or not isinstance(module, str) or not re.fullmatch(r"\w+", name):
        return _NO_DATA
    try:
        same = getattr(importlib.import_module(module), name, None) is value
    except ImportError:
        same = False
    return {"_target_": f"{module}.{name}", "_mode_": "callable"} if same else _NO_DATA


def read_trusted(trust: Trust) -> BundleDescription:
    """As ``read_bundle``; expressions that the reader cannot resolve are evaluated, where they give plain data.

    **Runs the bundle's code.** What gives objects (a class of its own scripts, a function) stays unread.

    Args:
        trust: the user's decision.

    Raises:
        InputError: a file cannot be read.
    """
    found = read_bundle(trust.folder)
    values: dict[str, Any] = {}
    if not found.unread_of("network", "preprocessing", "inferer", "postprocessing"):
        return found
    config = TrustedConfig(trust)
    for item in found.unread_of("network", "preprocessing", "inferer", "postprocessing"):
        try:
            value = config.as_data(item.where) if item.where else None
        except (InputError, KeyError, IndexError):
            continue
        if value is not None and not _has_target(value):
            values[item.where] = value
    return read_bundle(trust.folder, values=values) if values else found


def _has_target(value: Any) -> bool:
    if isinstance(value, dict):
        return "_target_" in value or any(_has_target(item) for item in value.values())
    return isinstance(value, list) and any(_has_target(item) for item in value)


_open: list[str] = []
_NOWHERE = str(Path(os.devnull) / "compiled")


@contextmanager
def own_scripts(folder: str | Path) -> Iterator[None]:
    """Make ``scripts.*`` of a bundle importable, and of this bundle only: modules of another one are put aside.

    Its ``__pycache__`` is not looked at: the decision to trust was about the source beside it.
    """
    folder = str(Path(folder).resolve())
    if _open[-1:] == [folder]:  # once more inside: classes stay the same objects
        yield
        return
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "scripts"}
    for name in before:
        del sys.modules[name]
    sys.path.insert(0, folder)
    compiled, sys.pycache_prefix = sys.pycache_prefix, _NOWHERE
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    _open.append(folder)
    try:
        yield
    finally:
        _open.pop()
        sys.pycache_prefix, sys.dont_write_bytecode = compiled, writes
        sys.path.remove(folder)
        for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
            del sys.modules[name]
        sys.modules.update(before)
