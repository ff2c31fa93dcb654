"""TENT: while it predicts, the network learns to be certain, through the scale and shift of its norm layers alone.

    L = mean entropy of the predictions;   one Adam step (1e-3) per call;   the outputs are those from before the step

Paper: Wang, Shelhamer, Liu, Olshausen and Darrell, Tent: Fully Test-Time Adaptation by Entropy Minimization, ICLR 2021,
arXiv:2006.10726

BatchNorm (1d-3d), affine InstanceNorm, GroupNorm and LayerNorm all take part; the authors' code matches BatchNorm2d
only and adapts nothing in a 3D network. A network without affine norm parameters is refused. The adapted network is a
copy: the one given stays as it is. Adaptation goes on from call to call; entropy then can run off to one constant
answer, so start anew for each patient: ``wrapped.reset()``, or ``wrapped.attach(evaluator)``, which does it before each
batch (the windows of one volume share their adaptation), or ``episodic=True``, before each call. In 3D nearly all
voxels are background: ``foreground`` weighs predicted foreground as in ``methods.advent``. Dropout stays off. An image
whose entropy is not finite teaches nothing.
Normalisation statistics: BatchNorm uses those of each test batch, in place of its running averages, so a call needs
enough cases (or voxels) in it.
"""

from __future__ import annotations

import copy
import logging
import time
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from monai_transfer.networks.copying import copy_network
from monai_transfer.networks.output_forms import main_output
from monai_transfer.networks.outputs import each_alone, mean_entropy
from monai_transfer.tasks.for_methods import CLASSES, PRESENCES
from monai_transfer.testtime.base import SourceFree, affine_norms, norm_layers

__all__ = ["AdaptingNetwork", "Tent"]

logger = logging.getLogger(__name__)


class Tent(SourceFree):
    """Entropy minimisation at test time.

    Args:
        lr: learning rate of Adam.
        steps: updates per call; the outputs are those before the last one.
        episodic: start anew at each call.
        foreground: share of predicted foreground in the mean entropy of a segmentation; ``None``: the plain mean.

    >>> import torch
    >>> from monai_transfer.testtime.tent import Tent
    >>> layers = torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    >>> network = torch.nn.Sequential(*layers)
    >>> adapting = Tent(lr=1e-2).wrap(network)
    >>> adapting(torch.randn(4, 1, 8, 8)).shape  # the prediction before the step that it takes on the way
    torch.Size([4, 2])
    """

    tasks = (*CLASSES, *PRESENCES)
    norm_statistics = "BatchNorm: those of each test batch"

    def __init__(
        self, lr: float = 1e-3, steps: int = 1, episodic: bool = False, foreground: float | None = None
    ) -> None:
        self.lr, self.steps, self.episodic, self.foreground = lr, steps, episodic, foreground

    def wrap(self, network: nn.Module) -> AdaptingNetwork:
        """A copy of ``network`` that adapts at each call.

        Raises:
            InputError: it has no affine norm parameters.
        """
        return AdaptingNetwork(network, self)


class AdaptingNetwork(nn.Module):
    """A network that adapts its norm layers to what it is shown; made by ``Tent.wrap``.

    Args:
        network: with affine norm layers; a copy adapts.
        options: rate, steps and whether each call starts anew.

    One call moves the norm layers' scale; ``reset`` takes it back:

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1))
    >>> adapting = Tent(lr=0.1).wrap(network)
    >>> _ = adapting(torch.rand(2, 1, 8, 8))
    >>> moved = not torch.equal(adapting.network[1].weight, network[1].weight)
    >>> adapting.reset()
    >>> moved, torch.equal(adapting.network[1].weight, network[1].weight)
    (True, True)
    """

    def __init__(self, network: nn.Module, options: Tent) -> None:
        super().__init__()
        self.network, self._options = copy_network(network, frozen=True), options
        self._parameters_to_adapt = []
        for layer in affine_norms(self.network):
            for parameter in (layer.weight, layer.bias):
                if isinstance(parameter, nn.Parameter):
                    parameter.requires_grad_(True)
                    self._parameters_to_adapt.append(parameter)
        for layer in norm_layers(self.network):
            if isinstance(layer, _NormBase):  # without running statistics a layer uses the batch's, in eval mode too
                layer.track_running_stats = False
                layer.running_mean = layer.running_var = layer.num_batches_tracked = None
        self._start = copy.deepcopy(self.network.state_dict())
        self.reset()

    def reset(self) -> None:
        """Back to the weights that the network came with; the optimizer starts anew."""
        self.network.load_state_dict(self._start)
        self._optimizer = torch.optim.Adam(self._parameters_to_adapt, lr=self._options.lr)
        self._seconds, self._calls = 0.0, 0

    def attach(self, engine: Engine) -> None:
        """Have an evaluator reset this network before each batch; with one case per batch, that is per patient."""
        engine.add_event_handler(Events.ITERATION_STARTED, lambda _engine: self.reset())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._say_cost)

    def _say_cost(self, _engine: Engine) -> None:
        logger.info("predicted and adapted in %.2f s (%d calls with a backward pass each)", self._seconds, self._calls)

    def train(self, mode: bool = True) -> AdaptingNetwork:
        """The mode does not matter: norm layers use the batch, dropout stays off."""
        return super().train(False)

    def forward(self, x: Tensor, *more: Any) -> Any:
        """The network's outputs for ``x``, detached; adapts on the way, also inside ``no_grad``."""
        since = time.perf_counter()
        if self._options.episodic:
            self.reset()
        with torch.inference_mode(False), torch.enable_grad():
            x = x.clone() if x.is_inference() else x
            for _ in range(max(self._options.steps, 1)):
                output = self.network(x, *more)
                logits = main_output(output, x.ndim - 2, self.network)
                self._optimizer.zero_grad()
                loss = mean_entropy(logits if self._options.exclusive else each_alone(logits), self._options.foreground)
                if not torch.isfinite(loss):  # one broken image must not spoil the weights for all that follow
                    break
                loss.backward()
                self._optimizer.step()
        self._seconds += time.perf_counter() - since
        self._calls += 1
        return _detached(output)


def _detached(output: Any) -> Any:
    if isinstance(output, (tuple, list)):
        return type(output)(_detached(item) for item in output)
    return output.detach() if isinstance(output, Tensor) else output
