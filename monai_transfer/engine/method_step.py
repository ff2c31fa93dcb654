"""``MethodStep``: a method in any training loop, by one call per batch.

``Adapt`` (MONAI), ``AdaptLoss`` (ignite, or any loop that calls a loss function) and ``LightningAdapt`` are this object
behind another front. What is not the loss's own follows the network's optimizer: whenever that makes a real step,
critics and norm layers of a domain make theirs, teachers are averaged, repeated steps are made. So accumulation and a
``GradScaler`` are followed without being told.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from monai_transfer.engine.capabilities import refuse_unfit
from monai_transfer.engine.domain_statistics import DomainStatistics
from monai_transfer.engine.field_collector import FieldCollector
from monai_transfer.engine.forward_watch import ForwardWatch
from monai_transfer.engine.gradient_ratio import GradientRatio
from monai_transfer.engine.own_optimizers import OwnOptimizers, detached
from monai_transfer.engine.run_progress import RunProgress
from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.tap import first_tensor
from monai_transfer.networks.wrappers import unwrap
from monai_transfer.tasks import get_task, recognise

__all__ = ["MethodStep"]

logger = logging.getLogger("monai_transfer")


class MethodStep:
    """Add ``weight * method(fields, progress)`` to the loss of any loop.

    Call it after the network's forward pass, in the same autocast: ``loss = step(image, label, logits, loss=loss)``
    gives what to run backward on. Without ``loss`` it gives the weighted term alone, to be added. Nothing else is to be
    called: the method's own parts follow ``optimizer``.

    Args:
        method: the method; its own parameters are moved to the network's device and have an optimizer of their own.
        network: the network, wrapped as it is trained (DDP), on its device; ``None``: ``bind`` is called later.
        target_loader: batches of the other domain, run through endlessly and anew in each epoch: dictionaries with
            ``image``, tuples (image, ...) or tensors B x C x spatial.
        optimizer: the network's; needed where a method has parts of its own that learn or follow.
        layer: module name of the network whose output is the features; default: what enters the class head.
        weight: factor of the term.
        pool: how B x F x spatial features become B x F: ``"mean"``, ``"max"``, or ``None`` to leave them.
        statistics: whose batches count in the norm layers: ``"both"``, ``"target"``, ``"kept"`` or ``"domain"``; see
            ``Adapt``.
        keys: what image, label, strong view and order are called in a batch, where not so.
        task: of the network, as in ``monai_transfer.tasks``; default: as far as the first outputs and labels tell it.
            Regions (findings) no two of which meet in the first batch look like classes: say ``"regions"``.
        epochs, epoch_length: of the run, in passes and in calls per pass: terms follow the share that is done.
        scaler: the loop's ``GradScaler``, where it has one.

    Raises:
        InputError: ``method`` is none, needs a target loader, an optimizer or a run's length and has none, asks for an
            unknown field, or is not for the task or the dimensions of the images; or a batch lacks a key.

    >>> from monai_transfer.methods.coral import Coral
    >>> _ = torch.manual_seed(0)
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> step = MethodStep(Coral(), network, [torch.randn(8, 4) + 1], epochs=1, epoch_length=1)
    >>> image, label = torch.randn(8, 4), torch.tensor([0, 1] * 4)
    >>> logits = network(image)
    >>> loss = nn.functional.cross_entropy(logits, label)
    >>> total = step(image, label, logits, loss=loss)
    >>> torch.isclose(total - loss, step.logs["adapt_loss"]).item()  # what was added
    True
    """

    def __init__(
        self,
        method: Method,
        network: nn.Module | None = None,
        target_loader: Iterable[Any] | None = None,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        layer: str | None = None,
        weight: float = 1.0,
        pool: str | None = "mean",
        statistics: str | None = None,
        keys: Mapping[str, str] | None = None,
        task: str | None = None,
        epochs: int | None = None,
        epoch_length: int | None = None,
        scaler: Any = None,
    ) -> None:
        if not isinstance(method, Method):
            raise InputError(
                f"{getattr(method, '__name__', None) or type(method).__name__} is no method that adds a term to a loss",
                hint="give an object such as monai_transfer.methods.coral.Coral(); what adapts without source cases "
                "(testtime/) stands in a bundle by `new --method NAME`, in a study by `--arms NAME` (docs/methods.md)",
            )
        self.method, self.weight, self.scaler = method, weight, scaler
        self.task = None if task is None else get_task(task)
        method.layer, method.pool = layer, method.default_pool if pool == "mean" else pool
        self.statistics = DomainStatistics(statistics, method)
        method.counted = self.statistics.mode
        self.collector = FieldCollector(method, target_loader, layer, method.pool, self.statistics, keys)
        self.own = OwnOptimizers(method, self.statistics)
        self.progress = RunProgress(epochs, epoch_length)
        self.ratio = GradientRatio(type(method).__name__, weight)
        self.logs: dict[str, Tensor] = {}
        self.network: nn.Module | None = None
        self.watch: ForwardWatch | None = None
        self._network_optimizer: torch.optim.Optimizer | None = None
        self._hooks: list[Any] = []
        self._autocast: Callable[[], Any] = contextlib.nullcontext
        self._ready = self._inside = self._idle = False
        self.stepped = True  # the next batch is an accumulation's first
        self._pending: dict[str, Any] | None = None
        self._lent: dict[str, Tensor] | None = None  # the network's own weights, while the method's stand in for them
        self._sums: dict[str, Any] = {}
        self._count = 0
        if network is not None:
            self.bind(network, optimizer, watch=True)

    # ------------------------------------------------------------------ wiring
    def bind(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        forward: Callable[..., Any] | None = None,
        device: torch.device | str | None = None,
        non_blocking: bool = False,
        watch: bool = False,
    ) -> None:
        """Take hold of the network, wrapped as it is trained, and of its optimizer.

        Args:
            network, optimizer: as trained.
            forward: passes an image through the network, as the loop does; default: the network itself.
            device: of the images; default: that of the network's parameters.
            non_blocking: how target batches are copied to it.
            watch: see by hooks when a source batch begins; False where the loop calls ``before_source``.
        """
        self.finish()
        self.network, self._network_optimizer = network, optimizer
        bare = unwrap(network)
        if device is None:
            device = next((p.device for p in bare.parameters()), torch.device("cpu"))
        self.collector.bind(bare, forward or network, torch.device(device), non_blocking, network)
        self.method.to(device)
        self.statistics.bind(bare, optimizer)
        self.stepped = True
        if watch:
            self.watch = ForwardWatch(bare, self.before_source)

    def start_epoch(self) -> None:
        """An epoch begins: target batches come anew, after a reseeding, so that resuming is exact."""
        self.return_weights()
        self.collector.target.restart()
        self._sums, self._count = {}, 0

    def before_source(self) -> None:
        """A source batch is about to pass through the network."""
        self.return_weights()
        self.statistics.use_source()

    def finish(self) -> None:
        """The run is over: the network is left as it is validated, without hooks."""
        self.statistics.finish()
        self.collector.release()
        self.ratio.finish()
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self.watch is not None:
            self.watch.remove()
            self.watch = None

    # ------------------------------------------------------------------ the term
    def __call__(
        self,
        image: Any = None,
        label: Any = None,
        logits: Any = None,
        *,
        loss: Tensor | None = None,
        batch: Any = None,
    ) -> Tensor:
        """The weighted term, or with ``loss`` what to run backward on.

        Args:
            image: source images B x C x spatial, as the network saw them; default: as seen by hooks.
            label: their labels.
            logits: the network's output for them; default: as seen by hooks.
            loss: the task's own; a method with ``supervised = False`` takes its place.
            batch: the whole source batch, where the method asks for its strong view.
        """
        if self.network is None:
            raise InputError("the network is not known", hint="pass network=, or call bind(network, optimizer)")
        if not self.progress.followed:
            self.progress.count()
            if self.progress.starts_epoch:
                self.start_epoch()
        if loss is None and not self.method.supervised:
            raise InputError(
                f"{type(self.method).__name__} takes the place of the task's loss",
                hint="pass it, step(image, label, logits, loss=loss), and run backward on what comes back",
            )
        with contextlib.ExitStack() as stack:
            if self.watch is not None:
                image = self.watch.image if image is None else image
                logits = self.watch.logits if logits is None else logits
                stack.enter_context(self.watch.paused())
                self.watch.forget()
            return self._term(image, label, logits, loss, batch)

    def _term(self, image: Any, label: Any, logits: Any, loss: Tensor | None, batch: Any) -> Tensor:
        assert self.network is not None
        fields = self.collector.collect(image, label, logits, batch)
        if not self._ready:
            self._check_task(image, label, logits)
            self._setup(fields)
        if not self._hooks:
            self._hook_optimizer()
        if self.stepped:
            self.own.zero()
            self.stepped = False
        self.own.follow(self._network_optimizer)
        self.own.play_critic(fields)
        term = self.method(fields, self.progress.now)
        added = self.weight * term
        if loss is not None and self.method.supervised and self.ratio.due(self.progress.now):
            ramp = self.method.ramp_factor(self.progress.now)
            self.ratio.measure(added / ramp if ramp else added, loss, unwrap(self.network).parameters())
        self._idle = not self.method.supervised and isinstance(self.network, nn.parallel.DistributedDataParallel)
        if self._idle:  # its reducer waits for every parameter, also for those that the term does not reach
            assert loss is not None
            added = added + 0.0 * loss
        self._note(term, loss)
        self._remember_precision(term.device)
        return loss + added if loss is not None and self.method.supervised else added

    def _note(self, term: Tensor, loss: Tensor | None) -> None:
        logs: dict[str, Any] = {} if loss is None else {"supervised_loss": loss.detach()}
        logs |= {"adapt_loss": term.detach(), **self.method.log()}
        for key, value in logs.items():
            # flat float tensors: decollation replicates and splits whatever stands in an engine's output
            logs[key] = torch.as_tensor(value, dtype=torch.float32, device=term.device)
            self._sums[key] = self._sums.get(key, 0.0) + logs[key]
        self.logs = logs
        self._count += 1

    def means(self) -> dict[str, float]:
        """The epoch's means so far of what ``logs`` holds for each batch."""
        return {key: float(total) / max(self._count, 1) for key, total in self._sums.items()}

    def _check_task(self, image: Any, label: Any, logits: Any) -> None:
        task, dims = self.task, None
        if image is not None and logits is not None:
            image, label = first_tensor(image), first_tensor(label)
            dims = image.ndim - 2 if image.ndim > 3 else None
            task = task or recognise(self.collector.main(logits, image), label)
        if task is not None:
            refuse_unfit(self.method, task.name, dims)
            self.method.exclusive = not task.independent

    def _setup(self, fields: Fields) -> None:
        """Size the method's parts from the first fields; a state loaded before is applied now."""
        assert self.network is not None
        if self.method.caution:
            logger.warning("%s is experimental: %s", type(self.method).__name__, self.method.caution)
        device = next((v.device for v in fields.values() if isinstance(v, Tensor)), None)
        device = device or next(p.device for p in unwrap(self.network).parameters())
        # method parts are initialised under a forked generator: the user's random stream is left as it was
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            self.method.setup(unwrap(self.network), detached(fields))
        self.method.to(device)
        if dist.is_available() and dist.is_initialized():
            for tensor in (*self.method.parameters(), *self.method.buffers()):
                dist.broadcast(tensor.data, 0)
        self.own.make(self._network_optimizer)
        self._ready = True
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._load_method(pending)

    # ------------------------------------------------------------------ after the network's step
    @property
    def follows_steps(self) -> bool:
        """Whether anything is to be done when the network's optimizer steps."""
        kind = type(self.method)
        own = bool(self.own.all) or self.method.repeats > 1 or self.method.follows_lr
        return own or kind.after_step is not Method.after_step or kind.deployed is not Method.deployed

    def _hook_optimizer(self) -> None:
        if self._network_optimizer is None:
            if self.follows_steps:
                raise InputError(
                    f"{type(self.method).__name__} has parts that follow the network's optimizer, which is not known",
                    hint="pass optimizer=",
                )
            return
        # only now, so that hooks of strategies, which change and restore rates, are through before ours
        self._hooks = [
            self._network_optimizer.register_step_pre_hook(self.before_step),
            self._network_optimizer.register_step_post_hook(self._after_step),
        ]

    def before_step(self, *_: Any) -> None:
        """The network's optimizer is about to step; called by a hook, and before that where backward comes later."""
        if self._idle and not self._inside:
            assert self.network is not None
            _drop_zero_gradients(self.network)

    def _after_step(self, *_: Any) -> None:
        if self._inside or self.network is None:
            return
        self._inside = True
        try:
            watched = self.watch.paused() if self.watch is not None else contextlib.nullcontext()
            with torch.enable_grad(), watched:
                self.own.step(self.scaler)
                for _repeat in range(self.method.repeats - 1):
                    self._repeat()
                self.method.after_step(unwrap(self.network), self.progress.now)
        finally:
            self._inside, self.stepped = False, True
        if self.watch is not None and self.progress.ends_epoch:
            self.lend_weights()

    def _repeat(self) -> None:
        """A further step of the network on the same target batch."""
        assert self.network is not None and self._network_optimizer is not None
        optimizer = self._network_optimizer
        optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            fields = self.collector.collect_again()
            loss = self.weight * self.method.again(fields, self.progress.now)
            if isinstance(self.network, nn.parallel.DistributedDataParallel):
                loss = loss + 0.0 * fields["target_logits"].sum()
        # scaled by hand: within one update a GradScaler makes one step of an optimizer
        scale = self.scaler.get_scale() if self.scaler is not None and self.scaler.is_enabled() else 1.0
        (loss * scale).backward()
        _drop_zero_gradients(self.network)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        if scale != 1.0:
            torch._foreach_mul_(gradients, 1.0 / scale)
        if scale == 1.0 or all(bool(g.isfinite().all()) for g in gradients):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _remember_precision(self, device: torch.device) -> None:
        """Repeated steps run in the autocast that the term was called in."""
        if self.method.repeats > 1:
            kind: str = device.type
            on = torch.is_autocast_enabled(kind)
            dtype = torch.get_autocast_dtype(kind)
            self._autocast = lambda: torch.autocast(kind, dtype, enabled=on)

    def lend_weights(self) -> None:
        """The epoch's training is over: what the method wants validated and saved stands in for the network's own."""
        assert self.network is not None
        bare = unwrap(self.network)
        weights = self.method.deployed(bare)
        if weights is not None and self._lent is None:
            self._lent = {name: tensor.clone() for name, tensor in bare.state_dict().items()}
            bare.load_state_dict(weights)

    def return_weights(self) -> None:
        """Training goes on from where it stood, not from what was validated and saved."""
        if self._lent is not None and self.network is not None:
            unwrap(self.network).load_state_dict(self._lent)
            self._lent = None

    @contextlib.contextmanager
    def own_weights(self) -> Iterator[bool]:
        """While it lasts the network holds its own weights again; True where others stand in for them at the moment."""
        if self._lent is None or self.network is None:
            yield False
            return
        bare = unwrap(self.network)
        standing_in = {name: tensor.clone() for name, tensor in bare.state_dict().items()}
        bare.load_state_dict(self._lent)
        try:
            yield True
        finally:
            bare.load_state_dict(standing_in)

    # ------------------------------------------------------------------ state
    def state_dict(self) -> dict[str, Any]:
        """The method's state and its optimizer's, and the share of the run that is done, which weights follow.

        With them what ``statistics="domain"`` keeps for the source, and the network's weights where others stand in.
        """
        state = self._pending or {
            "method": self.method.state_dict() if self._ready else {},
            "optimizer": self.own.of_method.state_dict() if self.own.of_method is not None else {},
        }
        state = {**state, **self.progress.state_dict()}
        if self._lent is not None:
            state = {**state, "lent": self._lent}
        norms = self.statistics.state_dict()
        return state if norms is None else {**state, "norms": norms}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore; before the method's parts are sized the state is kept and applied then."""
        state = dict(state)
        self._lent = state.get("lent")
        self.progress.load_state_dict(state)
        if state.get("norms"):
            self.statistics.load_state_dict(state["norms"])
        own = {key: state.get(key) or {} for key in ("method", "optimizer")}
        if not self._ready:
            self._pending = own if any(own.values()) else None
            return
        self._load_method(own)

    def _load_method(self, state: Mapping[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        if self.own.of_method is not None and state.get("optimizer"):
            self.own.of_method.load_state_dict(state["optimizer"])


def _drop_zero_gradients(network: nn.Module) -> None:
    """A gradient of nothing would still be a step of weight decay and momentum."""
    for parameter in network.parameters():
        if parameter.grad is not None and not parameter.grad.any():
            parameter.grad = None
