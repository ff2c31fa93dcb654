"""Self-training on the target's images alone: the source's network goes on, without a single case of the source.

    BatchNorm's statistics are estimated on the target (AdaBN); then
    L = r(p) * mean of -log softmax(student(strong x))_y   over the cases (voxels) that the teacher is surest of

Paper: Chen, Liu, Jin, Dou and Heng, Source-Free Domain Adaptive Fundus Image Segmentation with Denoised
Pseudo-Labeling, MICCAI 2021, arXiv:2109.09735; the teacher: Tarvainen and Valpola, NeurIPS 2017, arXiv:1703.01780

The term is that of ``methods.self_training``, and so are its parts: teacher, thresholds by class, strong view. What is
missing is the source's own loss, which holds the classes in place there. So the rate is low, the thresholds choose half
of each class, and a look at the collapse alarm is part of it (``evaluation.unlabelled_scores``). Whoever has
labelled source cases should use them: ``self_training``. Normalisation statistics: those of the target's plain images;
a network without running statistics (InstanceNorm) has nothing to estimate, which is no error here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from monai_transfer.data.randomisation import StrongViewd
from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields
from monai_transfer.methods.self_training import SelfTraining
from monai_transfer.networks.output_forms import main_scores
from monai_transfer.tasks.for_methods import CLASSES, PRESENCES
from monai_transfer.testtime.adabn import Adabn
from monai_transfer.testtime.base import SourceFree, images, norm_layers

__all__ = ["SourceFreeSelfTraining"]

logger = logging.getLogger("monai_transfer")


class SourceFreeSelfTraining(SourceFree):
    """Self-training with a mean teacher, without source data.

    Args:
        steps: optimizer steps.
        lr: learning rate of AdamW.
        portion: share of each class that is selected, the surest first.
        decay: largest share of the teacher that stays at a step.
        keep: whose weights the network is left with, ``"teacher"`` or ``"student"``.
        key: where the image stands in a batch; its strong view is looked for under ``strong`` and made if not there.

    Raises:
        InputError: ``keep`` is neither of the two, or there is no step to make.

    >>> import torch
    >>> from monai_transfer.testtime.source_free_self_training import SourceFreeSelfTraining
    >>> _ = torch.manual_seed(0)
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.BatchNorm2d(2))
    >>> target = [{"image": torch.randn(2, 1, 8, 8) * 3 + 5} for _ in range(3)]
    >>> _ = SourceFreeSelfTraining(steps=4).fit(network, target)
    >>> network.training
    False
    """

    tasks = (*CLASSES, *PRESENCES)
    limits = {"regression": "its labels are classes"}
    norm_statistics = "re-estimated on the target's plain images, then followed by the teacher"
    needs = frozenset({"target_strong_logits"})

    def __init__(
        self,
        steps: int = 200,
        lr: float = 1e-4,
        portion: float = 0.5,
        decay: float = 0.99,
        keep: str = "teacher",
        key: str = "image",
    ) -> None:
        if steps < 1:
            raise InputError(f"self-training makes steps, not {steps}", hint="200 is the default")
        self.steps, self.lr, self.key = steps, lr, key
        self.options: dict[str, Any] = {"portion": portion, "decay": decay, "keep": keep}
        SelfTraining(**self.options)  # refuses what it does not take
        self.student: dict[str, Tensor] | None = None
        """The student's weights after ``fit``, where the network was left with the teacher's."""

    def fit(self, network: nn.Module, unlabelled_loader: Iterable[Any]) -> nn.Module:
        """Adapt ``network`` in place on a loader that can be run through many times; returned in eval mode.

        Raises:
            InputError: nothing in the network may learn, or the loader is empty or is no loader of images.
        """
        learning = [p for p in network.parameters() if p.requires_grad]
        if not learning:
            raise InputError(f"{type(network).__name__} has nothing that may learn", hint="unfreeze its layers")
        if any(getattr(layer, "running_mean", None) is not None for layer in norm_layers(network)):
            Adabn(self.key).fit(network, unlabelled_loader)
        logger.info(
            "self-training without source data: %d steps on the target's images alone; statistics of BatchNorm, if "
            "any, are the target's; no source label holds the classes in place, so look at the predictions",
            self.steps,
        )
        method, device = SelfTraining(**self.options), learning[0].device
        method.exclusive = self.exclusive
        optimizer = torch.optim.AdamW(learning, self.lr)
        step = 0
        network.train()
        with torch.enable_grad():
            while step < self.steps:
                for image, strong in self._views(unlabelled_loader, device):
                    logits = main_scores(network, strong)
                    fields = Fields(target_image=image, target_strong_logits=logits)
                    if not step:
                        method.setup(network, fields)
                        method.to(device)
                    loss = method(fields, step / self.steps)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    step += 1
                    method.after_step(network, step / self.steps)
                    if step == self.steps:
                        break
        kept = method.deployed(network)
        if kept is not None:
            self.student = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
            network.load_state_dict(kept)
        return network.eval()

    def _views(self, loader: Iterable[Any], device: torch.device) -> Iterable[tuple[Tensor, Tensor]]:
        """Plain and strong images of each batch."""
        view = StrongViewd()
        empty = True
        for batch in loader:
            empty = False
            (image,) = images([batch], self.key, device)
            strong = batch.get("strong") if isinstance(batch, Mapping) else None
            if strong is None:
                cases = [view({"image": case.cpu()})["strong"] for case in image]
                strong = torch.stack([torch.as_tensor(case) for case in cases])
            strong = strong.as_tensor() if hasattr(strong, "as_tensor") else strong
            yield image, strong.to(device)
        if empty:
            raise InputError("the unlabelled loader is empty", hint="check the target site's cases")
