"""The data lists of one transfer, named by their part in it; what each workflow of a bundle trains and tests on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from monai_transfer.data.held_out import deal_patients
from monai_transfer.data.joint import joint_items
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest
from monai_transfer.manifest.checks import SPLITS

__all__ = ["DataLists"]

Items = list[dict[str, Any]]


class DataLists:
    """MONAI data lists from a manifest, a source site and a target site.

    The few-label budget is honest: with ``n_labelled`` given, the target's validation list holds no more cases than its
    training list, since selecting a checkpoint uses labels too. Test cases are never trained on or selected by.

    Args:
        manifest: path of the manifest.
        source_site: the site (or a list of sites) with labels in plenty; ``None`` takes all sites.
        target_site: the site that matters; ``None`` takes all sites.
        n_labelled: how many labelled target cases to train on; ``None`` takes all. Nested: the first 3 of a seed are
            among its first 5.
        seed: decides which.
        n_replay: how many source cases ``joint_training`` keeps; ``None`` all.
        held_out: ``(part, parts)``: the labelled target patients (training and validation) are dealt into ``parts``,
            classes and values balanced; this part takes the place of the test cases, and all others are trained on
            without validation. ``(0, 1)`` tests on all of them and leaves none to train on. The test cases themselves
            are never touched: this is how arms are chosen among (``strategy=auto``).
        missing_channels: cases that lack a channel (``missing`` in the manifest) are an error (``refuse``), left out
            (``leave-out``), or given with ``missing``, of which ``ZeroMissingd`` makes zeros (``zeros``).
        kept_classes: classes that the source knows and the manifest does not annotate; see ``Manifest.with_classes``.

    Raises:
        InputError: no such file or site; a list that must hold cases is empty (raised when it is used).

    >>> import json, tempfile
    >>> from pathlib import Path
    >>> cases = [{"image": f"{s}{i}.png", "label": i % 2, "case": f"{s}{i}", "patient": f"{s}{i}", "site": s}
    ...          for s in "AB" for i in range(8)]
    >>> path = Path(tempfile.mkdtemp()) / "manifest.json"
    >>> _ = path.write_text(json.dumps(
    ...     {"name": "x", "task": "classification", "labels": {"0": "well", "1": "ill"}, "training": cases}))
    >>> lists = DataLists(path, source_site="A", target_site="B", n_labelled=4)
    >>> len(lists.source_training), len(lists.target_training), len(lists.target_unlabelled)
    (8, 4, 8)
    >>> sorted(item["label"] for item in lists.target_training)  # as many of each class
    [0, 0, 1, 1]
    """

    def __init__(
        self,
        manifest: str | Path,
        source_site: str | list[str] | None = None,
        target_site: str | list[str] | None = None,
        n_labelled: int | None = None,
        seed: int = 0,
        n_replay: int | None = None,
        held_out: Sequence[int] | None = None,
        kept_classes: Sequence[str] = (),
        missing_channels: str = "refuse",
    ) -> None:
        self.path = Path(manifest)
        self.source_site, self.target_site = source_site, target_site
        self.n_labelled, self.seed, self.n_replay = n_labelled, seed, n_replay
        if held_out is not None and not (len(held_out) == 2 and 0 <= held_out[0] < held_out[1]):
            raise InputError(
                f"held_out is a part and a number of parts, such as (0, 2), not {held_out!r}",
                hint="count the parts from 0",
            )
        self.held_out = held_out
        if missing_channels not in ("refuse", "leave-out", "zeros"):
            raise InputError(f"missing_channels is {missing_channels!r}", hint="refuse, leave-out or zeros")
        self.kept_classes, self.missing_channels = list(kept_classes), missing_channels

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, read when it is first needed."""
        manifest = Manifest.load(self.path).with_classes(self.kept_classes)
        if self.missing_channels == "leave-out":
            return manifest.complete()
        lacking = [case for split in SPLITS for case in manifest.cases(split) if case.missing]
        if lacking and self.missing_channels == "refuse":
            hint = "make the bundle anew with --missing-channels zeros or leave-out"
            fault = f"{len(lacking)} cases lack a channel, first {lacking[0].case!r}, and nothing here fills it"
            raise InputError(fault, path=self.path, hint=hint)
        return manifest

    def _labelled(self, split: str, site: Any, n: int | None = None, *, needed: bool = False) -> Items:
        if n is not None:
            available = len(self.manifest.cases(split, site=site, labelled=True))
            if split == "validation":
                n = min(n, available)
        items = [
            item for item in self.manifest.datalist(split, site=site, n_labelled=n, seed=self.seed) if "label" in item
        ]
        if needed and not items:
            raise InputError(
                f"no labelled {split} case at site {site!r}" if site else f"no labelled {split} case",
                path=self.path,
                hint=f"its sites are {', '.join(self.manifest.sites)}; choose another site or split",
            )
        return items

    @property
    def source_training(self) -> Items:
        """Labelled training cases of the source."""
        return self._labelled("training", self.source_site, needed=True)

    @property
    def source_validation(self) -> Items:
        """Labelled validation cases of the source."""
        return self._labelled("validation", self.source_site)

    @property
    def source_test(self) -> Items:
        """Labelled test cases of the source ("home")."""
        return self._labelled("test", self.source_site)

    @property
    def target_training(self) -> Items:
        """The ``n_labelled`` labelled training cases of the target."""
        if self.held_out is not None:
            return [item for number, part in enumerate(self._parts) if number != self.held_out[0] for item in part]
        return self._labelled("training", self.target_site, self.n_labelled, needed=self.n_labelled != 0)

    @property
    def target_validation(self) -> Items:
        """Labelled validation cases of the target, no more than ``n_labelled``."""
        if self.held_out is not None:
            return []
        return self._labelled("validation", self.target_site, self.n_labelled)

    @property
    def target_test(self) -> Items:
        """Labelled test cases of the target; with ``held_out`` the part of the labelled patients that is held out."""
        if self.held_out is not None:
            return self._parts[self.held_out[0]]
        return self._labelled("test", self.target_site)

    @property
    def target_labelled(self) -> Items:
        """The target's labelled training and validation cases, as many as the budget allows; there may be none."""
        return [
            item
            for split in ("training", "validation")
            for item in self._labelled(split, self.target_site, self.n_labelled)
        ]

    @property
    def labelled_patients(self) -> list[str]:
        """Patients of ``target_labelled``."""
        return sorted({str(item["patient"]) for item in self.target_labelled})

    @cached_property
    def _parts(self) -> list[Items]:
        assert self.held_out is not None
        return deal_patients(self.target_labelled, self.held_out[1], self.seed)

    @property
    def target_unlabelled(self) -> Items:
        """All training and unlabelled images of the target, without labels; with ``acquired`` where all have it."""
        items = [
            item
            for split in ("training", "unlabeled")
            for item in self.manifest.datalist(split, site=self.target_site, labelled=False)
        ]
        cases = [c for split in ("training", "unlabeled") for c in self.manifest.cases(split, site=self.target_site)]
        if all(case.acquired is not None for case in cases):  # what an order can be made of: data.order.with_order
            items = [{**item, "acquired": case.acquired} for item, case in zip(items, cases, strict=True)]
        if not items:
            raise InputError(
                f"no unlabelled image at site {self.target_site!r}",
                path=self.path,
                hint="give the site scans in the manifest's `unlabeled` list, or use a method that needs none",
            )
        return items

    @property
    def self_supervised_training(self) -> Items:
        """All training and unlabelled images of both sites, without labels: for pretraining that needs none."""
        items = self._images("training") + self._images("unlabeled")
        if not items:
            raise InputError(
                f"no training image at {self.source_site!r} or {self.target_site!r}",
                path=self.path,
                hint="see the sites that the manifest names",
            )
        return items

    @property
    def self_supervised_validation(self) -> Items:
        """All validation images of both sites, without labels."""
        return self._images("validation")

    def _images(self, split: str) -> Items:
        named = [self.source_site, self.target_site]
        lists = [[site] if isinstance(site, str) else site for site in named]
        # None is all sites; a site that stands on both sides counts once
        sites = None if None in named else list(dict.fromkeys(site for some in lists for site in some or ()))
        return self.manifest.datalist(split, site=sites, labelled=False)

    @property
    def target_unlabelled_validation(self) -> Items:
        """Validation images of the target without labels, to choose an epoch by; without any, ``target_unlabelled``."""
        return self.manifest.datalist("validation", site=self.target_site, labelled=False) or self.target_unlabelled

    @property
    def joint_training(self) -> Items:
        """Labelled source cases (``n_replay`` of them) and labelled target cases, each with its ``part``.

        A case of the target site is never the source's, so that the label budget holds where no source is named.
        """
        others = self._other_sites()
        source = self._labelled("training", others, self.n_replay) if others else []
        return joint_items(source, self.target_training)

    def _other_sites(self) -> list[str]:
        """The source's sites without the target's."""
        own = [self.target_site] if isinstance(self.target_site, str) else (self.target_site or self.manifest.sites)
        named = [self.source_site] if isinstance(self.source_site, str) else (self.source_site or self.manifest.sites)
        return [site for site in named if site not in own]

    @property
    def source_and_target_training(self) -> Items:
        """Labelled source cases and the few labelled target cases, for adaptation with or without target labels.

        A case of the target site is never the source's: where no source is named, the other sites are.
        """
        others = self._other_sites()
        if not others and self.target_site is not None and self.source_site is None:
            raise InputError(
                f"no site but the target's, {self.target_site!r}, has labelled cases to go on learning from",
                path=self.path,
                hint="adapt on the target alone: --method::_target_ "
                "monai_transfer.testtime.source_free_self_training.SourceFreeSelfTraining in a bundle made for it "
                "(`new` without --source-site), or name a source site",
            )
        source = self._labelled("training", others, needed=True) if others else self.source_training
        return source + (self.target_training if self.n_labelled else [])
