"""Which augmentation a source is trained with, by what is known of the target: a rule, with its reason in words.

Randomised contrast (``data.augmentation``) is the largest lever without labels where contrast differs between source
and target, and costs accuracy at home on most sets. ``docs/augmentation.md`` holds the prices. So it is chosen where
the target's images say so: where the distributions of their grey values, each image scaled to its own 1st and 99th
percentile, lie more than ``DIFFERENT`` per cent of the range apart, beyond chance (``gap``); and then of every case
(``randomised_all``), since the plain half teaches little of such a target. No label is looked at. Likewise where the
manifest says that its sites differ in modality: between CT and MR the grey values lie close together, and mean
different tissue.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_transfer.data.augmentation.presets import PRESETS
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest
from monai_transfer.selection.gap import DomainGap, domain_gap
from monai_transfer.tasks import get_task

__all__ = [
    "DIFFERENT",
    "PRICES",
    "AugmentationChoice",
    "augment_source",
    "choose_augmentation",
    "is_quantitative",
    "sites_differ",
    "source_augmentation",
    "target_augmentation",
]

logger = logging.getLogger("monai_transfer")

_PATIENTS = 12
"""Patients of each site whose images are looked at."""

DIFFERENT = 15.0
"""Per cent of the range. Measured: 58 between nuclei under fluorescence and in histology, at most 5 between the sites
of five other sets, on two of which ``standard`` was the better at home and abroad (docs/augmentation.md)."""

PRICES = {
    "far": "measured on nuclei, fluorescence to histology: Dice .807 abroad (.767 over five more sources) against .006 "
    "of standard, .875 against .910 at home; --augment randomised (half of each batch) .727 and .893",
    "modalities": "measured from MR to CT of sarcoma: Dice .443 abroad against .298 of standard, .681 against .662 at "
    "home",
    "near": "so near, --augment randomised cost on the embedded segmentation: Dice .500 abroad against .517 of "
    "standard, .671 against .831 at home",
}
"""What a choice brought abroad and cost at home, in one measurement each (docs/augmentation.md): part of its reason."""

_UNKNOWN = "no target is known whose contrast could differ"
_QUANTITATIVE = re.compile(r"\b(CT|CBCT|PET|SPECT|ADC|T1 ?map|T2 ?map|SUV)\b", re.IGNORECASE)


@dataclass(frozen=True)
class AugmentationChoice:
    """A preset and why.

    Attributes:
        preset: a name in ``data.augmentation.presets.PRESETS``.
        reason: one sentence.

    >>> AugmentationChoice("standard", "the grey values of both sites lie close together").preset
    'standard'
    """

    preset: str
    reason: str


def is_quantitative(modality: object) -> bool:
    """Whether grey values of a modality are numbers of a scale (Hounsfield units, SUV), so that contrast is a fact.

    Args:
        modality: as in a manifest: a name, or names by channel.

    >>> is_quantitative("CT"), is_quantitative("MR"), is_quantitative({"0": "PET"})
    (True, False, True)
    """
    return bool(_QUANTITATIVE.search(str(modality)))


def sites_differ(data: Manifest) -> bool:
    """Whether a manifest names several modalities ("CT; MR") though its images have one channel: its sites' then.

    >>> sites_differ(Manifest("a", "segmentation", modality="CT; MR"))
    True
    >>> sites_differ(Manifest("a", "segmentation", modality="PET; CT", channel_names={"0": "PET", "1": "CT"}))
    False
    """
    if not isinstance(data.modality, str) or len(data.channel_names) > 1:
        return False
    return len({part.strip().lower() for part in re.split(r"[;,]", data.modality) if part.strip()}) > 1


def choose_augmentation(
    task: str, modality: object = "", gap: DomainGap | None = None, *, differ: bool = False, default: str = "standard"
) -> AugmentationChoice:
    """The preset for training a source.

    Args:
        task: of the manifest.
        modality: of the source, as the manifest says it.
        gap: between source and target, ``None`` where no target is known.
        differ: whether source and target are of different modalities.
        default: the preset where nothing speaks for randomised contrast.

    >>> choose_augmentation("segmentation", "MR").preset
    'standard'
    """
    if not get_task(task).has_classes:
        return AugmentationChoice(default, f"{default}: a {get_task(task).name} may read its number from the contrast")
    if differ:
        told = f"the sites' modalities ({modality}) differ, so a grey value of one means something else in the other"
        return AugmentationChoice("randomised_all", f"randomised_all: {told}; {PRICES['modalities']}")
    if is_quantitative(modality):
        reason = f"{default}: grey values of {modality} are measured numbers, not free contrast"
        return AugmentationChoice(default, reason)
    if gap is None:
        return AugmentationChoice(default, f"{default}: {_UNKNOWN}")
    row = gap["intensity distribution"]
    if row.value is None or row.low is None:
        return AugmentationChoice(default, f"{default}: the distance between both sites' grey values is not known")
    told = f"grey values of {gap.name_a} and {gap.name_b} lie {max(row.value, 0):.0f} % of the range apart"
    if row.low > DIFFERENT:
        reason = f"randomised_all: {told} (more than {DIFFERENT:g} % beyond chance); {PRICES['far']}"
        return AugmentationChoice("randomised_all", reason)
    reason = f"{default}: {told} (not more than {DIFFERENT:g} % beyond chance); {PRICES['near']}"
    return AugmentationChoice(default, reason)


def target_augmentation(task: str, augment: str = "auto") -> AugmentationChoice:
    """The preset that the target's few labelled cases get, and why (measured: ``docs/augmentation.md``).

    Args:
        task: of the manifest.
        augment: a preset's name, or ``"auto"``.

    >>> target_augmentation("segmentation").preset, target_augmentation("regression").preset
    ('standard', 'light')
    """
    if augment != "auto":
        return AugmentationChoice(augment, "as asked")
    if get_task(task).label.is_number:
        return AugmentationChoice("light", "a number told by few cases: strong augmentation cost accuracy on both sets")
    return AugmentationChoice("standard", "strong on few cases: it helps more sets than it costs")


def source_augmentation(data: Manifest, source: Any, target: Any, augment: str = "auto") -> AugmentationChoice:
    """The preset that the source's cases get, and why.

    Args:
        data: the manifest.
        source, target: its sites; only where each is one site their images are compared.
        augment: a preset's name, or ``"auto"``: by the rule, which looks at the images of some patients of both sites.

    Raises:
        InputError: no such preset.
    """
    if augment != "auto":
        if augment not in PRESETS:
            raise InputError(f"no augmentation preset {augment!r}", hint=f"auto, or one of {', '.join(PRESETS)}")
        return AugmentationChoice(augment, f"{augment}: asked for")
    known = isinstance(source, str) and isinstance(target, str) and source != target
    choice = choose_augmentation(data.task, data.modality, differ=known and sites_differ(data))
    if known and choice.reason.endswith(_UNKNOWN):
        try:
            gap = domain_gap(data, data, site_a=source, site_b=target, max_patients=_PATIENTS)
        except InputError as error:  # fewer than two patients; unreadable files are refused elsewhere
            told = f"{choice.preset}: the gap between the sites is not known ({error.fault})"
            return AugmentationChoice(choice.preset, told)
        return choose_augmentation(data.task, data.modality, gap)
    return choice


def augment_source(name: str, manifest: str | Path, source_site: Any = None, target_site: Any = None) -> str:
    """The name of a preset, ``"auto"`` put into one; the log says which, and why. For a config.

    Args:
        name: of a preset, or ``"auto"``.
        manifest: its path.
        source_site: site of the source.
        target_site: site of the target.

    >>> augment_source("light", "a manifest that is not looked at then")
    'light'
    """
    if name != "auto":
        return name
    choice = source_augmentation(Manifest.load(manifest), source_site, target_site)
    logger.info("augmentation of the source's cases: %s", choice.reason)
    return choice.preset
