"""One tensor of a source made to fit one tensor of a network, or the reason why it cannot."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from monai_transfer.errors import InputError
from monai_transfer.networks.head import find_head, find_stem
from monai_transfer.weights.channels import CHANNEL_MODES, adapt_channels, adapt_patch_channels, same_channel
from monai_transfer.weights.classes import ClassMap, class_axes, names_for
from monai_transfer.weights.inflation import INFLATIONS, inflate, widen_kernel
from monai_transfer.weights.positions import resize_positions, resize_relative_table

__all__ = ["Fit", "Surgery"]

_NORM = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU)


NEW_CLASSES = ("fresh", "background")
_POSITIONS = re.compile(r"(position_embeddings?|pos_embed)$")


@dataclass(frozen=True)
class Fit:
    """The outcome for one tensor: ``tensor`` in the network's shape and type (``None``: skipped), and the note.
    ``changed=False``: the note is a remark on values that were copied as they are.

    Args:
        tensor: in the network's shape and type; None: skipped.
        note: what was done, or why it was skipped.
        changed: False: the note is a remark on values that were copied as they are.

    >>> import torch
    >>> Fit(torch.zeros(2)).adapted, Fit(torch.zeros(2), "repeated from 1 channel").adapted
    (False, True)
    """

    tensor: Tensor | None
    note: str = ""
    changed: bool = True

    @property
    def adapted(self) -> bool:
        """Whether the values were changed on the way."""
        return self.tensor is not None and bool(self.note) and self.changed


@dataclass
class Surgery:
    """Knows a network's ends and what is called what, and fits tensors to it.

    Args:
        network: the bare network (not DDP-wrapped).
        source_classes, target_classes: names of the head's outputs on either side, in order, where they are known.
        source_channels, target_channels: names of the input channels, likewise.
        channels: see ``channels.adapt_channels``. inflation: see ``inflation.inflate``.
        head: names of the layers that give the class scores, where ``find_head`` would be wrong.
        new_classes: ``fresh`` or ``background``, see ``loading.load_weights``.
        source_grid, target_grid: patches per axis of the position embeddings on either side, where they are no cubes.
        strict_source, strict_target, strict_channels: a wrong number of class names on that side, of the source's
            channel names, raises instead of being left aside (for names that the user gave).

    A segmentation head for two classes fitted to three, one of which the source knows by name:

    >>> import torch
    >>> network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 3, 1))
    >>> names = {"source_classes": ["background", "liver"], "target_classes": ["background", "spleen", "liver"]}
    >>> surgery = Surgery(network, **names, head=["1"])
    >>> found = surgery.fit("1.weight", torch.full((2, 8, 1, 1), 7.0), network[1].weight.detach())
    >>> [bool((found.tensor[i] == 7).all()) for i in range(3)]  # the spleen's row stays as the network made it
    [True, False, True]
    """

    network: nn.Module
    source_classes: Sequence[str] | None = None
    target_classes: Sequence[str] | None = None
    source_channels: Sequence[str] | None = None
    target_channels: Sequence[str] | None = None
    channels: str = "auto"
    inflation: str = "center"
    head: Sequence[str] | None = None
    new_classes: str = "fresh"
    source_grid: Sequence[int] | None = None
    target_grid: Sequence[int] | None = None
    strict_channels: bool = True
    strict_source: bool = True
    strict_target: bool = True
    _modules: dict[str, nn.Module] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.channels not in CHANNEL_MODES:
            raise InputError(
                f"channels is one of {', '.join(CHANNEL_MODES)}, not {self.channels!r}", hint="see load_weights"
            )
        if self.inflation not in INFLATIONS:
            raise InputError(
                f"inflation is one of {', '.join(INFLATIONS)}, not {self.inflation!r}", hint="see load_weights"
            )
        if self.new_classes not in NEW_CLASSES:
            raise InputError(
                f"new_classes is one of {', '.join(NEW_CLASSES)}, not {self.new_classes!r}", hint="see load_weights"
            )
        self._modules = dict(self.network.named_modules(remove_duplicate=False))
        unknown = [name for name in self.head or () if name not in self._modules]
        if unknown:
            raise InputError(f"the network has no module {unknown[0]!r} to be its head", hint="see named_modules()")
        self.head = list(find_head(self.network) if self.head is None else self.head)
        first = {id(module): name for name, module in reversed(self._modules.items())}
        ends = {"head": set(self.head), "stem": set(find_stem(self.network))}
        self._ends = {
            end: {name for name, module in self._modules.items() if first[id(module)] in names}
            for end, names in ends.items()
        }
        # A norm behind a head layer in the same block is as wide as the classes too.
        order = {name: place for place, name in enumerate(self._modules)}
        blocks = [(name.rpartition(".")[0] + ".", order[name]) for name in self._ends["head"] if "." in name]
        self._norms = {
            name
            for name, module in self._modules.items()
            if isinstance(module, _NORM) and any(name.startswith(block) and order[name] > at for block, at in blocks)
        }
        convolutions = [m for m in self._modules.values() if isinstance(m, _ConvNd)]
        self._dims = len(convolutions[0].kernel_size) if convolutions else 2

    def plausible(self, name: str, source: tuple[int, ...], target: tuple[int, ...]) -> bool:
        """Whether a tensor of another shape may still be adapted; a cheap guess that guides the search for names."""
        module = name.rpartition(".")[0]
        if (len(source), len(target)) == (4, 5) or "position" in name or "pos_embed" in name:
            return True
        ends = module in self._ends["head"] or module in self._ends["stem"]
        return ends and len(source) == len(target) and source[2:] == target[2:]

    def fit(self, name: str, source: Tensor, target: Tensor, *, widen: bool = False) -> Fit:
        """Fit ``source`` to the network's tensor ``name``, which is ``target``; ``widen``: as in ``key_rules``.

        Raises:
            InputError: the user named another number of classes than the head has.
        """
        if (
            source.is_quantized
            or source.is_complex()
            or (target.is_floating_point() and not source.is_floating_point())
        ):
            return Fit(None, f"is {str(source.dtype).removeprefix('torch.')} in the source, not floating point")
        owner, _, parameter = name.rpartition(".")
        module = self._modules[owner]
        fresh = target.detach().to("cpu")
        notes: list[str] = []
        values = source
        if self._is_flat_kernel(module, parameter, source, target):
            values = inflate(source, target.shape[-1], self.inflation, module=module)
            notes.append(f"inflated from 2D to 3D ({self.inflation}, depth {target.shape[-1]})")
        if widen and parameter == "weight" and isinstance(module, _ConvNd):
            wide = widen_kernel(values, target.shape, module)
            if wide is not None:
                values = wide
                notes.append(f"kernel {_size(source.shape[2:])} set into {_size(target.shape[2:])}, zeros around it")
        if owner in self._ends["head"] or owner in self._norms:
            values, note, fits = self._classes(owner, module, parameter, values, fresh)
            if not fits:
                return Fit(None, note)
            notes += [note] if note else []
        if owner in self._ends["stem"] and parameter == "weight":
            adapted = self._channels(owner, module, values, fresh)
            if adapted:
                values = adapted[0]
                if not adapted[1] and not notes and values.shape == target.shape and values.shape[1] > 1:
                    remark = "input channels taken in order: the names have none in common"
                    return Fit(values.to(target.dtype), remark, changed=False)
                notes += [adapted[1]] if adapted[1] else []
        if values.shape != target.shape or self._other_grid(name):
            return self._other_shape(name, source, target)
        return Fit(values.to(target.dtype), "; ".join(notes))

    @staticmethod
    def _is_flat_kernel(module: nn.Module, parameter: str, source: Tensor, target: Tensor) -> bool:
        convolution = isinstance(module, nn.Conv3d | nn.ConvTranspose3d) and parameter == "weight"
        return convolution and source.ndim == 4 and source.shape[2:] == target.shape[2:4]

    def _channels(self, owner: str, module: nn.Module, source: Tensor, fresh: Tensor) -> tuple[Tensor, str] | None:
        """The stem's part: values and note, or ``None`` where the number of channels is not what differs."""
        if source.ndim != fresh.ndim or source.shape[0] != fresh.shape[0]:
            return None
        if isinstance(module, _ConvNd) and module.groups == 1 and source.shape[2:] == fresh.shape[2:]:
            how = self._channel_names(source.shape[1], fresh.shape[1])
            if source.shape[1] == fresh.shape[1] and self._same_channels(how):
                return None
            return adapt_channels(source, fresh, self.channels, *how)
        parent, _, last = owner.rpartition(".")
        patches = self._modules[parent][0] if isinstance(module, nn.Linear) and last == "1" else None  # type: ignore[index]
        sides = getattr(patches, "axes_lengths", None)  # einops' Rearrange, in MONAI's "perceptron" patch embedding
        if not sides:
            return None
        voxels = math.prod(sides.values())
        how = self._channel_names(source.shape[1] // voxels, fresh.shape[1] // voxels)
        if source.shape == fresh.shape and self._same_channels(how):
            return None
        return adapt_patch_channels(source, fresh, voxels, self.channels, *how)

    def _channel_names(self, n: int, m: int) -> tuple[Sequence[str] | None, Sequence[str] | None]:
        """The names on both sides, where they are as many as the channels.

        Raises:
            InputError: the user gave another number of names than there are channels.
        """
        theirs, ours = self.source_channels, self.target_channels
        for what, names, count, strict in (
            ("source_channels", theirs, n, self.strict_channels),
            ("target_channels", ours, m, True),
        ):
            if names is not None and len(names) != count and strict:
                whose = "source" if what == "source_channels" else "network"
                fault = f"{what} names {len(names)} ({', '.join(names)}), but the {whose} has {count} input channels"
                raise InputError(fault, hint="name every channel once, in order")
        return (theirs if theirs and len(theirs) == n else None), ours

    def _same_channels(self, names: tuple[Sequence[str] | None, Sequence[str] | None]) -> bool:
        """For as many channels on either side: whether they are the same in the same order, as far as names say."""
        theirs, ours = names
        if self.channels not in ("auto", "name") or (self.channels == "auto" and not (theirs and ours)):
            return True
        return [same_channel(name) for name in theirs or ()] == [same_channel(name) for name in ours or ()] != []

    def _classes(self, owner: str, module: nn.Module, parameter: str, source: Tensor, fresh: Tensor):
        """The head's part: (values, note, whether they fit)."""
        axes = class_axes(owner, module, parameter)
        if source.ndim != fresh.ndim or not fresh.ndim:
            return source, "", True  # left to the comparison of shapes
        others = [axis for axis in range(fresh.ndim) if axis not in axes]
        n_source, n_target = source.shape[axes[0]], fresh.shape[axes[0]]
        if owner not in self._ends["head"] and n_target != self._n_classes():
            return source, "", True  # a norm that is not as wide as the classes
        if any(source.shape[axis] != fresh.shape[axis] for axis in others):
            return source, "", True
        ours = self._named("target_classes", self.target_classes, n_target, "network", self.strict_target)
        theirs = self._named("source_classes", self.source_classes, n_source, "source", self.strict_source)
        if ours and theirs:
            mapping = ClassMap.by_name(theirs, ours)
            if mapping.is_identity:
                return source, "", True
            if not mapping.pairs:
                return source, mapping.note, False
            like = self.new_classes == "background" and 0 not in mapping.new
            values, note = mapping.apply(source, fresh, axes, like_background=like), mapping.note
            if like and mapping.new:
                note = note.replace("new, as initialised", "new, as the background and less likely")
                if parameter == "bias" and owner in self._ends["head"]:
                    values[list(mapping.new)] -= math.log(len(mapping.new) + 1)
            return values, note, True
        if n_source == n_target:
            return source, "", True
        hint = "pass source_classes and target_classes to keep the classes in common"
        return source, f"{n_source} classes in the source, {n_target} here, without names on both sides; {hint}", False

    def _n_classes(self) -> int:
        head = self._modules[next(iter(self.head or ()))]
        return int(head.out_features if isinstance(head, nn.Linear) else head.out_channels)  # type: ignore[arg-type]

    @staticmethod
    def _named(what: str, names: Sequence[str] | None, width: int, whose: str, strict: bool) -> list[str] | None:
        fitting = names_for(names, width)
        if names is not None and fitting is None and strict:
            fault = (
                f"{what} names {len(names)} classes ({', '.join(names)}), but the {whose}'s head has {width} outputs"
            )
            raise InputError(fault, hint="name every output once, in order")
        return fitting

    def _other_shape(self, name: str, source: Tensor, target: Tensor) -> Fit:
        """Position tables are resized; any other difference of shape is a reason to skip."""
        change = f"{_size(source.shape)} in the source, {_size(target.shape)} here"
        if re.search(r"(relative_position_index|attn_mask)$", name):
            return Fit(None, f"follows from the window size and is kept ({change})")
        resized: Tensor | None = None
        if name.endswith("relative_position_bias_table"):
            resized = resize_relative_table(source, target.shape, self._dims)
        elif _POSITIONS.search(name):
            if getattr(self._modules[name.rpartition(".")[0]], "pos_embed_type", "") in ("sincos", "fourier"):
                return Fit(None, f"is computed from the image size and is kept ({change})")
            grids = self.source_grid, self.target_grid or self._grid(name)
            resized = resize_positions(source, target.shape, self._dims, *grids)
            if resized is None and (self.source_grid or self.target_grid):
                named = " and ".join(_size(grid) for grid in grids if grid)
                fault = f"a grid of {named} patches does not explain the position embeddings {name} ({change})"
                raise InputError(fault, hint="pass source_grid and target_grid, the patches per axis on either side")
            if resized is None:
                change += "; pass source_grid and target_grid, the patches per axis"
        if resized is not None:
            return Fit(resized.to(target.dtype), f"positions interpolated ({change})")
        return Fit(None, f"shape differs: {change}")

    def _other_grid(self, name: str) -> bool:
        """Equally many patches, but in a grid that the user names otherwise."""
        grids = self.source_grid, self.target_grid
        return bool(all(grids) and list(grids[0] or ()) != list(grids[1] or ()) and _POSITIONS.search(name))

    def _grid(self, name: str) -> list[int] | None:
        """Patches per axis of the network itself, where one of the modules around the embeddings knows its image."""
        while name:
            name = name.rpartition(".")[0]
            module: Any = self._modules[name]
            if type(module).__name__ == "UNETR":
                return list(module.feat_size)
            image, patch = getattr(module, "img_size", None), getattr(module, "patch_size", None)
            if isinstance(image, tuple) and isinstance(patch, tuple):
                return [side // step for side, step in zip(image, patch, strict=True)]
        return None


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"
