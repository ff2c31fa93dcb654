"""Where each method makes sense, from what the classes declare: a table for the docs, and a refusal with its reason.

python -m monai_transfer.engine.capabilities                       prints the table
python -m monai_transfer.engine.capabilities --write docs/methods.md
"""

from __future__ import annotations

import argparse
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_transfer.data.translation import Translation
from monai_transfer.discovery import classes_in
from monai_transfer.errors import InputError
from monai_transfer.files import write_text
from monai_transfer.methods.base import Method
from monai_transfer.networks.mil import Mil
from monai_transfer.tasks import get_task, independent_tasks, method_tasks
from monai_transfer.testtime.base import SourceFree

__all__ = ["Capability", "capabilities", "refuse_unfit", "table"]

TASKS = method_tasks()
"""What a method's ``tasks`` may name, beside those whose outputs do not exclude each other."""
BEGIN, END = "<!-- generated: python -m monai_transfer.engine.capabilities --write docs/methods.md -->", "<!-- end -->"


@dataclass(frozen=True)
class Capability:
    """One method and its class, whose declarations everything here is read from.

    Args:
        name: package and file, ``methods/coral``.
        cls: the class.

    >>> coral = next(one for one in capabilities() if one.name == "methods/coral")
    >>> coral.kind, coral.needs
    ('term', 'source features; target features')
    """

    name: str
    cls: Any

    @property
    def kind(self) -> str:
        """What one does with it, in a few words."""
        cls = self.cls
        if issubclass(cls, Method):
            base = "critic and term" if cls.critic_step is not Method.critic_step else "term"
            return base if cls.supervised else f"{base}, without the source's loss"
        if issubclass(cls, SourceFree):
            if cls.learns_nothing:
                return "source-free: at each prediction, nothing is learnt"
            return (
                "source-free: adapts while it predicts" if hasattr(cls, "wrap") else "source-free: fitted on the target"
            )
        return "fitted on both sites, then a transform" if hasattr(cls, "fit") else "network with a loss of its own"

    @property
    def needs(self) -> str:
        """What it is given from each domain."""
        cls = self.cls
        if not issubclass(cls, Method):
            return {True: "target image"}.get(issubclass(cls, SourceFree), "its own")
        parts = []
        for domain in ("source", "target"):
            names = sorted(n.removeprefix(f"{domain}_") for n in cls.needs if n.startswith(domain))
            if names:
                parts.append(f"{domain} {', '.join(names).replace('strong_logits', 'logits of the strong view')}")
        return "; ".join(parts) or "the weights alone"

    @property
    def papers(self) -> str:
        """The ``Paper:`` line of the module, in one line, with the first arXiv number."""
        text = importlib.import_module(self.cls.__module__).__doc__ or ""
        found = re.search(r"^Paper: (.+?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
        return " ".join(found.group(1).split()) if found else ""


def capabilities() -> list[Capability]:
    """Every method in ``methods`` and ``testtime``, by name, and the two that are a network and a transform.

    >>> {"methods/dann", "testtime/tent", "networks/mil"} <= {one.name for one in capabilities()}
    True
    """
    found = [
        Capability(f"{package}/{name}", cls)
        for package in ("methods", "testtime")
        for name, cls in classes_in(package).items()
    ]
    return [*found, Capability("networks/mil", Mil), Capability("data/translation", Translation)]


def refuse_unfit(method: Any, task: str, dims: int | None = None) -> None:
    """Refuse a method (its class or an object, whose options may narrow it) for what it does not declare.

    A class that declares nothing (the user's own) passes.

    Args:
        method: a class or an object.
        task: name of the task.
        dims: 2 or 3 spatial axes; None: not asked.

    Raises:
        InputError: with the reason, and the methods that fit.

    >>> from monai_transfer.errors import InputError
    >>> from monai_transfer.methods import Advent, Mcc
    >>> refuse_unfit(Advent, "segmentation", 3)
    >>> try:
    ...     refuse_unfit(Mcc, "regression")
    ... except InputError as error:
    ...     print(error.fault.partition(",")[0])
    Mcc is not for regression
    """
    kind = get_task(task)
    asked, tasks, able = kind.name, getattr(method, "tasks", TASKS), getattr(method, "dims", (2, 3))
    name = getattr(method, "__name__", type(method).__name__)
    if kind.fits(tasks) and (dims is None or dims in able):
        return
    if not kind.fits(tasks):
        limits = {**Method.limits, **getattr(method, "limits", {})}
        reason = limits.get(asked) or limits.get(kind.as_method_sees_it)
        fault = f"{name} is not for {asked}" + (f", since {reason}" if reason else "")
    else:
        fault = f"{name} is not for {dims}D images"
    fitting = [
        c.name.split("/")[1]
        for c in capabilities()
        if issubclass(c.cls, Method) and kind.fits(c.cls.tasks) and (dims is None or dims in c.cls.dims)
    ]
    raise InputError(fault, hint=f"for {asked} there are {', '.join(fitting)}")


def table() -> str:
    """The capability table in Markdown.

    >>> next(line for line in table().splitlines() if "methods/mmd" in line).split(" | ")[:3]
    ['| `methods/mmd`', 'yes', 'yes']
    """
    tasks = (*TASKS, *independent_tasks())
    head = ["method", *tasks, "dims", "kind", "needs", "normalisation statistics", "mark", "paper"]
    rows = [head, ["---"] * len(head)]
    for entry in capabilities():
        cls = entry.cls
        cells = ["yes" if get_task(task).fits(cls.tasks) else "no" for task in tasks]
        dims = ", ".join(f"{d}D" for d in cls.dims)
        mark = "experimental" if cls.experimental else ""
        mark = "; ".join(filter(None, [mark, getattr(cls, "caution", "")]))
        rows.append([f"`{entry.name}`", *cells, dims, entry.kind, entry.needs, cls.norm_statistics, mark, entry.papers])
    others = independent_tasks()
    general = {task: Method.limits[task] for task in others}
    reasons = [
        f"- `{entry.name}`: not for {task}, since {reason}."
        for entry in capabilities()
        for task, reason in getattr(entry.cls, "limits", {}).items()
        if not get_task(task).fits(entry.cls.tasks) and general.get(task) != reason
    ]
    reasons.append(f"- Of any other: not for {' and '.join(others)}, since {general[others[0]]}.")
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([*lines, "", *reasons])


def main(arguments: list[str] | None = None) -> None:
    """Print the table, or put it between the marks of a page.

    Args:
        arguments: of the command line.

    Raises:
        InputError: the page has no marks.

    >>> main([])  # doctest: +ELLIPSIS
    | method | classification | segmentation | ...
    """
    parser = argparse.ArgumentParser(description="The capability table of all methods.")
    parser.add_argument("--write", type=Path, help="a page with the two marks, whose middle is replaced")
    page = parser.parse_args(arguments).write
    if page is None:
        print(table())
        return
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise InputError(
            "holds no marks to write between",
            path=page,
            hint="put the lines BEGIN and END of engine/capabilities.py into it",
        )
    before, _, rest = text.partition(BEGIN)
    write_text(page, f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
