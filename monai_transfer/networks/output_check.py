"""Probabilities are not logits: a network that ends in softmax or sigmoid must not meet a loss that applies its own.

A softmax under ``CrossEntropyLoss`` trains, badly: scores lie in [0, 1], so the loss cannot come near 0 and gradients
vanish. Nothing says so. It is a fault of published code, so it is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.networks.outputs import at_least_float32

__all__ = ["check_logits", "loss_activation", "output_activation"]

SOFTMAX = (nn.Softmax, nn.Softmax2d)
OWN_ACTIVATION = {
    "CrossEntropyLoss": "softmax",
    "BCEWithLogitsLoss": "sigmoid",
    "MultiLabelSoftMarginLoss": "sigmoid",
    "SoftMarginLoss": "sigmoid",
    "NACLLoss": "softmax",
    "GeneralizedWassersteinDiceLoss": "softmax",
}
"""Losses that apply an activation whatever their arguments: class name -> which. Each was run: the test compares what
perfect probabilities and perfect scores give. ``AsymmetricUnifiedFocalLoss`` applies none, though its page says so."""
FUNCTIONS = {
    "cross_entropy": "softmax",
    "binary_cross_entropy_with_logits": "sigmoid",
    "multilabel_soft_margin_loss": "sigmoid",
    "soft_margin_loss": "sigmoid",
}


LOGARITHMS = {"NLLLoss", "NLLLoss2d", "nll_loss"}
"""Losses of log-probabilities."""


def loss_activation(loss: Any) -> tuple[str, str] | None:
    """The activation that a loss applies to what it is given, and the loss that does it; ``None`` for none or unknown.

    Reads PyTorch's and MONAI's losses, also inside wrappers and sums (``DiceCELoss``, ``DeepSupervisionLoss``). One
    that applies softmax only to its cross-entropy part (``DiceCELoss(softmax=False)``) applies softmax.

    Args:
        loss: of PyTorch or MONAI.

    >>> from monai.losses import DiceLoss
    >>> loss_activation(nn.CrossEntropyLoss())[0], loss_activation(DiceLoss(sigmoid=True))[0]
    ('softmax', 'sigmoid')
    >>> loss_activation(DiceLoss()) is None  # takes what it is given
    True
    """
    names = [base.__name__ for base in type(loss).__mro__]
    for name in names:
        if name in OWN_ACTIVATION:
            return OWN_ACTIVATION[name], _described(loss, OWN_ACTIVATION[name])
    if "FocalLoss" in names:
        kind = "softmax" if getattr(loss, "use_softmax", False) else "sigmoid"
        return kind, _described(loss, kind)
    for kind in ("softmax", "sigmoid"):
        if getattr(loss, kind, False) is True or getattr(loss, f"pre_{kind}", False) is True:
            return kind, f"{type(loss).__name__}({kind}=True)"
    kind = _other_activation(getattr(loss, "other_act", None))
    if kind:
        return kind, f"{type(loss).__name__}(other_act={kind})"
    if isinstance(loss, nn.Module):
        for part in loss.children():
            found = None if _unused(loss, part) else loss_activation(part)
            if found:
                return found[0], f"{type(loss).__name__} ({found[1]})"
    inner = getattr(loss, "loss", None)  # MONAI's wrappers may hold a plain function
    if inner is not None and not isinstance(inner, nn.Module):
        found = loss_activation(inner)
        return (found[0], f"{type(loss).__name__} ({found[1]})") if found else None
    function = getattr(loss, "__name__", "") or getattr(getattr(loss, "func", None), "__name__", "")
    return (FUNCTIONS[function], function) if function in FUNCTIONS else None


def _other_activation(activation: Any) -> str:
    """``"softmax"`` or ``"sigmoid"`` for PyTorch's own, as a function, a ``partial`` or a module; else nothing."""
    name = getattr(getattr(activation, "func", activation), "__name__", type(activation).__name__).lower()
    return next((kind for kind in ("softmax", "sigmoid") if name in (kind, f"{kind}2d")), "")


def _described(loss: Any, kind: str) -> str:
    return f"{type(loss).__name__}, which applies {kind} itself"


def _unused(loss: nn.Module, part: nn.Module) -> bool:
    """A part with weight 0, and the binary twin that MONAI's DiceCELoss keeps for one-channel outputs."""
    name = next(name for name, child in loss.named_children() if child is part)
    weights = {"dice": "lambda_dice", "cross_entropy": "lambda_ce", "focal": "lambda_focal"}
    weights |= {"binary_cross_entropy": "lambda_ce"}
    return getattr(loss, weights.get(name, ""), 1.0) == 0


def output_activation(network: nn.Module, prediction: Tensor | None = None) -> tuple[str, str] | None:
    """What a network's output already is (``"softmax"``, ``"log_softmax"``, ``"sigmoid"``), and how one knows.

    Two kinds of evidence: the type of its last module; and, with a ``prediction`` (B x C x spatial), channels that are
    all non-negative and sum to 1 within 1e-4 (half precision: its rounding) everywhere in at least two cases or voxels
    (their exponentials, for the logarithm). Values in [0, 1] alone prove nothing, nor does a single channel.

    Args:
        network: the bare network; only its modules are looked at.
        prediction: of it, B x C x spatial, where there is one.

    >>> import torch
    >>> output_activation(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Softmax(1)))
    ('softmax', 'ends in Softmax')
    >>> output_activation(torch.nn.Linear(3, 2)) is None
    True
    """
    last = _last_module(network)
    if isinstance(last, SOFTMAX):
        return "softmax", f"ends in {type(last).__name__}"
    if isinstance(last, nn.LogSoftmax):
        return "log_softmax", "ends in LogSoftmax"
    if isinstance(last, nn.Sigmoid):
        return "sigmoid", "ends in Sigmoid"
    if prediction is None or prediction.ndim < 2 or prediction.shape[1] < 2 or not prediction.is_floating_point():
        return None
    values = at_least_float32(prediction.detach())
    columns = values.movedim(1, -1).reshape(-1, values.shape[1])
    # scores that are equal everywhere, or zero, could sum to one by chance
    if len(columns) < 2 or not bool(torch.isfinite(columns).all()) or len(torch.unique(columns, dim=0)) < 2:
        return None
    tolerance = max(1e-4, 2 * torch.finfo(prediction.dtype).eps)
    if bool((columns >= 0).all()) and _one(columns.sum(1), tolerance):
        return "softmax", "gives channels that sum to 1"
    if bool((columns <= 0).all()) and _one(columns.exp().sum(1), tolerance):
        return "log_softmax", "gives channels whose exponentials sum to 1"
    return None


def _one(sums: Tensor, tolerance: float) -> bool:
    return bool((sums - 1).abs().max() <= tolerance)


def _last_module(network: nn.Module) -> nn.Module:
    """The last leaf in order of registration that is not dropout, flattening or nothing."""
    idle = (nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
    leaves = [m for m in network.modules() if not any(True for _ in m.children()) and not isinstance(m, idle)]
    return leaves[-1] if leaves else network


def check_logits(network: nn.Module, loss_function: Any, probe: Tensor | None = None) -> None:
    """Refuse a network whose output is activated already under a loss that activates it again, or wants its logarithm.

    Args:
        network: the bare network; only its modules are looked at, it is not run.
        loss_function: a loss of PyTorch or MONAI; others are taken to want what they are given.
        probe: a prediction of the network, B x C x spatial, where there is one.

    Raises:
        InputError: naming the network's end, the loss and the hint.

    >>> try:
    ...     check_logits(nn.Sequential(nn.Linear(3, 2), nn.Softmax(1)), nn.CrossEntropyLoss())
    ... except InputError as error:
    ...     print("Softmax" in error.fault and "CrossEntropyLoss" in error.fault)
    True
    """
    wanted = loss_activation(loss_function)
    logarithms = type(loss_function).__name__ in LOGARITHMS or getattr(loss_function, "__name__", "") in LOGARITHMS
    if wanted is None and not logarithms:
        return
    given = output_activation(network, probe)
    if given is None:
        return
    kind, evidence = given
    if wanted is None:
        if kind == "softmax":
            raise InputError(
                f"{type(network).__name__} {evidence}, and the loss is NLLLoss, which takes their logarithms",
                hint="end the network in LogSoftmax, or in nothing and choose CrossEntropyLoss",
            )
        return
    if kind == "sigmoid" and _only_inside(network, probe):
        return
    if kind == "log_softmax" and wanted[0] == "softmax":
        return  # softmax(log_softmax(x)) = softmax(x): needless, but the same
    raise InputError(
        f"{type(network).__name__} {evidence}, and the loss is {wanted[1]}: probabilities are taken for logits",
        hint=f"take the {kind} off the network's end, or choose a loss that expects probabilities",
    )


def _only_inside(network: nn.Module, probe: Tensor | None) -> bool:
    """A Sigmoid that is registered last but gates something inside: predictions then leave [0, 1]."""
    return probe is not None and bool(((probe < 0) | (probe > 1)).any())
