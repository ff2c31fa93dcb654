"""Sawtooth warm-up for 3D segmentation: the decoder settles on a frozen encoder first, then everything warms up again.

    decoder only:  linear warm-up, then polynomial decay to zero, (1 - t)^0.9
    whole network: linear warm-up, then polynomial decay to zero until the end of the run

Paper: Wald, Ulrich, Suprijadi, Ziegler, Nohel, Peretzke, Kohler and Maier-Hein, An OpenMind for 3D medical vision
self-supervised learning, ICCV 2025, arXiv:2412.17041

A randomly initialised decoder beside a pretrained encoder is the usual case after self-supervised pretraining. The
shape of the rate is part of the strategy, so the optimizer's own rate stays constant: use no other scheduler beside it.
Shares of the run follow the paper's code at 150 epochs (15 for the decoder, 15 to warm up the whole); at 1000 epochs it
takes 50 of each. There a transformer's decoder stage runs at a hundredth of the rate, or training collapses. (That code
warms the whole network up to half the rate and then jumps to the full one; here the ramp reaches it.)
"""

from __future__ import annotations

from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.networks.depth import encoder_decoder
from monai_transfer.strategies.base import Scheduled

__all__ = ["Sawtooth"]

_ATTENTION = {"SABlock", "WindowAttention", "MultiheadAttention"}


class Sawtooth(Scheduled):
    """Decoder stage (encoder bitwise frozen), then the whole network, each with its own warm-up.

    Args:
        decoder: share of the run for the decoder stage, half of it warm-up.
        warmup: share of the run for the whole network's warm-up; the rest decays.
        decoder_lr_scale: factor of the rate in the decoder stage; ``None`` is 0.01 where the network holds transformer
            blocks and 1 elsewhere.
        exponent: of the polynomial decay.
        encoder: module names of the encoder, where it is not found by itself; a classifier's is all but its head.

    Raises:
        InputError: a share is out of range, or (from ``apply``) the encoder cannot be told.

    >>> from monai.networks.nets import UNet
    >>> from monai_transfer.strategies.sawtooth import Sawtooth
    >>> strategy = Sawtooth(decoder=0.2)
    >>> network = strategy.apply(UNet(2, 1, 2, (4, 8), (2,)))
    >>> len(strategy.param_groups(network)) > 1  # decoder first, then the whole network
    True
    """

    def __init__(
        self,
        decoder: float = 0.1,
        warmup: float = 0.1,
        decoder_lr_scale: float | None = None,
        exponent: float = 0.9,
        encoder: str | list[str] | None = None,
    ) -> None:
        if not (decoder > 0 and warmup > 0 and decoder + warmup < 1):
            raise InputError(
                f"decoder and warmup are shares of the run that leave some of it, got {decoder} and {warmup}",
                hint="the defaults are decoder=0.1 and warmup=0.1",
            )
        if decoder_lr_scale is not None and not decoder_lr_scale > 0:
            raise InputError(
                f"decoder_lr_scale must be positive, got {decoder_lr_scale}",
                hint="1 leaves the rate; 0.01 is usual for transformers",
            )
        self.decoder, self.warmup, self.exponent, self.encoder = decoder, warmup, exponent, encoder
        self.decoder_lr_scale = decoder_lr_scale
        self._scale = 1.0 if decoder_lr_scale is None else decoder_lr_scale

    def groups(self, network: nn.Module) -> list[list[str]]:
        """Encoder, decoder."""
        if self.decoder_lr_scale is None:
            self._scale = 0.01 if any(type(m).__name__ in _ATTENTION for m in network.modules()) else 1.0
        return list(encoder_decoder(network, self.encoder))

    def rates(self, progress: float, count: int) -> list[float]:
        if progress < self.decoder:
            return [0.0, self._scale * self._tooth(2 * progress / self.decoder)]
        if progress < self.decoder + self.warmup:
            return [self._tooth((progress - self.decoder) / self.warmup)] * 2
        rest = 1 - self.decoder - self.warmup
        return [self._tooth(1 + (progress - self.decoder - self.warmup) / rest)] * 2

    def _tooth(self, t: float) -> float:
        """Up on [0, 1) from a thousandth, since a rate of zero means frozen; down on [1, 2]."""
        return max(t if t < 1 else max(2 - t, 0.0) ** self.exponent, 1e-3)
