"""Where two sites lie in a network's feature space, in numbers and a picture: before and after it was adapted.

    domain distance = ||m_s - m_t|| / spread           m: mean feature of a site;  spread: RMS distance of its cases
    class shift     = mean over classes c of ||m_s,c - m_t,c|| / mean distance of different classes at the source

A class shift well below 1 says that the same class at both sites is closer than different classes are; when features
collapse it grows, which the domain distance does not show. Proxy A-distance: 0, a held-out linear classifier cannot
tell the sites apart; 2, it always can (Ben-David et al., NIPS 2006; patients are never split).

A classification's cases count by their label where it is known, else by the predicted class; a segmentation's regions
are those that the network predicts, so no target label is needed. Closeness of the sites is no proof of a better model:
it can be bought with wrong classes lying on one another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.files import atomic_path
from monai_transfer.networks.output_forms import main_output
from monai_transfer.networks.outputs import pool_features, probabilities
from monai_transfer.networks.tap import Tap, first_tensor
from monai_transfer.selection.distances import proxy_a_distance

__all__ = ["DomainView", "alignment_numbers", "draw_alignment", "view_domain"]

_DOMAINS = (("source", "#3f72af"), ("target", "#e07a1f"))
_MARKERS = "os^Dvp*hX"


@dataclass
class DomainView:
    """What a network sees in some cases of one site.

    Attributes:
        features: mean features of each case, N x F.
        patients: N names, to keep a patient's cases together; never written anywhere.
        rows: features of cases (classification) or predicted regions (segmentation), M x F.
        classes: class of each row, M; -1 where there is none (regression).

    >>> rng = np.random.default_rng(0)
    >>> def site(shift):
    ...     features = rng.normal(shift, 1, (20, 4))
    ...     return DomainView(features, [f"p{n}" for n in range(20)], features, np.array([0, 1] * 10))
    >>> near, far = (alignment_numbers(site(0), site(shift))["domain_distance"] for shift in (0, 5))
    >>> near < 1 < far  # in units of the spread
    True
    """

    features: np.ndarray
    patients: list[str]
    rows: np.ndarray
    classes: np.ndarray


@torch.no_grad()
def view_domain(
    network: nn.Module,
    dataset: Any,
    *,
    inferer: Callable[..., Any] | None = None,
    layer: str | None = None,
    cases: int = 60,
    device: torch.device | str = "cpu",
) -> DomainView:
    """Look at up to ``cases`` items of a dataset (dictionaries with ``image``, and ``label`` and ``patient`` if known).

    The network is put into eval mode for it. Of a sliding window the windows' features are averaged.

    Args:
        network: in any mode.
        dataset: items with ``image``, C x spatial.
        inferer: how the network goes over an image; default: at once.
        layer: module name whose output is looked at; None: what enters the class head.
        cases: at most so many, evenly spread.
        device: where the network is.

    Raises:
        InputError: the dataset is empty, or the layer is not in the network.

    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
    ...                               torch.nn.Linear(4, 2))
    >>> items = [{"image": torch.rand(1, 8, 8), "label": n % 2, "patient": f"p{n}"} for n in range(5)]
    >>> view = view_domain(network, items, cases=3)
    >>> view.features.shape, view.patients  # what enters the head, of the first, the middle and the last case
    ((3, 4), ['p0', 'p2', 'p4'])
    """
    if not len(dataset):
        raise InputError("there is no case to look at", hint="look at the sites that the dataset was made for")
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(cases, len(dataset))).astype(int))
    gatherer = _Gatherer(network, layer)
    training = network.training
    network.eval()
    pooled, patients, rows, classes = [], [], [], []
    try:
        for index in chosen:
            item = dataset[int(index)]
            image = first_tensor(torch.as_tensor(item["image"]))[None].to(device)
            inferer(image, network) if inferer is not None else network(image)
            mean, regions, predicted = gatherer.take()
            pooled.append(mean)
            patients.append(str(item.get("patient") or f"case {index}"))
            if regions:
                rows += list(regions.values())
                classes += list(regions)
            else:
                rows.append(mean)
                classes.append(_known_class(item.get("label"), predicted))
    finally:
        gatherer.remove()
        network.train(training)
    return DomainView(np.stack(pooled), patients, np.stack(rows), np.array(classes, dtype=int))


class _Gatherer:
    """Sums features and predictions over the forward passes (windows) of one case."""

    def __init__(self, network: nn.Module, layer: str | None) -> None:
        self.tap = Tap(network, layer)
        self._hook = network.register_forward_hook(self._on_forward)
        self._reset()

    def _reset(self) -> None:
        self._pooled: list[Tensor] = []
        self._votes: list[Tensor] = []
        self._sums: Tensor | None = None
        self._mass: Tensor | None = None
        self._continuous = False

    def _on_forward(self, network: nn.Module, inputs: tuple, output: Any) -> None:
        features, logits = self.tap.take().float(), main_output(output, inputs[0].ndim - 2, network).float()
        self._pooled.append(pool_features(features))
        if logits.ndim == 2 and logits.shape[1] == 1:  # a regression, or a binary classifier: no class to vote for
            self._continuous = True
            return
        p = probabilities(logits)
        self._votes.append(p.flatten(2).mean(-1) if p.ndim > 2 else p)
        if p.ndim > 2 and features.ndim > 2:
            resize: Any = F.adaptive_avg_pool2d if p.ndim == 4 else F.adaptive_avg_pool3d
            weights = resize(p, features.shape[2:]).flatten(2)
            sums = torch.einsum("bcv,bfv->cf", weights, features.flatten(2))
            mass = weights.sum((0, 2))
            self._sums = sums if self._sums is None else self._sums + sums
            self._mass = mass if self._mass is None else self._mass + mass

    def take(self) -> tuple[np.ndarray, dict[int, np.ndarray], int]:
        """Mean features, features by predicted region (those of at least one feature voxel), predicted class."""
        mean = torch.cat(self._pooled).mean(0).double().cpu().numpy()
        regions = {}
        if self._sums is not None and self._mass is not None:
            sums, mass = self._sums.double().cpu().numpy(), self._mass.double().cpu().numpy()
            regions = {c: sums[c] / mass[c] for c in range(len(mass)) if mass[c] >= 1}
        predicted = -1 if self._continuous else int(torch.cat(self._votes).mean(0).argmax())
        self._reset()
        return mean, regions, predicted

    def remove(self) -> None:
        self._hook.remove()
        self.tap.remove()


def _known_class(label: Any, predicted: int) -> int:
    if predicted < 0 or label is None:
        return predicted
    value = torch.as_tensor(label).flatten()
    return (
        int(value[0])
        if value.numel() == 1 and bool(torch.isfinite(value.float()).all()) and value[0] >= 0
        else predicted
    )


def alignment_numbers(source: DomainView, target: DomainView, seed: int = 0) -> dict[str, float | None]:
    """``proxy_a_distance``, ``domain_distance``, ``class_shift`` of the module's text; None where one cannot be had.

    Args:
        source: of ``view_domain``.
        target: likewise.
        seed: of the classifier that tells the domains apart.

    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(20, 4))
    >>> view = DomainView(features, [f"p{n}" for n in range(20)], features, np.array([0, 1] * 10))
    >>> alignment_numbers(view, view)["domain_distance"]  # a domain beside itself
    0.0
    """
    spread = np.sqrt(np.mean([np.mean(((v.features - v.features.mean(0)) ** 2).sum(1)) for v in (source, target)]))
    apart = float(np.linalg.norm(source.features.mean(0) - target.features.mean(0)))
    shared = [c for c in np.unique(source.classes) if c >= 0 and (target.classes == c).any()]
    centres = {c: [v.rows[v.classes == c].mean(0) for v in (source, target)] for c in shared}
    between = [
        float(np.linalg.norm(centres[a][0] - centres[b][0])) for i, a in enumerate(shared) for b in shared[i + 1 :]
    ]
    shift = None
    if between and np.mean(between) > 1e-12:
        shift = float(np.mean([np.linalg.norm(s - t) for s, t in centres.values()]) / np.mean(between))
    try:
        distance: float | None = proxy_a_distance(
            source.features, target.features, [f"s {p}" for p in source.patients], [f"t {p}" for p in target.patients],
            seed=seed,
        )  # fmt: skip
    except InputError:  # too few patients
        distance = None
    return {
        "proxy_a_distance": None if distance is None else min(max(distance, 0.0), 2.0),
        "domain_distance": apart / float(spread) if spread > 1e-12 else None,
        "class_shift": shift,
    }


def draw_alignment(
    path: str | Path, panels: dict[str, tuple[DomainView, DomainView]], names: Sequence[str] = ()
) -> None:
    """One panel for each (source, target): the first two principal components of the standardised rows of both.

    Colour: site; marker: class (``names`` by class index).
    """
    figure = Figure(figsize=(4.6 * len(panels), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    grid = np.atleast_1d(figure.subplots(1, len(panels)))
    handles: dict[str, Any] = {}
    for axes, (title, views) in zip(grid, panels.items(), strict=True):
        both = StandardScaler().fit_transform(np.vstack([v.rows for v in views]))
        parts = min(2, *both.shape)
        pca = PCA(parts, random_state=0).fit(both)
        places = np.zeros((len(both), 2))
        places[:, :parts] = pca.transform(both)
        split = np.split(places, [len(views[0].rows)])
        for (domain, colour), view, at in zip(_DOMAINS, views, split, strict=True):
            for c in np.unique(view.classes):
                mine = at[view.classes == c]
                said = names[c] if 0 <= c < len(names) else f"class {c}" if c >= 0 else ""
                marker = _MARKERS[max(int(c), 0) % len(_MARKERS)]
                drawn = axes.scatter(*mine.T, s=26, color=colour, marker=marker, alpha=0.7, linewidths=0)
                handles[f"{domain}, {said}" if said else domain] = drawn
        share = [*pca.explained_variance_ratio_, 0.0]
        axes.set_xlabel(f"first component ({100 * share[0]:.0f} % of the variance)", fontsize=8)
        axes.set_ylabel(f"second ({100 * share[1]:.0f} %)", fontsize=8)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[["top", "right"]].set_visible(False)
    order = sorted(handles)
    columns = max(len(order) // 2, 1)
    figure.legend(
        [handles[n] for n in order], order, loc="outside lower center", ncols=columns, fontsize=8, frameon=False
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
