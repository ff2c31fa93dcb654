"""CPS: two networks of one architecture and different starts, each learning from the other's hard answers.

    L = CE(p1, y2) + CE(p2, y1), mean of source and target, ramped;   plus the second network's own supervised loss
    y1 = argmax p1, y2 = argmax p2, constants

Paper: Chen, Yuan, Zeng and Wang, Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision, CVPR 2021,
arXiv:2106.01226

The first network is the trainer's; the second is the method's (``peer.*`` in its state), with an optimizer of its own,
and is thrown away afterwards. As in the paper both start from the same pretrained weights and differ in the head, which
the peer draws anew (``start="head"``); ``"all"`` draws everything anew, for training from scratch. weight is 1.5, the
paper's for its main set. There both networks are new and equal at each time. Here the trainer's often comes trained on
the source, and a peer with a new head has little to teach at first: so the weight grows over the whole run, as in Luo,
Hu, Song, Wang and Zhang, Semi-Supervised Medical Image Segmentation via Cross Teaching between CNN and Transformer,
MIDL 2022, arXiv:2112.04894; and the peer learns as the network does, with an optimizer of the same kind and rate. The
peer's supervised loss is cross-entropy, plus soft Dice for a segmentation. Costs a second network in time and memory.
Normalisation statistics: each network normalises source and target batches separately, and its own running averages
blend both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.copying import peer_network
from monai_transfer.networks.output_forms import main_scores
from monai_transfer.networks.outputs import log_probabilities, supervised_loss
from monai_transfer.networks.schedules import sigmoid_ramp
from monai_transfer.tasks.for_methods import CLASSES

__all__ = ["Cps", "cross_pseudo_loss"]


def cross_pseudo_loss(first: Tensor, second: Tensor) -> Tensor:
    """CE(p1, argmax p2) + CE(p2, argmax p1) of two B x C x spatial logits; each label is a constant.

    Args:
        first: logits, B x C x spatial; C = 1 is a sigmoid's.
        second: logits of the same shape.

    >>> import torch
    >>> from monai_transfer.methods.cps import cross_pseudo_loss
    >>> agree = torch.tensor([[9.0, -9.0]])
    >>> round(cross_pseudo_loss(agree, agree).item(), 4), round(cross_pseudo_loss(agree, -agree).item(), 1)
    (0.0, 36.0)
    """
    logs = log_probabilities(first), log_probabilities(second)
    labels = [x.detach().argmax(1) for x in logs]
    return F.nll_loss(logs[0], labels[1]) + F.nll_loss(logs[1], labels[0])


class Cps(Method):
    """Cross pseudo supervision with a second network, ``peer``.

    Args:
        weight: factor of the cross pseudo loss.
        ramp: share of the run after which it has its full weight.
        start: what the peer draws anew, ``"head"`` or ``"all"``.
        lr: learning rate of an Adam of the peer's own; ``None``: an optimizer as the network's, at its rate.

    Raises:
        InputError: ``start`` is neither of the two.

    >>> from monai_transfer.methods.cps import Cps
    >>> sorted(Cps.needs)  # the peer network is made in ``setup`` and learns beside the first
    ['source_image', 'source_label', 'source_logits', 'target_image', 'target_logits']
    """

    needs = frozenset({"source_image", "source_label", "source_logits", "target_image", "target_logits"})
    tasks = CLASSES
    norm_statistics = "separate batches; each network's running averages blend both domains"
    caution = "its weight is for networks that start anew; on a learnt source it drowns the task"

    def __init__(self, weight: float = 1.5, ramp: float = 1.0, start: str = "head", lr: float | None = None) -> None:
        super().__init__()
        if start not in ("head", "all"):
            raise InputError(
                f"start must be 'head' or 'all', not {start!r}",
                hint="head draws the class scores anew, all the whole peer",
            )
        self.weight, self.ramp, self.start, self.lr, self.follows_lr = weight, ramp, start, lr, lr is None
        self.peer: nn.Module | None = None
        self._log: dict[str, Tensor] = {}

    def setup(self, network: nn.Module, batch: Fields) -> None:
        self.peer = peer_network(network, self.start)

    def ramp_factor(self, progress: float) -> float:
        return sigmoid_ramp(progress, self.ramp)

    def forward(self, fields: Fields, progress: float) -> Tensor:
        assert self.peer is not None, "setup() comes before forward()"
        peer = self.peer.train(self.training)
        source, target = (main_scores(peer, fields[f"{domain}_image"]) for domain in ("source", "target"))
        cross = 0.5 * (
            cross_pseudo_loss(fields.source_logits, source) + cross_pseudo_loss(fields.target_logits, target)
        )
        own = supervised_loss(source, fields.source_label)
        with torch.no_grad():
            agreement = (fields.target_logits.argmax(1) == target.argmax(1)).float().mean()
        self._log = {"cross_pseudo": cross.detach(), "peer_supervised": own.detach(), "agreement": agreement}
        return own + self.weight * self.ramp_factor(progress) * cross

    def log(self) -> dict[str, Tensor]:
        """``cross_pseudo`` and ``peer_supervised`` losses, and the networks' ``agreement`` on the target."""
        return dict(self._log)
