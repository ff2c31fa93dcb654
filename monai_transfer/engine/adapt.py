"""``Adapt``: the handler that adds a method's term to the loss of any MONAI trainer, without a trainer subclass.

A ``SupervisedTrainer`` fires ``LOSS_COMPLETED`` after its loss and before backward, inside autocast, and backward reads
``state.output["loss"]`` again. So the term is added there, and accumulation, AMP, compile and DDP keep working.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from monai_transfer.engine.capabilities import refuse_unfit
from monai_transfer.engine.norm_statistics import RunningStatistics
from monai_transfer.engine.state import bare_network, is_step, progress, register_stateful
from monai_transfer.errors import InputError
from monai_transfer.methods.base import FIELDS, Fields, Method
from monai_transfer.networks.domain_norms import DomainNorms
from monai_transfer.networks.output_forms import main_output
from monai_transfer.networks.outputs import at_least_float32, pool_features
from monai_transfer.networks.tap import Tap, first_tensor

__all__ = ["Adapt"]

logger = logging.getLogger(__name__)

_TARGET_PASSES = {f"target_{view}{what}" for view in ("", "strong_") for what in ("logits", "features")}


class Adapt:
    """Add ``weight * method(fields, progress)`` to the loss of a MONAI trainer.

    Use it as one more handler: ``SupervisedTrainer(..., train_handlers=[Adapt(Coral(), target_loader)])``. Batches of
    both loaders are dictionaries with ``image`` (and ``label``, ``strong`` where the method asks for them). The target
    loader is run through endlessly, made anew each epoch, and may be of any length.

    Each iteration puts ``supervised_loss``, ``adapt_loss`` (the raw, unweighted term) and what the method logs into
    ``engine.state.output``, and the epoch's means into ``engine.state.adapt_log``.

    Args:
        method: the method; its own parameters are moved to the engine's device and have an optimizer of their own.
        target_loader: batches of the other domain; needed when the method asks for a ``target_*`` field.
        layer: module name of the network whose output is the features; default: what enters the class head.
        weight: factor of the term.
        pool: how B x F x spatial features become B x F: ``"mean"``, ``"max"``, or ``None`` to leave them.
        statistics: whose batches count in BatchNorm's running averages, which evaluation uses: ``"both"`` domains, as
            in most papers, or ``"target"`` alone, for a network that will only serve the target. Training normalises
            each batch by its own either way. ``"domain"`` goes further (DSBN, ``networks.domain_norms``): each domain
            has its own scale and shift as well, and the network is left with the target's. The latter two need a
            method that passes target images through. ``None``: what the method declares, which mostly is ``"both"``.
        name: the name of its entry in the checkpoint, for two of them on one trainer.

    Raises:
        InputError: ``method`` is none, needs a target loader and none was given, asks for an unknown field, or is not
            for the task (as far as outputs and labels tell it) or the dimensions of the images; or a batch lacks a key.

    Stock trainer, labelled source batches, an unlabelled target loader:

    >>> import torch
    >>> from monai.engines import SupervisedTrainer
    >>> from monai_transfer.methods.coral import Coral
    >>> from monai_transfer.engine.adapt import Adapt
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> source = [{"image": torch.randn(8, 4), "label": torch.arange(8) % 2} for _ in range(3)]
    >>> target = [{"image": torch.randn(8, 4) + 1} for _ in range(3)]
    >>> trainer = SupervisedTrainer(
    ...     device=torch.device("cpu"), max_epochs=1, train_data_loader=source, network=network, decollate=False,
    ...     optimizer=torch.optim.SGD(network.parameters(), lr=0.1), loss_function=torch.nn.CrossEntropyLoss(),
    ...     train_handlers=[Adapt(Coral(), target)],
    ... )
    >>> trainer.logger.setLevel("ERROR")
    >>> trainer.run()
    >>> trainer.state.output["adapt_loss"].ndim
    0
    """

    def __init__(
        self,
        method: Method,
        target_loader: Iterable[Mapping[str, Any]] | None = None,
        *,
        layer: str | None = None,
        weight: float = 1.0,
        pool: str | None = "mean",
        statistics: str | None = None,
        name: str = "adapt",
    ) -> None:
        if not isinstance(method, Method):
            raise InputError(
                f"{getattr(method, '__name__', None) or type(method).__name__} is no method that adds a term to a loss",
                hint="give an object such as monai_transfer.methods.coral.Coral(); docs/methods.md says what each is",
            )
        unknown = set(method.needs) - FIELDS
        if unknown:
            raise InputError(f"{type(method).__name__} asks for unknown fields {sorted(unknown)}")
        if target_loader is None and any(field.startswith("target_") for field in method.needs):
            raise InputError(f"{type(method).__name__} needs target cases", hint="pass target_loader")
        self.method, self.target_loader = method, target_loader
        self.layer, self.weight, self.name = layer, weight, name
        self.pool = method.default_pool if pool == "mean" else pool
        method.layer, method.pool = self.layer, self.pool
        statistics = method.statistics if statistics is None else statistics
        if statistics not in ("both", "target", "domain"):
            raise InputError(f"no statistics {statistics!r}", hint="one of both, target, domain")
        statistics = "domain" if method.domain_norms else statistics
        if statistics != "both" and method.needs.isdisjoint(_TARGET_PASSES):
            raise InputError(
                f"{type(method).__name__} passes no target image through the network, whose statistics could count",
                hint='pass statistics "both", or use it in fine-tuning',
            )
        self.statistics = statistics
        self._running: RunningStatistics | None = None
        self._norms: DomainNorms | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self._norms_optimizer: torch.optim.Optimizer | None = None
        self._tap: Tap | None = None
        self._iterator: Iterator | None = None
        self._ready = False
        self._idle = False
        self._target_image: Any = None
        self._pending: dict[str, Any] | None = None
        self._done = 0.0  # share of the run, as the checkpoint knows it
        self._from = 0.0  # where the run stood when a trainer that counts from its own start took it over
        self._loaded: float | None = None
        self._lent: dict[str, Tensor] | None = None  # the network's own weights, while the method's stand in for them
        self._fields: Fields | None = None
        self._sums: dict[str, Any] = {}
        self._count = 0

    # ------------------------------------------------------------------ wiring
    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer (or any engine that fires MONAI's ``IterationEvents``)."""
        register_stateful(engine, self.name, self)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_STARTED, self._before_source)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._take_source)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._add_term)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._step_own)
        # first in line: decollation and postprocessing also listen to this event and reshape the output
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._after_step)
        # before EPOCH_COMPLETED, where logs attached earlier than this handler already read it
        engine.add_event_handler(Events.ITERATION_COMPLETED(event_filter=_last_of_epoch), self._publish)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _needs(self, *names: str) -> bool:
        return not self.method.needs.isdisjoint(names)

    def _start(self, engine: Engine) -> None:
        network = bare_network(engine)
        if self._tap is not None:
            self._tap.remove()
        needs_features = any(field.endswith("features") for field in self.method.needs)
        self._tap = Tap(network, self.layer) if needs_features else None
        self.method.to(engine.state.device)
        self._running = RunningStatistics(network) if self.statistics == "target" else None
        if self.statistics == "domain" and self._norms is None:
            self._norms = DomainNorms(network)
            self._norms_optimizer = self._norms.make_optimizer(engine.optimizer)
            self._load_norms(self._pending or {})  # before the first forward pass of the source

    def _before_source(self, engine: Engine) -> None:
        if self._running is not None:
            self._running.pause()
        if self._norms is not None:
            self._norms.use_source()

    def _start_epoch(self, engine: Engine) -> None:
        if self._lent is not None:  # training goes on from where it stood, not from what was validated and saved
            bare_network(engine).load_state_dict(self._lent)
            self._lent = None
        self._iterator = None  # made anew after the epoch's reseeding, so that resuming is exact
        self._sums, self._count = {}, 0

    # ------------------------------------------------------------------ fields
    def _features(self) -> Tensor:
        assert self._tap is not None
        # in float32 or wider: a method's own layers may stand outside the autocast that the network ran in
        return at_least_float32(pool_features(self._tap.take(), self.pool))

    def _take_source(self, engine: Engine) -> None:
        """Right after the trainer's own forward pass: its features are those of the source."""
        fields = Fields()
        if self._tap is not None:
            features = self._features()
            if self._needs("source_features"):
                fields["source_features"] = features
        self._fields = fields

    def _next_target(self, device: torch.device, non_blocking: bool) -> dict[str, Any]:
        assert self.target_loader is not None
        for _attempt in range(2):
            if self._iterator is None:
                self._iterator = iter(self.target_loader)
            try:
                batch = next(self._iterator)
                break
            except StopIteration:
                self._iterator = None
        else:
            raise InputError("the target loader is empty", hint="check the target site's unlabelled cases")
        keys = ("image", "label", "order", "strong")
        wanted = {key for key in keys if any(f"target_{key}" in field for field in self.method.needs)}
        wanted |= {"image"} if self._needs("target_logits", "target_features") else set()
        return {
            key: first_tensor(batch[key]).to(device, non_blocking=non_blocking)
            for key in wanted
            if isinstance(batch.get(key), torch.Tensor)
        }

    def _forward(self, engine: Any, fields: Fields, image: Tensor, prefix: str) -> None:
        logits_name, features_name = f"{prefix}_logits", f"{prefix}_features"
        if self._needs(logits_name, features_name):
            logits = self._main(engine, engine.inferer(image, engine.network), image)
            features = self._features() if self._tap is not None else None
            fields[logits_name] = logits
            if features is not None:
                fields[features_name] = features

    @staticmethod
    def _main(engine: Any, output: Any, image: Any) -> Tensor:
        """The main output, of a network with several heads too."""
        return main_output(output, first_tensor(image).ndim - 2, bare_network(engine))

    def _collect(self, engine: Any) -> Fields:
        fields = self._fields if self._fields is not None else Fields()
        self._fields = None
        output = engine.state.output
        for field, value in (
            ("source_image", output["image"]), ("source_label", output["label"]),
        ):  # fmt: skip
            if self._needs(field):
                fields[field] = first_tensor(value)
        if self._needs("source_logits"):
            fields["source_logits"] = self._main(engine, output["pred"], output["image"])
        batch = engine.state.batch
        device, non_blocking = engine.state.device, getattr(engine, "non_blocking", False)
        if self._needs("source_strong", "source_strong_logits", "source_strong_features"):
            view = batch.get("strong") if isinstance(batch, Mapping) else None
            fields["source_strong"] = first_tensor(view if view is not None else output["image"]).to(device)
            self._forward(engine, fields, fields["source_strong"], "source_strong")
        if self.target_loader is not None and any(field.startswith("target_") for field in self.method.needs):
            target = self._next_target(device, non_blocking)
            if self._running is not None:
                self._running.resume()
            if self._norms is not None:
                self._norms.use_target()
            if "image" not in target and "strong" not in target:
                raise InputError("the target loader's batches hold no tensor under 'image'")
            for key, value in target.items():
                fields[f"target_{key}"] = value
            self._target_image = target.get("image")
            if "image" in target:
                self._forward(engine, fields, target["image"], "target")
            if self._needs("target_strong", "target_strong_logits", "target_strong_features"):
                if "strong" not in target and not self._ready:
                    logger.warning(
                        "%s learns from a strongly augmented view, and the target's batches hold none under 'strong': "
                        "the plain image stands for it. monai_transfer.data.randomisation.StrongViewd makes one",
                        type(self.method).__name__,
                    )
                fields.setdefault("target_strong", target.get("image"))
                self._forward(engine, fields, fields["target_strong"], "target_strong")
        return fields

    # ------------------------------------------------------------------ the term
    def _check_task(self, engine: Any) -> None:
        output = engine.state.output
        image, label = (first_tensor(output[key]) for key in ("image", "label"))
        logits = self._main(engine, output["pred"], image)
        dims = image.ndim - 2 if image.ndim > 3 else None
        task = None
        if logits.ndim > 2:
            task = "segmentation"
        elif isinstance(label, Tensor) and not label.is_floating_point():
            task = "classification"
        elif isinstance(label, Tensor) and label.shape == logits.shape and not ((label == 0) | (label == 1)).all():
            task = "regression" if logits.shape[1] == 1 else None  # several numbers may be soft labels
        if task is not None:
            refuse_unfit(self.method, task, dims)

    def _setup(self, engine: Engine, fields: Fields) -> None:
        """Size the method's parts from the first fields; a state loaded before is applied now."""
        device = torch.device(engine.state.device)
        # method parts are initialised under a forked generator: the user's random stream is left as it was
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            detached = Fields({k: v.detach() if isinstance(v, Tensor) else v for k, v in fields.items()})
            self.method.setup(bare_network(engine), detached)
        self.method.to(device)
        if dist.is_available() and dist.is_initialized():
            for tensor in (*self.method.parameters(), *self.method.buffers()):
                dist.broadcast(tensor.data, 0)
        self.optimizer = self.method.make_optimizer()
        self._ready = True
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self.load_state_dict(pending)

    def _add_term(self, engine: Any) -> None:
        fields = self._collect(engine)
        if not self._ready:
            self._check_task(engine)
            self._setup(engine, fields)
        for optimizer in self._optimizers if self._starts_accumulation(engine) else ():
            optimizer.zero_grad(set_to_none=True)
        if self.optimizer is not None and self.method.follows_lr:
            fastest = max(group["lr"] for group in engine.optimizer.param_groups)
            for group in self.optimizer.param_groups:
                group["lr"] = fastest
        if type(self.method).critic_step is not Method.critic_step:
            self._play_critic(fields)
        term = self.method(fields, self._progress(engine))
        output = engine.state.output
        supervised = output["loss"]
        added = self.weight * term
        self._idle = not self.method.supervised and isinstance(engine.network, nn.parallel.DistributedDataParallel)
        if self._idle:  # its reducer waits for every parameter, also for those that the term does not reach
            added = added + 0.0 * supervised
        output["loss"] = supervised + added if self.method.supervised else added
        logs = {"supervised_loss": supervised.detach(), "adapt_loss": term.detach(), **self.method.log()}
        for key, value in logs.items():
            # flat float tensors: decollation replicates and splits whatever stands in the output
            logs[key] = torch.as_tensor(value, dtype=torch.float32, device=supervised.device)
            self._sums[key] = self._sums.get(key, 0.0) + logs[key]
        output.update(logs)
        self._count += 1

    def _progress(self, engine: Any) -> float:
        """The run's progress; where the trainer was not resumed with this handler, from where the latter stood on."""
        if self._loaded is not None:
            self._from, self._loaded = self._loaded if engine.state.iteration <= 1 else 0.0, None
        whole = max((engine.state.epoch_length or 1) * engine.state.max_epochs, 1)
        self._done = self._from + (1 - self._from) * min(engine.state.iteration / whole, 1.0)
        return self._from + (1 - self._from) * progress(engine)

    def _starts_accumulation(self, engine: Any) -> bool:
        steps = getattr(engine, "accumulation_steps", 1)
        length = engine.state.epoch_length
        local = (engine.state.iteration - 1) % length if length else engine.state.iteration - 1
        return steps <= 1 or local % steps == 0

    def _play_critic(self, fields: Fields) -> None:
        detached = Fields({k: v.detach() if isinstance(v, Tensor) else v for k, v in fields.items()})
        with torch.enable_grad():
            loss = self.method.critic_step(detached)
        if loss is None:
            return
        assert self.optimizer is not None, "a method with a critic has parameters for it"
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._average_gradients(self.optimizer)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [optimizer for optimizer in (self.optimizer, self._norms_optimizer) if optimizer is not None]

    @staticmethod
    def _average_gradients(optimizer: torch.optim.Optimizer) -> None:
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:  # every rank must take part in every reduction
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()

    def _step_own(self, engine: Any) -> None:
        if not is_step(engine):
            return
        if self._idle:
            _drop_zero_gradients(engine.network)
        if self._norms_optimizer is not None:
            DomainNorms.follow(self._norms_optimizer, engine.optimizer)
        scaler = getattr(engine, "scaler", None)
        for optimizer in self._optimizers:
            self._average_gradients(optimizer)
            if all(p.grad is None for group in optimizer.param_groups for p in group["params"]):
                continue
            if getattr(engine, "amp", False) and scaler is not None and scaler.is_enabled():
                scaler.step(optimizer)  # the trainer's own update() follows
            else:
                optimizer.step()

    def _repeat(self, engine: Any) -> None:
        """The network's further steps on the same target batch, as the trainer makes its own."""
        scaler = engine.scaler if getattr(engine, "amp", False) else None
        precision = torch.autocast("cuda", **engine.amp_kwargs) if scaler is not None else contextlib.nullcontext()
        for _ in range(self.method.repeats - 1):
            engine.optimizer.zero_grad(set_to_none=True)
            fields = Fields(target_image=self._target_image)
            with precision:
                self._forward(engine, fields, self._target_image, "target")
                loss = self.weight * self.method.again(fields, self._progress(engine))
                if isinstance(engine.network, nn.parallel.DistributedDataParallel):
                    loss = loss + 0.0 * fields["target_logits"].sum()
            if scaler is None:
                loss.backward()
                _drop_zero_gradients(engine.network)
                engine.optimizer.step()
            else:
                scaler.scale(loss).backward()
                _drop_zero_gradients(engine.network)
                scaler.step(engine.optimizer)
                scaler.update()
        engine.optimizer.zero_grad(set_to_none=True)

    def _after_step(self, engine: Engine) -> None:
        network = bare_network(engine)
        if is_step(engine):
            if self.method.repeats > 1:
                self._repeat(engine)
            self.method.after_step(network, self._progress(engine))
        length = engine.state.epoch_length
        if length and engine.state.iteration % length == 0:
            weights = self.method.deployed(network)
            if weights is not None:
                self._lent = {name: tensor.clone() for name, tensor in network.state_dict().items()}
                network.load_state_dict(weights)

    # ------------------------------------------------------------------ log and state
    def _publish(self, engine: Any) -> None:
        means = {key: float(total) / max(self._count, 1) for key, total in self._sums.items()}
        engine.state.adapt_log = {**getattr(engine.state, "adapt_log", {}), **means}

    def _finish(self, engine: Engine) -> None:
        if self._norms is not None:
            self._norms.use_target()
        if self._running is not None:
            self._running.resume()
        self._iterator = None
        if self._tap is not None:
            self._tap.remove()
            self._tap = None

    def state_dict(self) -> dict[str, Any]:
        """The method's state and its optimizer's, and the share of the run that is done, which weights follow.

        With them what ``statistics="domain"`` keeps for the source.
        """
        state = self._pending or {
            "method": self.method.state_dict() if self._ready else {},
            "optimizer": self.optimizer.state_dict() if self.optimizer is not None else {},
        }
        state = {**state, "progress": self._done if self._loaded is None else self._loaded}
        if self._lent is not None:
            state = {**state, "lent": self._lent}
        if self._norms is not None:
            own = self._norms_optimizer.state_dict() if self._norms_optimizer is not None else {}
            state = {**state, "norms": {"layers": self._norms.state_dict(), "optimizer": own}}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore; before the method's parts are sized the state is kept and applied then."""
        state = dict(state)
        self._lent = state.pop("lent", None)
        self._loaded = float(state.pop("progress", 0.0))
        if self._norms is not None:
            self._load_norms(state)
        if not self._ready:
            self._pending = state if any(state.values()) else None
            return
        self.method.load_state_dict(state["method"])
        if self.optimizer is not None and state.get("optimizer"):
            self.optimizer.load_state_dict(state["optimizer"])

    def _load_norms(self, state: dict[str, Any]) -> None:
        """Take what belongs to the source's norm layers out of ``state``, which may hold nothing of the kind."""
        kept = state.pop("norms", None)
        if not kept:
            return
        assert self._norms is not None
        self._norms.load_state_dict(kept["layers"])
        if self._norms_optimizer is not None and kept["optimizer"]:
            self._norms_optimizer.load_state_dict(kept["optimizer"])


def _drop_zero_gradients(network: nn.Module) -> None:
    """A gradient of nothing would still be a step of weight decay and momentum."""
    for parameter in network.parameters():
        if parameter.grad is not None and not parameter.grad.any():
            parameter.grad = None


def _last_of_epoch(engine: Engine, _count: int) -> bool:
    return engine.state.iteration % (engine.state.epoch_length or 1) == 0
