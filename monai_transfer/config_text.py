r"""Names and paths in a MONAI config: text that MONAI's reader gives back unchanged, whatever stands in it.

MONAI 1.6.1 takes a string that begins with ``$`` for Python, one that begins with ``%`` for a macro, ``@name`` for a
reference; it turns ``#`` into ``::`` everywhere, and resolves ``@::`` and ``%::`` inside any text. A class that is
called ``$import os`` would be run. Such text is written as an expression that holds nothing but a string literal,
``$'\x23 1'``, with these characters escaped: MONAI evaluates the literal and gives back the text.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from monai_transfer.errors import InputError

__all__ = ["Expression", "expr", "from_config", "given_to_config", "quoted", "ref", "refuse_keys_of_monai", "to_config"]

_ESCAPED = {ord(c): f"\\x{ord(c):02x}" for c in "$@%#"}
_REFERENCE = re.compile(r"@\w*(?:::\w*)*")
_OWN_KEY = re.compile(r"_\w+_")


class Expression(str):
    """Text that MONAI is to evaluate (``$...``), refer to (``@...``) or copy (``%...``); all other text is data.

    >>> to_config({"text": "$5 a day", "lr": Expression("$@base_lr / 2")})["lr"]
    '$@base_lr / 2'
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Expression:
        """Refuses text that MONAI would not take for one."""
        if text[:1] not in ("$", "@", "%"):
            raise ValueError(f"no MONAI expression: {text!r}")
        return super().__new__(cls, text)


def expr(text: str) -> Expression:
    """Python that MONAI evaluates: ``expr("len(@lists.target_test)")``.

    >>> expr("len(@lists.target_test)")
    '$len(@lists.target_test)'
    """
    return Expression(f"${text}")


def ref(id: str) -> Expression:
    """A reference to another part of the config: ``ref("train#dataset")``."""
    return Expression(f"@{id}")


def quoted(text: str) -> str:
    r"""A Python string literal for use inside an expression, in which MONAI finds nothing to resolve.

    >>> print(quoted("scan #1.nii"))
    'scan \x231.nii'
    """
    # the word `import` makes MONAI parse the whole expression before its references are put in, which fails
    return ascii(str(text)).translate(_ESCAPED).replace("import", "\\x69mport")


def _changed_by_monai(text: str) -> bool:
    """Whether MONAI would not give ``text`` back as it is."""
    return (
        text[:1] in ("$", "%")
        or "#" in text
        or "@::" in text
        or "%::" in text
        or _REFERENCE.fullmatch(text) is not None
    )


def to_config(value: Any) -> Any:
    r"""Plain data as MONAI must be given them so that it gives them back; ``Expression`` objects stay what they are.

    Args:
        value: text, a number, ``None``, or dictionaries and lists of them.

    Raises:
        InputError: data that would be a key of MONAI's own (``_target_`` and the like) where names are keys.

    >>> print(to_config(["lesion", "lesion #2"]))
    ['lesion', "$'lesion \\x232'"]
    """
    if isinstance(value, Expression):
        return str(value)
    if isinstance(value, str):
        return f"${quoted(value)}" if _changed_by_monai(value) else value
    if isinstance(value, dict):
        return {key: to_config(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_config(item) for item in value]
    return value


def given_to_config(value: Any) -> Any:
    r"""What a user set an id to: text that begins as an expression is one, all other text is data.

    >>> given_to_config({"output_dir": "/runs/#3", "lr": "@base_lr"})
    {'output_dir': "$'/runs/\\x233'", 'lr': '@base_lr'}
    """
    if isinstance(value, dict):
        return {key: given_to_config(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [given_to_config(item) for item in value]
    return value if isinstance(value, str) and value[:1] in ("$", "@", "%") else to_config(value)


def refuse_keys_of_monai(value: Any, what: str) -> None:
    """Refuse names that stand as keys (of sites, of classes) and that MONAI would take for its own, as ``_target_``.

    Args:
        value: data, nested dictionaries and lists.
        what: whose they are, for the message.

    Raises:
        InputError: there is one.
    """
    if isinstance(value, dict):
        for key in value:
            if _OWN_KEY.fullmatch(str(key)):
                raise InputError(f"{what}: {key!r} is a word of MONAI's configs", hint="give it another name")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        refuse_keys_of_monai(item, what)


def from_config(value: Any) -> Any:
    r"""The inverse of ``to_config``, for configs that are read without MONAI; runs nothing.

    >>> from_config(["$'lesion \\x232'", "$len(@a)"])
    ['lesion #2', '$len(@a)']
    """
    if isinstance(value, dict):
        return {key: from_config(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_config(item) for item in value]
    if isinstance(value, str) and value[:2] in ("$'", '$"'):
        try:
            found = ast.literal_eval(value[1:])
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
        return found if isinstance(found, str) else value
    return value
