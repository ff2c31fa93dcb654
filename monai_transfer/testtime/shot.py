"""SHOT: the source's classifier stays, and the features learn to give it sure, diverse answers on the target.

    L = mean H(p) - H(mean p) + beta * CE(pseudo-label, p)
    pseudo-label: the nearest class centroid (cosine) of the features, from soft predictions, then once more from labels

Paper: Liang, Hu and Feng, Do We Really Need to Access the Source Data? Source Hypothesis Transfer for Unsupervised
Domain Adaptation, ICML 2020, arXiv:2002.08546

Defaults are the authors': beta 0.3, SGD with Nesterov momentum 0.9 and weight decay 1e-3, lr 0.01 / (1 + 10 p)^0.75.
They give the backbone a tenth of it, beside a new bottleneck layer that has all; there is none here, so what lies in
front of the frozen class head takes the whole rate (``backbone_factor``). Pseudo-labels are made anew at each epoch
from the network as it stands then, in eval mode. As in their code, features carry a constant 1 before the cosine, and a
class that no case is predicted to be of is left out. Train the source with label smoothing 0.1. **H(mean p) assumes
that classes are about equally frequent on the target**: with strong imbalance it makes cases up; lower ``diversity``. A
segmentation's voxels are anything but balanced: there KL(mean p || prior) takes the place of -H(mean p), as in Bateson,
Kervadec, Dolz, Lombaert and Ben Ayed, Source-Free Domain Adaptation for Image Segmentation, MIA 2022, arXiv:2108.03152,
with ``prior`` the classes' shares of the target's voxels, by default those that the source network predicts; a network
that predicts one class alone there is refused. Normalisation statistics: running averages go on with target batches
alone, in training mode; batches of one case fail on BatchNorm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.methods.base import rows_of
from monai_transfer.networks.copying import copy_network
from monai_transfer.networks.head import find_features, find_head
from monai_transfer.networks.output_forms import main_scores
from monai_transfer.networks.outputs import log_probabilities, mean_entropy, probabilities
from monai_transfer.tasks.for_methods import CLASSES
from monai_transfer.testtime.base import SourceFree, images

__all__ = ["Shot", "centroid_labels", "class_centroids", "information_maximisation"]


PLACES = 256
"""Places of a feature map, per case, from which centroids are made."""


def information_maximisation(logits: Tensor, diversity: float = 1.0, prior: Tensor | None = None) -> Tensor:
    """mean H(p) - diversity * H(mean p), in nats, of N x C logits; lowest when answers are sure and balanced.

    Args:
        logits: N x C; or B x C x spatial, whose predicted foreground and background count the same in mean H(p).
        diversity: factor of the second part.
        prior: C shares that sum to 1: the second part is diversity * KL(mean p || prior), lowest at these shares.

    Sure about each case and balanced over cases is best:

    >>> import torch
    >>> from monai_transfer.testtime.shot import information_maximisation
    >>> sure = torch.tensor([[20.0, -20.0], [-20.0, 20.0]])
    >>> round(information_maximisation(sure).item(), 3), round(information_maximisation(torch.zeros(2, 2)).item(), 3)
    (-0.693, 0.0)
    """
    mean = probabilities(logits).transpose(0, 1).flatten(1).mean(1)
    logs = mean.clamp_min(1e-8).log() - (0.0 if prior is None else prior.to(mean).clamp_min(1e-8).log())
    return mean_entropy(logits, 0.5 if logits.ndim > 2 else None) + diversity * (mean * logs).sum()


def class_centroids(features: Tensor, probabilities: Tensor) -> Tensor:
    """Centroids (C x F+1) of N x F features by soft-weighted mean and once more by nearest-centroid labels.

    Classes that no case is predicted to be of stay out; their rows, and those without any case, are NaN.

    Args:
        features: N x F.
        probabilities: N x C.

    Two clusters, and a third class that no case is predicted to be of:

    >>> features = torch.tensor([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0]])
    >>> answers = torch.tensor([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    >>> class_centroids(features, answers).isnan().all(1).tolist()
    [False, False, True]
    """
    extended = _extended(features)
    centroids = _weighted_means(extended, probabilities)
    predicted = F.one_hot(probabilities.argmax(1), probabilities.shape[1]).any(0)
    centroids = torch.where(predicted.unsqueeze(1), centroids, torch.nan)  # one that no case is of draws no case
    labels = _nearest(extended, centroids)
    return _weighted_means(extended, F.one_hot(labels, probabilities.shape[1]).to(extended.dtype))


def centroid_labels(features: Tensor, centroids: Tensor) -> Tensor:
    """The class of the nearest centroid by cosine, for N x F features.

    Args:
        features: N x F.
        centroids: C x F+1, of ``class_centroids``.

    The network takes the second case for class 1; its neighbour says class 0:

    >>> features = torch.tensor([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0]])
    >>> answers = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.1, 0.9]])
    >>> centroid_labels(features, class_centroids(features, answers)).tolist()
    [0, 0, 1]
    """
    return _nearest(_extended(features), centroids)


def _extended(features: Tensor) -> Tensor:
    return F.normalize(torch.cat([features, torch.ones_like(features[:, :1])], 1), dim=1)


def _weighted_means(features: Tensor, weights: Tensor) -> Tensor:
    return weights.T @ features / weights.sum(0).unsqueeze(1)


def _nearest(features: Tensor, centroids: Tensor) -> Tensor:
    return (features @ F.normalize(centroids, dim=1).T).nan_to_num(nan=-2.0).argmax(1)


class Shot(SourceFree):
    """Source hypothesis transfer.

    Args:
        lr: learning rate; the features take ``backbone_factor`` of it.
        backbone_factor: see ``lr``.
        epochs: passes over the target.
        beta: factor of the pseudo-label term.
        diversity: factor of H(mean p).
        key: where the image stands in a batch.
        prior: shares of the classes on the target; ``None``: equal ones, and in a segmentation those that the source
            network predicts there.

    Raises:
        InputError: the prior is no shares.

    >>> from monai_transfer.testtime.shot import Shot
    >>> Shot().beta, Shot().lr  # the paper's weight of the pseudo-labels and learning rate
    (0.3, 0.01)
    """

    tasks = CLASSES
    limits = {"regression": "its pseudo-labels are classes"}
    norm_statistics = "running averages continue on target batches"

    def __init__(
        self,
        lr: float = 0.01,
        backbone_factor: float = 1.0,
        epochs: int = 15,
        beta: float = 0.3,
        diversity: float = 1.0,
        key: str = "image",
        prior: Sequence[float] | None = None,
    ) -> None:
        if prior is not None and (min(prior) < 0 or not math.isclose(sum(prior), 1, abs_tol=1e-3)):
            raise InputError(f"prior is shares that sum to 1, got {list(prior)}", hint="such as prior=[0.95, 0.05]")
        self.lr, self.backbone_factor, self.epochs = lr, backbone_factor, epochs
        self.beta, self.diversity, self.key, self.prior = beta, diversity, key, prior

    def fit(self, network: nn.Module, unlabelled_loader: Iterable[Any]) -> nn.Module:
        """Adapt ``network`` in place on a loader that can be run through many times; returned in eval mode.

        Raises:
            InputError: the network has no class head or nothing but it, predicts one class alone in a segmentation, or
                the loader is empty; or the prior has other classes.
        """
        heads, entrance = find_head(network), find_features(network)
        if entrance is None:
            raise InputError(f"{type(network).__name__} has no class head to keep", hint="use adabn, which needs none")
        frozen = {id(p) for name in heads for p in network.get_submodule(name).parameters()}
        learning = [p for p in network.parameters() if id(p) not in frozen and p.requires_grad]
        if not learning:
            raise InputError(
                f"{type(network).__name__} has nothing to adapt in front of its class head",
                hint="SHOT needs layers before the head that may learn: unfreeze them",
            )
        optimizer = torch.optim.SGD(learning, self.lr, momentum=0.9, weight_decay=1e-3, nesterov=True)
        device = learning[0].device
        flags = [(p, p.requires_grad) for p in network.parameters() if id(p) in frozen]
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        try:
            with torch.enable_grad():
                prior = None
                for epoch in range(self.epochs):
                    prior = self._epoch(network, entrance, optimizer, unlabelled_loader, device, epoch, prior)
        finally:
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
            network.eval()
        return network

    def _epoch(
        self,
        network: nn.Module,
        head: str,
        optimizer: Any,
        loader: Iterable[Any],
        device: torch.device,
        epoch: int,
        prior: Tensor | None,
    ) -> Tensor | None:
        """One pass over the target; returns the prior, which the first pass finds."""
        teacher = copy_network(network, frozen=True)
        caught: list[Tensor] = []
        teacher.get_submodule(head).register_forward_pre_hook(lambda _module, x: caught.append(x[0].detach()))
        features, predictions, shares = [], [], []
        with torch.no_grad():
            for image in images(loader, self.key, device):
                logits = main_scores(teacher, image)
                maps, found = caught.pop().float(), probabilities(logits)
                shares.append(found.transpose(0, 1).flatten(1).mean(1))
                features.append(rows_of(maps, PLACES * len(maps)))
                predictions.append(rows_of(_resized(found, maps), PLACES * len(maps)))
        steps = len(features)
        centroids = class_centroids(torch.cat(features), torch.cat(predictions))
        if prior is None:
            prior = self._prior(torch.stack(shares).mean(0), torch.cat(predictions), logits.ndim > 2)
        network.train()
        for step, image in enumerate(images(loader, self.key, device)):
            done = (epoch + step / steps) / self.epochs
            for group in optimizer.param_groups:
                group["lr"] = self.lr * self.backbone_factor / math.pow(1 + 10 * done, 0.75)
            with torch.no_grad():
                teacher(image)
                maps = caught.pop().float()
                labels = centroid_labels(rows_of(maps), centroids)
            logits = main_scores(network, image)
            if logits.ndim > 2:
                grid = labels.reshape(len(maps), 1, *maps.shape[2:]).to(logits.dtype)
                labels = F.interpolate(grid, size=logits.shape[2:], mode="nearest")[:, 0].long()
            loss = information_maximisation(logits, self.diversity, prior)
            if self.beta:
                loss = loss + self.beta * F.nll_loss(log_probabilities(logits), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return prior

    def _prior(self, predicted: Tensor, answers: Tensor, dense: bool) -> Tensor | None:
        if self.prior is not None:
            if len(self.prior) != len(predicted):
                raise InputError(
                    f"prior has {len(self.prior)} classes and the network {len(predicted)}",
                    hint="give one share for each, the background's first",
                )
            return torch.tensor(self.prior, device=predicted.device)
        if dense and len(answers.argmax(1).unique()) < 2:
            raise InputError(
                "the network predicts one class alone on the target, which SHOT could only make surer",
                hint="start from a source that finds something there, or give prior=",
            )
        return predicted if dense else None


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    """B x C x spatial brought to the places of another map."""
    if maps.ndim == 2 or maps.shape[2:] == like.shape[2:]:
        return maps
    size = like.shape[2:]
    return F.interpolate(maps, size=size, mode="bilinear" if len(size) == 2 else "trilinear", align_corners=False)
