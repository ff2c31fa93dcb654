"""A source network's features on the target's images: the input of its last layer, pooled, by region and by voxel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import dense_patch_slices
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import CoverageError, InputError
from monai_transfer.networks.copying import copy_network
from monai_transfer.selection.penultimate import Penultimate
from monai_transfer.selection.source_bundle import SourceBundle
from monai_transfer.selection.source_images import label_on_grid, prepare_image
from monai_transfer.weights import Source

__all__ = ["ImageOutputs", "SourceNetwork"]


@dataclass
class ImageOutputs:
    """Features and outputs of a network for one image.

    Attributes:
        pooled: mean features, D.
        outputs: mean class probabilities, Z; ``None`` where the network has no class outputs.
        regions: by class of the label, mean features (D) and mean class probabilities (Z or ``None``) inside it.
        voxels, voxel_classes: features of sampled voxels (V x D) and their classes (V).
    """

    pooled: np.ndarray
    outputs: np.ndarray | None
    regions: dict[int, tuple[np.ndarray, np.ndarray | None]] = field(default_factory=dict)
    voxels: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    voxel_classes: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))


class SourceNetwork:
    """A network with the preprocessing it wants, ready to be run on images.

    Args:
        network: in eval mode; features are the input of its output layer (``find_head``), or of ``layer``, or its
            output where it has no head (an encoder).
        name: for reports.
        preprocessing: takes ``{"image": path}`` (or a list of paths, one a channel) to a dict with a C x spatial tensor
            under ``image``; by default load, orient to RAS in 3D, and scale percentiles 1-99 to 0-1.
        window: largest spatial size the network is shown at once; larger images are cut into windows of it.
        layer: name of the module whose input is taken.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str = "network",
        *,
        preprocessing: Callable[[dict[str, Any]], Any] | None = None,
        window: Sequence[int] | None = None,
        layer: str | None = None,
        licence: str | None = None,
        bundle: SourceBundle | None = None,
    ) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network, self.name, self.licence, self.bundle = network.eval().to(device), name, licence, bundle
        self.preprocessing, self.window = preprocessing, tuple(window) if window else None
        self.layer = layer
        self.penultimate = Penultimate(self.network, name, layer)

    @classmethod
    def load(
        cls,
        source: Any,
        *,
        preprocessing: Callable[[dict[str, Any]], Any] | None = None,
        trust_source: bool = False,
    ) -> SourceNetwork:
        """From a bundle folder, a ``Source`` of one, a network, or a ready ``SourceNetwork``.

        Args:
            source: one of these.
            preprocessing: in place of the bundle's.
            trust_source: run the bundle's own code where a part of it cannot be read without.

        Raises:
            InputError: no bundle, no network in it, one that needs its own code, or its weights or preprocessing do
                not load.
        """
        if isinstance(source, SourceNetwork):
            return source
        if isinstance(source, nn.Module):
            return cls(copy_network(source, frozen=False), type(source).__name__, preprocessing=preprocessing)
        loaded = source if isinstance(source, Source) else Source.load(source)
        try:
            network = loaded.network(trust_source=trust_source)
        except CoverageError as error:
            raise InputError(
                f"its weights do not fit its network ({error})",
                path=loaded.path,
                hint="see docs/weights.md for what loads, or give the weights that belong to its config",
            ) from error
        assert loaded.path is not None
        bundle = SourceBundle(loaded.path, trust_source)
        return cls(
            network,
            loaded.path.resolve().name,
            preprocessing=preprocessing or bundle.preprocessing(),
            window=bundle.window(),
            licence=loaded.licence,
            bundle=bundle,
        )

    def untrained(self, seed: int = 0) -> SourceNetwork:
        """A copy with fresh random weights: what the architecture alone is worth."""
        network = copy_network(self.network, frozen=False)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for module in network.modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()
        name = f"{self.name} (untrained)"
        return SourceNetwork(
            network, name, preprocessing=self.preprocessing, window=self.window, layer=self.layer, bundle=self.bundle
        )

    def pooled(self, image: str | list[str]) -> np.ndarray:
        """Mean features of one image, D."""
        return self.outputs(image).pooled

    @torch.no_grad()
    def outputs(
        self,
        image: str | list[str],
        label: str | None = None,
        classes: Sequence[int] = (),
        *,
        voxels: int = 0,
        seed: int = 0,
    ) -> ImageOutputs:
        """Features and class probabilities of one image, and by region of its label's ``classes`` where one is given.

        Raises:
            InputError: the image cannot be read or prepared, or the network cannot take it or has no feature map.
        """
        tensor = prepare_image(image, self.preprocessing, self.name)
        if label is None:
            masks, chosen = None, None
        else:
            masks = label_on_grid(label, tensor, binary=len(classes) == 2)
            chosen = _choose(masks, classes, voxels, np.random.default_rng(seed))
        pooled: list[Tensor] = []
        probabilities: list[Tensor] = []
        sums: dict[int, list[Any]] = {c: [0.0, 0.0, 0] for c in classes}
        taken, taken_classes = [], []
        fresh = torch.ones(tensor.shape[1:], dtype=torch.bool)  # voxels that no earlier window has counted
        for region in self._windows(tensor.shape[1:]):
            window = torch.as_tensor(tensor[(slice(None), *region)])
            features, scores = self.penultimate(
                window.as_tensor() if isinstance(window, MetaTensor) else window,
                self.window if self.window and len(self.window) == window.ndim - 1 else None,
            )
            flat = features.flatten(1) if features.ndim > 1 else features[:, None]
            pooled.append(flat.mean(1))
            if scores is not None:
                probabilities.append(scores.flatten(1).mean(1) if scores.ndim > 1 else scores)
            if masks is None or chosen is None:
                continue
            if features.ndim == 1:
                raise InputError(
                    f"{self.name} gives one feature vector for a whole image, and voxels are to be compared",
                    hint="rank segmentation sources for a segmentation target",
                )
            here, new = masks[region], fresh[region]
            features = _to_size(features, here.shape)
            scores = None if scores is None or scores.ndim == 1 else _to_size(scores, here.shape)
            for c in classes:
                inside = (here == c) & new
                n = int(inside.sum())
                if n:
                    sums[c][0] = sums[c][0] + features[:, inside].sum(1)
                    sums[c][1] = sums[c][1] + scores[:, inside].sum(1) if scores is not None else None
                    sums[c][2] += n
                pick = inside & chosen[region]
                taken.append(features[:, pick].T.numpy())
                taken_classes += [c] * taken[-1].shape[0]
            fresh[region] = False
        return ImageOutputs(
            pooled=torch.stack(pooled).mean(0).double().numpy(),
            outputs=torch.stack(probabilities).mean(0).double().numpy() if probabilities else None,
            regions={
                c: ((f / n).double().numpy(), None if s is None else (s / n).double().numpy())
                for c, (f, s, n) in sums.items()
                if n
            },
            voxels=np.concatenate(taken).astype(np.float64) if taken else np.empty((0, 0)),
            voxel_classes=np.array(taken_classes, dtype=int),
        )

    look = outputs
    """The earlier name of ``outputs``."""

    def _windows(self, shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
        if self.window is None or len(self.window) != len(shape):
            return iter([tuple(slice(0, n) for n in shape)])
        size = [min(w, n) if w > 0 else n for w, n in zip(self.window, shape, strict=True)]
        return iter(dense_patch_slices(shape, size, size))


def _choose(mask: Tensor, classes: Sequence[int], voxels: int, rng: np.random.Generator) -> Tensor:
    """At most ``voxels`` places of each class."""
    chosen = torch.zeros(mask.numel(), dtype=torch.bool)
    flat = mask.flatten().numpy()
    for c in classes:
        places = np.flatnonzero(flat == c)
        chosen[torch.as_tensor(rng.choice(places, min(voxels, len(places)), replace=False))] = True
    return chosen.reshape(mask.shape)


def _to_size(values: Tensor, size: Sequence[int]) -> Tensor:
    return values if values.shape[1:] == tuple(size) else F.interpolate(values[None], tuple(size), mode="nearest")[0]
