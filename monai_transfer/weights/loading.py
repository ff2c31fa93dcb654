"""``load_weights``: carry weights over into a network, tell what became of each tensor, or change nothing at all."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from monai_transfer.errors import CoverageError, InputError
from monai_transfer.networks.depth import encoder_decoder
from monai_transfer.weights.classes import class_names
from monai_transfer.weights.dialects import Named, match_names
from monai_transfer.weights.report import WeightReport, shorten
from monai_transfer.weights.source import Source
from monai_transfer.weights.surgery import Surgery

__all__ = ["load_weights"]

log = logging.getLogger(__name__)

Names = Sequence[str] | Mapping[str, str]


def load_weights(
    network: nn.Module,
    source: str | PathLike[str] | Mapping[str, Any] | Source,
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
) -> WeightReport:
    """Load weights into ``network`` in place, adapting what can be adapted: all or nothing, never in silence.

    Args:
        network: any module, also a part of one (``net.swinViT``) or one in ``DistributedDataParallel``.
        source: a checkpoint file, a MONAI bundle folder, a state dict, or a ``Source``.
        source_classes, target_classes: names of the outputs on either side, in order, as a list or as the
            ``{"0": "background", ...}`` of a manifest. Where both are known (a bundle tells its own), the rows of the
            head are mapped by name; new classes stay as the network initialised them. Without names, a head with
            another number of classes is skipped and stays fresh.
        min_coverage: share of the elements of ``network.parameters()`` that must be loaded or adapted.
        channels: for other input channels: ``auto``, ``name``, ``repeat``, ``average``, ``first``
            (``weights.channels.adapt_channels``). source_channels, target_channels: their names, in order; with names
            on both sides, equally many channels in another order find their places too.
        inflate: for 2D weights in a 3D network: ``center`` or ``mean`` (``weights.inflation.inflate``).
        head: names of the layers that give the class scores, where the last layer is not it.
        part: of a checkpoint that holds several networks, the one to take, by its key or prefix (``teacher``).
        only: load into these modules alone, by name, or into the ``encoder``; the rest stays fresh, and the coverage
            is that of these modules.
        source_grid, target_grid: patches per axis of a vision transformer's position embeddings on either side; where
            neither they nor the network (``UNETR`` does) tell them, grids are taken to be square or cubic.

    Returns:
        The report: loaded, adapted, skipped, missing, unused, and the coverage.

    Raises:
        CoverageError: less than ``min_coverage`` was found; the network is unchanged, to the bit.
        InputError: the source cannot be read, holds NaN or infinity, or several networks that fit equally well, or
            an argument is wrong.
    """
    if not 0 <= min_coverage <= 1:
        raise InputError(f"min_coverage is a share from 0 to 1, not {min_coverage}")
    if isinstance(source, Mapping):
        source = Source(source)
    elif isinstance(source, str | PathLike):
        source = Source.load(source)
    elif not isinstance(source, Source):
        fault = f"weights cannot come from a {type(source).__name__}"
        raise InputError(fault, mend="pass a path, a bundle folder, a state dict or a Source")
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
        source_grid=source_grid,
        target_grid=target_grid,
        strict_channels=source_channels is not None,
        strict_source=theirs is not None and theirs != source.classes,  # a bundle may name them wrongly
    )
    target = {k: t for k, t in network.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    lazy = next((k for k, t in target.items() if t.is_meta or nn.parameter.is_lazy(t)), None)
    if lazy is not None:
        raise InputError(f"the network's {lazy} has no values yet", mend="initialise it (run it once, or `to_empty`)")
    named = match_names(source.state_dict, target, plausible=surgery.plausible, part=part)
    _refuse_nan(named, source)
    wanted = _wanted(network, only)
    report, values = _plan(surgery, named, target, wanted)
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


def unwrap(network: nn.Module) -> nn.Module:
    """The bare network inside ``DistributedDataParallel``, ``DataParallel`` or ``torch.compile``."""
    while True:
        if isinstance(network, nn.parallel.DistributedDataParallel | nn.DataParallel):
            network = network.module
        elif isinstance(getattr(network, "_orig_mod", None), nn.Module):
            network = network._orig_mod  # type: ignore[assignment]
        else:
            return network


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
        mend = f"its first ones are {', '.join([name for name in modules if name and '.' not in name][:8])}"
        raise InputError(f"the network has no module {unknown!r} to load into", mend=mend)
    parts = [modules[name] for name in names]
    return {id(tensor) for part in parts for tensor in (*part.parameters(), *part.buffers())}


def _plan(
    surgery: Surgery, named: Named, target: Mapping[str, Tensor], wanted: set[int] | None
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


def _refuse_nan(named: Named, source: Source) -> None:
    for name, tensor in named.tensors.items():
        if not tensor.is_floating_point() or torch.isfinite(tensor.sum(dtype=torch.float64)):
            continue  # the sum shows it in one quick pass; only where it does not look well every element is asked
        if not torch.isfinite(tensor).all():
            fault = f"{named.origin[name]} holds NaN or infinity"
            raise InputError(fault, path=source.path, mend="take an earlier checkpoint: this run had diverged")


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
        + (f"; skipped {report.skipped[0]}: {report.notes[report.skipped[0]]}" if report.skipped else "")
        + (
            f"; NON-COMMERCIAL licence, which binds what you train from them too: {report.licence}"
            if report.non_commercial
            else ""
        )
    )
