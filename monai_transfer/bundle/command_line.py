"""What a command line says of a bundle, read without MONAI: config files, overrides, weights, ids that do not exist.

A wrong word is answered at once so, and not after the seconds that importing torch and MONAI takes.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue

from monai_transfer.config_text import given_to_config, to_config
from monai_transfer.discovery import file_names
from monai_transfer.errors import InputError, closest
from monai_transfer.runs.ranks import count
from monai_transfer.runs.record import read_record
from monai_transfer.safe_parse import config_file, read_config

__all__ = [
    "AUTO",
    "WORKFLOWS",
    "best_weights",
    "check_id",
    "check_roots",
    "config_files",
    "equal_command",
    "named_strategy",
    "parse_overrides",
]

WORKFLOWS = {
    "train": ["train"],
    "pretrain": ["train", "pretrain"],
    "adapt": ["train", "adapt"],
    "evaluate": ["train", "evaluate"],
    "scratch": ["train", "scratch"],  # of a bundle with a source: without it, planned for the data
    "infer": ["inference"],
    "contrastive": ["train", "contrastive"],  # of a bundle for self-supervised pretraining
}
"""The config files of each workflow, in the order in which they are merged."""

_ALONE = ("evaluate", "infer")

AUTO = "auto"
"""The value of ``strategy`` that decides between arms (``bundle.auto``)."""

# beside what `monai.bundle run` reads: the words that YAML and JSON have for them
_WORDS = {"null": None, "none": None, "true": True, "false": False}


def config_files(bundle: str | Path, workflow: str) -> list[str]:
    """Absolute paths of the workflow's config files, in merging order.

    In a process that ``torchrun`` started beside others, ``multi_gpu_train`` comes last.

    Raises:
        InputError: not a bundle, no such workflow, or the bundle lacks one of its files.
    """
    bundle = Path(bundle)
    if not (bundle / "configs").is_dir():
        raise InputError(
            "not a MONAI bundle: it has no configs folder", path=bundle, hint="name the folder that holds `configs`"
        )
    home = bundle.resolve()  # the folder alone: a config that is a link belongs to this bundle, not to where it leads
    if workflow not in WORKFLOWS:
        raise InputError(f"no workflow {workflow!r}", hint=f"one of {', '.join(WORKFLOWS)}")
    files, several = [], count()[1] > 1
    if several and workflow in _ALONE:
        raise InputError(f"{workflow} runs in one process", hint="leave torchrun away")
    for name in [*WORKFLOWS[workflow], *(["multi_gpu_train"] if several else [])]:
        found = config_file(home, name)
        if found is None:
            raise InputError(
                f"this bundle has no configs/{name}.yaml, so no workflow {workflow!r}",
                path=bundle,
                hint="see its configs folder for the workflows that it has",
            )
        files.append(str(found))
    return files


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """``["--lr", "0.01", "--target_site=b"]`` as a dictionary, values read as ``monai.bundle run`` reads them.

    Raises:
        InputError: something is not of the form ``--key value``.
    """
    overrides: dict[str, Any] = {}
    items = list(pairs)
    while items:
        key = items.pop(0)
        if not key.startswith("--") or len(key) < 3:
            raise InputError(f"cannot read {key!r}", hint="overrides are given as --key value")
        if "=" in key:
            key, value = key.split("=", 1)
        elif items:
            value = items.pop(0)
        else:
            raise InputError(f"{key} has no value", hint="overrides are given as --key value")
        text = value.strip()
        if text[:1] in ("$", "@", "%"):  # expressions and references are MONAI's to read
            overrides[key[2:]] = text
        else:
            overrides[key[2:]] = _WORDS[text.lower()] if text.lower() in _WORDS else DefaultParseValue(text)
    return overrides


def named_strategy(overrides: dict[str, Any], workflow: str) -> dict[str, Any]:
    """Overrides in which a strategy's name stands for its class; ``auto`` stays as it is.

    Raises:
        InputError: no such strategy; or ``auto`` with another workflow than ``train``.

    >>> named_strategy({"strategy": "head_only"}, "train")
    {'strategy': {'_target_': 'monai_transfer.strategies.head_only.HeadOnly'}}
    """
    name = overrides.get("strategy")
    if not isinstance(name, str) or name[:1] in ("$", "@", "%"):
        return overrides
    known = file_names("strategies")
    if name == AUTO:
        if workflow != "train":
            raise InputError(
                f"--strategy auto does not go with {workflow}", hint="it decides how to train: run it there"
            )
        return overrides
    if name not in known:
        raise InputError(f"no strategy {name!r}", hint=closest(name, [AUTO, *known]))
    kind = "".join(part.capitalize() for part in name.split("_"))
    return {**overrides, "strategy": {"_target_": f"monai_transfer.strategies.{name}.{kind}"}}


def _quote(word: str) -> str:
    """For the shell; double quotes where single ones stand inside, since lists of files are read more easily so."""
    if "'" in word and not set(word) & set('"$`\\!'):
        return f'"{word}"'
    return shlex.quote(word)


def _as_word(value: Any) -> str:
    """A value so that ``monai.bundle run`` reads the same: it reads Python literals, and drops a bare None."""
    if value is None:
        return "$None"
    if isinstance(value, str):
        return value if DefaultParseValue(value) == value else repr(value)
    return repr(value)


def equal_command(bundle: str | Path, workflow: str, overrides: Mapping[str, Any]) -> str:
    """The ``python -m monai.bundle run`` line (of several processes: ``torchrun``) that does the same."""
    files = config_files(bundle, workflow)
    configs = Path(files[0]).parent
    names = files[0] if len(files) == 1 else "[" + ",".join(repr(name) for name in files) + "]"
    several = count()[1]
    launcher = ["torchrun", f"--nproc_per_node={several}"] if several > 1 else ["python"]
    words = [*launcher, "-m", "monai.bundle", "run", "--config_file", names]
    words += ["--meta_file", str(configs / "metadata.json")]
    if (configs / "logging.conf").is_file():
        words += ["--logging_file", str(configs / "logging.conf")]
    words += ["--bundle_root", to_config(str(configs.parent))]
    for key, value in overrides.items():
        words += [f"--{key}", _as_word(given_to_config(value))]
    return " ".join(_quote(word) for word in words)


def _trained_without_source(run: Path) -> bool:
    try:
        return (read_record(run) or {}).get("workflow") == "scratch"
    except InputError:
        return False


def best_weights(bundle: str | Path, run: str | Path | None = None) -> Path:
    """``models/model.pt`` of a run (its folder, or its name in the bundle's ``runs``), else of the bundle itself.

    Of a bundle whose source has several folds, ``models/folds.pt``.

    Raises:
        InputError: no such run, or nothing was trained yet.
    """
    home = Path(bundle)
    if run is not None:
        home = next((p for p in (Path(run), Path(bundle) / "runs" / run) if p.is_dir()), Path(run))
        if not home.is_dir():
            raise InputError("no such run", path=run, hint="name a run folder")
    path = home / "models" / "model.pt"
    if run is None and (folds := home / "models" / "folds.pt").is_file():
        return folds
    if run is not None and _trained_without_source(home):
        fault = "this run trained another network with other preprocessing than the bundle's (configs/scratch.yaml)"
        raise InputError(fault, path=home, hint="name the run folder itself: it says what it was; or new --source none")
    if not path.is_file():
        hint = "name a run that has trained" if run is not None else "pretrain first, or name a run with --run"
        raise InputError("no weights here", path=path, hint=hint)
    return path


def check_roots(bundle: str | Path, workflow: str, overrides: Mapping[str, Any]) -> None:
    """Refuse overrides whose first part no config of the workflow has; what lies deeper is judged when they are merged.

    Raises:
        InputError: names the id, and the nearest one that exists; or a config cannot be read.
    """
    names: dict[str, Any] = {"bundle_root": None}
    for path in map(Path, config_files(bundle, workflow)):
        content = read_config(path)
        if isinstance(content, dict):
            names |= {str(key).lstrip("+").replace("::", "#").split("#")[0]: None for key in content}
    for key in overrides:
        check_id(names, key.replace("::", "#").split("#")[0], bundle)


def check_id(config: Any, key: str, bundle: str | Path) -> None:
    """Refuse an id that the configs do not have: MONAI adds a mistyped one without a word, and nothing changes.

    Below a ``_target_`` a new key is an argument of the component, whose default the config left alone.

    Raises:
        InputError: it is not there.
    """
    level, seen = config, ""
    *parents, last = key.replace("::", "#").split("#")
    for part in [*parents, last]:
        if isinstance(level, list):
            if not part.isdigit() or int(part) >= len(level):
                raise InputError(
                    f"no config id {key!r}: {seen or 'it'} is a list of {len(level)}", path=bundle, hint="count from 0"
                )
            level = level[int(part)]
        elif isinstance(level, dict) and part in level:
            level = level[part]
        elif isinstance(level, dict) and "_target_" in level and part == last:
            return
        else:
            names = [str(name) for name in level if name != "_meta_"] if isinstance(level, dict) else []
            near = difflib.get_close_matches(part, names, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"ids here are {', '.join(names) or 'none'}"
            raise InputError(f"no config id {key!r} in this workflow", path=bundle, hint=hint)
        seen = f"{seen}#{part}" if seen else part
