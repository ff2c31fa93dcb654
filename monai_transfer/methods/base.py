"""The protocol of an adaptation method: what it wants to see, and the term that it adds to the loss.

A method is an ordinary ``nn.Module``. It knows nothing of engines, loaders or other methods; ``monai_transfer.Adapt``
feeds it. Adding one is a file here, a test and a config line: its full ``_target_`` path is its registration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.networks.copying import copy_network
from monai_transfer.networks.moving_average import ema_update
from monai_transfer.networks.outputs import each_alone
from monai_transfer.networks.schedules import sigmoid_ramp
from monai_transfer.tasks.for_methods import ANY_TASK, CLASSES, PRESENCES

__all__ = ["FIELDS", "Fields", "Method", "TeacherMethod", "rows_of"]

FIELDS = frozenset(
    f"{domain}_{what}"
    for domain in ("source", "target")
    for what in ("image", "label", "logits", "features", "strong", "strong_logits", "strong_features")
) | {"target_order"}
"""Every name that a method may ask for. "source" is the trainer's own (labelled) batch, "target" the extra loader's."""


class Fields(dict):
    """What a method asked for, by name, readable as attributes; ``KeyError``-like message when it was not asked for.

    Shapes, with B the batch of that domain (the two may differ), C classes or channels, and spatial axes (H, W[, D]):
    ``*_image`` and ``*_strong`` B x C x spatial; ``*_label`` as the loader gives it; ``*_logits`` the network's output
    (its main one, ``networks.output_forms``); ``*_features`` B x F when pooled, else B x F x spatial. ``*_strong`` is a
    second, strongly augmented view of the same case, taken from the batch under the key ``strong``; ``target_order`` B
    numbers in [0, 1], a case's place in an order such as time, under the key ``order``.

    >>> import torch
    >>> fields = Fields(source_features=torch.zeros(4, 8), target_features=torch.zeros(2, 8))
    >>> fields.target_features.shape
    torch.Size([2, 8])
    >>> fields.source_logits
    Traceback (most recent call last):
    AttributeError: field 'source_logits' was not asked for: add it to the method's `needs`
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"field {name!r} was not asked for: add it to the method's `needs`") from None


class Method(nn.Module):
    """Base class of all adaptation methods. Constructed without required arguments.

    Class attributes:
        needs: the names in ``FIELDS`` that ``forward`` reads; nothing else is computed.
        supervised: ``False`` drops the trainer's own loss, so the term stands alone.
        tasks: what the method makes sense for, among classification, segmentation, regression; multilabel and regions,
            to which all that is for regression fits as well.
        dims: the numbers of spatial dimensions it makes sense for.
        limits: why not for each task that ``tasks`` leaves out, as a clause that follows "since".
        norm_statistics: what happens to normalisation statistics, in one clause, for the capability table.
        experimental: no benefit was shown on real data here; the page that shows one stands beside a ``False``.
        caution: what is wrong with its defaults, as far as measured; said once as a run starts, and in the table.
        default_pool: what ``Adapt``'s ``pool="mean"`` means here: ``None`` where the method pools by itself.

        replaces_weight_decay: it pulls weights to a point of its own, so that the optimizer's pull to zero goes.
        repeats: steps of the network per iteration; those after the first are on ``again`` alone.
        domain_norms: each domain has BatchNorm layers of its own (``Adapt(statistics="domain")``, always).
        statistics: what ``Adapt`` takes where its ``statistics`` are not given.
        lr: of the optimizer of its own parameters; ``None``: 1e-3.
        follows_lr: its own parameters learn as the network's do: an optimizer of the same kind and options, at its
            learning rate (the largest of its groups) at each step.
        constant: passes that build no graph, among target, target_strong, source_strong: their fields are labels.

    Attributes that ``Adapt`` sets before ``setup``, for methods that look into a copy of the network:
        layer: name of the module whose output is the features; ``None``: what enters the class head.
        pool: how the features were pooled.
        counted: whose batches count in the norm layers' running averages (``Adapt``'s ``statistics``).
        exclusive: whether the outputs are classes that exclude each other; False where each is present or absent, such
            as findings and regions that overlap. A method that names such tasks reads logits through ``as_cases``.

    Peers, teachers and critics are submodules, made in ``setup``. Their parameters get an optimizer of their own
    (``make_optimizer``), never the user's. All state that must survive a resume lies in ``state_dict()``.

    A term of one's own: the squared distance of the two domains' mean features.

    >>> import torch
    >>> class Means(Method):
    ...     needs = frozenset({"source_features", "target_features"})
    ...     def forward(self, fields, progress):
    ...         return (fields.source_features.mean(0) - fields.target_features.mean(0)).square().sum()
    >>> Means()(Fields(source_features=torch.zeros(4, 8), target_features=torch.ones(2, 8)), progress=0.5)
    tensor(8.)
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    supervised: ClassVar[bool] = True
    tasks: ClassVar[tuple[str, ...]] = ANY_TASK
    dims: ClassVar[tuple[int, ...]] = (2, 3)
    limits: ClassVar[Mapping[str, str]] = {
        "regression": "it works on class probabilities",
        **dict.fromkeys(PRESENCES, "it works on probabilities of classes that exclude each other"),
    }
    norm_statistics: ClassVar[str] = "separate: each domain's batch is normalised and counted on its own"
    experimental: ClassVar[bool] = True
    caution: ClassVar[str] = ""
    default_pool: ClassVar[str | None] = "mean"
    domain_norms: ClassVar[bool] = False
    statistics: ClassVar[str] = "both"
    lr: float | None = None
    follows_lr: bool = False
    constant: ClassVar[frozenset[str]] = frozenset()
    replaces_weight_decay: ClassVar[bool] = False
    repeats: int = 1
    layer: str | None = None
    pool: str | None = "mean"
    counted: str = "both"
    exclusive: bool = True

    def setup(self, network: nn.Module, batch: Fields) -> None:
        """Size the method's own parts from the first batch; called once, before the first ``forward``.

        Random initialisation is done here under a forked generator and broadcast to all ranks. ``network`` is the
        bare network (not DDP-wrapped). Do not keep a reference to it as a submodule.
        """

    def forward(self, fields: Fields, progress: float) -> Tensor:
        """The term to add to the loss: a scalar. ``progress`` is the share of the run that is done, in [0, 1]."""
        raise TypeError(f"{type(self).__name__} defines no term")

    def again(self, fields: Fields, progress: float) -> Tensor:
        """The loss of the network's further steps (``repeats``), on the same target batch passed through once more.

        ``fields`` holds what comes of the target's images alone; the critic's parameters stand still.
        """
        raise TypeError(f"{type(self).__name__} repeats no step")

    def as_cases(self, logits: Tensor) -> Tensor:
        """Logits as formulas of class probabilities read them: outputs that do not exclude each other one by one."""
        return logits if self.exclusive else each_alone(logits)

    def ramp_factor(self, progress: float) -> float:
        """The factor by which the whole term grows over the run; what is said of its strength is freed of it."""
        return 1.0

    def critic_step(self, fields: Fields) -> Tensor | None:
        """The critic's own loss in a min-max game, on *detached* fields; stepped with the method's optimizer."""
        return None

    def after_step(self, network: nn.Module, progress: float) -> None:
        """Called after each real optimizer step (not on accumulation steps); for moving averages and the like."""

    def deployed(self, network: nn.Module) -> Mapping[str, Tensor] | None:
        """Weights to be validated, saved and exported in place of the network's own, which goes on learning.

        Asked for at the end of each epoch's training; ``None``: the network's own. The keys are the network's.
        """
        return None

    def make_optimizer(self) -> torch.optim.Optimizer | None:
        """The optimizer of the method's own learnable parameters, or ``None`` where it has none."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.Adam(parameters, lr=1e-3 if self.lr is None else self.lr) if parameters else None

    def log(self) -> Mapping[str, float | Tensor]:
        """Extra numbers of the last step for the log, e.g. the discriminator's accuracy; scalars or 0-d tensors."""
        return {}


def rows_of(features: Tensor, most: int | None = None) -> Tensor:
    """B x F x spatial features as N x F rows, each place a row; at most ``most`` of them, evenly spread.

    Args:
        features: B x F x spatial, or N x F, which stay as they are.
        most: of more rows than this, so many evenly spread ones are taken.

    >>> import torch
    >>> from monai_transfer.methods.base import rows_of
    >>> rows_of(torch.zeros(2, 8, 4, 4)).shape  # 2 x 4 x 4 places of 8 features
    torch.Size([32, 8])
    """
    if features.ndim > 2:
        features = features.flatten(2).transpose(1, 2).flatten(0, 1)
    if most is not None and len(features) > most:
        features = features[torch.linspace(0, len(features) - 1, most, device=features.device).long()]
    return features


class TeacherMethod(Method):
    """A method whose target is the answer of ``teacher``, a moving average of the network; define ``forward``.

    Args:
        decay: largest a of the moving average.
        weight: factor of the term.
        ramp: share of the run after which the term has its full weight.
        keep: which of the two is the run's result, ``"student"`` or ``"teacher"``.

    Raises:
        InputError: ``keep`` is neither of the two.

    Paper: Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv:1703.01780

        teacher <- a * teacher + (1 - a) * network after every step,   a = min(decay, 1 - 1 / step)

    The first steps follow the network closely, however slow the average is to be later:

    >>> import torch
    >>> from monai_transfer.methods.base import TeacherMethod
    >>> method = TeacherMethod(decay=0.99, weight=1.0, ramp=0.3, keep="teacher")
    >>> method.step += 2
    >>> method.rate, method.ramp_factor(1.0)
    (0.5, 1.0)
    """

    needs = frozenset({"target_image", "target_strong_logits"})
    tasks = CLASSES

    def __init__(self, decay: float, weight: float, ramp: float, keep: str) -> None:
        super().__init__()
        if keep not in ("student", "teacher"):
            raise InputError(f"{type(self).__name__} cannot keep {keep!r}", hint="one of student, teacher")
        self.decay, self.weight, self.ramp, self.keep = decay, weight, ramp, keep
        self.teacher: nn.Module | None = None
        self.step: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self._log: dict[str, Tensor | float] = {}

    def setup(self, network: nn.Module, batch: Fields) -> None:
        self.teacher = copy_network(network, frozen=True)

    def train(self, mode: bool = True) -> TeacherMethod:
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def ramp_factor(self, progress: float) -> float:
        return sigmoid_ramp(progress, self.ramp)

    @property
    def rate(self) -> float:
        """a of the step that was just made."""
        return min(self.decay, 1.0 - 1.0 / int(self.step))

    def after_step(self, network: nn.Module, progress: float) -> None:
        assert self.teacher is not None, "setup() comes before after_step()"
        self.step += 1
        ema_update(self.teacher, network, self.rate)

    def deployed(self, network: nn.Module) -> dict[str, Tensor] | None:
        return self.teacher.state_dict() if self.keep == "teacher" and self.teacher is not None else None

    def log(self) -> dict[str, Tensor | float]:
        """The term of the last step, unweighted, and its weight."""
        return dict(self._log)
