"""Structures copied across domains: a labelled lesion or organ of a source case, set into a target image.

    image = m * donor' + (1 - m) * image,   label = donor's class where it was set in, else what it was

Paper: Ghiasi et al., Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation, CVPR 2021,
arXiv:2012.07177; with a margin about lesions: Zhang et al., CarveMix: A Simple Data Augmentation Method for Brain
Lesion Segmentation, MICCAI 2021

The target's pixels surround the structure, so a network sees labelled structures in the target's look. The donor's
intensities are shifted so that the rim about the structure has the mean of the same place in the image: its contrast
with what surrounds it stays, its scanner's level goes. The edge is blended over ``blend`` voxels. It goes where it was
in the donor, as a share of the image, within ``jitter``.

Stands after images were normalised, resampled and brought to their patch size. **What the image shows by itself**: its
own label is kept where it has one, else everything else counts as background. That is right only where the target cases
are free of the structure (healthy scans) or bring pseudo-labels; otherwise real lesions are taught to be background.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import GaussianSmooth, MapTransform, RandomizableTransform, generate_spatial_bounding_box
from monai.utils import convert_to_dst_type
from scipy.ndimage import binary_dilation
from torch import Tensor

from monai_transfer.errors import InputError

__all__ = ["CopyStructured"]


class CopyStructured(RandomizableTransform, MapTransform):
    """Sets a labelled structure of a random donor into the image.

    Args:
        keys: the image key.
        donors: labelled source cases, prepared as the image is (a ``Dataset``, or items with tensors under the image
            and label keys, C x spatial and 1 x spatial); cases without the structure are passed over.
        label_key: where labels stand; an item without one gets one.
        classes: label values that are copied; ``None``: all but 0.
        prob: probability of copying.
        margin: voxels about the structure that come along.
        blend: standard deviation, in voxels, of the soft edge; 0: a hard one.
        jitter: largest shift of the place, as a share of the image's edge.
        match: shift the donor's intensities to those about the place.
        allow_missing_keys: skip a missing image.

    Raises:
        InputError: there are no donors, none of several tried has the structure, or it has other channels.

    >>> import torch
    >>> from monai_transfer.data.structure_copy import CopyStructured
    >>> donor = {"image": torch.zeros(1, 16, 16), "label": torch.zeros(1, 16, 16)}
    >>> donor["image"][:, 4:8, 4:8], donor["label"][:, 4:8, 4:8] = 5.0, 1.0
    >>> transform = CopyStructured("image", donors=[donor], prob=1.0, jitter=0.0, match=False)
    >>> _ = transform.set_random_state(0)
    >>> out = transform({"image": torch.zeros(1, 16, 16), "label": torch.zeros(1, 16, 16)})
    >>> int(out["label"].sum()) > 0, bool(out["image"].max() > 1)
    (True, True)
    """

    tries = 20

    def __init__(
        self,
        keys: KeysCollection,
        donors: Sequence[Mapping[str, Any]],
        label_key: str = "label",
        classes: Sequence[int] | None = None,
        prob: float = 0.5,
        margin: int = 1,
        blend: float = 0.7,
        jitter: float = 0.1,
        match: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        if len(self.keys) != 1:
            raise InputError(
                f"CopyStructured takes one image key, not {self.keys}", hint="give each image a transform of its own"
            )
        if not len(donors):
            raise InputError("there are no donors to copy structures from", hint="give labelled source cases")
        self.donors, self.label_key, self.classes = donors, label_key, classes
        self.margin, self.blend, self.jitter, self.match = margin, blend, jitter, match

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            image = torch.as_tensor(result[key])
            label = result.get(self.label_key)
            if label is None:
                label = convert_to_dst_type(torch.zeros_like(image[:1]), image)[0]
            self.randomize(None)
            if self._do_transform:
                pixels, structures = _bare_tensor(image).clone().float(), _bare_tensor(torch.as_tensor(label)).clone()
                self._set_in(key, pixels, structures)
                image = convert_to_dst_type(pixels, image, dtype=pixels.dtype)[0]
                label = convert_to_dst_type(structures, label, dtype=structures.dtype)[0]
            result[key], result[self.label_key] = image, label
        return result

    def _donor(self, key: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Image, label and mask of a random donor that has the structure."""
        for _ in range(self.tries):
            item = self.donors[int(self.R.randint(len(self.donors)))]
            label = _bare_tensor(torch.as_tensor(item[self.label_key]))[:1]
            mask = label > 0 if self.classes is None else torch.isin(label, torch.as_tensor(self.classes).to(label))
            if mask.any():
                return _bare_tensor(torch.as_tensor(item[key])).float(), label, mask
        raise InputError(
            f"none of {self.tries} donors has a structure of {'any class' if self.classes is None else self.classes}",
            hint="give labelled source cases that have it, and the values of their labels",
        )

    def _set_in(self, key: Hashable, image: Tensor, label: Tensor) -> None:
        """In place."""
        donor, classes, mask = self._donor(key)
        if donor.shape[0] != image.shape[0] or donor.ndim != image.ndim:
            raise InputError(
                f"a donor of shape {tuple(donor.shape)} does not fit an image of {tuple(image.shape)}",
                hint="bring all cases to one number of channels and axes first",
            )
        start, end = generate_spatial_bounding_box(mask.float(), margin=self.margin + 2)
        there, here = [], []
        for axis, (first, last) in enumerate(zip(start, end, strict=True)):
            size, room = donor.shape[axis + 1], image.shape[axis + 1]
            first, last = max(int(first), 0), min(int(last), size)
            length = min(last - first, room)  # a structure larger than the image loses its end
            share = self.R.uniform(-self.jitter, self.jitter)
            place = round((first / size + share) * room)
            place = min(max(place, 0), room - length)
            there.append(slice(first, first + length))
            here.append(slice(place, place + length))
        source, target = (slice(None), *there), (slice(None), *here)
        core = mask[source]
        wide = torch.from_numpy(_grown(core[0].numpy(), self.margin))[None]
        rim = torch.from_numpy(_grown(wide[0].numpy(), 2))[None] & ~wide
        new, old = donor[source], image[target]
        if self.match and rim.any():
            new = new + (old[:, rim[0]].mean(1) - new[:, rim[0]].mean(1)).view(-1, *[1] * (new.ndim - 1))
        soft = wide.float()
        if self.blend > 0:
            soft = torch.maximum(GaussianSmooth(self.blend)(soft), core.float())
        image[target] = soft * new + (1 - soft) * old
        label[target] = torch.where(core, classes[source].to(label.dtype), label[target])


def _grown(mask: np.ndarray, voxels: int) -> np.ndarray:
    return binary_dilation(mask, iterations=voxels) if voxels else mask


def _bare_tensor(tensor: Tensor) -> Tensor:
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
