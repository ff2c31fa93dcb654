"""The core of ``load_weights``: an opened source's tensors are planned, fitted and copied, all of them or none."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from monai_transfer.errors import CoverageError, InputError
from monai_transfer.networks.depth import encoder_decoder
from monai_transfer.networks.wrappers import unwrap
from monai_transfer.weights.adapters import LORA_MODES
from monai_transfer.weights.classes import class_names
from monai_transfer.weights.dialects import RenamedTensors, match_names
from monai_transfer.weights.report import WeightReport, shorten
from monai_transfer.weights.surgery import Surgery

__all__ = ["Names", "OpenSource", "transfer_weights"]

log = logging.getLogger(__name__)

Names = Sequence[str] | Mapping[str, str]


class OpenSource(Protocol):
    """What is asked of weights that have been read: see ``weights.source.Source``."""

    state_dict: Mapping[str, Any]
    classes: list[str] | None
    channels: list[str] | None
    description: str
    sha256: str | None
    licence: str | None
    url: str
    path: Path | None


def transfer_weights(
    network: nn.Module,
    source: OpenSource,
    *,
    source_classes: Names | None = None,
    target_classes: Names | None = None,
    min_coverage: float = 0.5,
    channels: str = "auto",
    source_channels: Names | None = None,
    target_channels: Names | None = None,
    inflate: str = "center",
    head: Sequence[str] | None = None,
    part: str | None = None,
    only: str | Sequence[str] | None = None,
    source_grid: Sequence[int] | None = None,
    target_grid: Sequence[int] | None = None,
    new_classes: str = "fresh",
    lora: str = "refuse",
    lora_scale: float | None = None,
) -> WeightReport:
    """``load_weights`` with a source that is open; its page says what the arguments are and what is raised.

    Raises:
        InputError: as ``load_weights``.
        CoverageError: too little of the network is filled; it is left as it was.
    """
    if lora not in LORA_MODES:
        raise InputError(f"lora is one of {', '.join(LORA_MODES)}, not {lora!r}", hint="see load_weights")
    network = unwrap(network)
    theirs = class_names(source_classes)
    surgery = Surgery(
        network,
        source_classes=theirs or source.classes,
        target_classes=class_names(target_classes),
        source_channels=class_names(source_channels, "channel") or source.channels,
        target_channels=class_names(target_channels, "channel"),
        channels=channels,
        inflation=inflate,
        head=head,
        new_classes=new_classes,
        source_grid=source_grid,
        target_grid=target_grid,
        strict_channels=source_channels is not None,
        strict_source=theirs is not None and theirs != source.classes,  # a bundle may name them wrongly
    )
    target = {k: t for k, t in network.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    lazy = next((k for k, t in target.items() if t.is_meta or nn.parameter.is_lazy(t)), None)
    if lazy is not None:
        raise InputError(f"the network's {lazy} has no values yet", hint="initialise it (run it once, or `to_empty`)")
    named = match_names(source.state_dict, target, plausible=surgery.plausible, part=part)
    _refuse_nan(named, source)
    if lora == "merge":
        named = _merged(named, network, target, lora_scale)
    wanted = _wanted(network, only)
    report, values = _plan(surgery, named, target, wanted, refuse_adapted=lora == "refuse")
    report.fresh_norms = _fresh_norms(network, [target[name] for name in values])
    report.alternatives = list(named.aside)
    report.source, report.source_sha256 = source.description, source.sha256
    report.dialect, report.licence, report.url = named.dialect, source.licence or named.licence, source.url
    report.coverage = _coverage(network, [target[name] for name in values], wanted)
    if report.coverage < min_coverage:
        raise CoverageError(_too_little(report, min_coverage, network, named.hint))
    with torch.no_grad():
        for name, tensor in values.items():
            target[name].copy_(tensor)
    rest = len(report.skipped) + len(report.missing)
    log.log(logging.WARNING if rest or report.non_commercial else logging.INFO, "%s", _summary(report))
    return report


def _wanted(network: nn.Module, only: str | Sequence[str] | None) -> set[int] | None:
    """The tensors that are to be loaded, by identity; ``None``: all.

    Raises:
        InputError: a module is not in the network, or its encoder cannot be told from the rest.
    """
    if only is None:
        return None
    modules = dict(network.named_modules())
    if only == "encoder" and "encoder" not in modules:
        inside = set(encoder_decoder(network)[0])
        owners = {name.rpartition(".")[0] for name in inside}
        buffers = {name for name, _ in network.named_buffers() if name.rpartition(".")[0] in owners}
        tensors = [*network.named_parameters(), *network.named_buffers()]
        return {id(tensor) for name, tensor in tensors if name in inside | buffers}
    names = [only] if isinstance(only, str) else list(only)
    unknown = next((name for name in names if name not in modules), None)
    if unknown is not None:
        hint = f"its first ones are {', '.join([name for name in modules if name and '.' not in name][:8])}"
        raise InputError(f"the network has no module {unknown!r} to load into", hint=hint)
    parts = [modules[name] for name in names]
    return {id(tensor) for part in parts for tensor in (*part.parameters(), *part.buffers())}


def _own_adapter(name: str, target: Mapping[str, Tensor]) -> bool:
    """Whether the network itself has an adapter beside this weight."""
    return f"{name.rpartition('.')[0]}.lora_A" in target


def _merged(
    named: RenamedTensors, network: nn.Module, target: Mapping[str, Tensor], scale: float | None
) -> RenamedTensors:
    """The adapters' changes put into the weights; their tensors then are used."""
    tensors, used = dict(named.tensors), set()
    for name, adapter in named.adapters.items():
        if _own_adapter(name, target):
            continue
        tensors[name] = adapter.merged(tensors[name], network.get_submodule(name.rpartition(".")[0]), scale)
        used |= set(adapter.names)
    unused = [name for name in named.unused if name not in used]
    words = f"{named.dialect}, LoRA adapters of {len(used) and len(named.adapters)} layers merged"
    return replace(named, tensors=tensors, unused=unused, dialect=words)


def _fresh_norms(network: nn.Module, done: Sequence[Tensor]) -> list[str]:
    """Norm layers of which a scale, a shift or a running statistic was not loaded."""
    ids = {id(tensor) for tensor in done}
    fresh = []
    for name, module in network.named_modules():
        if isinstance(module, _NormBase | nn.GroupNorm | nn.LayerNorm):
            own = {k: t for k, t in module.state_dict(keep_vars=True).items() if k != "num_batches_tracked"}
            if any(id(tensor) not in ids for tensor in own.values()):
                fresh.append(name)
    return fresh


def _plan(
    surgery: Surgery,
    named: RenamedTensors,
    target: Mapping[str, Tensor],
    wanted: set[int] | None,
    *,
    refuse_adapted: bool,
) -> tuple[WeightReport, dict[str, Tensor]]:
    """Decide on every tensor without touching the network. A tensor may have several names (tied weights)."""
    report = WeightReport(unused=list(named.unused))
    values: dict[str, Tensor] = {}
    names_of: dict[int, list[str]] = {}
    for name, tensor in target.items():
        names_of.setdefault(id(tensor), []).append(name)
    for names in names_of.values():
        given = [name for name in names if name in named.tensors]
        if not given:
            report.missing += names
            continue
        tensor = target[given[0]]
        if wanted is not None and id(tensor) not in wanted:
            report.skipped += names
            report.notes.update(dict.fromkeys(names, "left out: not among the modules to load into"))
            continue
        if refuse_adapted and given[0] in named.adapters and not _own_adapter(given[0], target):
            report.skipped += names
            lora = "has a LoRA adapter beside it in the source, without which it is another weight; pass lora='merge'"
            report.notes.update(dict.fromkeys(names, lora))
            continue
        fit = surgery.fit(given[0], named.tensors[given[0]], tensor, widen=named.widen)
        note = fit.note
        if any(not _equal(named.tensors[given[0]], named.tensors[other]) for other in given[1:]):
            tied = f"tied here, but several tensors in the source: {named.origin[given[0]]} was taken"
            note = f"{note}; {tied}" if note else tied
        listed = report.skipped if fit.tensor is None else report.adapted if fit.adapted else report.loaded
        listed += names
        if note:
            report.notes.update(dict.fromkeys(names, note))
        if fit.tensor is not None:
            values[given[0]] = fit.tensor
    return report, values


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and torch.equal(a, b))


def _refuse_nan(named: RenamedTensors, source: OpenSource) -> None:
    for name, tensor in named.tensors.items():
        if not tensor.is_floating_point() or torch.isfinite(tensor.sum(dtype=torch.float64)):
            continue  # the sum shows it in one quick pass; only where it does not look well every element is asked
        if not torch.isfinite(tensor).all():
            fault = f"{named.origin[name]} holds NaN or infinity"
            raise InputError(fault, path=source.path, hint="take an earlier checkpoint: this run had diverged")


def _coverage(network: nn.Module, done: Sequence[Tensor], wanted: set[int] | None) -> float:
    """Share of the elements of ``parameters()`` (each tensor once; of those wanted) that are among ``done``."""
    ids = {id(tensor) for tensor in done}
    asked = [p for p in network.parameters() if wanted is None or id(p) in wanted]
    sizes = [(id(parameter) in ids, parameter.numel()) for parameter in asked]
    total = sum(size for _, size in sizes)
    return sum(size for found, size in sizes if found) / total if total else 1.0


def _too_little(report: WeightReport, minimum: float, network: nn.Module, hint: str) -> str:
    text = (
        f"only {report.coverage:.1%} of the parameters of {type(network).__name__} were found in {report.source}"
        f" (at least {minimum:.0%} asked); nothing was loaded."
    )
    if report.missing:
        text += f" Not in the source: {shorten(report.missing)}."
    if report.skipped:
        first = report.skipped[0]
        text += f" Skipped: {shorten(report.skipped)} ({first}: {report.notes[first]})."
    if report.unused:
        text += f" In the source, but not in the network: {shorten(report.unused)}."
    return text + (
        f" {hint}"
        if hint
        else " Build the network as the source's was, pass the submodule that the weights are for,"
        " or lower min_coverage if a part is all you want."
    )


def _summary(report: WeightReport) -> str:
    return (
        f"weights from {report.source}: coverage {report.coverage:.1%}, {len(report.loaded)} loaded, "
        f"{len(report.adapted)} adapted, {len(report.skipped)} skipped, {len(report.missing)} missing, "
        f"{len(report.unused)} unused"
        + (f"; norm layers that stay fresh: {shorten(report.fresh_norms)}" if report.fresh_norms else "")
        + (f"; the file also holds {', '.join(map(repr, report.alternatives))}" if report.alternatives else "")
        + (f"; skipped {report.skipped[0]}: {report.notes[report.skipped[0]]}" if report.skipped else "")
        + (
            f"; NON-COMMERCIAL licence, which binds what you train from them too: {report.licence}"
            if report.non_commercial
            else ""
        )
    )
