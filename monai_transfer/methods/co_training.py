"""Deep co-training: two networks agree on the target, but must not fail on the same adversarial examples.

    L = L_sup(peer) + w(p) * (10 * JSD(p1, p2) on target + 0.5 * L_dif, mean over the cases of both)
    JSD = H((p1 + p2) / 2) - (H(p1) + H(p2)) / 2
    L_dif = H(p1(x), p2(g1(x))) + H(p2(x), p1(g2(x))),   g(x) = x + 0.02 * sign(gradient of the network's own loss at x)

Paper: Qiao, Shen, Zhang, Wang and Yuille, Deep Co-Training for Semi-Supervised Image Recognition, ECCV 2018,
arXiv:1803.05984

The first network is the trainer's, the second is the method's (``peer.*`` in its state) with an optimizer of its own,
at the trainer's learning rate; its head is drawn anew. The views of classical co-training are made by the view
difference: each network learns to stand where the other falls. w is the sigmoid ramp over the first ``ramp`` of the
run. In L_dif the clean answers are constants, and adversarial examples (fast gradient sign, eps 0.02 for images of unit
spread) come from labels on the source and from the network's own answer on the target. Costs about four times a plain
step. Normalisation statistics: adversarial examples are made in eval mode; the networks see them in training mode, so
running averages blend both domains, clean and adversarial.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.copying import peer_network
from monai_transfer.networks.output_forms import main_scores
from monai_transfer.networks.outputs import label_indices, log_probabilities, supervised_loss
from monai_transfer.networks.schedules import sigmoid_ramp
from monai_transfer.tasks.for_methods import CLASSES

__all__ = ["CoTraining", "adversarial_example", "jensen_shannon"]


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Mean Jensen-Shannon divergence (nats) of the predictions of two B x C x spatial logits; 0 for equal ones.

    Args:
        first: logits, B x C x spatial; C = 1 is a sigmoid's.
        second: logits of the same shape.

    >>> import torch
    >>> from monai_transfer.methods.co_training import jensen_shannon
    >>> a, b = torch.tensor([[30.0, -30.0]]), torch.tensor([[-30.0, 30.0]])
    >>> jensen_shannon(a, a).abs().item(), round(jensen_shannon(a, b).item(), 4)  # at most ln 2
    (0.0, 0.6931)
    """
    logs = log_probabilities(first), log_probabilities(second)
    mixed = torch.logsumexp(torch.stack(logs), 0) - math.log(2.0)
    first_part, second_part = ((x.exp() * (x - mixed)).sum(1).mean() for x in logs)
    return 0.5 * (first_part + second_part)


def adversarial_example(network: nn.Module, image: Tensor, eps: float, label: Tensor | None = None) -> Tensor:
    """``image`` one step of ``eps`` along the sign of the gradient of the network's cross-entropy; a constant.

    Args:
        network: put into eval mode for it; its mode is restored and its parameters get no gradient.
        image: B x C x spatial.
        eps: size of the step, in units of the image.
        label: class indices; default: the network's own answer.

    The step moves each input by ``eps`` so that the loss of the given label rises:

    >>> import torch
    >>> network = torch.nn.Linear(2, 2, bias=False)
    >>> _ = network.weight.data.copy_(torch.eye(2))
    >>> adversarial_example(network, torch.tensor([[1.0, 0.0]]), 0.1, torch.tensor([0]))
    tensor([[0.9000, 0.1000]])
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.enable_grad():
            x = image.detach().clone().requires_grad_(True)
            logs = log_probabilities(main_scores(network, x))
            (gradient,) = torch.autograd.grad(F.nll_loss(logs, logs.argmax(1) if label is None else label), x)
    finally:
        for module, mode in modes:
            module.training = mode
    return (x + eps * gradient.sign()).detach()


def _soft_cross_entropy(constant: Tensor, learning: Tensor) -> Tensor:
    return -(log_probabilities(constant.detach()).exp() * log_probabilities(learning)).sum(1).mean()


class CoTraining(Method):
    """Deep co-training with a second network, ``peer``.

    Args:
        agreement: factor of the Jensen-Shannon divergence.
        difference: factor of the view difference; 0 saves its cost.
        eps: step of the adversarial examples.
        ramp: share of the run after which the factors have their full value.
        lr: learning rate of an Adam of the peer's own; ``None``: an optimizer as the network's, at its rate.

    >>> from monai_transfer.methods.co_training import CoTraining
    >>> method = CoTraining()
    >>> method.agreement, method.difference, method.eps  # the paper's weights and the size of its adversarial step
    (10.0, 0.5, 0.02)
    """

    needs = frozenset({"source_image", "source_label", "source_logits", "target_image", "target_logits"})
    tasks = CLASSES
    norm_statistics = "separate batches; running averages blend both domains, clean and adversarial"
    caution = "its factors are for networks that start anew; on a learnt source they drown the task"

    def __init__(
        self,
        agreement: float = 10.0,
        difference: float = 0.5,
        eps: float = 0.02,
        ramp: float = 0.15,
        lr: float | None = None,
    ) -> None:
        super().__init__()
        self.agreement, self.difference, self.eps, self.ramp, self.lr = agreement, difference, eps, ramp, lr
        self.follows_lr = lr is None
        self.peer: nn.Module | None = None
        self._network: tuple[nn.Module, ...] = ()  # in a tuple, so that it is no submodule
        self._log: dict[str, Tensor] = {}

    def setup(self, network: nn.Module, batch: Fields) -> None:
        self._network = (network,)
        self.peer = peer_network(network)

    def ramp_factor(self, progress: float) -> float:
        return sigmoid_ramp(progress, self.ramp)

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.peer is not None, "setup() comes before forward()"
        self.peer.train(self.training)
        own, others = {}, {}
        for domain in ("source", "target"):
            own[domain] = fields[f"{domain}_logits"]
            others[domain] = main_scores(self.peer, fields[f"{domain}_image"])
        supervised = supervised_loss(others["source"], fields.source_label)
        agreement = jensen_shannon(own["target"], others["target"])
        self._log = {"jensen_shannon": agreement.detach(), "peer_supervised": supervised.detach()}
        term = self.agreement * agreement
        if self.difference:
            difference = self._difference(fields, own, others)
            self._log["view_difference"] = difference.detach()
            term = term + self.difference * difference
        return supervised + self.ramp_factor(progress) * term

    def _difference(self, fields: Fields, own: dict[str, Tensor], others: dict[str, Tensor]) -> Tensor:
        assert self.peer is not None
        (network,) = self._network
        total = torch.zeros((), device=own["target"].device)
        every = sum(len(logits) for logits in own.values())
        for domain in ("source", "target"):
            image = fields[f"{domain}_image"]
            label = None
            if domain == "source":
                two = own[domain] if own[domain].shape[1] > 1 else own[domain].expand(-1, 2, *own[domain].shape[2:])
                label = label_indices(fields.source_label, two)
            for clean, maker, learner in ((own, network, self.peer), (others, self.peer, network)):
                attacked = adversarial_example(maker, image, self.eps, label)
                share = len(attacked) / every  # the paper's mean runs over labelled and unlabelled cases together
                total = total + share * _soft_cross_entropy(clean[domain], main_scores(learner, attacked))
        return total

    def log(self) -> dict[str, Tensor]:
        """``jensen_shannon``, ``view_difference`` and ``peer_supervised`` of the last step, unweighted."""
        return dict(self._log)
