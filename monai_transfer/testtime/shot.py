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
that classes are about equally frequent on the target**: with strong imbalance it makes cases up; lower ``diversity``.
Meant for classification: a segmentation's voxels are anything but balanced. Normalisation statistics: running averages
go on with target batches alone, in training mode; batches of one case fail on BatchNorm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.networks.copying import copy_network
from monai_transfer.networks.head import find_features, find_head
from monai_transfer.networks.output_forms import main_scores
from monai_transfer.networks.outputs import entropy, log_probabilities, probabilities
from monai_transfer.testtime.base import SourceFree, images

__all__ = ["Shot", "centroid_labels", "class_centroids", "information_maximisation"]


def information_maximisation(logits: Tensor, diversity: float = 1.0) -> Tensor:
    """mean H(p) - diversity * H(mean p), in nats, of N x C logits; lowest when answers are sure and balanced.

    Sure about each case and balanced over cases is best:

    >>> import torch
    >>> from monai_transfer.testtime.shot import information_maximisation
    >>> sure = torch.tensor([[20.0, -20.0], [-20.0, 20.0]])
    >>> round(information_maximisation(sure).item(), 3), round(information_maximisation(torch.zeros(2, 2)).item(), 3)
    (-0.693, 0.0)
    """
    mean = probabilities(logits).mean(0)
    return entropy(logits).mean() + diversity * (mean * mean.clamp_min(1e-8).log()).sum()


def class_centroids(features: Tensor, probabilities: Tensor) -> Tensor:
    """Centroids (C x F+1) of N x F features by soft-weighted mean and once more by nearest-centroid labels.

    Classes that no case is predicted to be of stay out; their rows, and those without any case, are NaN.
    """
    extended = _extended(features)
    centroids = _weighted_means(extended, probabilities)
    predicted = F.one_hot(probabilities.argmax(1), probabilities.shape[1]).any(0)
    centroids = torch.where(predicted.unsqueeze(1), centroids, torch.nan)  # one that no case is of draws no case
    labels = _nearest(extended, centroids)
    return _weighted_means(extended, F.one_hot(labels, probabilities.shape[1]).to(extended.dtype))


def centroid_labels(features: Tensor, centroids: Tensor) -> Tensor:
    """The class of the nearest centroid by cosine, for N x F features."""
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
    """

    tasks = ("classification",)
    limits = {
        "segmentation": "it assumes balanced classes, which voxels never are",
        "regression": "its pseudo-labels are classes",
    }
    norm_statistics = "running averages continue on target batches"

    def __init__(
        self,
        lr: float = 0.01,
        backbone_factor: float = 1.0,
        epochs: int = 15,
        beta: float = 0.3,
        diversity: float = 1.0,
        key: str = "image",
    ) -> None:
        self.lr, self.backbone_factor, self.epochs = lr, backbone_factor, epochs
        self.beta, self.diversity, self.key = beta, diversity, key

    def fit(self, network: nn.Module, unlabelled_loader: Iterable[Any]) -> nn.Module:
        """Adapt ``network`` in place on a loader that can be run through many times; returned in eval mode.

        Raises:
            InputError: the network has no class head or nothing but it, ends in spatial outputs, or the loader is
                empty.
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
                for epoch in range(self.epochs):
                    self._epoch(network, entrance, optimizer, unlabelled_loader, device, epoch)
        finally:
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
            network.eval()
        return network

    def _epoch(
        self, network: nn.Module, head: str, optimizer: Any, loader: Iterable[Any], device: torch.device, epoch: int
    ) -> None:
        teacher = copy_network(network, frozen=True)
        caught: list[Tensor] = []
        teacher.get_submodule(head).register_forward_pre_hook(lambda _module, x: caught.append(x[0].detach()))
        features, predictions = [], []
        with torch.no_grad():
            for image in images(loader, self.key, device):
                logits = main_scores(teacher, image)
                if logits.ndim != 2:
                    raise InputError(
                        "SHOT adapts classifiers, and this network has spatial outputs", hint="use adabn or tent"
                    )
                features.append(caught.pop().float())
                predictions.append(probabilities(logits))
        steps = len(features)
        centroids = class_centroids(torch.cat(features), torch.cat(predictions))
        network.train()
        for step, image in enumerate(images(loader, self.key, device)):
            done = (epoch + step / steps) / self.epochs
            for group in optimizer.param_groups:
                group["lr"] = self.lr * self.backbone_factor / math.pow(1 + 10 * done, 0.75)
            with torch.no_grad():
                teacher(image)
                labels = centroid_labels(caught.pop().float(), centroids)
            logits = main_scores(network, image)
            loss = information_maximisation(logits, self.diversity)
            if self.beta:
                loss = loss + self.beta * F.nll_loss(log_probabilities(logits), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
