"""DG-TTA: for each scan the network learns to segment two views of it alike; the next scan starts from the source anew.

    a, b: random affine views of a patch;   p = A^-1 softmax(f(a)), q = B^-1 softmax(f(b)), brought back to one frame
    L = 1 - mean over foreground classes of 2 sum(p q) / (sum p^2 + sum q^2);   the gradient goes through p alone

Paper: Weihsbach, Kruse, Bigalke and Heinrich, DG-TTA: Out-of-Domain Medical Image Segmentation through Augmentation,
Descriptor-Driven Domain Generalization, and Test-Time Adaptation, Sensors 2025, arXiv:2312.06275

Needs neither source data nor labels, and no other scan. The authors start from a source that was trained under random
contrasts (``data.augmentation.Gin``, or MIND-SSC descriptors as its input): without it there is little to build on, and
two views can agree on a wrong answer. Defaults are theirs: AdamW at 1e-5 on all weights, 12 steps of 16 patches each, 3
members that are averaged. That is (12 x 16 x 3) x 2 forward and half as many backward passes per scan: its cost is in
the log, beside that of predicting alone. A scan in which the network finds no foreground teaches nothing and is
predicted as it is; one whose foreground vanishes while it is adapted is warned of, and predicted as it was.

``wrap(network)`` gives a network that takes a whole scan, and adapts at each call. Where windows slide, let it see the
scan first: ``wrapped.attach(evaluator)``, or ``wrapped.adapt(image)``. Normalisation statistics: the source's, in eval
mode; with BatchNorm, re-estimate them before (``testtime.adabn``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.networks.copying import copy_network
from monai_transfer.networks.output_forms import main_scores
from monai_transfer.networks.outputs import probabilities
from monai_transfer.networks.tap import first_tensor
from monai_transfer.tasks.for_methods import VOXEL_CLASSES
from monai_transfer.testtime.base import SourceFree

__all__ = ["DgTta", "ScanAdaptedNetwork", "consistency_between", "random_affines", "warp"]

logger = logging.getLogger(__name__)

LARGEST = {2: 256, 3: 96}
MULTIPLE = 32


def random_affines(count: int, dims: int, strength: float, generator: torch.Generator) -> Tensor:
    """Affine maps near the identity: I + ``strength`` * N(0, 1) in every entry, count x dims x (dims + 1).

    Coordinates run from -1 to 1, so 0.05 moves, turns and scales by about a fortieth of the image.

    Args:
        count: how many maps.
        dims: 2 or 3 spatial axes.
        strength: standard deviation of every entry.
        generator: on the CPU; the same seed gives the same maps.

    >>> generator = torch.Generator().manual_seed(0)
    >>> random_affines(2, 2, 0.0, generator)[1]  # without strength nothing moves
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    identity = torch.eye(dims, dims + 1).expand(count, -1, -1)
    return identity + strength * torch.randn(count, dims, dims + 1, generator=generator)


def warp(image: Tensor, affine: Tensor) -> Tensor:
    """B x C x spatial seen through affine maps B x dims x (dims + 1), linearly; 0 outside.

    Args:
        image: B x C x spatial.
        affine: B x dims x (dims + 1), in coordinates from -1 to 1.

    >>> image = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> torch.equal(warp(image, torch.eye(2, 3)[None]), image)
    True
    """
    grid = F.affine_grid(affine.to(image), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, align_corners=False)


def consistency_between(first: Tensor, second: Tensor, inside: Tensor) -> Tensor:
    """1 - soft Dice of two B x C x spatial probability maps, mean of the foreground classes that either sees at all.

    Args:
        first, second: probabilities; class 0 is the background.
        inside: B x 1 x spatial, where both views have looked.

    >>> p = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    >>> inside = torch.ones(1, 1, 2)
    >>> consistency_between(p, p, inside).item(), consistency_between(p, 1 - p, inside).item()
    (0.0, 1.0)
    """
    p, q = (inside * first)[:, 1:].flatten(2), (inside * second)[:, 1:].flatten(2)
    both, each = (p * q).sum(2), p.square().sum(2) + q.square().sum(2)
    return (1 - 2 * both / each.clamp_min(1e-8)).mean()


class DgTta(SourceFree):
    """Per-scan test-time adaptation of a segmenter.

    Args:
        lr: learning rate of AdamW.
        steps: optimizer steps per member.
        patches: patches per step.
        members: networks that are adapted with other draws and averaged.
        patch: size of a patch, one number or one per axis, as the network was trained on; ``None``: 96 (3D) or 256
            (2D), or the largest multiple of 32 that the scan holds. A smaller scan is padded, and
            its padding not looked at.
        strength: of the random affine views.
        seed: each scan's draws begin with it, so that the order of scans does not matter.

    Raises:
        InputError: a number that is not positive.

    >>> _ = torch.manual_seed(0)
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    >>> adapting = DgTta(steps=1, patches=1, members=1).wrap(network)
    >>> adapting(torch.randn(1, 1, 32, 32)).shape  # log probabilities, the mean of the members
    torch.Size([1, 2, 32, 32])
    """

    tasks = VOXEL_CLASSES
    limits = {
        "classification": "two views of an image have one class anyway; tent or shot adapt a classifier",
        "regression": "it works on class probabilities",
    }
    norm_statistics = "the source's"

    def __init__(
        self,
        lr: float = 1e-5,
        steps: int = 12,
        patches: int = 16,
        members: int = 3,
        patch: int | Sequence[int] | None = None,
        strength: float = 0.05,
        seed: int = 0,
    ) -> None:
        if min(lr, steps, patches, members, strength) <= 0:
            raise InputError(
                f"DG-TTA needs positive numbers, got lr={lr}, steps={steps}, patches={patches}, members={members}, "
                f"strength={strength}",
                hint="the authors' are lr=1e-5, steps=12, patches=16, members=3",
            )
        self.lr, self.steps, self.patches, self.members = lr, steps, patches, members
        self.patch, self.strength, self.seed = patch, strength, seed

    def wrap(self, network: nn.Module) -> ScanAdaptedNetwork:
        """A network that adapts to each scan; the one given stays as it is."""
        return ScanAdaptedNetwork(network, self)


class ScanAdaptedNetwork(nn.Module):
    """A segmenter that adapts to the scan it is to segment; made by ``DgTta.wrap``.

    Args:
        network: the trained segmenter; a copy adapts.
        options: patch, members, steps and rate of adapting.

    Until a scan is shown, each call adapts to its own image; the answers are log probabilities:

    >>> _ = torch.manual_seed(0)
    >>> network, image = nn.Conv2d(1, 2, 3, padding=1), torch.rand(1, 1, 16, 16)
    >>> adapted = DgTta(steps=1, patches=1, members=1, patch=16).wrap(network)
    >>> round(float(adapted(image).exp().sum(1).mean()), 4)
    1.0
    """

    def __init__(self, network: nn.Module, options: DgTta) -> None:
        super().__init__()
        self.network, self._options = copy_network(network, frozen=True), options
        self._members: list[nn.Module] = []
        self._held = False

    def train(self, mode: bool = True) -> ScanAdaptedNetwork:
        """The mode does not matter: norm layers use the source's statistics, dropout stays off."""
        return super().train(False)

    def attach(self, engine: Engine) -> None:
        """Have an evaluator show each batch's whole image before its windows; one scan per batch."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._show)
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _engine: self.reset())

    def _show(self, engine: Any) -> None:
        batch = engine.state.batch
        image, *_ = engine.prepare_batch(batch, engine.state.device, getattr(engine, "non_blocking", False))
        self.adapt(first_tensor(image))

    def reset(self) -> None:
        """Forget the scan."""
        self._members, self._held = [], False

    def adapt(self, image: Tensor) -> None:
        """Adapt to a scan, B x C x spatial, in place of the last one; says in the log what it cost.

        Raises:
            InputError: the network gives no segmentation, or no foreground class.
        """
        self._members, self._held = self._adapted(image), True

    def forward(self, x: Tensor) -> Tensor:
        """Log probabilities of ``x``, B x C x spatial; adapts to it first where no scan was shown before."""
        members = self._members if self._held else self._adapted(x)
        with torch.no_grad():
            maps = [probabilities(main_scores(member, x)) for member in members or [self.network]]
        return torch.stack(maps).mean(0).clamp_min(1e-12).log()

    def _adapted(self, image: Tensor) -> list[nn.Module]:
        since = time.perf_counter()
        options = self._options
        with torch.inference_mode(False), torch.enable_grad():
            image = image.detach().clone()
            size = _patch_size(tuple(image.shape[2:]), options.patch)
            image, scan = _padded(image, size)
            generator = torch.Generator().manual_seed(options.seed)
            start = time.perf_counter()
            before = self._foreground(self.network, image, scan, size)
            one = time.perf_counter() - start
            if not before > 0:
                logger.warning("the network finds no foreground in a scan: it is predicted as it is")
                return []
            members = [self._member(image, scan, size, generator) for _ in range(options.members)]
        kept = [member for member in members if self._foreground(member, image, scan, size) > 0.1 * before]
        if len(kept) < len(members):
            logger.warning(
                "while adapting to a scan the foreground vanished in %d of %d members, which are left out",
                len(members) - len(kept),
                len(members),
            )
        passes = options.members * options.steps * options.patches
        logger.info(
            "adapted to a scan in %.1f s (%d forward and %d backward passes; one patch alone takes %.2f s)",
            time.perf_counter() - since,
            2 * passes,
            passes,
            one,
        )
        return kept

    @torch.no_grad()
    def _foreground(self, network: nn.Module, image: Tensor, scan: Tensor, size: tuple[int, ...]) -> float:
        """Voxels of the scan called foreground in its middle patch."""
        corner = [(whole - part) // 2 for whole, part in zip(image.shape[2:], size, strict=True)]
        logits = main_scores(network, _crop(image, corner, size))
        if logits.ndim != image.ndim:
            raise InputError(
                f"DG-TTA adapts segmenters, and this network gives {tuple(logits.shape)}", hint="use tent or shot"
            )
        return float(((probabilities(logits).argmax(1, keepdim=True) > 0) & (_crop(scan, corner, size) > 0)).sum())

    def _member(self, image: Tensor, scan: Tensor, size: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        options, dims = self._options, len(size)
        member = copy_network(self.network, frozen=True)
        for parameter in member.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        optimizer = torch.optim.AdamW(member.parameters(), lr=options.lr)
        for _step in range(options.steps):
            optimizer.zero_grad(set_to_none=True)
            for _patch in range(options.patches):
                corner = [
                    int(torch.randint(length - part + 1, (1,), generator=generator))
                    for length, part in zip(image.shape[2:], size, strict=True)
                ]
                patch, inner = _crop(image, corner, size), _crop(scan, corner, size)
                maps, seen = [], []
                for index in range(2):
                    affine = random_affines(len(patch), dims, options.strength, generator)
                    back = _inverse(affine)
                    with torch.set_grad_enabled(index == 0):
                        found = probabilities(main_scores(member, warp(patch, affine)))
                        maps.append(warp(found, back))
                    seen.append(warp(warp(inner, affine), back))
                inside = ((seen[0] > 0.99) & (seen[1] > 0.99)).to(patch)
                (consistency_between(maps[0], maps[1], inside) / options.patches).backward()
            optimizer.step()
        for parameter in member.parameters():
            parameter.requires_grad_(False)
        return member


def _padded(image: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The image no smaller than a patch, with zeros around it as sliding windows pad, and where it is the scan."""
    scan = torch.ones_like(image[:, :1])
    short = [max(part - length, 0) for part, length in zip(size, image.shape[2:], strict=True)]
    around = [side for missing in reversed(short) for side in (missing // 2, missing - missing // 2)]
    return F.pad(image, around), F.pad(scan, around)


def _crop(image: Tensor, corner: Sequence[int], size: Sequence[int]) -> Tensor:
    places: list[Any] = [slice(c, c + s) for c, s in zip(corner, size, strict=True)]
    return image[(..., *places)]


def _inverse(affine: Tensor) -> Tensor:
    dims = affine.shape[1]
    last = torch.eye(dims + 1)[-1:].expand(len(affine), 1, -1)
    return torch.linalg.inv(torch.cat([affine, last], 1))[:, :dims]


def _patch_size(spatial: tuple[int, ...], asked: int | Sequence[int] | None) -> tuple[int, ...]:
    if asked is not None:
        sizes = [asked] * len(spatial) if isinstance(asked, int) else list(asked)
        if len(sizes) != len(spatial) or any(a < 1 for a in sizes):
            fault = f"patch {asked} does not fit images of {len(spatial)} axes"
            raise InputError(fault, hint="give one number per axis")
        return tuple(sizes)
    most = LARGEST.get(len(spatial), 96)
    return tuple(min(most, max(s // MULTIPLE, 1) * MULTIPLE) for s in spatial)
