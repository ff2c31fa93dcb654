"""Input channels: a first convolution that saw n channels is made to see m, so that its response keeps its size."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from monai_transfer.errors import InputError
from monai_transfer.weights.classes import same_name

__all__ = ["CHANNEL_MODES", "adapt_channels", "adapt_patch_channels", "same_channel"]

CHANNEL_MODES = ("auto", "name", "repeat", "average", "first")
_SEQUENCES = {
    "t1w": "t1", "t1n": "t1", "t1native": "t1", "t1gd": "t1c", "t1ce": "t1c", "t1cw": "t1c", "t1post": "t1c",
    "t1wce": "t1c", "t1contrast": "t1c", "t2w": "t2", "t2f": "flair", "t2flair": "flair", "flairw": "flair",
    "grey": "gray", "ctscan": "ct",
}  # fmt: skip
"""Names under which public sets and models call the same sequence (BraTS alone has had T1Gd, T1ce and T1c)."""


def same_channel(name: str) -> str:
    """A channel's name in the form in which two of them are compared: case and separators aside, and by one word for
    what the same MR sequence is called.

    Args:
        name: of a channel.

    >>> same_channel("T1-Gd") == same_channel("t1ce"), same_channel("T1w") == same_channel("T1ce")
    (True, False)
    """
    plain = re.sub(r"[^a-z0-9]", "", same_name(name).lower())
    return _SEQUENCES.get(plain, plain or same_name(name))


def adapt_channels(
    weight: Tensor,
    fresh: Tensor,
    mode: str = "auto",
    source_names: Sequence[str] | None = None,
    target_names: Sequence[str] | None = None,
) -> tuple[Tensor, str]:
    """A convolution's weight for another number of input channels, and what was done, in words.

    Args:
        weight: O x I_s x kernel, of the source. ``fresh``: O x I_t x kernel, as the network initialised it.
        mode: ``repeat``: the source's channels in turn; ``average``: their mean for each channel. Both are scaled so
            that an image which is the same in all channels gives the response that it gave before: a channel that
            stands k times is divided by k, an average is multiplied by I_s / I_t (for I_t = 1 it is the sum).
            ``first``: the first channels as they are; further ones stay fresh. ``auto``: by name where both sides
            have names of which some agree, else ``repeat`` for more channels and ``average`` for fewer. ``name``:
            by name or not at all.
        source_names, target_names: channel names in order; case, spaces, ``_`` and ``-`` make no difference,
            and MR sequences are known by their usual names (``same_channel``). A channel without a namesake stays
            fresh.

    Raises:
        InputError: ``mode`` is ``name`` and there are no names on both sides, or none in common.

    From one grey channel to three: the response to an image that is equal in all of them stays:

    >>> import torch
    >>> from monai_transfer.weights.channels import adapt_channels
    >>> weight, how = adapt_channels(torch.ones(8, 1, 3, 3), torch.zeros(8, 3, 3, 3))
    >>> weight.shape, round(weight[0, :, 0, 0].sum().item(), 4), how
    (torch.Size([8, 3, 3, 3]), 1.0, 'input channels 1 -> 3: repeated, scaled to the same response')
    """
    n, m = weight.shape[1], fresh.shape[1]
    named = source_names and target_names and len(source_names) == n and len(target_names) == m
    if mode in ("auto", "name") and source_names and target_names and named:
        there = {same_channel(name): channel for channel, name in enumerate(source_names)}
        pairs = [(c, there[same_channel(name)]) for c, name in enumerate(target_names) if same_channel(name) in there]
        if pairs:
            result = fresh.clone()
            for channel, origin in pairs:
                result[:, channel] = weight[:, origin].to(fresh)
            new = [name for c, name in enumerate(target_names) if c not in dict(pairs)]
            note = f"input channels by name: {', '.join(target_names[c] for c, _ in pairs)}"
            used = {origin for _, origin in pairs}
            dropped = [name for c, name in enumerate(source_names) if c not in used]
            note += f"; new, as initialised: {', '.join(new)}" if new else ""
            return result, note + (f"; dropped: {', '.join(dropped)}" if dropped else "")
    if mode == "name":
        known = f"{', '.join(source_names or ['unknown'])} in the source, {', '.join(target_names or ['unknown'])} here"
        fault = f"input channels cannot be mapped by name: {known}"
        raise InputError(fault, hint="pass source_channels and target_channels with a name in common")
    if n == m:
        return weight.to(fresh), ""
    if mode == "first":
        result = fresh.clone()
        k = min(n, m)
        result[:, :k] = weight[:, :k].to(fresh)
        return result, f"input channels {n} -> {m}: the first {k} kept" + (", the others fresh" if m > n else "")
    if mode == "average" or (mode == "auto" and m < n):
        mean = weight.double().mean(1, keepdim=True) * (n / m)
        how = "summed" if m == 1 else f"averaged, scaled by {n}/{m}"
        return mean.expand_as(fresh).to(fresh), f"input channels {n} -> {m}: {how}"
    turns = torch.arange(m) % n
    repeated = weight.double()[:, turns]
    # Each channel's share of the response stays what it was, also where m is no multiple of n.
    share = torch.bincount(turns, minlength=n)[turns] if m >= n else torch.full((m,), m / n)
    repeated = repeated / share.reshape(1, m, *[1] * (weight.ndim - 2))
    return repeated.to(fresh), f"input channels {n} -> {m}: repeated, scaled to the same response"


def adapt_patch_channels(weight: Tensor, fresh: Tensor, voxels: int, *how, **names) -> tuple[Tensor, str] | None:
    """The same for a linear patch embedding, whose inputs are the voxels of a patch, all channels of each in turn.

    Args:
        weight: O x (voxels * I_s). ``fresh``: O x (voxels * I_t). ``voxels``: number of voxels in a patch.
        how, names: see ``adapt_channels``.

    Returns:
        ``None`` where the sizes are no multiple of ``voxels``.
    """
    if weight.shape[1] % voxels or fresh.shape[1] % voxels:
        return None
    kernels, others = (tensor.reshape(tensor.shape[0], voxels, -1).transpose(1, 2) for tensor in (weight, fresh))
    adapted, note = adapt_channels(kernels, others, *how, **names)
    return adapted.transpose(1, 2).reshape(fresh.shape), note
