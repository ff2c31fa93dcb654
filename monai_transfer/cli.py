"""The ``monai-transfer`` command. Thin: each command lies beside what it is about and is imported when it is called."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
import traceback
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from monai_transfer import __version__, stopping
from monai_transfer.bundle.command_line import WORKFLOWS
from monai_transfer.discovery import file_names
from monai_transfer.errors import CoverageError, InputError, describe, first_cause, is_out_of_memory
from monai_transfer.files import unwritable
from monai_transfer.library_logging import silence_libraries
from monai_transfer.runs.ranks import count
from monai_transfer.study.arms import PRESETS

__all__ = ["COMMANDS", "app", "main"]


class _Command(NamedTuple):
    module: str
    about: str
    overrides: bool = False  # takes any --id value of the bundle's configs


_BUNDLE = "monai_transfer.bundle.command"
COMMANDS = {
    "demo": _Command(
        "monai_transfer.demo_command",
        "Pretrain, fine-tune, adapt and compare on embedded (simulated) data, offline, in a few minutes.",
    ),
    "manifest": _Command("monai_transfer.manifest.command", "Build a manifest from folders as hospitals have them."),
    "check": _Command(
        "monai_transfer.inspection.command", "Read every file of a manifest and say everything that is wrong, at once."
    ),
    "gap": _Command("monai_transfer.selection.command", "How far two domains are apart."),
    "rank": _Command("monai_transfer.selection.command", "Rank source models for this target."),
    "new": _Command(_BUNDLE, "Write a standard MONAI bundle fitted to this data and source."),
    "run": _Command(_BUNDLE, "Run a workflow of a bundle; any config id can be set with --id value.", True),
    "predict": _Command("monai_transfer.predict.command", "Predict on new images, in each image's own geometry."),
    "compare": _Command("monai_transfer.report.command", "Put arms side by side, with a verdict for each."),
    "study": _Command(
        "monai_transfer.study.command", "Run several arms under one equal budget and compare them.", True
    ),
    "runs": _Command("monai_transfer.runs.command", "List every run with its status, best score and age."),
    "export": _Command(
        _BUNDLE, "A deployable artefact that needs MONAI (or a runtime, or nnU-Net) alone, never this package."
    ),
}
"""Command name to the module that holds its function of the same name, and a line for ``--help``."""


class _LazyGroup(TyperGroup):
    """Only the command that is called is imported: torch and MONAI take seconds, ``--help`` should not."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            name = args[0]
            home = COMMANDS[name]
            settings = {"allow_extra_args": True, "ignore_unknown_options": True} if home.overrides else None
            alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            alone.command(name, context_settings=settings)(getattr(import_module(home.module), name))
            self.commands[name] = typer.main.get_command(alone)  # type: ignore[assignment]
        return super().resolve_command(ctx, args)


_LISTS: dict[str, Iterable[str]] = {
    "workflows of run": WORKFLOWS,
    "arms of study": PRESETS,
    "strategies of new": file_names("strategies"),
    "methods of new": file_names("methods"),
}
_HELP = [
    "Transfer learning for medical imaging on MONAI: from scans to a verdict and a bundle.",
    "Exit codes: 0 done, 1 it ran and found problems, 2 wrong input or usage, 130 and 143 stopped by a signal. --debug "
    "shows where an error came from.",
    *(f"{title}: {', '.join(names)}" for title, names in _LISTS.items()),
]

app = typer.Typer(
    name="monai-transfer",
    cls=_LazyGroup,
    help="\n\n".join(_HELP),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"monai-transfer {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _placeholder() -> None:
    """Stands for a command until it is called."""


for _name, _home in COMMANDS.items():
    app.command(_name, help=_home.about)(_placeholder)


_MEMORY = {
    "check": "use fewer --jobs, or let one image take less with --max-memory",
    "demo": "use fewer --jobs",
    "predict": "set --max-memory: it then goes through the image in parts",
    "run": "try --batch_size 1, --bf16 true, --checkpoint_activations true, or smaller patches",
    "study": "use fewer --jobs, or a smaller --batch_size",
}
"""What to do where memory ran out, for those commands of which more is known."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


def _judge(error: BaseException, command: str = "") -> tuple[str, int]:
    """What to print about an error, and the exit code."""
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # typer's usage errors
        context = getattr(error, "ctx", None)
        help_line = f"; see {context.command_path} --help" if context is not None else ""
        return " ".join(error.format_message().split()).rstrip(".") + help_line, 2
    cause = first_cause(error)
    if isinstance(cause, (InputError, CoverageError)):
        return str(cause), 2
    if isinstance(cause, OSError) and cause.errno in _FULL:
        return str(unwritable(os.fsdecode(cause.filename) if cause.filename else _nameless(cause), cause)), 2
    if is_out_of_memory(error):
        return f"{describe(error)}; {_MEMORY.get(command, 'close other programs, or use smaller images')}", 1
    if type(cause).__name__ == "NonFiniteLossError":
        return str(cause), 1
    return f"{describe(error)} (--debug shows where)", 1


def _nameless(error: BaseException) -> str:
    """What could not be written where the error names no file: files of ours are always named."""
    frames = {frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(error.__traceback__)}
    if frames & {"rich.console", "click.utils"}:
        return "standard output"
    for name, stream in (("standard output", sys.stdout), ("standard error", sys.stderr)):
        try:
            stream.flush()
        except OSError:
            return name
    return "an output"


def _flushed(code: int) -> int:
    """The exit code once all that was printed is out: a full disk behind ``>`` is an error, and said once."""
    try:
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        code = code or 141
    except OSError as error:
        if code == 0:
            print(f"error: {unwritable('standard output', error)}", file=sys.stderr)
        code = code or 2
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python's own end would try again
    return code


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 it ran and found problems, 2 wrong input or usage, 128 + n signal n."""
    rank, ranks = 0, 1
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"] or ["--help"]
    try:
        if arguments is None:  # the process is ours: from a test or a notebook it is not
            rank, ranks = count()
            stopping.install(says=rank == 0)
            if rank:  # what all ranks do, rank 0 tells
                sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends
        stopping.keeps("nothing of it is kept; the same command starts again")
        if not debug:
            silence_libraries()
        code = app(words, prog_name="monai-transfer", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        stopping.leave_if_stopped()  # it came of the stop
        if debug:
            traceback.print_exc()
        message, code = _judge(error, words[0])
        cause = first_cause(error)
        if isinstance(cause, BrokenPipeError) and _nameless(cause) == "standard output":
            code = 141  # `| head` has read enough
        elif not rank:
            print(f"error: {message}", file=sys.stderr)
        else:
            with contextlib.suppress(stopping.Stopped):
                time.sleep(1.0)  # where all of them fail alike, torchrun ends this one meanwhile
            stopping.leave_if_stopped()
            print(f"error: rank {rank}: {message}", file=sys.stderr)
    stopping.leave_if_stopped()
    if code == 130:
        print(f"interrupted: {stopping.kept()}", file=sys.stderr)
    code = _flushed(code if isinstance(code, int) else 0)
    if code and ranks > 1:
        stopping.end_children()
        os._exit(code)  # Python's own end would wait for the group, some of which may be dead
    sys.exit(code)
