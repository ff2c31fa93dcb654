"""How checkpoints are wrapped and named: from whatever a file holds to a state dict in the network's own names.

Three steps, each chosen by what covers the network best, by names *and* shapes: which of the nested dictionaries are
the weights, which table of key rules (``key_rules``) applies, and which prefix is to be taken off or put on.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from monai_transfer.errors import InputError
from monai_transfer.weights.adapters import Adapter, find_adapters
from monai_transfer.weights.key_functions import without_wrappers
from monai_transfer.weights.key_rules import DIALECTS, WITHOUT_MATCH, Dialect

__all__ = ["RenamedTensors", "find_state_dicts", "match_names"]

NESTS = ("network_weights", "state_dict", "model_state_dict", "model", "network", "net", "module", "weights", "params")
"""Usual keys of the weights in a checkpoint, the likelier first; others follow, averages (``ema``) last."""

HINT = "pass the state dict of the network itself"


@dataclass(frozen=True)
class RenamedTensors:
    """A source's tensors under the network's names.

    Attributes:
        tensors: by the network's name; those without a place keep the source's name under ``unused``.
        origin: the source's own name, by the network's name.
        unused: names in the source that the network does not have.
        dialect: what was done, in words.
        licence: of the weights that this dialect is known from.
        widen: see ``key_rules.Dialect``.
        hint: what these weights are, where they are known to have no matching network in MONAI.
        adapters: LoRA adapters by the network's name of the weight that they change.
        aside: keys of further weights in the file that fit as well and hold other values (an average, say).

    >>> import torch
    >>> from monai_transfer.weights.dialects import match_names
    >>> target = torch.nn.Sequential(torch.nn.Linear(2, 1)).state_dict()
    >>> found = match_names({"module.0.weight": torch.ones(1, 2), "module.0.bias": torch.ones(1)}, target)
    >>> found.origin["0.weight"], found.unused  # as a network in DataParallel saves it
    ('module.0.weight', [])
    """

    tensors: dict[str, Tensor]
    origin: dict[str, str]
    unused: list[str]
    dialect: str
    licence: str | None = None
    hint: str = ""
    widen: bool = False
    adapters: dict[str, Adapter] = field(default_factory=dict)
    aside: tuple[str, ...] = ()


def find_state_dicts(content: Any) -> dict[str, dict[str, Tensor]]:
    """Every state dict within a checkpoint, by its path in it (``""`` for the checkpoint itself), the likelier first.

    Args:
        content: what ``torch.load`` gave.

    Raises:
        InputError: there is none.

    >>> import torch
    >>> weights = {"conv.weight": torch.ones(1)}
    >>> {path: list(found) for path, found in find_state_dicts({"epoch": 3, "net": {"ema": weights}}).items()}
    {'net/ema': ['conv.weight']}
    """
    found: dict[str, dict[str, Tensor]] = {}
    _collect(content, "", found, depth=0)
    if not found:
        what = f"a dictionary with {sorted(map(str, content))[:5]}" if isinstance(content, Mapping) else type(content)
        raise InputError(f"no weights were found in the checkpoint: it holds {what}", hint=HINT)
    return dict(sorted(found.items(), key=lambda item: _likelihood(item[0])))


def _collect(content: Any, path: str, found: dict[str, dict[str, Tensor]], depth: int) -> None:
    if not isinstance(content, Mapping) or depth > 3:
        return
    tensors = {k: cpu_tensor(v) for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        found[path] = tensors
    for key, value in content.items():
        if isinstance(key, str) and "optim" not in key.lower() and "sched" not in key.lower():
            _collect(value, f"{path}/{key}" if path else key, found, depth + 1)


def _likelihood(path: str) -> tuple[bool, int]:
    last = path.rpartition("/")[2]
    return "ema" in last.lower(), NESTS.index(last) if last in NESTS else len(NESTS)


def cpu_tensor(tensor: Tensor) -> Tensor:
    """A plain CPU tensor without gradient or meta data (a ``MetaTensor`` may carry a patient's name).

    Args:
        tensor: of any device.

    >>> from monai.data import MetaTensor
    >>> type(cpu_tensor(MetaTensor(torch.ones(1), meta={"patient": "Doe"}))).__name__
    'Tensor'
    """
    if type(tensor) not in (Tensor, torch.nn.Parameter) and hasattr(tensor, "as_tensor"):
        tensor = tensor.as_tensor()
    return tensor.detach().to("cpu")


def match_names(
    content: Any, target: Mapping[str, Tensor], *, plausible=None, part: str | None = None
) -> RenamedTensors:
    """Bring a checkpoint's content into the names of ``target``, the network's state dict.

    Args:
        content: what the checkpoint file holds: a state dict, or nested dictionaries with one.
        target: tensors of the network by name.
        plausible: ``(name, source shape, target shape) -> bool``: whether unequal shapes could still be adapted.
        part: the key, or the prefix of names, of the network to take, where there are several.

    Raises:
        InputError: ``content`` holds no weights, not the part that is asked for, or several parts that fit equally.

    >>> target = torch.nn.Sequential(torch.nn.Linear(2, 1)).state_dict()
    >>> saved = {"epoch": 7, "state_dict": {"model.0.weight": torch.ones(1, 2), "model.0.bias": torch.ones(1)}}
    >>> sorted(match_names(saved, target).tensors)
    ['0.bias', '0.weight']
    """
    own = {without_wrappers(name): name for name in target}
    sizes = {name: tuple(target[full].shape) for name, full in own.items()}
    guess = plausible
    plausible = None if guess is None else lambda name, theirs, ours: guess(own[name], theirs, ours)
    found = _match(content, sizes, plausible, part)
    back = {name: own[name] for name in found.tensors}
    return replace(
        found,
        tensors={back[name]: tensor for name, tensor in found.tensors.items()},
        origin={back[name]: origin for name, origin in found.origin.items()},
        adapters={back[name]: adapter for name, adapter in found.adapters.items()},
    )


def _match(content: Any, sizes: dict[str, tuple[int, ...]], plausible, part: str | None) -> RenamedTensors:
    places = find_state_dicts(content)
    if part is not None:
        places = _only(places, part)
    best: tuple[float, RenamedTensors] | None = None
    rivals: list[tuple[str, RenamedTensors]] = []
    behind: list[tuple[str, float, RenamedTensors]] = []
    for place, tensors in places.items():
        for dialect in DIALECTS:
            if not dialect.recognises(tensors):
                continue
            renamed = dialect.apply(tensors, sizes)
            found = _best_prefixes(renamed, sizes, plausible)
            score = found[0][0]
            if best is not None and score == best[0] > 0 and _stands_behind(place, rivals[0][0]):
                _, strip, add = found[0]
                behind.append((place, score, _named(tensors, renamed, sizes, strip, add, dialect, place)))
                continue
            if best is not None and score < best[0]:
                continue
            named = [(strip, _named(tensors, renamed, sizes, strip, add, dialect, place)) for _, strip, add in found]
            candidates = [(_joined(place, strip), one) for strip, one in named]
            if best is not None and score == best[0]:
                rivals += candidates
            else:
                best, rivals = (score, named[0][1]), candidates
    assert best is not None  # find_state_dicts raises where there is nothing, and the plain dialect takes anything
    place, tensors = next(iter(places.items()))
    elements = min(sum(math.prod(size) for size in sizes.values()), sum(t.numel() for t in tensors.values()))
    few = len(best[1].tensors) < 0.9 * min(len(tensors), len(sizes))
    # a coincidence of small tensors: what is said is clearest in the source's own names
    if best[0] < 0.02 * elements and few:
        return _named(tensors, DIALECTS[0].apply(tensors, sizes), sizes, "", "", DIALECTS[0], place)
    if best[0] > 0:
        _refuse_ambiguous(best[1], rivals)
    aside = [where for where, score, other in behind if score == best[0] and _differ(other, best[1])]
    return replace(best[1], aside=tuple(dict.fromkeys(aside)))


def _differ(other: RenamedTensors, chosen: RenamedTensors) -> bool:
    common = other.tensors.keys() & chosen.tensors.keys()
    return any(not torch.equal(other.tensors[name], chosen.tensors[name]) for name in common)


def _only(places: Mapping[str, dict[str, Tensor]], part: str) -> dict[str, dict[str, Tensor]]:
    """The dictionaries under the key ``part``, else the tensors whose names begin with it."""
    part = part.strip("./").replace(".", "/") if part.replace(".", "/") in places else part.rstrip(".")
    under = {place: tensors for place, tensors in places.items() if place == part or place.endswith(f"/{part}")}
    prefixed = {
        place: named
        for place, tensors in places.items()
        for named in [{n: t for n, t in tensors.items() if n.startswith(f"{part}.")}]
        if named
    }
    if not under and not prefixed:
        names = {name for tensors in places.values() for name in tensors}
        depth = 1
        while depth < 4 and len({".".join(name.split(".")[:depth]) for name in names}) == 1:
            depth += 1
        first = sorted({".".join(name.split(".")[:depth]) for name in names})
        have = ", ".join(([place for place in places if place] + first)[:12])
        raise InputError(f"the checkpoint has no part {part!r}", hint=f"it has {have}")
    return under or prefixed


def _stands_behind(place: str, first: str) -> bool:
    """A second dictionary that fits equally: left aside where it is an average or the first has a usual key."""
    return _likelihood(place) > _likelihood(first.partition(":")[0])


def _joined(place: str, strip: str) -> str:
    """Where a candidate's tensors are, for people: the key, then the prefix."""
    return f"{place}:{strip}" if strip else place


def _refuse_ambiguous(chosen: RenamedTensors, rivals: Sequence[tuple[str, RenamedTensors]]) -> None:
    """Two parts that fit equally well and hold other values: which one is meant cannot be guessed.

    Raises:
        InputError: naming both.
    """
    memory = {tensor.data_ptr() for tensor in chosen.tensors.values()}
    for where, other in rivals:
        same = other.tensors.keys() == chosen.tensors.keys()
        if same and all(torch.equal(tensor, other.tensors[name]) for name, tensor in chosen.tensors.items()):
            continue
        if {t.data_ptr() for t in other.tensors.values()} & memory:
            continue  # the same tensors under another reading
        first = next(name for name, named in rivals if named is chosen)
        keys = [key.rpartition(":")[2].rstrip(".") or "the whole" for key in (first, where)]
        raise InputError(
            f"the checkpoint holds two networks that fit equally well: {keys[0]!r} and {keys[1]!r}",
            hint=f"name the one to take, e.g. part={keys[1]!r}",
        )


def _best_prefixes(renamed: Mapping[str, tuple[str, Tensor]], sizes, plausible) -> list[tuple[float, str, str]]:
    """The prefixes to take off the source's names and to put on, by the elements that then find their place; all that
    are equally good, the likeliest first. Where some bring nearly all names together, only they: of a network of
    another width no block moves to a place where its shape happens to fit."""
    theirs = {strip: _without(strip, renamed) for strip in _prefixes(renamed)}
    ours = {add: _without(add, sizes) for add in _prefixes(sizes)}
    pairs = [
        (strip, add, given.keys() & wanted.keys())
        for strip, given in theirs.items()
        for add, wanted in ours.items()
        if not _siblings(strip, add)
    ]
    whole = 0.9 * min(len(renamed), len(sizes))
    best = [(-1.0, "", "")]
    for strip, add, common in [pair for pair in pairs if len(pair[2]) >= whole] or pairs:
        score = sum(_worth(add + name, theirs[strip][name][1], sizes, plausible) for name in common)
        if score > best[0][0]:
            best = [(score, strip, add)]
        elif score == best[0][0] and score > 0:
            best.append((score, strip, add))
    return best


def _siblings(strip: str, add: str) -> bool:
    """``layer1.`` to ``layer2.``: weights never move to another place in a row, however well their shapes fit."""
    return strip != add and re.sub(r"\d+", "#", strip) == re.sub(r"\d+", "#", add)


def _without(prefix: str, names: Mapping[str, Any]) -> dict[str, Any]:
    return {name[len(prefix) :]: value for name, value in names.items() if name.startswith(prefix)}


def _worth(name: str, tensor: Tensor, sizes: Mapping[str, tuple[int, ...]], plausible) -> float:
    """Elements of the network that this tensor fills: all where shapes agree, half where they can be adapted, little
    otherwise. A larger tensor of the source brings no more than the network has room for."""
    size = sizes[name]
    room = max(math.prod(size), 1)
    if size == tuple(tensor.shape):
        return room
    return min(room, max(tensor.numel(), 1)) * (
        0.5 if plausible and plausible(name, tuple(tensor.shape), size) else 0.01
    )


def _prefixes(names) -> list[str]:
    """The prefixes (of up to three parts) that a good share of the names have, the shortest first."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        counts.update(".".join(parts[:depth]) + "." for depth in range(1, min(4, len(parts))))
    enough = max(1, len(names) // 20)
    common = [prefix for prefix, count in counts.most_common(40) if count >= enough]
    return ["", *sorted(common, key=lambda prefix: (prefix.count("."), -counts[prefix]))]


def _named(tensors, renamed, sizes, strip: str, add: str, dialect: Dialect, place: str) -> RenamedTensors:
    used: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, (original, tensor) in renamed.items():
        own = add + name[len(strip) :]
        if name.startswith(strip) and own in sizes and own not in used:
            used[own], origin[own] = tensor, original
    taken = set(origin.values())
    beside = find_adapters(tensors)
    adapters = {own: beside[original] for own, original in origin.items() if original in beside}
    words = [dialect.name]
    words += [f"in {place!r}"] if place else []
    words += [f"without {strip!r}"] if strip else []
    words += [f"under {add!r}"] if add else []
    unused = [name for name in tensors if name not in taken]
    hint = next((text for sign, text in WITHOUT_MATCH.items() if any(re.fullmatch(sign, name) for name in unused)), "")
    return RenamedTensors(
        used, origin, unused, ", ".join(words), dialect.licence, hint, dialect.widen, adapters=adapters
    )
