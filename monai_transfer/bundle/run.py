"""Running a workflow of a bundle: the same configs, in the same order, that ``python -m monai.bundle run`` merges."""

from __future__ import annotations

import logging
import os
import pydoc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from monai_transfer.bundle.command_line import (
    best_weights,
    check_id,
    config_files,
    equal_command,
    parse_overrides,
)
from monai_transfer.bundle_reader.running import own_scripts
from monai_transfer.component_table import share_table
from monai_transfer.config_text import given_to_config, to_config
from monai_transfer.engine import prepare
from monai_transfer.engine.capabilities import refuse_unfit
from monai_transfer.engine.log_to import LogTo
from monai_transfer.engine.run_folder import close_open_runs, read_status
from monai_transfer.errors import InputError
from monai_transfer.runs.lock import holder
from monai_transfer.runs.prolonging import EPOCHS, UNTRAINED, differences, epochs_asked, is_longer
from monai_transfer.runs.ranks import count
from monai_transfer.runs.record import what_is_kept
from monai_transfer.stopping import keeps

__all__ = ["best_weights", "config_files", "equal_command", "open_workflow", "parse_overrides", "run_workflow"]


def open_workflow(
    bundle: str | Path, workflow: str, overrides: Mapping[str, Any], *, log: bool = True
) -> ConfigWorkflow:
    """The bundle's workflow as a ``ConfigWorkflow``, not yet initialised. Opening it runs the bundle's code.

    Raises:
        InputError: see ``config_files``; or an override names an id that the configs do not have.
    """
    files = config_files(bundle, workflow)
    configs = Path(files[0]).parent
    given = {"bundle_root": to_config(str(configs.parent)), **overrides}
    flow = ConfigWorkflow(
        workflow_type="infer" if workflow == "infer" else "train",
        config_file=files if len(files) > 1 else files[0],
        meta_file=str(configs / "metadata.json"),
        logging_file=str(configs / "logging.conf") if log and (configs / "logging.conf").is_file() else False,
    )
    share_table(flow.parser)
    for key, value in given.items():
        check_id(flow.parser.config, key, bundle)
        flow.parser[key.replace("::", "#")] = given_to_config(value)
    return flow


def run_workflow(
    bundle: str | Path,
    workflow: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    log: bool = True,
    log_to: str | None = None,
) -> Path:
    """Run a workflow from start to end, continuing an unfinished run; returns its output folder.

    Args:
        bundle, workflow, overrides: as on the command line.
        log: whether the bundle's logging is set up.
        log_to: ``tensorboard`` or ``mlflow``: losses and scores go there too, into the run folder.

    Raises:
        InputError: the output folder holds a finished run, and not just more epochs of it are asked for (pass
            ``fresh=True``); or anything the configs refuse.
    """
    overrides = dict(overrides or {})
    if workflow == "infer":
        overrides.pop("fresh", None)  # predictions are written anew anyway
    with own_scripts(bundle):
        return _run(bundle, workflow, overrides, log, log_to)


def _run(bundle: str | Path, workflow: str, overrides: dict[str, Any], log: bool, log_to: str | None) -> Path:
    flow = open_workflow(bundle, workflow, overrides, log=log)
    output = Path(flow.parser.get_parsed_content("output_dir") if "output_dir" in flow.parser.config else bundle)
    writes = workflow != "infer" and count()[0] == 0  # rank 0 asks and is told, for all ranks
    if writes and read_status(output) == "finished" and not overrides.get("fresh"):
        _finished(flow, output)
    if workflow in ("adapt", "train"):
        _check_method(flow, "method" if workflow == "adapt" else "regulariser")
    writer = holder(output) if writes else None
    if writer is not None and writer.process != os.getpid():  # told before the seconds that preparing takes
        hint = "wait for it, stop it, or name another --output_dir"
        raise InputError(f"is being written by {writer}", path=output, hint=hint)
    keeps(lambda: what_is_kept(output) if workflow != "infer" else "what was predicted is kept; the rest is not there")
    try:
        with _told_once(flow):
            flow.initialize()
            if log_to is not None:
                trainer = flow.parser.get_parsed_content("train#trainer")
                LogTo(log_to, output, flow.parser.get_parsed_content("validate#evaluator")).attach(trainer)
            flow.run()
        flow.finalize()
    except BaseException as error:
        close_open_runs(error)
        raise
    return output


@contextmanager
def _told_once(flow: ConfigWorkflow) -> Iterator[None]:
    """Keep from the log what the exception that follows says: that an engine ends by it, and that weights are not there
    where the config's ``run`` goes on to raise that."""
    required = "@prepared.require()" in str(flow.parser.config.get("run"))

    def is_news(record: logging.LogRecord) -> bool:
        if record.name.startswith("ignite.") and "is terminating due to exception" in record.getMessage():
            return False
        return not (required and record.name == prepare.__name__)

    handlers = list(logging.getLogger().handlers)  # not on loggers: each engine has its own, made later
    for handler in handlers:
        handler.addFilter(is_news)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_news)


def _finished(flow: ConfigWorkflow, output: Path) -> None:
    """A finished run may be prolonged, and else is refused.

    Raises:
        InputError: no more epochs of the same are asked for.
    """
    config, epochs = flow.parser.config, epochs_asked(output)
    if is_longer(output, config):
        return
    other = ", ".join([key for key in differences(output, config) or [] if key != EPOCHS][:5])
    hint = "pass --fresh to start over, or another --output_dir"
    if other:
        raise InputError(f"holds a finished run, of another configuration ({other})", path=output, hint=hint)
    if epochs is not None and config.get("workflow") not in UNTRAINED:
        hint = f"--max_epochs above {epochs} prolongs it; or {hint}"
    raise InputError("holds a finished run", path=output, hint=hint)


def _check_method(flow: ConfigWorkflow, name: str) -> None:
    """Refuse a method that is not for the bundle's task before anything is loaded; see ``docs/methods.md``."""
    named, config = flow.parser.config.get(name), flow.parser.config
    info = config.get("run_folder", {}).get("info", {})
    if not isinstance(named, Mapping) or not isinstance(info.get("task"), str):
        return
    kind = pydoc.locate(str(named.get("_target_")))
    if kind is None:
        raise InputError(f"no method {named.get('_target_')!r} can be imported", hint="give the full path of its class")
    if named.get("kept") is not None:
        return  # options widen what it is for; the trainer asks the object itself
    refuse_unfit(kind, info["task"], info.get("spatial_dims"))
