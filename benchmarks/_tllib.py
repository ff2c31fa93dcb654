"""TLlib's methods as its scripts for images have them, for ``mnist_usps.py``; and SHOT by its authors' formula.

Terms, critics and teachers are TLlib's own modules, imported from a checkout; what its scripts do with them in a step
(which passes, which weights) stands here. Networks have the parts ``backbone``, ``bottleneck`` and ``head``.
"""

from __future__ import annotations

import copy
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

LR, BATCH = 0.01, 64
CLASSES, WIDTH = 10, 256


def open_tllib(folder: Path) -> None:
    """Make ``tllib``'s modules importable without its package files, which load torchvision, timm and more."""
    if not (folder / "tllib" / "alignment" / "dann.py").exists():
        sys.exit(f"{folder} is no checkout of thuml/Transfer-Learning-Library: tllib/alignment/dann.py is not in it")
    for name in ("tllib", "tllib.alignment", "tllib.self_training", "tllib.utils", "tllib.modules"):
        package = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")))]
        sys.modules[name] = package
    sys.modules.setdefault("prettytable", types.ModuleType("prettytable"))  # it prints confusion matrices
    if not hasattr(np, "float"):
        np.float = float  # type: ignore[attr-defined]  # gone since NumPy 1.24; its gradient reversal uses it


class Peer:
    """A method of TLlib's as its script has it: ``loss`` of one step, beside the parts that learn too."""

    freeze_head = False

    def __init__(self, net: nn.Sequential, steps: int) -> None:
        self.net, self.steps = net, steps
        self.parts = nn.ModuleList()
        self.make()

    def make(self) -> None:
        """Its modules."""

    def reversal(self, most: float, hi: float = 1.0) -> nn.Module:
        """Gradient reversal whose factor reaches .46 of ``hi`` after ``most`` steps, 1000 in all scripts."""
        from tllib.modules.grl import WarmStartGradientReverseLayer

        return WarmStartGradientReverseLayer(alpha=1.0, lo=0.0, hi=hi, max_iters=most, auto_step=True)

    def discriminator(self, width: int) -> nn.Module:
        from tllib.modules.domain_discriminator import DomainDiscriminator

        return DomainDiscriminator(in_feature=width, hidden_size=1024)

    def features(self, image: Tensor) -> Tensor:
        return self.net.bottleneck(self.net.backbone(image))

    def together(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features and logits of both domains, passed as one batch."""
        features = self.features(torch.cat([image, target]))
        return *features.chunk(2), *self.net.head(features).chunk(2)

    def loss(self, image: Tensor, label: Tensor, target: dict[str, Tensor]) -> Tensor:
        """Of one step, the task's included; a method whose step is another has an ``update`` of its own instead."""
        raise NotImplementedError

    def update(self, optimizer: Any, image: Tensor, label: Tensor, target: dict[str, Tensor]) -> None:
        loss = self.loss(image, label, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def predict(self, image: Tensor) -> Tensor:
        return self.net(image)


class PeerDann(Peer):
    def make(self) -> None:
        from tllib.alignment.dann import DomainAdversarialLoss

        self.parts.append(DomainAdversarialLoss(self.discriminator(WIDTH), grl=self.reversal(self.steps / 10)))

    def loss(self, image, label, target):
        here, there, logits, _ = self.together(image, target["image"])
        return F.cross_entropy(logits, label) + self.parts[0](here, there)


class PeerCdan(Peer):
    def make(self) -> None:
        from tllib.alignment.cdan import ConditionalDomainAdversarialLoss

        term = ConditionalDomainAdversarialLoss(self.discriminator(WIDTH * CLASSES), entropy_conditioning=True)
        term.grl = self.reversal(self.steps / 10)
        self.parts.append(term)

    def loss(self, image, label, target):
        here, there, logits, other = self.together(image, target["image"])
        return F.cross_entropy(logits, label) + self.parts[0](logits, here, other, there)


class PeerMcd(Peer):
    """Two heads of its own on the backbone, and three alternating steps."""

    def make(self) -> None:
        from tllib.alignment.mcd import ImageClassifierHead

        self.heads = nn.ModuleList(ImageClassifierHead(500, CLASSES, 1024, nn.Identity()) for _ in range(2))
        decay = 0.0005
        self.of_backbone = torch.optim.SGD(self.net.backbone.parameters(), LR, weight_decay=decay)
        self.of_heads = torch.optim.SGD(self.heads.parameters(), LR, momentum=0.9, weight_decay=decay)

    def update(self, optimizer, image, label, target):
        from tllib.alignment.mcd import classifier_discrepancy, entropy

        both, gap, balance = torch.cat([image, target["image"]]), 0.3, 0.03  # its script's for digits
        self.heads.train()

        def answers(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            (first, t1), (second, t2) = (head(features).chunk(2) for head in self.heads)
            t1, t2 = t1.softmax(1), t2.softmax(1)
            supervised = F.cross_entropy(first, label) + F.cross_entropy(second, label)
            return supervised + (entropy(t1) + entropy(t2)) * balance, classifier_discrepancy(t1, t2) * gap, t1

        def step(loss: Tensor, *optimizers: Any) -> None:
            self.of_backbone.zero_grad()
            self.of_heads.zero_grad()
            loss.backward()
            for each in optimizers:
                each.step()

        step(answers(self.net.backbone(both))[0], self.of_backbone, self.of_heads)
        with torch.no_grad():
            features = self.net.backbone(both)
        supervised, distance, _ = answers(features)
        step(supervised - distance, self.of_heads)
        for _repeat in range(4):
            step(answers(self.net.backbone(both))[1], self.of_backbone)
        optimizer.step()  # nothing to do: the schedule wants it

    def predict(self, image):
        self.heads.eval()
        features = self.net.backbone(image)
        return self.heads[0](features)


class PeerMmd(Peer):
    def make(self) -> None:
        from tllib.alignment.dan import MultipleKernelMaximumMeanDiscrepancy
        from tllib.modules.kernels import GaussianKernel

        kernels = [GaussianKernel(alpha=2.0**k) for k in range(-3, 2)]
        self.parts.append(MultipleKernelMaximumMeanDiscrepancy(kernels=kernels, linear=True))  # its script's default

    def loss(self, image, label, target):
        here, there = self.features(image), self.features(target["image"])
        return F.cross_entropy(self.net.head(here), label) + self.parts[0](here, there)


class PeerCoral(Peer):
    def make(self) -> None:
        from tllib.alignment.coral import CorrelationAlignmentLoss

        self.parts.append(CorrelationAlignmentLoss())

    def loss(self, image, label, target):
        here, there, logits, _ = self.together(image, target["image"])
        return F.cross_entropy(logits, label) + self.parts[0](here, there)


class PeerAdda(Peer):
    freeze_head = True

    def make(self) -> None:
        from tllib.alignment.dann import DomainAdversarialLoss  # its adda.py takes this one

        self.parts.append(DomainAdversarialLoss(self.discriminator(WIDTH), grl=self.reversal(1000, hi=2.0)))
        self.source = copy.deepcopy(self.net).requires_grad_(False).train()
        for layer in self.source.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.eval()  # its freeze_bn; dropout stays

    def loss(self, image, label, target):
        here = self.source.bottleneck(self.source.backbone(image))
        return self.parts[0](here, self.features(target["image"]))


class PeerMcc(Peer):
    def make(self) -> None:
        from tllib.self_training.mcc import MinimumClassConfusionLoss

        self.parts.append(MinimumClassConfusionLoss(temperature=2.5))

    def loss(self, image, label, target):
        _, _, logits, other = self.together(image, target["image"])
        return F.cross_entropy(logits, label) + self.parts[0](other)


class PeerFixmatch(Peer):
    def make(self) -> None:
        from tllib.self_training.pseudo_label import ConfidenceBasedSelfTrainingLoss

        self.parts.append(ConfidenceBasedSelfTrainingLoss(0.9))

    def loss(self, image, label, target):
        with torch.no_grad():
            plain = self.net(target["image"])
        loss = F.cross_entropy(self.net(image), label)
        return loss + self.parts[0](self.net(target["strong"]), plain)[0]


class PeerPseudoLabel(Peer):
    def make(self) -> None:
        from tllib.self_training.pseudo_label import ConfidenceBasedSelfTrainingLoss

        self.parts.append(ConfidenceBasedSelfTrainingLoss(0.95))

    def loss(self, image, label, target):
        loss, other = F.cross_entropy(self.net(image), label), self.net(target["image"])
        return loss + self.parts[0](other, other)[0]


class PeerSelfEnsemble(Peer):
    def make(self) -> None:
        from tllib.self_training.mean_teacher import EMATeacher
        from tllib.self_training.pi_model import L2ConsistencyLoss
        from tllib.self_training.self_ensemble import ClassBalanceLoss

        self.teacher = EMATeacher(self.net, alpha=0.99)
        self.parts.extend([L2ConsistencyLoss(), ClassBalanceLoss(CLASSES)])

    def loss(self, image, label, target):
        self.teacher.train()
        loss = F.cross_entropy(self.net(image), label)
        mine, taught = self.net(target["strong"]).softmax(1), self.teacher(target["image"]).softmax(1)
        sure = (taught.max(1).values > 0.8).float()
        return loss + 3 * self.parts[0](mine, taught, sure) + 0.01 * self.parts[1](mine) * sure.mean()

    def update(self, optimizer, image, label, target):
        super().update(optimizer, image, label, target)
        self.teacher.update()


PEERS: dict[str, type[Peer]] = {
    "dann": PeerDann,
    "cdan_e": PeerCdan,
    "mcd": PeerMcd,
    "mmd": PeerMmd,
    "coral": PeerCoral,
    "adda": PeerAdda,
    "mcc": PeerMcc,
    "fixmatch": PeerFixmatch,
    "mean_teacher": PeerSelfEnsemble,
    "pseudo_label": PeerPseudoLabel,
}


def shot_by_formula(net: nn.Sequential, images: Tensor, seed: int, epochs: int = 15) -> nn.Module:
    """SHOT as its authors' code for digits has it: a tenth of the rate for the backbone, labels anew at each pass."""
    net.head.requires_grad_(False)
    groups = [{"params": net.backbone.parameters(), "at": 0.1 * LR}, {"params": net.bottleneck.parameters(), "at": LR}]
    optimizer = torch.optim.SGD(groups, LR, momentum=0.9, weight_decay=1e-3, nesterov=True)
    length = len(images) // BATCH
    order = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        net.eval()
        with torch.no_grad():
            features = torch.cat([net.bottleneck(net.backbone(part)) for part in images.split(256)])
            answers = net.head(features).softmax(1)
        features = F.normalize(torch.cat([features, torch.ones(len(features), 1)], 1), dim=1)
        known = answers.argmax(1).unique()
        weights = answers
        for _ in range(2):  # centroids by soft answers, then once more by their labels
            centroids = F.normalize((weights.T @ features / (1e-8 + weights.sum(0)[:, None]))[known], dim=1)
            labels = known[(features @ centroids.T).argmax(1)]
            weights = F.one_hot(labels, CLASSES).float()
        net.train()
        for step, chosen in enumerate(torch.randperm(len(images), generator=order)[: length * BATCH].split(BATCH)):
            for group in optimizer.param_groups:
                group["lr"] = group["at"] * (1 + 10 * (epoch * length + step) / (epochs * length)) ** -0.75
            logits = net(images[chosen])
            p = logits.softmax(1)
            sure, mean = -(p * (p + 1e-5).log()).sum(1).mean(), p.mean(0)
            loss = 0.3 * F.cross_entropy(logits, labels[chosen]) + sure + (mean * (mean + 1e-5).log()).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()
