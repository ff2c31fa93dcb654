"""``LightningAdapt``: a callback that adds a method's term to what a LightningModule's ``training_step`` returns.

The extra ``lightning`` installs what it needs; the package does without it otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from monai_transfer.engine.method_step import MethodStep
from monai_transfer.errors import InputError
from monai_transfer.methods.base import Method

_MISSING = ""
try:
    from lightning.pytorch import Callback
except Exception as error:  # absent, or broken by a torchvision that does not fit
    try:
        from pytorch_lightning import Callback
    except Exception:
        Callback, _MISSING = object, f"{type(error).__name__}: {error}"

__all__ = ["LightningAdapt"]


class LightningAdapt(Callback):
    """``Trainer(callbacks=[LightningAdapt(Dann(), target_loader)])``; the module stays as it is.

    ``training_step`` returns a loss, or a dictionary with ``loss``. Logs ``supervised_loss``, ``adapt_loss`` and what
    the method says, through the module's own ``log``.

    Args:
        method: the method.
        target_loader: batches of the other domain; see ``MethodStep``.
        network: where in the module the network is, by name (``"net"``); default: the module's ``network``, ``model``
            or ``net``, else the module itself.
        name: the name of its entry in the checkpoint, for two of them on one trainer.
        options: as of ``MethodStep``: ``layer``, ``weight``, ``pool``, ``statistics``, ``keys``,
            ``task``.

    Raises:
        InputError: lightning is not installed, or as ``MethodStep``.

    A module of one's own, which knows nothing of adaptation, and CORAL beside its loss (needs lightning):

    >>> import torch
    >>> from lightning.pytorch import LightningModule, Trainer
    >>> from monai_transfer.methods import Coral
    >>> class Classifier(LightningModule):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    ...
    ...     def training_step(self, batch):
    ...         image, label = batch
    ...         return nn.functional.cross_entropy(self.network(image), label)
    ...
    ...     def configure_optimizers(self):
    ...         return torch.optim.SGD(self.parameters(), 0.1)
    >>> _ = torch.manual_seed(0)
    >>> source = [(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])) for _ in range(2)]
    >>> adapt = LightningAdapt(Coral(), [torch.rand(4, 1, 8, 8) + 3 for _ in range(2)])
    >>> silent = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    >>> trainer = Trainer(accelerator="cpu", max_epochs=1, callbacks=[adapt], enable_progress_bar=False, **silent)
    >>> trainer.fit(Classifier(), torch.utils.data.DataLoader(source, batch_size=None))
    >>> sorted(trainer.callback_metrics), float(trainer.callback_metrics["adapt_loss"]) > 0
    (['adapt_loss', 'supervised_loss'], True)
    """

    def __init__(
        self,
        method: Method,
        target_loader: Iterable[Any] | None = None,
        *,
        network: str | None = None,
        name: str = "adapt",
        **options: Any,
    ) -> None:
        if _MISSING:
            raise InputError(
                f"LightningAdapt needs lightning, which cannot be imported ({_MISSING})",
                hint="pip install 'monai-transfer[lightning]'",
            )
        self.step = MethodStep(method, None, target_loader, **options)
        self.network, self.name = network, name
        self._unwrapped: Any = None

    @property
    def state_key(self) -> str:
        """Where Lightning keeps the state in its checkpoint."""
        return f"monai_transfer.{self.name}"

    def _find(self, module: nn.Module) -> nn.Module:
        if self.network is not None:
            try:
                return module.get_submodule(self.network)
            except AttributeError as error:
                raise InputError(
                    f"{type(module).__name__} has no module {self.network!r}",
                    hint=f"it has {', '.join(name for name, _ in module.named_children())}",
                ) from error
        found = (getattr(module, name, None) for name in ("network", "model", "net"))
        return next((child for child in found if isinstance(child, nn.Module)), module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take hold of the network, and of what ``training_step`` returns."""
        self.step.scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.step.bind(self._find(pl_module), trainer.optimizers[0], device=pl_module.device, watch=True)
        self._unwrapped = pl_module.training_step

        @functools.wraps(self._unwrapped)
        def training_step(batch: Any, *arguments: Any, **options: Any) -> Any:
            return self._add(trainer, pl_module, batch, self._unwrapped(batch, *arguments, **options))

        pl_module.training_step = training_step

    def _add(self, trainer: Any, module: Any, batch: Any, found: Any) -> Any:
        loss = found["loss"] if isinstance(found, Mapping) else found
        if loss is None:  # Lightning skips the batch
            return found
        watch = self.step.watch
        if watch is None or watch.logits is None:
            raise InputError(
                f"training_step did not call {self.network or type(self._find(module)).__name__!r}",
                hint='say where the network is: LightningAdapt(..., network="...")',
            )
        batches = trainer.num_training_batches
        length = int(batches) if batches != float("inf") else None
        epochs = trainer.max_epochs
        if epochs is None or epochs < 1 or length is None:  # counted in steps
            length, epochs = max(int(trainer.estimated_stepping_batches), 1), 1
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        self.step.progress.follow(done, length, epochs)
        keys = self.step.collector.target.keys
        label = batch.get(keys["label"]) if isinstance(batch, Mapping) else None
        if isinstance(batch, (tuple, list)) and len(batch) > 1:
            label = batch[1]
        total = self.step(label=label, loss=loss, batch=batch)
        for key, value in self.step.logs.items():
            module.log(key, value, on_step=False, on_epoch=True)
        return {**found, "loss": total} if isinstance(found, Mapping) else total

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Target batches come anew."""
        self.step.start_epoch()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Before validation, what the method wants validated stands in."""
        if batch_idx + 1 == trainer.num_training_batches:
            self.step.lend_weights()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave network and module as they were."""
        self.step.finish()
        if "training_step" in vars(pl_module):
            del pl_module.training_step

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """As at the end."""
        self.on_train_end(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Here Lightning has run backward, which it does inside the optimizer's step."""
        self.step.before_step()

    def state_dict(self) -> dict[str, Any]:
        """As ``MethodStep.state_dict``."""
        return self.step.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As ``MethodStep.load_state_dict``."""
        self.step.load_state_dict(state_dict)
