"""Functions of one tensor that configs write as ``$lambda``: arithmetic on the tensor, its parts and ``torch.where``.

The text is parsed and the tree is walked for each call, as ``arithmetic`` does; nothing else of torch can be reached.
"""

from __future__ import annotations

import ast
from typing import Any

import torch

from monai_transfer.bundle_reader.arithmetic import Unreadable, Walk
from monai_transfer.bundle_reader.limits import MAX_EXPRESSION

__all__ = ["TensorFunction"]

_COMPARE: dict[type, Any] = {
    ast.Eq: torch.eq, ast.NotEq: torch.ne, ast.Lt: torch.lt, ast.LtE: torch.le, ast.Gt: torch.gt, ast.GtE: torch.ge,
}  # fmt: skip

_BINARY: dict[type, Any] = {ast.Add: torch.add, ast.Sub: torch.sub, ast.Mult: torch.mul, ast.Div: torch.true_divide}


class TensorFunction:
    """A function of one tensor, as text.

    Args:
        text: ``lambda x: <arithmetic>``, without references.

    Raises:
        Unreadable: it is more than arithmetic.

    >>> TensorFunction("lambda x: torch.where(x[[1]] > 0, 2, x[[0]] * 3 + 1)")(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    tensor([[4., 2.]])
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_EXPRESSION:
            raise Unreadable(f"is a function of more than {MAX_EXPRESSION} characters")
        try:
            made = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, MemoryError, RecursionError) as error:
            raise Unreadable("is no function") from error
        if not isinstance(made, ast.Lambda):
            raise Unreadable("is no function of one tensor")
        given = made.args
        if (
            len(given.args) != 1
            or given.defaults
            or given.vararg
            or given.kwarg
            or given.kwonlyargs
            or given.posonlyargs
        ):
            raise Unreadable("is no function of one tensor")
        self.name, self.body = given.args[0].arg, made.body
        try:
            self(torch.zeros(64, 1, 1))  # a tree that is no arithmetic is refused now, not in the first case
        except Unreadable:
            raise
        except Exception as error:  # of the values
            raise Unreadable(f"cannot be worked out ({type(error).__name__})") from error

    def __call__(self, value: Any) -> Any:
        """``value``: a tensor of any shape; a ``MetaTensor`` stays one."""
        return _TensorWalk({self.name: value}).value(self.body)


class _TensorWalk(Walk):
    def _BinOp(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if not isinstance(left, torch.Tensor) and not isinstance(right, torch.Tensor):
            return super()._BinOp(node)
        for other in (left, right):
            if not isinstance(other, (torch.Tensor, int, float)):
                raise Unreadable("mixes a tensor with something else")
        simple: dict[type, Any] = {
            ast.Add: torch.add,
            ast.Sub: torch.sub,
            ast.Mult: torch.mul,
            ast.Div: torch.true_divide,
        }
        if type(node.op) not in simple:
            raise Unreadable(f"uses {type(node.op).__name__} on a tensor")
        if not isinstance(left, torch.Tensor):
            left = torch.as_tensor(left)
        return _BINARY[type(node.op)](left, right)

    def _UnaryOp(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(value, torch.Tensor):
            if not isinstance(node.op, ast.USub):
                raise Unreadable("negates a tensor")
            return -value
        return super()._UnaryOp(node)

    def _Compare(self, node: ast.Compare) -> Any:
        left, right = self.value(node.left), self.value(node.comparators[0])
        if not isinstance(left, torch.Tensor):
            return super()._Compare(node)
        if len(node.ops) != 1 or type(node.ops[0]) not in _COMPARE or not isinstance(right, (torch.Tensor, int, float)):
            raise Unreadable("compares a tensor in another way")
        return _COMPARE[type(node.ops[0])](left, right)

    def _Subscript(self, node: ast.Subscript) -> Any:
        value = self.value(node.value)
        if not isinstance(value, torch.Tensor):
            return super()._Subscript(node)
        if isinstance(node.slice, ast.Slice):
            bounds = (node.slice.lower, node.slice.upper, node.slice.step)
            return value[slice(*(None if bound is None else self.value(bound) for bound in bounds))]
        index = self.value(node.slice)
        flat = index if isinstance(index, list) else [index]
        if not all(isinstance(number, int) for number in flat) or len(flat) > 1000:
            raise Unreadable("takes a part of a tensor in another way")
        return value[index]

    def _Call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func) == "torch.where" and not node.keywords:
            choice, *values = [self.value(item) for item in node.args]
            if len(values) == 2 and all(isinstance(item, (torch.Tensor, int, float)) for item in (choice, *values)):
                return torch.where(torch.as_tensor(choice), *values)
        return super()._Call(node)
