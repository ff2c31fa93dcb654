"""bfloat16 and channels-last on any device, from a config line: MONAI's ``amp=True`` does nothing on a CPU.

    train:
      inferer: {_target_: monai_transfer.engine.precision.AutocastInferer, dtype: bfloat16}

MONAI's trainer opens ``torch.autocast("cuda")`` whatever the device is. ``AutocastInferer`` stands around any inferer
and opens autocast for the device that its input lies on, for each pass of the network: each window of a sliding window,
each target pass of a method. What leaves is float32 again, so that losses, stitching and metrics are computed in it.
bfloat16 has float32's range and needs no gradient scaler; the weights, gradients and optimizer stay float32.

On CUDA, ``amp: true`` of the trainer (float16 with its scaler) may stay as it is, or be switched off in favour of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn

from monai_transfer.errors import InputError

__all__ = ["AutocastInferer", "channels_last"]

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


class AutocastInferer(Inferer):
    """Run the network under autocast inside any inferer.

    Args:
        inferer: what decides how the network is called, e.g. a ``SlidingWindowInferer``; default ``SimpleInferer``.
        dtype: ``"bfloat16"``, or ``"float16"``, which wants CUDA and the trainer's gradient scaler.
        enabled: ``False`` passes everything through, so that one config key switches it.

    Raises:
        InputError: another ``dtype``, or (at the first call) float16 on a CPU.

    >>> import torch
    >>> from monai_transfer.engine.precision import AutocastInferer
    >>> network = torch.nn.Conv2d(1, 1, 3)
    >>> AutocastInferer()(torch.rand(1, 1, 8, 8), network).dtype
    torch.float32
    """

    def __init__(self, inferer: Any = None, dtype: str = "bfloat16", enabled: bool = True) -> None:
        super().__init__()
        if dtype not in _DTYPES:
            raise InputError(f"dtype {dtype!r} is not one for autocast", hint=f"choose {' or '.join(_DTYPES)}")
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.dtype, self.enabled = _DTYPES[dtype], enabled

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """Outputs of the network in float32, with the shapes that the inner inferer gives."""
        if not self.enabled:
            return self.inferer(inputs, network, *args, **kwargs)
        device = inputs.device.type
        if device == "cpu" and self.dtype is torch.float16:
            raise InputError("float16 on a CPU loses gradients", hint="choose dtype bfloat16")

        def run(batch: Tensor, *more: Any, **named: Any) -> Any:
            with torch.autocast(device, dtype=self.dtype):
                return _float32(network(batch, *more, **named))

        return self.inferer(inputs, run, *args, **kwargs)


def channels_last(network: nn.Module) -> nn.Module:
    """Lay the weights of a 2D or 3D convolution network out with channels last, in place: same values, same names.

    Convolutions follow their weights' layout, so inputs need no change. ``benchmarks/precision.py`` measures what it
    brings on a given machine.

    Args:
        network: any network; weights of other than 4 or 5 axes (Conv1d, Linear) stay.

    Returns:
        The same network.

    >>> import torch
    >>> from monai_transfer.engine.precision import channels_last
    >>> network = channels_last(torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3)))
    >>> network[0].weight.is_contiguous(memory_format=torch.channels_last)
    True
    """
    for parameter in network.parameters():
        layout = _FORMATS.get(parameter.ndim)
        if layout is not None:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return network


def _float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: _float32(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_float32(entry) for entry in value)
    return value
