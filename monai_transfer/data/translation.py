"""Unpaired image translation: source scans in the target's look, with their anatomy and labels kept.

    G:  min  E (D(G(x)) - 1)^2 + nce * (NCE(x, G(x)) + NCE(y, G(y))) / 2        x: source, y: target
    D:  min  E (D(y) - 1)^2 + E D(G(x))^2
    NCE: of many places, a place of G(x) is the nearest to the same place of x (cosine / 0.07, softmax over places), in
    the generator's own encoder features behind a small projection

Paper: Park, Efros, Zhang and Zhu, Contrastive Learning for Unpaired Image-to-Image Translation (CUT), ECCV 2020,
arXiv:2007.15651

Use: ``Translation().fit(source_loader, target_loader)`` on unlabelled, normalised training patches of both sites, then
``data.translate.TranslateToTargetd(keys="image", translation=...)`` in the *source* pipeline, behind normalisation;
train on translated source scans with their labels, and go on with ``mean_teacher`` or ``pseudo_label`` on the target.
That is the core of the winners of crossMoDA.

**Anatomy may change**: a discriminator rewards whatever makes scans look like the target, also adding or hiding a
lesion where the sites differ in how many they have. The game may also end badly by chance: on a plain inversion of
contrast one start of three broke the shapes. ``structure_check`` says how well edges stayed where they were; a start
below ``min_structure`` is thrown away and the next seed tried. Look at it, and at pictures, before training on the
result. From the paper: least squares, Adam with beta 0.5, NCE on both domains. Not from it: a small generator without
downsampling, and a factor of 0.3 (there 1) for the NCE, which otherwise wins. Normalisation statistics: the generator
has no norm layers, so a patch and the whole scan are translated alike; the segmenter's own see translated scans in
place of source scans.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from monai.inferers import sliding_window_inference
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.networks.adversarial import patch_discriminator
from monai_transfer.tasks.for_methods import ANY_TASK

__all__ = ["Generator", "Translation", "patch_nce", "structure_check"]


def patch_nce(query: Tensor, key: Tensor, temperature: float = 0.07) -> Tensor:
    """Contrastive loss of B x P x F unit vectors: each place's query against the keys of all places of its image.

    Keys are constants. The least value is near 0, that of random vectors near log P.

    Args:
        query: B x P x F, unit vectors at P places.
        key: B x P x F, of the same places in the other image.
        temperature: similarities are divided by it.

    Places that look like themselves alone, and places that all look alike (ln 4):

    >>> apart, alike = torch.eye(4)[None], torch.ones(1, 4, 4) / 2
    >>> [round(patch_nce(places, places).item(), 3) for places in (apart, alike)]
    [0.0, 1.386]
    """
    similarity = torch.einsum("bpf,bqf->bpq", query, key.detach()) / temperature
    places = torch.arange(query.shape[1], device=query.device).expand(len(query), -1)
    return F.cross_entropy(similarity.flatten(0, 1), places.flatten())


def structure_check(image: Tensor, translated: Tensor, quantile: float = 0.9) -> float:
    """How well edges stayed in place, whatever their contrast: 1 for the same, about 1 / dims for unrelated ones.

    The mean squared cosine between the gradients of the two (normalised gradient fields), at the places where either
    has its strongest gradients; of B x C x spatial images. 0 where one of them is not finite.

    Args:
        image: B x C x spatial.
        translated: of the same shape.
        quantile: of the gradients' sizes, from which on an edge is strong.

    Turned contrast leaves edges where they are; another image has others:

    >>> _ = torch.manual_seed(0)
    >>> image, other = torch.rand(2, 1, 1, 64, 64)
    >>> round(structure_check(image, 5 - 2 * image), 2), round(structure_check(image, other), 1)
    (1.0, 0.5)
    """
    if not (torch.isfinite(image).all() and torch.isfinite(translated).all()):
        return 0.0
    dims = tuple(range(2, image.ndim))
    first, second = (torch.stack(torch.gradient(x.double(), dim=dims), -1) for x in (image, translated))
    cosine = F.cosine_similarity(first, second, dim=-1).square()
    strong = torch.zeros_like(cosine, dtype=torch.bool)
    for gradient in (first, second):
        size = gradient.norm(dim=-1)
        level = size.flatten().kthvalue(max(int(quantile * size.numel()), 1)).values
        strong |= size > level
    return float(cosine[strong].mean()) if strong.any() else 1.0


class Generator(nn.Module):
    """A generator of full resolution, without norm layers, for B x C x spatial images.

    Args:
        spatial_dims: 2 or 3.
        channels: of the image.
        width: of the hidden layers.
        depth: number of hidden layers, of kernel 3.

    Without norm layers each place depends on its neighbourhood alone; four convolutions of kernel 3 reach 4 voxels:

    >>> generator = Generator(spatial_dims=2, channels=1, width=8)
    >>> image = torch.zeros(1, 1, 15, 15)
    >>> changed = generator(image.index_fill(2, torch.tensor([0]), 1.0)) != generator(image)
    >>> int(changed.any(-1).flatten().nonzero().max())
    4
    """

    def __init__(self, spatial_dims: int, channels: int, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.layers = nn.ModuleList(
            nn.Sequential(
                conv(channels if i == 0 else width, width, 3, padding=1, padding_mode="replicate"), nn.LeakyReLU(0.2)
            )
            for i in range(depth)
        )
        self.out = conv(width, channels, 1)

    def features(self, x: Tensor) -> list[Tensor]:
        """Activations of the hidden layers, B x width x spatial each."""
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.features(x)[-1])


class Translation(nn.Module):
    """Learns to translate source scans into the target's look; ``fit`` it, then call it on B x C x spatial images.

    Args:
        steps: of training, for each attempt.
        nce: factor of the contrastive losses that hold the anatomy.
        width: of the generator.
        depth: of the generator.
        places: per image and layer, in the contrastive loss.
        batch_size: images of each site in a step; loaders' batches are cut or joined to it.
        lr: of all three optimizers.
        levels: halvings of the discriminator: how large the patches are that it judges.
        key: where the image stands in a batch.
        seed: of everything random, of the first attempt.
        min_structure: the ``structure_check`` that an attempt must reach.
        attempts: how many seeds are tried; the best is kept, with a warning where none reaches ``min_structure``.

    A few steps on two "sites" of opposite contrast; the check says whether edges stayed:

    >>> _ = torch.manual_seed(0)
    >>> source = torch.rand(4, 1, 16, 16)
    >>> translation = Translation(steps=2, width=4, depth=2, levels=1, places=16, attempts=1, min_structure=0.0)
    >>> _ = translation.fit([source], [1 - source])
    >>> translation(source).shape == source.shape, 0 <= translation.structure <= 1, len(translation.history)
    (True, True, 2)
    """

    tasks: ClassVar[tuple[str, ...]] = ANY_TASK
    dims: ClassVar[tuple[int, ...]] = (2, 3)
    norm_statistics: ClassVar[str] = "input space: the network sees translated scans in place of source scans"
    experimental: ClassVar[bool] = True

    def __init__(
        self,
        steps: int = 2000,
        nce: float = 0.3,
        width: int = 32,
        depth: int = 4,
        places: int = 128,
        batch_size: int = 4,
        lr: float = 1e-3,
        levels: int = 2,
        key: str = "image",
        seed: int = 0,
        min_structure: float = 0.9,
        attempts: int = 3,
    ) -> None:
        super().__init__()
        self.steps, self.nce, self.width, self.depth, self.places = steps, nce, width, depth, places
        self.batch_size, self.lr, self.levels, self.key, self.seed = batch_size, lr, levels, key, seed
        self.min_structure, self.attempts = min_structure, max(attempts, 1)
        self.generator: Generator | None = None
        self.history: list[dict[str, float]] = []
        self.structure: float | None = None

    def fit(self, source_loader: Iterable[Any], target_loader: Iterable[Any]) -> Translation:
        """Learn from unlabelled batches of both sites (dictionaries with ``key``, or tensors of one common shape).

        ``structure`` holds the ``structure_check`` of the last source batch afterwards.

        Raises:
            InputError: a loader is empty, its batches hold no finite images of one size, or the sites' do not fit.
        """
        best = None
        for attempt in range(self.attempts):
            self._attempt(source_loader, target_loader, self.seed + attempt)
            if best is None or (self.structure or 0.0) > (best[0] or 0.0):
                best = self.structure, self.generator, self.history
            if self.structure is not None and self.structure >= self.min_structure:
                break
        assert best is not None
        self.structure, self.generator, self.history = best
        if (self.structure or 0.0) < self.min_structure:
            warnings.warn(
                f"translation moves edges: structure check {self.structure:.2f}; do not train on it unseen",
                stacklevel=2,
            )
        return self

    def _attempt(self, source_loader: Iterable[Any], target_loader: Iterable[Any], seed: int) -> None:
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(seed)
            sources, targets = self._endless(source_loader), self._endless(target_loader)
            first, other = next(sources), next(targets)
            if first.shape[1] != other.shape[1] or first.ndim != other.ndim:
                raise InputError(
                    f"source images {tuple(first.shape)} and target {tuple(other.shape)} do not fit",
                    hint="bring both sites to one number of channels and axes",
                )
            size = tuple(min(a, b) for a, b in zip(first.shape[2:], other.shape[2:], strict=True))
            self._build(first.ndim - 2, first.shape[1], first.device)
            assert self.generator is not None
            critic = patch_discriminator(first.shape[1], size, self.width, self.levels).to(first.device)
            heads = nn.ModuleList(
                nn.Sequential(nn.Linear(self.width, 64), nn.ReLU(), nn.Linear(64, 64)) for _ in range(self.depth)
            ).to(first.device)
            optimizers = [
                torch.optim.Adam(m.parameters(), self.lr, betas=(0.5, 0.999)) for m in (self.generator, critic, heads)
            ]
            self.history, self.structure = [], None
            for _ in range(self.steps):
                x, y = next(sources), next(targets)
                self.history.append(self._step(x, y, critic, heads, optimizers))
            with torch.no_grad():
                self.structure = structure_check(x, self.generator(x))

    def _step(
        self, x: Tensor, y: Tensor, critic: nn.Module, heads: nn.ModuleList, optimizers: list
    ) -> dict[str, float]:
        assert self.generator is not None
        for_generator, for_critic, for_heads = optimizers
        fake = self.generator(x)
        judged = 0.5 * ((critic(y) - 1).square().mean() + critic(fake.detach()).square().mean())
        for_critic.zero_grad()
        judged.backward()
        for_critic.step()
        fooled = (critic(fake) - 1).square().mean()
        kept = 0.5 * (self._contrast(x, fake, heads) + self._contrast(y, self.generator(y), heads))
        for_generator.zero_grad()
        for_heads.zero_grad()
        (fooled + self.nce * kept).backward()
        for_generator.step()
        for_heads.step()
        return {
            "discriminator": float(judged.detach()),
            "generator": float(fooled.detach()),
            "nce": float(kept.detach()),
        }

    def _contrast(self, image: Tensor, translated: Tensor, heads: nn.ModuleList) -> Tensor:
        assert self.generator is not None
        with torch.no_grad():
            before = self.generator.features(image)
        losses = []
        for head, kept, query in zip(heads, before, self.generator.features(translated), strict=True):
            kept, query = kept.flatten(2), query.flatten(2)
            chosen = torch.randperm(kept.shape[2], device=kept.device)[: self.places]
            after, source = (F.normalize(head(z[..., chosen].transpose(1, 2)), dim=-1) for z in (query, kept))
            losses.append(patch_nce(after, source))
        return torch.stack(losses).mean()

    def _build(self, dims: int, channels: int, device: torch.device | str) -> None:
        self.generator = Generator(dims, channels, self.width, self.depth).to(device)

    def _endless(self, loader: Iterable[Any]) -> Iterator[Tensor]:
        held: list[Tensor] = []
        while True:
            count = 0
            for batch in loader:
                image = batch.get(self.key) if isinstance(batch, Mapping) else batch
                if not isinstance(image, Tensor):
                    raise InputError(f"a batch holds no tensor under {self.key!r}", hint="name the image with key=")
                held.extend((image.as_tensor() if hasattr(image, "as_tensor") else image).float())
                count += len(image)
                if not torch.isfinite(image).all():
                    raise InputError("a batch holds values that are not finite", hint="run monai-transfer check")
                while len(held) >= self.batch_size:
                    if len({one.shape for one in held[: self.batch_size]}) > 1:
                        raise InputError("a site's images differ in size", hint="crop patches of one size")
                    yield torch.stack(held[: self.batch_size])
                    held = held[self.batch_size :]
            if not count:
                raise InputError("a loader is empty", hint="give training cases of both sites")

    @torch.no_grad()
    def forward(self, image: Tensor, window: int | None = None) -> Tensor:
        """``image`` (B x C x spatial) in the target's look; large ones by sliding ``window``.

        Raises:
            InputError: ``fit`` has not run, and no fitted state was loaded.
        """
        if self.generator is None:
            raise InputError("this translation was never fitted", hint="call fit(source_loader, target_loader)")
        if window is None or max(image.shape[2:]) <= window:
            return self.generator(image)
        size = [min(window, n) for n in image.shape[2:]]
        return sliding_window_inference(image, size, 4, self.generator, overlap=0.5, mode="gaussian")

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load a fitted state; the generator's size is read from it."""
        first = state_dict.get("generator.layers.0.0.weight")
        if self.generator is None and first is not None:
            self.width = first.shape[0]
            self.depth = len({key.split(".")[2] for key in state_dict if key.startswith("generator.layers.")})
            self._build(first.ndim - 2, first.shape[1], first.device)
        return super().load_state_dict(state_dict, *args, **kwargs)
