"""Objects of components: arguments checked one by one, made within limits on tensors, layers and time."""

from __future__ import annotations

import inspect
import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from monai_transfer.bundle_reader.component import Component, Unread, unread_in
from monai_transfer.bundle_reader.limits import (
    MAX_ELEMENTS,
    MAX_ITEMS,
    MAX_LAYERS,
    MAX_MODULES,
    MAX_SECONDS,
    MAX_WINDOW,
)
from monai_transfer.bundle_reader.older_arguments import translate
from monai_transfer.bundle_reader.table import ARGUMENTS, DEFAULT_OFF, DROPPED, READERS, lookup
from monai_transfer.config_text import to_config
from monai_transfer.errors import InputError

__all__ = ["as_config", "bounded", "build", "check"]

TRUST = "--trust-source runs the bundle's own code instead, if you trust its author"
_SIZES = ("roi_size", "spatial_size", "spatial_border", "k", "k_divisible", "repeats", "input_image_size", "img_size")
_COUNTS = ("blocks_down", "blocks_up", "blocks_bottleneck", "block_config", "layers", "depths", "depth", "num_layers",
           "num_res_units", "num_blocks", "num_depths", "psp_block_num", "num_inter_units", "dsdepth", "deep_supr_num",
           "num_heads", "integration_steps")  # fmt: skip
# torchvision finds a model by its name among all that it has
_MODELS = r"(resnet|resnext|wide_resnet|densenet|inception_v3|vgg|mobilenet|efficientnet|squeezenet|googlenet|alexnet|"
_MODELS += r"regnet|shufflenet|mnasnet|convnext|swin|vit)[a-z0-9_-]*"
_SMALLEST_VOXEL = 0.01  # mm; of SafeReader's limits
_NESTED = {"transforms": "transform", "transform": "transform", "loss": "loss", "dints_space": "part"}
_OWN = (
    "monai_transfer.bundle_reader.functions.TensorFunction",
    "monai_transfer.localization.prediction.FindBoxes",
    "monai_transfer.localization.prediction.WriteBoxes",
)


def build(component: Component, *, device: str = "cpu", share: dict[str, Any] | None = None) -> Any:
    """The object of a component, from the class in the table, within the limits of ``bundle_reader.limits``.

    Args:
        component: from ``read_bundle`` or a ``Resolver``.
        device: where transforms that name one put their images; networks are made on the CPU.
        share: objects by their place in the config, so that two components that refer to one share it (``Invertd``
            needs the very transforms that it inverts).

    Raises:
        InputError: an argument was not read, or the class does not take it, or the object is too large.

    >>> from monai_transfer.bundle_reader.component import Component
    >>> build(Component("Softmax", "activation", {"dim": 1}, path="torch.nn.Softmax"))
    Softmax(dim=1)
    """
    share = {} if share is None else share
    if component.where and component.where in share:
        return share[component.where]
    if component.path in _OWN:
        return _own(component)
    entry = lookup(component.path)
    if entry is None or entry.kind == "saver":  # components come from the table
        raise InputError(f"{component.where}: {component.name} is read, not made", hint=TRUST)
    arguments = {key: _made(value, device, share) for key, value in check(component).items()}
    for key, value in _own_arguments(component, device).items():
        arguments[key] = value
    try:
        with bounded(f"{component.name} at {component.where or 'the top'}"):
            made = entry.make(**arguments)
    except InputError:
        raise
    except ImportError as error:
        raise _missing_package(component, error) from error
    except Exception as error:  # whatever a class says to arguments of a wrong type or value
        fault = f"{component.where}: {component.name} cannot be made of these arguments ({_first_line(error)})"
        raise InputError(fault, hint="it may be of another MONAI version; " + TRUST) from error
    if component.where:
        share[component.where] = made
    return made


def _missing_package(component: Component, error: Exception) -> InputError:
    """One line for what is not installed."""
    package = next((name for name in ("torchvision", "einops", "transformers") if name in str(error)), None)
    if package == "torchvision":
        hint = "pip install torchvision, of the version that belongs to the installed torch"
        return InputError(f"{component.name} needs the package torchvision, which is not here", hint=hint)
    said = f"the package {package}" if package else f"a package ({_first_line(error)})"
    return InputError(f"{component.name} needs {said}, which is not here", hint="install it")


def _own(component: Component) -> Any:
    """A class of this package that a reader put in place of a function."""
    from monai_transfer.bundle_reader.functions import TensorFunction
    from monai_transfer.localization.prediction import FindBoxes, WriteBoxes

    classes: dict[str, Any] = {"TensorFunction": TensorFunction, "FindBoxes": FindBoxes, "WriteBoxes": WriteBoxes}
    return classes[component.name](**component.arguments)


def as_config(component: Component) -> dict[str, Any]:
    """A component as a config with a full ``_target_`` path and plain values; parts alike.

    Raises:
        InputError: an argument was not read.

    >>> from monai_transfer.bundle_reader.component import Component
    >>> as_config(Component("Softmax", "activation", {"dim": 1}, path="torch.nn.Softmax"))
    {'_target_': 'torch.nn.Softmax', 'dim': 1}
    """
    arguments = {key: _as_config_value(value) for key, value in check(component).items()}
    own = {key: False for key in _own_arguments(component, "cpu") if key in DEFAULT_OFF and _fetches(component)}
    return {"_target_": component.path} | arguments | own


def check(component: Component) -> dict[str, Any]:
    """The arguments of a component with those of older MONAI versions translated; refused where one is not allowed.

    Raises:
        InputError: an argument was not read, is not among those of the table, or has a size beyond a limit.
    """
    arguments, _ = translate(component.name, component.arguments)
    if component.path in _OWN:
        for unread in unread_in(list(arguments.values())):
            raise InputError(f"{unread} cannot be read without running code", hint=TRUST)
        for name, value in arguments.items():
            _check_value(name, value, f"{component.where}::{name}", names=True)
        return arguments
    where = component.where or component.name
    for unread in unread_in(list(arguments.values())):
        raise InputError(f"{unread} cannot be read without running code", hint=TRUST)
    kept = {}
    for name, value in arguments.items():
        if name in DROPPED or name in DEFAULT_OFF:  # what is off is said in the description's notes
            continue
        if name == "func" and component.kind == "function" and isinstance(value, Component) and value.path in _OWN:
            kept[name] = value
            continue
        if value is None and name not in ARGUMENTS[component.kind] and name != "self":
            continue  # nothing is nothing, whatever the argument would do
        if name not in ARGUMENTS[component.kind]:
            raise InputError(f"{where}: the argument {name!r} of {component.name} is not taken over", hint=TRUST)
        if name in ("model_name", "backbone") and not (isinstance(value, str) and re.fullmatch(_MODELS, value)):
            raise InputError(f"{where}: no {name} {str(value)[:80]!r} is known here", hint=TRUST)
        _check_value(name, value, f"{where}::{name}")
        kept[name] = value
    if "reader" in kept and component.name.startswith("LoadImage"):
        _check_reader(kept["reader"], where)
    return kept


def _check_value(name: str, value: Any, where: str, *, names: bool = False) -> None:
    if isinstance(value, Component):
        if _NESTED.get(name) != value.kind:
            raise InputError(f"{where}: {value.name} is no argument here", hint=TRUST)
        return
    if isinstance(value, (list, tuple)):
        if len(value) > MAX_ITEMS:
            raise InputError(f"{where}: a list of more than {MAX_ITEMS} items", hint=TRUST)
        for item in value:
            _check_value(name, item, where, names=names)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, (str, int)) or re.fullmatch(r"_\w+_", str(key)):  # a word of MONAI's configs
                raise InputError(f"{where}: a dictionary with other keys than names", hint=TRUST)
            _check_value(name, item, where, names=names)
    elif isinstance(value, str) and not names and re.search(r"[$@%#]", value):  # MONAI would read code or a reference
        raise InputError(f"{where}: the text {value[:60]!r} is none that stands in a config", hint=TRUST)
    elif not isinstance(value, (str, int, float, bool, type(None))):
        raise InputError(f"{where}: a value of the kind {type(value).__name__}", hint=TRUST)
    if name in _COUNTS and isinstance(value, (int, float)) and abs(value) > MAX_LAYERS:
        raise InputError(f"{where}: {value:g} layers are more than {MAX_LAYERS}", hint="make it smaller")
    if name in _SIZES:
        numbers = [value] if isinstance(value, (int, float)) else value if isinstance(value, (list, tuple)) else []
        voxels = math.prod(max(1.0, float(n)) for n in numbers if isinstance(n, (int, float)))
        if not voxels <= MAX_WINDOW:
            raise InputError(f"{where}: {voxels:.3g} voxels are more than {MAX_WINDOW:,}", hint="make it smaller")
    if name == "pixdim":
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(number, (int, float)) and 0 < number < _SMALLEST_VOXEL:
                raise InputError(f"{where}: voxels of {number:g} mm", hint=f"make them {_SMALLEST_VOXEL} mm or larger")


def _check_reader(reader: Any, where: str) -> None:
    """A reader is a name of MONAI's: it would import any dotted path."""
    for name in reader if isinstance(reader, (list, tuple)) else [reader]:
        if name is not None and str(name).removeprefix("monai.data.").rpartition(".")[2] not in READERS:
            raise InputError(f"{where}: no reader {str(name)[:80]!r} is known here", hint=TRUST)


def _own_arguments(component: Component, device: str) -> dict[str, Any]:
    """What a component gets from us: no download, the user's device."""
    entry = lookup(component.path)
    if entry is None:
        return {}
    parameters = inspect.signature(entry.make).parameters
    own: dict[str, Any] = {name: False for name in DEFAULT_OFF if name in parameters}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) and component.kind == "network":
        target = getattr(entry.make, "__mro__", (None, None))[1]
        inherited = inspect.signature(target).parameters if isinstance(target, type) else {}
        own |= {name: False for name in DEFAULT_OFF if name in inherited and name not in own}
    if component.kind == "part" and "device" in parameters:
        own["device"] = "cpu"
    if component.kind == "transform" and "device" in component.arguments:
        own["device"] = device
    return own


def _fetches(component: Component) -> bool:
    """Whether the class fetches weights unless it is told not to."""
    entry = lookup(component.path)
    parameters = inspect.signature(entry.make).parameters if entry is not None else {}
    return any(parameters[name].default is not False for name in DEFAULT_OFF if name in parameters)


def _made(value: Any, device: str, share: dict[str, Any]) -> Any:
    if isinstance(value, Component):
        return build(value, device=device, share=share)
    if isinstance(value, list):
        return [_made(item, device, share) for item in value]
    if isinstance(value, tuple):
        return tuple(_made(item, device, share) for item in value)
    if isinstance(value, dict):
        return {key: _made(item, device, share) for key, item in value.items()}
    return value


def _as_config_value(value: Any) -> Any:
    if isinstance(value, Component):
        return as_config(value)
    if isinstance(value, (list, tuple, set)):
        return [_as_config_value(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_config_value(item) for key, item in value.items()}
    assert not isinstance(value, Unread)
    return to_config(value)


@contextmanager
def bounded(what: str, *, elements: int = MAX_ELEMENTS, seconds: float | None = None) -> Iterator[None]:
    """Refuse tensors, layers and time beyond the limits while something is made or run, before they are taken.

    Every operation of torch passes here: the size of a new tensor is checked before it is allocated.

    Args:
        what: for the message.
        elements: of all new tensors together.
        seconds: of processor time, so that a busy machine refuses nothing; by default ``MAX_SECONDS``.

    Raises:
        InputError: a limit was reached.
    """
    from torch.nn.modules import module as torch_module
    from torch.utils._python_dispatch import TorchDispatchMode

    started, limit = time.process_time(), MAX_SECONDS if seconds is None else seconds
    counted = {"elements": 0, "modules": 0}

    def tick() -> None:
        if time.process_time() - started > limit:
            raise InputError(f"{what}: takes more than {limit:g} s", hint="this is no ordinary model; look at it")

    def more(n: float) -> None:
        counted["elements"] += int(min(n, 1 << 62))
        if counted["elements"] > elements:
            fault = f"{what}: needs more than {elements:,} numbers"
            raise InputError(fault, hint="this is no ordinary model; look at its sizes")

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            tick()
            name = func.__name__.split(".")[0]
            if name in ("empty", "zeros", "ones", "full", "rand", "randn", "empty_strided", "randint", "new_empty"):
                shape = next((a for a in args if isinstance(a, (list, tuple))), [])
                more(math.prod(max(0, int(n)) for n in shape))
            elif name in ("arange", "linspace", "randperm", "eye"):
                numbers = [a for a in args if isinstance(a, (int, float))]
                more(max((abs(n) for n in numbers), default=0) if name != "eye" else math.prod(numbers[:2]))
            elif name in ("repeat", "repeat_interleave", "tile"):
                shape = next((a for a in args if isinstance(a, (list, tuple))), [])
                more(math.prod(max(0, int(n)) for n in shape) * args[0].numel())
            return func(*args, **(kwargs or {}))

    def count_module(module: Any, name: str, submodule: Any) -> None:
        counted["modules"] += 1
        tick()
        if counted["modules"] > MAX_MODULES:
            fault = f"{what}: has more than {MAX_MODULES:,} layers"
            raise InputError(fault, hint="this is no ordinary model; look at its sizes")

    hook = torch_module.register_module_module_registration_hook(count_module)
    try:
        with Counting():
            yield
    finally:
        hook.remove()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160]
