"""Predictions of an nnU-Net model as it is, through MONAI: the untouched source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose, Invertd
from torch import Tensor

from monai_transfer.nnunet import steps
from monai_transfer.nnunet.model import NnunetModel, read_model
from monai_transfer.nnunet.network import nnunet_network
from monai_transfer.nnunet.pipeline import inferer_config, postprocessing_configs, preprocessing_configs

__all__ = ["NnunetPredictor"]


class NnunetPredictor:
    """An nnU-Net results folder that predicts label maps, as ``nnUNetv2_predict`` does.

    Args:
        source: the folder, or what ``read_model`` gave.
        mirror: average mirrored views (8 in 3D), as nnU-Net does by default; eight times as slow.
        device: where the network runs.

    Raises:
        InputError: see ``read_model`` and ``nnunet_network``.
    """

    def __init__(
        self, source: str | Path | NnunetModel, *, mirror: bool = True, device: str | torch.device = "cpu"
    ) -> None:
        self.model = source if isinstance(source, NnunetModel) else read_model(source)
        self.device = torch.device(device)
        self.network = nnunet_network(self.model).to(self.device)
        self.preprocessing = Compose([_built(config) for config in preprocessing_configs(self.model)])
        self.inferer = _built(inferer_config(self.model, mirror=mirror))
        back = Invertd(
            keys="pred", transform=self.preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True
        )
        self.postprocessing = Compose([back, *(_built(config) for config in postprocessing_configs(self.model))])

    @torch.no_grad()
    def logits(self, image: Tensor) -> Tensor:
        """The outputs for a preprocessed image, C x spatial, on its grid."""
        return self.inferer(image[None].to(self.device), self.network)[0].cpu()

    def __call__(self, image: str | Path | Sequence[str | Path]) -> Tensor:
        """The label map of a case, 1 x spatial, on the image's own grid.

        Args:
            image: its file, or one file for each channel, in the model's order.
        """
        files = [str(image)] if isinstance(image, str | Path) else [str(path) for path in image]
        data: Any = self.preprocessing({"image": files[0] if len(files) == 1 else files})
        data["pred"] = self.logits(data["image"])
        return self.postprocessing(data)["pred"]


def _built(config: dict[str, Any]) -> Any:
    """A class of MONAI or of ``nnunet.steps`` with its arguments, by its path in our own configs."""
    import monai.transforms

    arguments = {key: value for key, value in config.items() if key != "_target_"}
    if "select_fn" in arguments:
        arguments["select_fn"] = steps.nonzero
    module, _, name = config["_target_"].rpartition(".")
    return getattr(steps if module == steps.__name__ else monai.transforms, name)(**arguments)
