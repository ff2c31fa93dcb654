"""A small arithmetic for ``$`` expressions: literals, names of the config, a closed list of functions. Nothing is run.

The text is parsed to a syntax tree and the tree is walked; ``eval`` is never called, no attribute of a value is ever
looked up, and every step counts against a budget. What is not arithmetic is refused with the reason.
"""

from __future__ import annotations

import ast
import math
import operator
import posixpath
from collections.abc import Callable, Mapping
from typing import Any

from monai_transfer.bundle_reader.limits import (
    MAX_EXPRESSION,
    MAX_EXPRESSION_STEPS,
    MAX_INTEGER,
    MAX_ITEMS,
    MAX_RESOLVED,
    MAX_TEXT,
)

__all__ = ["Unreadable", "Walk", "arithmetic"]


class Unreadable(ValueError):
    """An expression is no arithmetic, or its result is beyond a limit; the message says which."""


_DTYPES = ("float16", "float32", "float64", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool")
# data types by their plain names, which MONAI's transforms take as well
_CONSTANTS: dict[str, Any] = {f"{module}.{name}": name for module in ("torch", "numpy", "np") for name in _DTYPES}
_CONSTANTS |= {"torch.float": "float32", "torch.half": "float16", "torch.double": "float64", "torch.long": "int64"}
_CONSTANTS |= {"torch.int": "int32", "numpy.uint16": "uint16", "np.uint16": "uint16", "torch.short": "int16"}
_CONSTANTS |= {f"{module}.pi": math.pi for module in ("math", "numpy", "np", "torch")}
_CONSTANTS |= {f"{module}.inf": math.inf for module in ("math", "numpy", "np", "torch")}
_CONSTANTS |= {
    f"monai.utils.{path}CommonKeys.{name}": name.lower()
    for path in ("", "enums.")
    for name in ("IMAGE", "LABEL", "PRED", "LOSS", "METADATA")
}
_READERS = ("PILReader", "ITKReader", "NibabelReader", "NumpyReader", "PydicomReader", "NrrdReader")
_CONSTANTS |= {f"monai.data.{name}": name for name in _READERS}


def _join(*parts: str) -> str:
    if not all(isinstance(part, str) for part in parts):
        raise Unreadable("os.path.join takes text")
    return posixpath.join(*parts)


def _range(*numbers: int) -> list[int]:
    made = range(*numbers)
    if len(made) > MAX_ITEMS:
        raise Unreadable(f"makes a list of more than {MAX_ITEMS} items")
    return list(made)


def _number(value: Any) -> Any:
    if isinstance(value, str) and len(value) > 50:
        raise Unreadable("makes a number of a long text")
    return value


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs, "bool": bool, "float": lambda x: float(_number(x)), "int": lambda x: int(_number(x)), "len": len,
    "list": list, "max": max, "min": min, "range": _range, "round": round, "sorted": sorted, "str": str, "sum": sum,
    "tuple": tuple, "set": set, "os.path.join": _join, "torch.device": lambda *names: "cpu",
    "torch.cuda.is_available": lambda: False,
}  # fmt: skip
_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip
_UNARY: dict[type, Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_}
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
# methods that put an object on a device or into a mode: the object itself, as far as a reader is concerned
_ITSELF = ("to", "cpu", "cuda", "eval", "float")


def arithmetic(text: str, names: Mapping[str, Any]) -> Any:
    """The value of an expression.

    Args:
        text: without the ``$``.
        names: values of the variables that may stand in it. One that is an object (no number, text, list, tuple, set or
            dictionary) may be passed on, put on a device (``.to(...)``) or into ``.eval()``, nothing else.

    Raises:
        Unreadable: it holds anything but arithmetic, or goes beyond a limit.

    >>> arithmetic("[size // 2 for size in patch] + [1]", {"patch": [96, 64]})
    [48, 32, 1]
    """
    if len(text) > MAX_EXPRESSION:
        raise Unreadable(f"is an expression of more than {MAX_EXPRESSION} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return Walk(names).value(tree.body)
    except Unreadable:
        raise
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise Unreadable("is no expression") from error
    except Exception as error:  # of the values: divisions by zero, wrong types, missing indices
        raise Unreadable(f"cannot be worked out ({type(error).__name__})") from error


class Walk:
    """Works out a syntax tree; see ``arithmetic``."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.names, self.steps, self.items = dict(names), 0, 0

    def spend(self, items: int) -> None:
        """Count items that are made or looked at: lists of lists multiply."""
        self.items += items
        if self.items > MAX_RESOLVED:
            raise Unreadable(f"handles more than {MAX_RESOLVED} items")

    def value(self, node: ast.AST) -> Any:
        """The value of a node."""
        self.steps += 1
        if self.steps > MAX_EXPRESSION_STEPS:
            raise Unreadable(f"takes more than {MAX_EXPRESSION_STEPS} steps")
        method = getattr(self, f"_{type(node).__name__}", None)  # of this class, by the kind of a syntax node
        if method is None:
            raise Unreadable(f"holds code that is not run here ({_kind(node)})")
        made = _bounded(method(node))
        if isinstance(made, (list, tuple, set, dict)):
            self.spend(len(made))
        return made

    def _Constant(self, node: ast.Constant) -> Any:
        if not isinstance(node.value, (int, float, str, bool, type(None))):
            raise Unreadable("holds a constant of another kind")
        return node.value

    def _Name(self, node: ast.Name) -> Any:
        if node.id not in self.names:
            raise Unreadable(f"uses the name {node.id!r}")
        return self.names[node.id]

    def _Attribute(self, node: ast.Attribute) -> Any:
        name = _dotted(node)
        if name is None or name not in _CONSTANTS:
            raise Unreadable(f"looks into an object ({name or _kind(node)})")
        return _CONSTANTS[name]

    def _List(self, node: ast.List) -> list[Any]:
        return [self.value(item) for item in node.elts]

    def _Tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self.value(item) for item in node.elts)

    def _Dict(self, node: ast.Dict) -> dict[Any, Any]:
        if any(key is None for key in node.keys):
            raise Unreadable("unpacks a dictionary")
        return {self.value(k): self.value(v) for k, v in zip(node.keys, node.values, strict=True) if k is not None}

    def _UnaryOp(self, node: ast.UnaryOp) -> Any:
        if type(node.op) not in _UNARY:
            raise Unreadable("uses ~")
        return _UNARY[type(node.op)](self.value(node.operand))

    def _BinOp(self, node: ast.BinOp) -> Any:
        if type(node.op) not in _BINARY:
            raise Unreadable(f"uses {type(node.op).__name__}")
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.Pow) and not (abs(right) <= 64 and abs(left) <= 1024):
            raise Unreadable("raises to a large power")
        if isinstance(node.op, ast.Mod) and isinstance(left, str):
            raise Unreadable("formats text")
        if isinstance(node.op, ast.Mult):
            for items, times in ((left, right), (right, left)):
                if isinstance(items, (str, list, tuple)) and len(items) * max(0, times) > MAX_ITEMS:
                    raise Unreadable(f"makes a list of more than {MAX_ITEMS} items")
        return _BINARY[type(node.op)](left, right)

    def _BoolOp(self, node: ast.BoolOp) -> Any:
        value = None
        for item in node.values:
            value = self.value(item)
            if bool(value) is isinstance(node.op, ast.Or):
                return value
        return value

    def _Compare(self, node: ast.Compare) -> bool:
        left = self.value(node.left)
        for op, item in zip(node.ops, node.comparators, strict=True):
            right = self.value(item)
            self._flat(left, right)
            if not _COMPARE[type(op)](left, right):
                return False
            left = right
        return True

    def _flat(self, *values: Any) -> None:
        """Refuse what is no plain value or list of plain values; comparing lists of lists may take for ever."""
        for value in values:
            inside = [*value, *value.values()] if isinstance(value, dict) else value
            items = inside if isinstance(value, (list, tuple, set, dict)) else [value]
            self.spend(len(items))
            if not all(isinstance(item, (int, float, str, type(None))) for item in items):
                raise Unreadable("handles an object or a list of lists")

    def _IfExp(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self.value(node.test) else node.orelse)

    def _Subscript(self, node: ast.Subscript) -> Any:
        items = self.value(node.value)
        if not isinstance(items, (list, tuple, str, dict)):
            raise Unreadable("takes a part of an object")
        if isinstance(node.slice, ast.Slice):
            bounds = (node.slice.lower, node.slice.upper, node.slice.step)
            return items[slice(*(None if bound is None else self.value(bound) for bound in bounds))]  # type: ignore[index]
        return items[self.value(node.slice)]

    def _ListComp(self, node: ast.ListComp) -> list[Any]:
        if len(node.generators) != 1 or not isinstance(node.generators[0].target, ast.Name):
            raise Unreadable("holds a nested loop")
        loop = node.generators[0]
        items, name, out = self.value(loop.iter), loop.target.id, []  # type: ignore[attr-defined]
        if not isinstance(items, (list, tuple, set, dict)):
            raise Unreadable("goes through an object")
        outer = dict(self.names)
        for item in items:
            self.names[name] = item
            if all(self.value(condition) for condition in loop.ifs):
                out.append(self.value(node.elt))
        self.names = outer
        return out

    def _Call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Attribute) and node.func.attr in _ITSELF and _dotted(node.func) is None:
            raise Unreadable("calls a method of a result")
        name = _dotted(node.func)
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            held = self.names.get(node.func.value.id)
            if node.func.attr in _ITSELF and held is not None and not isinstance(held, (int, float, str, list, tuple)):
                return held
        if name not in _FUNCTIONS or node.keywords or any(isinstance(item, ast.Starred) for item in node.args):
            raise Unreadable(f"calls {name or 'something'}")
        arguments = [self.value(item) for item in node.args]
        if name == "len" or name in ("list", "tuple"):
            if not all(isinstance(item, (list, tuple, set, dict, str)) for item in arguments):
                raise Unreadable(f"calls {name} of an object")
        elif name != "torch.device":
            self._flat(*arguments)
        if name in ("str", "sum", "sorted", "set") and (
            len(arguments) != 1 or isinstance(arguments[0], (int, float, str, type(None))) is not (name == "str")
        ):
            raise Unreadable(f"calls {name} of something else than it is read for here")
        return _FUNCTIONS[name](*arguments)


def _bounded(value: Any) -> Any:
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise Unreadable(f"makes a number above {MAX_INTEGER}")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise Unreadable(f"makes a text of more than {MAX_TEXT} characters")
    if isinstance(value, (list, tuple, set, dict)) and len(value) > MAX_ITEMS:
        raise Unreadable(f"makes a list of more than {MAX_ITEMS} items")
    return value


def _dotted(node: ast.AST) -> str | None:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _kind(node: ast.AST) -> str:
    words = {"Lambda": "a function", "Attribute": "an attribute", "GeneratorExp": "a loop", "JoinedStr": "an f-string"}
    return words.get(type(node).__name__, type(node).__name__)
