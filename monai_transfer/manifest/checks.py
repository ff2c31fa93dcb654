"""What must hold in a manifest beyond being JSON: its schema, and the rules that a schema cannot say."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import jsonschema

from monai_transfer.errors import InputError, closest
from monai_transfer.manifest.label_mapping import LabelMapping
from monai_transfer.manifest.names import check_names
from monai_transfer.tasks import get_task, may_have
from monai_transfer.tasks.labels import LabelKind
from monai_transfer.tasks.multilabel import FINDINGS

__all__ = ["SPLITS", "closest", "has_findings", "schema", "validate"]

SPLITS = ("training", "validation", "test", "unlabeled")

# Names that Windows keeps for devices: a prediction could not be written under them.
_RESERVED = re.compile(r"^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$", re.IGNORECASE)


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a manifest; equal to ``data_manifests/schema.json`` in the repository."""
    return json.loads(Path(__file__).with_name("schema.json").read_text(encoding="utf-8"))


@functools.cache
def _validator() -> Any:
    return jsonschema.Draft202012Validator(schema())


def has_findings(content: dict[str, Any]) -> bool:
    """Whether the cases of a manifest's content have several findings each: it says so, or a label is an object."""
    labels = (item.get("label") for split in SPLITS for item in content.get(split, []))
    return bool(content.get("multi_label")) or any(isinstance(label, dict) for label in labels)


def validate(content: Any, path: str | Path | None = None) -> None:
    """Hold a manifest's content (as read from JSON) against its schema and rules.

    Raises:
        InputError: at the first fault, naming ``path``, the item and the hint.
    """
    errors = sorted(_validator().iter_errors(content), key=lambda error: list(map(str, error.absolute_path)))
    if errors:
        # An unknown key is most often the cause of the others (a misspelt `image` is also a missing one).
        error = next((e for e in errors if e.validator == "additionalProperties"), errors[0])
        raise _schema_fault(error, content, path)
    _check_labels(content, path)
    items = [(split, i, item) for split in SPLITS for i, item in enumerate(content.get(split, []))]
    if not items:
        raise InputError("holds no case", path=path, hint=f"list at least one under one of {', '.join(SPLITS)}")
    check_names(content, items, path)
    _check_names(items, path)
    _check_patients(items, path)
    names = {name: int(index) for index, name in _class_names(content).items()}
    several = has_findings(content)
    mapping = _check_mapping(content, several, path)
    _check_annotated(content, items, mapping, path)
    _check_told(list(content.get("surface_tolerance", {})), mapping, "surface_tolerance", path)
    kind = FINDINGS if several else get_task(content["task"]).label
    channels = _n_images(items[0][2])
    for split, i, item in items:
        where = _where(split, i, item)
        if _n_images(item) != channels:
            raise InputError(
                f"{where} has {_n_images(item)} image files where the first case has {channels}",
                path=path,
                hint="every case needs the same channels in the same order",
            )
        if isinstance(item.get("sha256"), list) != isinstance(item["image"], list) and "sha256" in item:
            hint = "give one hash per image file, in the same order"
            raise InputError(f"{where}: sha256 must be a list exactly where image is one", path=path, hint=hint)
        lost = item.get("missing", [])
        if lost and (len(lost) >= channels or max(lost) >= channels):
            hint = f"number the channels from 0 to {channels - 1}, and leave one that is there"
            raise InputError(f"{where}: missing is {lost}, of {channels} channels", path=path, hint=hint)
        _check_label(item.get("label"), kind, names, where, path)
    named = content.get("channel_names")
    if named and isinstance(items[0][2]["image"], list) and len(named) != channels:
        hint = "name every channel in channel_names, or none"
        raise InputError(
            f"names {len(named)} channels, but its cases have {channels} image files", path=path, hint=hint
        )


def _where(split: str, index: int, item: Any) -> str:
    name = item.get("case") if isinstance(item, dict) else None
    return f"{split}[{index}]" + (f" (case {name!r})" if isinstance(name, str) else "")


def _n_images(item: dict[str, Any]) -> int:
    return len(item["image"]) if isinstance(item["image"], list) else 1


def _schema_fault(error: Any, content: Any, path: str | Path | None) -> InputError:
    place = list(error.absolute_path)
    hint: str | None
    where, rest = "", place
    if len(place) >= 2 and isinstance(place[1], int):
        where, rest = _where(place[0], place[1], content[place[0]][place[1]]), place[2:]
    key = ".".join(map(str, rest))
    prefix = f"{where}: " if where else ""
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = next(name for name in error.instance if name not in known)
        return InputError(f"{prefix}unknown key {unknown!r}", path=path, hint=closest(unknown, known))
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        return InputError(f"{prefix}has no {missing!r}", path=path, hint=_describe(missing, where))
    if key.startswith("label.") or (key == "label" and error.validator == "additionalProperties"):
        hint = "a finding is 1, 0, or null where it is unknown"
        return InputError(f"{prefix}{key} is {error.instance!r}", path=path, hint=hint)
    if error.validator == "enum":
        return InputError(
            f"{prefix}{key} is {error.instance!r}", path=path, hint=closest(str(error.instance), error.validator_value)
        )
    if key == "case" and error.validator in ("pattern", "maxLength"):
        hint = "use at most 120 letters, digits and . _ + = @ -, beginning with a letter or digit, ending with no dot"
        return InputError(f"{prefix}case {error.instance!r} is not safe as a file name", path=path, hint=hint)
    if key.startswith("acquired"):
        hint = "give a number: days since the first image, or an order; never a calendar date"
        return InputError(f"{prefix}acquired is {error.instance!r}", path=path, hint=hint)
    if "label" in key and error.validator == "propertyNames" or error.validator == "pattern":
        hint = 'labels and channel_names read {"0": "background", "1": "tumour"}' if "sha256" not in key else None
        return InputError(f"{prefix}{key or 'key'} cannot hold {error.instance!r}", path=path, hint=hint)
    shown = json.dumps(error.instance, default=str)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    hint = _describe(rest[0], where) if rest and isinstance(rest[0], str) else None
    return InputError(f"{prefix}{key or 'the manifest'} cannot be {shown}", path=path, hint=hint)


def _describe(key: str, in_item: str) -> str | None:
    known = schema()["$defs"]["case"]["properties"] if in_item else schema()["properties"]
    text = known.get(key, {}).get("description")
    return f"{key}: {text}" if text else None


def _check_labels(content: dict[str, Any], path: str | Path | None) -> None:
    task, labels = get_task(content["task"]), _class_names(content)
    if task.needs_names and not labels:
        hint = 'name the classes, e.g. "labels": {"0": "background", "1": "tumour"}'
        raise InputError(f"a {task.name} manifest needs labels", path=path, hint=hint)
    indices = sorted(map(int, labels))
    if task.class_zero == "class" and indices != list(range(len(indices))):
        hint = "number the classes 0, 1, 2, ... under labels, and the cases' labels alike"
        raise InputError(f"class numbers must run from 0 without a gap, not {indices}", path=path, hint=hint)
    if task.class_zero == "background" and task.needs_names and 0 not in indices:
        raise InputError("labels name no background", path=path, hint='add "0": "background"')
    seen: dict[str, str] = {}
    for index, name in labels.items():
        other = seen.setdefault(name.lower(), index)
        if other != index:
            hint = "give each class a name of its own"
            if task.label.is_path:
                hint = 'list the values of one class together: {"name": ..., "values": [1, 4]}'
            raise InputError(f"labels {other} and {index} share the name {name!r}", path=path, hint=hint)


def _class_names(content: dict[str, Any]) -> dict[str, str]:
    """Class name by number."""
    return {key: one if isinstance(one, str) else one["name"] for key, one in content.get("labels", {}).items()}


def _check_mapping(content: dict[str, Any], several: bool, path: str | Path | None) -> LabelMapping:
    """The label mapping of the content, where it holds together and belongs to the task."""
    task = content["task"]
    if several and not may_have(task, FINDINGS):
        hint = "several findings per case are a classification; masks that overlap are regions"
        raise InputError(f"labels with findings in a {task} manifest", path=path, hint=hint)
    masks = get_task(task).label.is_path
    values = [key for key, one in content.get("labels", {}).items() if not isinstance(one, str)]
    odd = [key for key in ("regions", "regions_class_order", "ignore") if key in content and not masks]
    if odd or (values and not masks):
        what = odd[0] if odd else f"labels.{values[0]}.values"
        raise InputError(f"{what} is about values in masks, and the task is {task}", path=path, hint="leave it out")
    try:
        return LabelMapping.from_dict(content | {"multi_label": several})
    except InputError as error:
        raise InputError(error.fault, path=path, hint=error.hint) from None


def _check_annotated(
    content: dict[str, Any], items: list[tuple[str, int, dict[str, Any]]], mapping: LabelMapping, path: Any
) -> None:
    sites = {item["site"] for _, _, item in items}
    for site, names in content.get("annotated", {}).items():
        if site not in sites:
            raise InputError(
                f"annotated names the site {site!r}, which has no case", path=path, hint=closest(site, sites)
            )
        _check_told(names, mapping, f"annotated.{site}", path)
    for split, i, item in items:
        if "annotated" in item:
            _check_told(item["annotated"], mapping, f"{_where(split, i, item)}: annotated", path)


def _check_told(names: list[str], mapping: LabelMapping, where: str, path: str | Path | None) -> None:
    known = [*mapping.classes, *mapping.regions]
    odd = next((name for name in names if name not in known), None)
    if odd is not None:
        raise InputError(
            f"{where} names {odd!r}, which is no class of this manifest", path=path, hint=closest(odd, known)
        )


def _check_names(items: list[tuple[str, int, dict[str, Any]]], path: str | Path | None) -> None:
    seen: dict[str, str] = {}
    for split, i, item in items:
        where, name = f"{split}[{i}]", item["case"]
        if _RESERVED.match(name):
            raise InputError(f"{where}: case {name!r} is a device name on Windows", path=path, hint="rename it")
        other = seen.setdefault(name.lower(), where)
        if other != where:
            hint = "give every case its own name; names may not differ in upper and lower case alone"
            raise InputError(f"{where}: case {name!r} is also the name of {other}", path=path, hint=hint)


def _check_patients(items: list[tuple[str, int, dict[str, Any]]], path: str | Path | None) -> None:
    seen: dict[str, tuple[str, int]] = {}
    for split, i, item in items:
        patient = item["patient"]
        first = seen.setdefault(patient, (split, i))
        if first[0] != split:
            raise InputError(
                f"patient {patient!r} stands in two splits: {first[0]}[{first[1]}] and {_where(split, i, item)}",
                path=path,
                hint="keep all cases of a patient in one split",
            )


def _check_label(label: Any, kind: LabelKind, names: dict[str, int], where: str, path: str | Path | None) -> None:
    fault = None if label is None else kind.fault(label, names)
    if fault:
        raise InputError(f"{where}: {fault[0]}", path=path, hint=fault[1])
