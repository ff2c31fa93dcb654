"""Running a workflow of a bundle: the same configs, in the same order, that ``python -m monai.bundle run`` merges."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigWorkflow

from monai_transfer.bundle.spec import WORKFLOWS
from monai_transfer.engine.run_folder import read_status
from monai_transfer.errors import InputError

__all__ = ["config_files", "equal_command", "open_workflow", "run_workflow"]


def config_files(bundle: str | Path, workflow: str) -> list[str]:
    """Absolute paths of the workflow's config files, in merging order.

    Raises:
        InputError: not a bundle, no such workflow, or the bundle lacks one of its files.
    """
    bundle = Path(bundle)
    if not (bundle / "configs").is_dir():
        raise InputError("not a MONAI bundle: it has no configs folder", path=bundle)
    if workflow not in WORKFLOWS:
        raise InputError(f"no workflow {workflow!r}", mend=f"one of {', '.join(WORKFLOWS)}")
    files = []
    for name in WORKFLOWS[workflow]:
        found = next(
            (p for end in ("yaml", "yml", "json") if (p := bundle / "configs" / f"{name}.{end}").is_file()), None
        )
        if found is None:
            raise InputError(f"this bundle has no configs/{name}.yaml, so no workflow {workflow!r}", path=bundle)
        files.append(str(found.resolve()))
    return files


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """``["--lr", "0.01", "--target_site=b"]`` as a dictionary, values read as YAML.

    Raises:
        InputError: something is not of the form ``--key value``.
    """
    overrides: dict[str, Any] = {}
    items = list(pairs)
    while items:
        key = items.pop(0)
        if not key.startswith("--") or len(key) < 3:
            raise InputError(f"cannot read {key!r}", mend="overrides are given as --key value")
        if "=" in key:
            key, value = key.split("=", 1)
        elif items:
            value = items.pop(0)
        else:
            raise InputError(f"{key} has no value", mend="overrides are given as --key value")
        text = value.strip()
        # expressions, references and lists of them are MONAI's to read
        overrides[key[2:]] = value if text[:1] in "$@%" else yaml.safe_load(text)
    return overrides


def equal_command(bundle: str | Path, workflow: str, overrides: Mapping[str, Any]) -> str:
    """The ``python -m monai.bundle run`` line that does the same."""
    files = config_files(bundle, workflow)
    configs = Path(files[0]).parent
    names = files[0] if len(files) == 1 else "[" + ",".join(f"'{name}'" for name in files) + "]"
    words = ["python", "-m", "monai.bundle", "run", "--config_file", names]
    words += ["--meta_file", str(configs / "metadata.json"), "--logging_file", str(configs / "logging.conf")]
    words += ["--bundle_root", str(configs.parent)]
    for key, value in overrides.items():
        words += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    return shlex.join(words)


def open_workflow(
    bundle: str | Path, workflow: str, overrides: Mapping[str, Any], *, log: bool = True
) -> ConfigWorkflow:
    """The bundle's workflow as a ``ConfigWorkflow``, not yet initialised. Opening it runs the bundle's code.

    Raises:
        InputError: see ``config_files``; or an override names an id that the configs do not have.
    """
    files = config_files(bundle, workflow)
    configs = Path(files[0]).parent
    given = {"bundle_root": str(configs.parent), **overrides}
    flow = ConfigWorkflow(
        workflow_type="infer" if workflow == "infer" else "train",
        config_file=files if len(files) > 1 else files[0],
        meta_file=str(configs / "metadata.json"),
        logging_file=str(configs / "logging.conf") if log and (configs / "logging.conf").is_file() else False,
    )
    known = flow.parser.config
    for key, value in given.items():
        root = key.replace("::", "#").split("#")[0]
        if root not in known:
            import difflib

            near = difflib.get_close_matches(root, known, n=3)
            raise InputError(
                f"no config id {key!r} in this workflow",
                path=bundle,
                mend=f"did you mean {' or '.join(near)}?"
                if near
                else f"ids are {', '.join(k for k in known if k != '_meta_')}",
            )
        try:
            flow.parser[key] = value
        except KeyError as error:
            raise InputError(f"no config id {key!r} in this workflow ({error})", path=bundle) from error
    return flow


def run_workflow(
    bundle: str | Path, workflow: str, overrides: Mapping[str, Any] | None = None, *, log: bool = True
) -> Path:
    """Run a workflow from start to end, continuing an unfinished run; returns its output folder.

    Raises:
        InputError: the output folder holds a finished run (pass ``fresh=True``), or anything the configs refuse.
    """
    overrides = dict(overrides or {})
    flow = open_workflow(bundle, workflow, overrides, log=log)
    flow.initialize()
    output = Path(flow.parser.get_parsed_content("output_dir"))
    if workflow != "infer" and read_status(output) == "finished" and not overrides.get("fresh"):
        raise InputError(
            "holds a finished run", path=output, mend="pass --fresh to start over, or another --output_dir"
        )
    flow.run()
    flow.finalize()
    return output
