"""EWC: weights that matter to the source task are held harder at where they started.

    L = lambda / 2 * sum_i F_i (w_i - w0_i)^2,   F_i = E[(d log p(y | x) / d w_i)^2],  y drawn from the model itself

Paper: Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks, PNAS 2017, arXiv:1612.00796

F is the diagonal of the Fisher information of the source model. It belongs to the source's data: compute it there with
``fisher_information`` and hand it over, or its file. Where the source's data cannot be had, leave it out: it is then
estimated at the start from the first batch of the trainer's own images, with the source weights and the model's own
answers as labels, which tells what matters to those answers on these images; an approximation, from few cases. Of a
segmentation p(y | x) is that of all voxels together, and F is divided by their number, as the task's loss is. The
default lambda is the paper's for its reinforcement learning tasks; it scales with F, so try powers of ten. Set the
optimizer's weight decay to 0. The estimation runs in eval mode: norm statistics are untouched.
"""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.output_forms import main_scores
from monai_transfer.networks.outputs import at_least_float32, log_probabilities
from monai_transfer.networks.snapshot import Snapshot
from monai_transfer.tasks.for_methods import CLASSES

__all__ = ["Ewc", "ewc_penalty", "fisher_information"]


def ewc_penalty(
    weights: Iterable[Tensor], start: Iterable[Tensor], fisher: Iterable[Tensor], strength: float = 400.0
) -> Tensor:
    """strength/2 * sum F (w - w0)^2 over three lists of tensors of equal shapes; a scalar in float32 or wider.

    Args:
        weights: the network's parameters.
        start: what they were on the source, in the same order.
        fisher: how much each of them told about the source's labels, in the same order.
        strength: factor of the term.

    Raises:
        InputError: the lists differ in length or are empty.

    >>> import torch
    >>> from monai_transfer.methods.ewc import ewc_penalty
    >>> weights, start, fisher = [torch.tensor([2.0, 5.0])], [torch.tensor([1.0, 1.0])], [torch.tensor([0.5, 0.0])]
    >>> ewc_penalty(weights, start, fisher, strength=2.0)  # the second weight told nothing, so it may move freely
    tensor(0.5000)
    """
    parts = [
        (at_least_float32(f) * (at_least_float32(now) - at_least_float32(then)).square()).sum()
        for now, then, f in zip(weights, start, fisher, strict=True)
    ]
    if not parts:
        raise InputError(
            "there are no weights to regularise", hint="the lists are empty: take the network's parameters"
        )
    return strength / 2 * torch.stack([part.to(parts[0].device) for part in parts]).sum()


def fisher_information(network: nn.Module, images: Tensor | Iterable[Any]) -> dict[str, Tensor]:
    """Diagonal of the Fisher information of each parameter: name -> tensor of its shape, on its device.

    One backward pass for each case, in eval mode; the network is left as it was, gradients and modes included. The
    labels are drawn from the network's own predictions with torch's default generator.

    Args:
        network: a classifier or segmenter with its source weights.
        images: one batch B x C x spatial, or a loader of such batches or of dictionaries with ``image``.

    Raises:
        InputError: there is not a single case.

    An input that is always zero tells nothing about its weights:

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> found = fisher_information(torch.nn.Linear(2, 2), torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    >>> (found["weight"] > 0).tolist()
    [[True, False], [True, False]]
    """
    named = {name: p for name, p in network.named_parameters() if p.is_floating_point()}
    device = next(iter(named.values())).device
    modes = {module: module.training for module in network.modules()}
    learning = {name: p.requires_grad for name, p in named.items()}
    totals = {name: torch.zeros_like(p) for name, p in named.items()}
    count = 0
    try:
        network.eval()
        for parameter in named.values():
            parameter.requires_grad_(True)  # what a strategy freezes for now may learn later
        with torch.enable_grad():
            for batch in [images] if isinstance(images, Tensor) else images:
                image = batch["image"] if isinstance(batch, Mapping) else batch
                for case in image.to(device).split(1):
                    logs = log_probabilities(main_scores(network, case)).movedim(1, -1)
                    drawn = torch.distributions.Categorical(logits=logs.detach()).sample()
                    likelihood = logs.gather(-1, drawn.unsqueeze(-1)).sum()
                    places = drawn.numel()
                    gradients = torch.autograd.grad(likelihood, list(named.values()), allow_unused=True)
                    for name, gradient in zip(named, gradients, strict=True):
                        if gradient is not None:
                            totals[name] += gradient.detach().square() / places
                    count += 1
    finally:
        for module, mode in modes.items():
            module.training = mode
        for name, parameter in named.items():
            parameter.requires_grad_(learning[name])
    if not count:
        raise InputError(
            "there is no case to estimate the Fisher information from", hint="give at least one batch of source images"
        )
    return {name: total / count for name, total in totals.items()}


class Ewc(Method):
    """``ewc_penalty`` on the network that is trained; w0 is what it starts with, and is kept in the state with F.

    Parameters that the Fisher information does not name, or names in another shape (a new head), are free.

    Args:
        strength: lambda.
        fisher: ``fisher_information`` of the source model on its own data, or the path of a file with it
            (``torch.save``); ``None`` estimates it from the first batch.

    Raises:
        InputError: lambda is negative, or (from ``setup``) the file cannot be read or fits no parameter.

    >>> import torch
    >>> from monai_transfer.methods.base import Fields
    >>> from monai_transfer.methods.ewc import Ewc
    >>> network = torch.nn.Linear(2, 2)
    >>> method = Ewc(fisher={name: torch.ones_like(p) for name, p in network.named_parameters()})
    >>> method.setup(network, Fields(source_image=torch.randn(4, 2)))
    >>> method(Fields(source_image=torch.randn(4, 2)), progress=0.5).item()  # no weight has moved yet
    0.0
    """

    needs = frozenset({"source_image"})
    replaces_weight_decay = True
    tasks = CLASSES
    norm_statistics = "untouched: estimated in eval mode"

    def __init__(self, strength: float = 400.0, fisher: Mapping[str, Tensor] | str | Path | None = None) -> None:
        super().__init__()
        if strength < 0:
            raise InputError(
                f"the strength of EWC is not negative, got {strength}", hint="400 is the paper's; 0 switches it off"
            )
        self.strength, self._given = strength, fisher
        self.start: Snapshot | None = None
        self.fisher: Snapshot | None = None

    def setup(self, network: nn.Module, batch: Fields) -> None:
        if self._given is None:
            found: Mapping[str, Tensor] = fisher_information(network, batch.source_image)
        elif isinstance(self._given, str | Path):
            found = _read(Path(self._given))
        else:
            found = self._given
        named = dict(network.named_parameters())
        fitting = {n: f.to(named[n]) for n, f in found.items() if n in named and f.shape == named[n].shape}
        if not fitting:
            raise InputError(
                f"the Fisher information names no parameter of {type(network).__name__}",
                path=self._given if isinstance(self._given, str | Path) else None,
                hint="compute it with fisher_information() on this network",
            )
        self.fisher, self.start = Snapshot(fitting), Snapshot({name: named[name] for name in fitting})
        self._network = weakref.ref(network)  # not a submodule: its weights are not this method's state

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.start is not None and self.fisher is not None, "setup() comes before forward()"
        network = self._network()
        assert network is not None
        fisher = dict(self.fisher.items())
        pairs = list(self.start.pairs(network))
        if not pairs:
            return torch.zeros((), device=next(network.parameters()).device)
        return ewc_penalty(
            [p for _, p, _ in pairs], [w0 for _, _, w0 in pairs], [fisher[n] for n, _, _ in pairs], self.strength
        )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror or error})",
            path=path,
            hint="check the path of the file with the Fisher information",
        ) from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        raise InputError(
            "is no file of tensors, or holds more than tensors",
            path=path,
            hint="save what fisher_information() returns with torch.save",
        ) from error
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise InputError("holds no Fisher information", path=path, hint="save what fisher_information() returns")
    return content
