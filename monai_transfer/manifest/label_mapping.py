"""From what stands in a label file to what a network sees, and back: one mapping for every task with classes.

Two steps, each with its inverse. Arrays may be NumPy arrays or tensors, and come back as what they were:

- ``encode``: the file's own values (with gaps: 0, 1, 2, 4; several of one class) to class numbers 0, 1, 2, ...;
  ``UNKNOWN`` (-1) where a value is ignored. Back: ``decode``.
- ``targets``: class numbers to one channel per output, 1 or 0, ``UNKNOWN`` where that case cannot tell. Back:
  ``from_targets``.

Outputs are the classes (background included; a softmax), or, where there are regions, the regions (a sigmoid each: a
voxel may lie in several). In classification with several findings per case the outputs are the findings.

A class that nobody looked for in a case (``annotated``) is not absent there: its output is ``UNKNOWN``, and so is the
background, since an unmarked voxel may belong to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.manifest.label_arrays import module_of, rounded, take
from monai_transfer.tasks import get_task

__all__ = ["UNKNOWN", "LabelMapping"]

UNKNOWN = -1
"""What stands in an encoded label where nothing is known: not scored, not learned from."""

_LARGEST = 2**24 - 1  # float32, in which MONAI loads, holds whole numbers up to here


@dataclass(frozen=True)
class LabelMapping:
    """The classes of a manifest as values in its files, its regions, and what is ignored.

    Args:
        classes: the values of each class by its name, in the order of the class numbers, background first:
            ``{"background": (0,), "oedema": (2,), "tumour": (1, 4)}``. The first value is the one written back.
        regions: outputs that may overlap, each as the values that it covers: ``{"whole": (1, 2, 4), "core": (1, 4)}``.
        ignore: values of voxels that are neither learned from nor scored.
        regions_class_order: for each region in order the value to write where it is predicted, a later region over an
            earlier one (nnU-Net's key of the same name). ``None``: the value whose regions are just those predicted;
            failing that, larger regions first, each with the value that it shares with the fewest others.
        multi_label: classification with several findings per case; every class is a finding and has no values.
        has_background: the first class is whatever is not marked, as in masks; ``False`` in classification.

    Raises:
        InputError: two classes share a value, a region names an undeclared value or divides a class.

    Example:
        >>> import numpy as np
        >>> brats = LabelMapping(
        ...     {"background": (0,), "necrosis": (1,), "oedema": (2,), "enhancing": (4,)},
        ...     regions={"whole": (1, 2, 4), "core": (1, 4), "enhancing": (4,)})
        >>> classes = brats.encode(np.array([[0, 1, 2, 4]]))
        >>> classes.tolist()
        [[0, 1, 2, 3]]
        >>> brats.targets(classes).tolist()
        [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]
        >>> brats.decode(brats.from_targets(brats.targets(classes))).tolist()
        [[0, 1, 2, 4]]
    """

    classes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ignore: tuple[int, ...] = ()
    regions_class_order: tuple[int, ...] | None = None
    multi_label: bool = False
    has_background: bool = True

    def __post_init__(self) -> None:
        for name in ("classes", "regions"):
            object.__setattr__(self, name, {str(k): tuple(map(int, v)) for k, v in getattr(self, name).items()})
        object.__setattr__(self, "ignore", tuple(map(int, self.ignore)))
        if self.regions_class_order is not None:
            object.__setattr__(self, "regions_class_order", tuple(map(int, self.regions_class_order)))
        object.__setattr__(self, "has_background", self.has_background and not self.multi_label)
        self._check()

    def _check(self) -> None:
        owner: dict[int, str] = {}
        for name, values in [*self.classes.items(), ("ignore", self.ignore)]:
            for value in values:
                if not 0 <= value <= _LARGEST:
                    raise InputError(f"the value {value} of {name!r} is none", hint=f"use 0 to {_LARGEST}")
                if owner.setdefault(value, name) != name:
                    fault = f"the value {value} stands under {owner[value]!r} and {name!r}"
                    raise InputError(fault, hint="give each value to one class, or to ignore")
        for name, values in self.regions.items():
            foreign = [value for value in values if owner.get(value, "ignore") == "ignore"]
            if foreign or not values:
                what = f"the value {foreign[0]}, which is no class's" if foreign else "no value"
                raise InputError(f"the region {name!r} holds {what}", hint="build regions of the values under labels")
            for other, members in self.classes.items():
                if set(members) & set(values) and not set(members) <= set(values):
                    hint = "list those values as classes of their own under labels"
                    raise InputError(f"the region {name!r} holds only a part of the class {other!r}", hint=hint)
        order = self.regions_class_order
        if order is not None and (len(order) != len(self.regions) or any(v not in owner for v in order)):
            hint = "give one declared value for each region, in the order of regions"
            raise InputError(f"regions_class_order is {list(order)} for {len(self.regions)} regions", hint=hint)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LabelMapping:
        """The mapping of a manifest's content, or of the part of it that :meth:`to_dict` gives.

        Args:
            content: with ``labels`` ({number as text: name, or ``{"name", "values"}``}), and where there are any
                ``regions``, ``regions_class_order``, ``ignore`` (a value or a list), ``multi_label``, and ``task``
                (``classification`` has no background).

        Raises:
            InputError: see the class; or the content is of another kind.
        """
        try:
            return cls._of(content)
        except InputError:
            raise
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            hint = "see docs/labels.md, or copy the file again from where it came"
            raise InputError(f"labels that cannot be read ({error})", hint=hint) from error

    @classmethod
    def _of(cls, content: Mapping[str, Any]) -> LabelMapping:
        several = bool(content.get("multi_label"))
        classes: dict[str, tuple[int, ...]] = {}
        for key, given in sorted(dict(content.get("labels") or {}).items(), key=lambda item: int(item[0])):
            name, values = (given["name"], given.get("values")) if isinstance(given, Mapping) else (given, None)
            classes[str(name)] = () if several else tuple([int(key)] if values is None else values)
        ignore = content.get("ignore") or ()
        return cls(
            classes,
            {name: tuple(values) for name, values in dict(content.get("regions") or {}).items()},
            (ignore,) if isinstance(ignore, int) else tuple(ignore),
            content.get("regions_class_order"),
            several,
            "task" not in content or get_task(content["task"]).class_zero != "class",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for configs, with the keys of a manifest; ``LabelMapping.from_dict`` reads it back."""
        labels: dict[str, Any] = {}
        for number, (name, values) in enumerate(self.classes.items()):
            key = number if self.multi_label or len(values) != 1 else values[0]
            labels[str(key)] = name if self.multi_label or len(values) == 1 else {"name": name, "values": list(values)}
        if len(labels) < len(self.classes):  # a single value equals another class's number: all by number
            labels = {
                str(i): name if values == (i,) else {"name": name, "values": list(values)}
                for i, (name, values) in enumerate(self.classes.items())
            }
        content: dict[str, Any] = {"labels": labels}
        if self.regions:
            content["regions"] = {name: list(values) for name, values in self.regions.items()}
        if self.regions_class_order is not None:
            content["regions_class_order"] = list(self.regions_class_order)
        if self.ignore:
            content["ignore"] = list(self.ignore)
        content |= {"multi_label": True} if self.multi_label else {}
        return content if self.has_background or self.multi_label else content | {"task": "classification"}

    @property
    def names(self) -> list[str]:
        """The class names in the order of the class numbers."""
        return list(self.classes)

    @property
    def outputs(self) -> list[str]:
        """The names of the network's outputs, channel by channel: the regions where there are any, else the classes."""
        return list(self.regions or self.classes)

    @property
    def overlapping(self) -> bool:
        """Whether several outputs may be on at once (a sigmoid each); else exactly one is (a softmax)."""
        return self.multi_label or bool(self.regions)

    @property
    def is_identity(self) -> bool:
        """Whether files hold class numbers from 0 without a gap and nothing is ignored: encoding changes nothing."""
        plain = all(values == (number,) for number, values in enumerate(self.classes.values()))
        return (self.multi_label or plain) and not self.ignore

    @property
    def written_values(self) -> list[int]:
        """The value that each class is written back as, in the order of the class numbers."""
        return [values[0] for values in self.classes.values()]

    @property
    def written_segments(self) -> dict[str, tuple[int, ...]]:
        """The values by which each class (but the background) or region stands in a written prediction.

        >>> labels = {"background": (0,), "oedema": (2,), "tumour": (1, 4)}
        >>> LabelMapping(labels).written_segments
        {'oedema': (2,), 'tumour': (1,)}
        >>> LabelMapping(labels, regions={"whole": (1, 2, 4), "core": (1, 4)}).written_segments
        {'whole': (2, 1), 'core': (1,)}
        """
        if self.multi_label:
            return {}
        written = dict(zip(self.classes, self.written_values, strict=True))
        if not self.regions:
            return {name: (value,) for n, (name, value) in enumerate(written.items()) if n or not self.has_background}
        members = {name: set(values) for name, values in self.classes.items()}
        return {
            region: tuple(written[name] for name in self.classes if members[name] <= set(values))
            for region, values in self.regions.items()
        }

    def class_of(self, value: int) -> int | None:
        """The class number of a file's value; ``UNKNOWN`` for an ignored one, ``None`` for one not declared."""
        if value in self.ignore:
            return UNKNOWN
        return next((n for n, values in enumerate(self.classes.values()) if value in values), None)

    def encode(self, values: Any) -> Any:
        """Class numbers of a file's values, ``UNKNOWN`` where they are ignored.

        Args:
            values: array or tensor of any shape, whole numbers (or nearly, in floating point).

        Returns:
            The same shape; the dtype of ``values`` where that is floating, else int16 (int32 with many classes).

        Raises:
            InputError: a value is not declared, or not a whole number.
        """
        if not self.classes:
            return values
        xp, whole, keep = rounded(values)
        flat = [value for group in (*self.classes.values(), self.ignore) for value in group]
        table = np.full(max(flat) + 2, -2, dtype=np.int32 if len(self.classes) > 2**15 else np.int16)
        for number, group in enumerate(self.classes.values()):
            table[list(group)] = number
        table[list(self.ignore)] = UNKNOWN
        outside = (whole < 0) | (whole > max(flat))
        found = take(xp, table, xp.where(outside, len(table) - 1, whole))
        if bool((found == -2).any()):
            odd = np.unique(np.asarray(whole[found == -2]))
            shown = ", ".join(map(str, odd[:5].tolist())) + (", ..." if len(odd) > 5 else "")
            declared = ", ".join(f"{v}={name}" for name, group in self.classes.items() for v in group[:3])
            hint = f"declare them under labels (now {declared}) or ignore, or correct the mask"
            raise InputError(f"the label holds {shown}, which is not declared", hint=hint)
        return keep(found)

    def decode(self, indices: Any) -> Any:
        """The file's own values of class numbers; ``UNKNOWN`` becomes the first ignored value, or the background's.

        Args:
            indices: array or tensor of any shape with class numbers.

        Returns:
            The same shape; the dtype of ``indices`` where that is floating, else the smallest of uint8, uint16 and
            int32 that holds all values.

        Raises:
            InputError: a number is no class's.
        """
        if not self.classes or self.multi_label:
            return indices
        xp, whole, keep = rounded(indices)
        if bool(((whole < UNKNOWN) | (whole >= len(self.classes))).any()):
            hint = f"class numbers run from 0 to {len(self.classes) - 1}"
            raise InputError("a class number is no class's", hint=hint)
        values = [*self.written_values, self.ignore[0] if self.ignore else self.written_values[0]]
        kind = np.uint8 if max(values) < 2**8 else np.uint16 if max(values) < 2**16 else np.int32
        return keep(take(xp, np.array(values, dtype=kind), whole))  # -1 is the last entry

    def annotated(self, names: Iterable[str] | None = None) -> list[bool]:
        """For each output, whether a case tells of it, where the classes ``names`` were looked for.

        ``None`` is all. The background counts only where every class was looked for. A region counts where it is named
        itself, or every class in it is.

        Raises:
            InputError: a name is neither a class nor a region.
        """
        if names is None or not self.classes:
            return [True] * len(self.outputs)
        told = set(names)
        for name in told:
            if name not in self.classes and name not in self.regions:
                raise InputError(
                    f"annotated names {name!r}, which is no class",
                    hint=f"the classes are {', '.join([*self.classes, *self.regions])}",
                )
        if self.regions:
            of = {value: name for name, values in self.classes.items() for value in values}
            return [name in told or {of[v] for v in values} <= told for name, values in self.regions.items()]
        flags = [name in told for name in self.classes]
        if self.has_background:
            flags[0] = all(flags[1:])
        return flags

    def targets(self, indices: Any, annotated: Any = None, *, channel_dim: int = 0) -> Any:
        """One channel per output from class numbers: 1 it is that, 0 it is not, ``UNKNOWN`` this case cannot tell.

        Args:
            indices: class numbers with a channel axis of one, (1, spatial) or, with ``channel_dim=1``, (B, 1, spatial).
            annotated: the classes that were looked for, by name; or what :meth:`annotated` gives, (C,); or, with
                ``channel_dim=1``, that of each case, (B, C). ``None``: all.
            channel_dim: the axis of the channel, 0 or 1.

        Returns:
            (C, spatial) or (B, C, spatial); the dtype of ``indices`` where that is floating, else int8.
        """
        xp, whole, keep = rounded(indices)
        flags = annotated
        if annotated is None or (isinstance(annotated, Sequence) and any(isinstance(n, str) for n in annotated)):
            flags = self.annotated(annotated)
        known = np.asarray(flags, dtype=bool)
        if known.ndim == 2:
            parts = [self.targets(indices[b], known[b]) for b in range(len(known))]
            return xp.stack(parts)
        found = take(xp, self._table(known), whole)  # (..., C) behind the axis of one
        return keep(xp.moveaxis(found, -1, channel_dim).squeeze(channel_dim + 1))

    def _table(self, known: np.ndarray) -> np.ndarray:
        """For each class number (and last for ``UNKNOWN``) the value of each output, (K + 1, C)."""
        table = np.full((len(self.classes) + 1, len(self.outputs)), UNKNOWN, dtype=np.int8)
        table[:-1] = self.membership
        if self.regions or not self.has_background:
            table[:-1, ~known] = UNKNOWN
        elif not known.all():
            for number in range(len(self.classes)):
                if number == 0 or not known[number]:  # unmarked: it may be any class that nobody looked for
                    table[number] = np.where(known, 0, UNKNOWN)
        return table

    @property
    def membership(self) -> np.ndarray:
        """Which class belongs to which output, (K, C) of 0 and 1."""
        if not self.regions:
            return np.eye(len(self.classes), dtype=np.int8)
        rows = [[set(values) <= set(region) for region in self.regions.values()] for values in self.classes.values()]
        return np.array(rows, dtype=np.int8)

    def from_targets(self, outputs: Any, *, channel_dim: int = 0) -> Any:
        """Class numbers from outputs: where several are on, the class whose regions are just those.

        Args:
            outputs: (C, spatial), or (B, C, spatial) with ``channel_dim=1``: probabilities, logits or one-hot of
                classes (the largest counts), or regions as 0 and 1 (above one half counts as on).
            channel_dim: the axis of the outputs.

        Returns:
            (1, spatial) or (B, 1, spatial), int16 (int64 from a tensor).
        """
        xp = module_of(outputs)
        if not self.regions:
            return xp.argmax(outputs, channel_dim)[(slice(None),) * channel_dim + (None,)]
        on = xp.moveaxis(outputs, channel_dim, 0) > 0.5
        result = xp.zeros(on.shape[1:], dtype=xp.int64 if xp is not np else np.int16)
        result = result.to(on.device) if xp is not np else result
        for region, number in self._painting():
            result[on[region]] = number
        if self.regions_class_order is None:
            for number, row in enumerate(self.membership):
                exact = on[0] == bool(row[0])
                for region in range(1, len(row)):
                    exact &= on[region] == bool(row[region])
                # two classes of the same regions: the first is written
                if not any((row == before).all() for before in self.membership[:number]):
                    result[exact] = number
        return result[(slice(None),) * channel_dim + (None,)]

    def values_of_regions(self) -> list[int]:
        """The file's value of every set of regions, that of regions 0 and 2 at place 1 + 4; empty without regions.

        Raises:
            InputError: more than ten regions.
        """
        n = len(self.regions)
        if n > 10:
            raise InputError(
                f"there are {n} regions, and predictions of more than ten are not written",
                hint="declare fewer regions in the manifest",
            )
        if not n:
            return []
        on = (np.arange(2**n)[None] >> np.arange(n)[:, None]) & 1
        return [int(value) for value in np.ravel(self.decode(self.from_targets(on)))]

    def _painting(self) -> list[tuple[int, int]]:
        """Region and the class number that it writes, in the order of writing."""
        numbers = {value: n for n, values in enumerate(self.classes.values()) for value in values}
        if self.regions_class_order is not None:
            return [(region, numbers[value]) for region, value in enumerate(self.regions_class_order)]
        shared = self.membership.sum(1)
        sizes = [len(values) for values in self.regions.values()]
        order = sorted(range(len(sizes)), key=lambda region: -sizes[region])
        regions = list(self.regions.values())
        return [(r, min((numbers[v] for v in regions[r]), key=lambda n: int(shared[n]))) for r in order]

    def encode_findings(self, label: Mapping[str, Any], annotated: Iterable[str] | None = None) -> list[float]:
        """The findings of a case in the order of the outputs: 1.0, 0.0, or ``UNKNOWN`` where nothing is known.

        Args:
            label: ``{finding: 1, 0 or None}``; one that is left out is unknown.
            annotated: the findings that were looked for; ``None``: all.

        Raises:
            InputError: a finding is not among the classes, or its value is none of 1, 0 and ``None``.

        Example:
            >>> LabelMapping({"oedema": (), "effusion": ()}, multi_label=True).encode_findings({"effusion": 1})
            [-1.0, 1.0]
        """
        for name, value in label.items():
            if name not in self.classes:
                raise InputError(f"the finding {name!r} is no class", hint=f"the classes are {', '.join(self.classes)}")
            if value not in (0, 1, None):
                raise InputError(f"the finding {name!r} is {value!r}", hint="write 1, 0, or null where it is unknown")
        known = self.annotated(annotated)
        values = [label.get(name) for name in self.classes]
        return [float(UNKNOWN if v is None or not k else v) for v, k in zip(values, known, strict=True)]
