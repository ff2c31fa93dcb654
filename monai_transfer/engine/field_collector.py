"""Collects the named fields that a method asked for, and no others: images, labels, outputs and tapped features."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from monai_transfer.engine.domain_statistics import DomainStatistics
from monai_transfer.engine.target_batches import TargetBatches
from monai_transfer.errors import InputError
from monai_transfer.methods.base import FIELDS, Fields, Method
from monai_transfer.networks.output_forms import main_output
from monai_transfer.networks.outputs import at_least_float32, pool_features
from monai_transfer.networks.tap import Tap, first_tensor
from monai_transfer.networks.wrappers import buffers_as_they_are

__all__ = ["FieldCollector"]

logger = logging.getLogger(__name__)


class FieldCollector:
    """Passes what a method needs through the network, once each.

    Args:
        method: whose ``needs`` are collected.
        target_loader: batches of the other domain.
        layer: module name whose output is the features; None: what enters the class head.
        pool: how features are pooled: ``"mean"``, ``"max"`` or None.
        statistics: told whose batch comes next.
        keys: our names to those of the batches.

    Raises:
        InputError: the method asks for an unknown field, or needs a target loader and there is none.
    """

    def __init__(
        self,
        method: Method,
        target_loader: Iterable[Any] | None,
        layer: str | None,
        pool: str | None,
        statistics: DomainStatistics,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        if unknown := set(method.needs) - FIELDS:
            raise InputError(
                f"{type(method).__name__} asks for unknown fields {sorted(unknown)}",
                hint=f"there are {', '.join(sorted(FIELDS))}",
            )
        self.method, self.statistics = method, statistics
        self.layer, self.pool = layer, pool
        self.target = TargetBatches(target_loader, keys)
        self.forward: Callable[..., Any] | None = None
        self.target_image: Tensor | None = None
        self._network: nn.Module | None = None
        self._wrapped: nn.Module | None = None
        self._tap: Tap | None = None
        self._device, self._non_blocking = torch.device("cpu"), False
        self._warned = False
        if target_loader is None and self.needs_target:
            raise InputError(f"{type(method).__name__} needs target cases", hint="pass target_loader")

    @property
    def needs_target(self) -> bool:
        """Whether a target batch is read in each step."""
        return any(field.startswith("target_") for field in self.method.needs)

    def bind(
        self,
        network: nn.Module,
        forward: Callable[..., Any],
        device: torch.device,
        non_blocking: bool = False,
        wrapped: nn.Module | None = None,
    ) -> None:
        """Tap the bare network; ``forward(image, ...)`` passes an image through it as its loop does.

        Args:
            network: the bare network.
            forward: passes an image through it.
            device: of the images.
            non_blocking: how target batches are copied to it.
            wrapped: the network as it is trained, where ``DistributedDataParallel`` is around it.

        Raises:
            InputError: no such layer.
        """
        self.release()
        self._network, self.forward, self._device, self._non_blocking = network, forward, device, non_blocking
        self._wrapped = wrapped if wrapped is not None else network
        if any(field.endswith("features") for field in self.method.needs):
            self._tap = Tap(network, self.layer)

    def release(self) -> None:
        """Take the hook off the network, and let go of the target's iterator."""
        self.target.restart()
        if self._tap is not None:
            self._tap.remove()
            self._tap = None

    def collect(self, image: Any, label: Any, logits: Any, batch: Any = None) -> Fields:
        """The fields of one step; the last forward pass was that of the source.

        Args:
            image, label, logits: the source's, as the loop has them.
            batch: the source's whole batch, where its strong view stands.
        """
        fields = Fields()
        if self._tap is not None:
            features = self._features()
            if self._needs("source_features"):
                fields["source_features"] = features
        for name, value in (("source_image", image), ("source_label", label)):
            if self._needs(name):
                fields[name] = first_tensor(value)
        if self._needs("source_logits"):
            fields["source_logits"] = self.main(logits, image)
        if self._needs("source_strong", "source_strong_logits", "source_strong_features"):
            view = batch.get(self.target.keys["strong"]) if isinstance(batch, Mapping) else None
            fields["source_strong"] = first_tensor(view if view is not None else image).to(self._device)
            self._pass(fields, fields["source_strong"], "source_strong")
        if self.target.loader is not None and self.needs_target:
            self._collect_target(fields)
        return fields

    def main(self, output: Any, image: Any) -> Tensor:
        """The main output for ``image``, of a network with several heads too."""
        return main_output(output, first_tensor(image).ndim - 2, self._network)

    def collect_again(self) -> Fields:
        """The fields of the present target image alone, passed through once more."""
        assert self.target_image is not None
        fields = Fields(target_image=self.target_image)
        self._pass(fields, self.target_image, "target")
        return fields

    def _collect_target(self, fields: Fields) -> None:
        keys = ("image", "label", "order", "strong")
        wanted = {key for key in keys if any(f"target_{key}" in field for field in self.method.needs)}
        wanted |= {"image"} if self._needs("target_logits", "target_features") else set()
        target, arguments, options = self.target.next(self._device, wanted, self._non_blocking)
        self.statistics.use_target()
        fields.update({f"target_{key}": value for key, value in target.items()})
        if "image" in target:
            self.target_image = target["image"]
            self._pass(fields, target["image"], "target", *arguments, **options)
        if self._needs("target_strong", "target_strong_logits", "target_strong_features"):
            if "strong" not in target and not self._warned:
                logger.warning(
                    "%s learns from a strongly augmented view, and the target's batches hold none under 'strong': "
                    "the plain image stands for it. monai_transfer.data.randomisation.StrongViewd makes one",
                    type(self.method).__name__,
                )
                self._warned = True
            fields.setdefault("target_strong", target.get("image"))
            self._pass(fields, fields["target_strong"], "target_strong", *arguments, **options)

    def _needs(self, *names: str) -> bool:
        return not self.method.needs.isdisjoint(names)

    def _features(self) -> Tensor:
        assert self._tap is not None
        # in float32 or wider: a method's own layers may stand outside the autocast that the network ran in
        return at_least_float32(pool_features(self._tap.take(), self.pool))

    def _pass(self, fields: Fields, image: Tensor, prefix: str, *arguments: Any, **options: Any) -> None:
        if not self._needs(f"{prefix}_logits", f"{prefix}_features"):
            return
        assert self.forward is not None and self._wrapped is not None
        without = prefix in self.method.constant
        with torch.no_grad() if without else contextlib.nullcontext(), buffers_as_they_are(self._wrapped):
            logits = self.main(self.forward(image, *arguments, **options), image)
        if self._tap is not None:
            fields[f"{prefix}_features"] = self._features()
        fields[f"{prefix}_logits"] = logits
