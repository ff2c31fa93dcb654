"""Tables of key rules: how published weights name their tensors, and what MONAI's matching network calls them.

A dialect is a sign by which it is known and a list of regular-expression rules; no rule changes a value except by the
named reshaping. ``names-only`` means tested against published key names and shapes; ``implementation-verified``, that
random weights gave equal outputs in the original code and, through the rules, in MONAI's network; ``verified``, that
outputs were compared with the original code on the real weights. Prefixes (``module.``, ``swinViT.``) are no rule's
business: the search in ``dialects`` finds them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from monai_transfer.weights.key_functions import (
    efficientnet_blocks,
    hovernet_blocks,
    nnunet_stages,
    squeeze_linear,
    without_wrappers,
)

__all__ = ["DIALECTS", "WITHOUT_MATCH", "Dialect"]


@dataclass(frozen=True)
class Dialect:
    """One way of naming tensors.

    Attributes:
        name: shown in the report.
        sign: a regular expression; the dialect is tried where some key matches it entirely. Empty: always tried.
        rules: ``(pattern, replacement)`` pairs, all applied in order with ``re.sub``; a replacement of ``None`` drops
            the key (it then counts as unused).
        rename: ``(names, the network's names) -> {old: new}`` where a rule would have to count; applied first.
        reshape: ``(new name, tensor) -> tensor`` for the few dialects whose layout differs.
        widen: a smaller odd kernel of a convolution without stride may stand inside a larger one, zeros around it,
            which changes nothing (``DynUNet`` has no flat kernels in its decoder's last level, nnU-Net may).
        status: what the rules were tested against.
        licence: of the published weights; ``None`` where there are many.
        reference: where names and weights were published.

    >>> dialect = Dialect("wrapped", sign="module[.].*", rules=(("^module[.]", ""),))
    >>> tensors = {"module.conv.weight": None}
    >>> dialect.recognises(tensors), list(dialect.apply(tensors, ["conv.weight"]))
    (True, ['conv.weight'])
    """

    name: str
    sign: str = ""
    rules: tuple[tuple[str, str | None], ...] = ()
    rename: Callable[[Collection[str], Collection[str]], dict[str, str]] | None = None
    reshape: Callable[[str, Tensor], Tensor] | None = None
    widen: bool = False
    status: Literal["names-only", "implementation-verified", "verified"] = "names-only"
    licence: str | None = None
    reference: str = ""

    def recognises(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether these keys look like this dialect."""
        return not self.sign or any(re.fullmatch(self.sign, without_wrappers(name)) for name in tensors)

    def apply(self, tensors: Mapping[str, Tensor], target: Collection[str]) -> dict[str, tuple[str, Tensor]]:
        """New name -> (old name, tensor). Where two keys meet, the first one stays."""
        plain = {old: without_wrappers(old) for old in tensors}
        counted = self.rename(plain.values(), target) if self.rename else {}
        renamed: dict[str, tuple[str, Tensor]] = {}
        for old, tensor in tensors.items():
            new = self._by_rules(counted.get(plain[old], plain[old]))
            if new is not None and new not in renamed:
                renamed[new] = (old, self.reshape(new, tensor) if self.reshape else tensor)
        return renamed

    def _by_rules(self, name: str) -> str | None:
        for pattern, replacement in self.rules:
            if replacement is not None:
                name = re.sub(pattern, replacement, name)
            elif re.search(pattern, name):
                return None
        return name


DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        "plain",
        status="implementation-verified",
        reference="MONAI's own names; MedicalNet and torchvision ResNets, SuPreM, CT-FM, VISTA3D too",
    ),
    Dialect(
        "Swin transformer, fc1/fc2",
        sign=r".*layers\d\.0\.(0\.)?blocks\.\d+\.mlp\.fc1\.weight",
        rules=((r"mlp\.fc([12])\.", r"mlp.linear\1."), (r"(layers\d\.0)\.0\.blocks", r"\1.blocks")),
        status="implementation-verified",
        reference="SwinUNETR self-supervised weights, model_swinvit.pt (Tang et al., arXiv:2111.14791)",
    ),
    Dialect(
        "Swin transformer, nested layers",
        sign=r".*layers\d\.0\.0\.blocks\..*",
        rules=((r"(layers\d\.0)\.0\.", r"\1."), (r"(^|\.)(mask_token|out\.conv\.conv\.\w+)$", None)),
        status="implementation-verified",
        reference="SwinUNETR ssl_pretrained_weights.pth (Valanarasu et al., arXiv:2307.16896)",
    ),
    Dialect(
        "MONAI masked autoencoder to ViT",
        sign=r"(.*\.)?blocks\.\d+\.weight",
        rules=(
            (r"(^|\.)(decoder_\w+|mask_tokens)(\.|$)", None),
            (r"(^|\.)blocks\.\d+\.(weight|bias)$", r"\1norm.\2"),
        ),
        status="implementation-verified",
        reference="monai.networks.nets.MaskedAutoEncoderViT",
    ),
    Dialect(
        "ViT as in timm and MAE",
        sign=r"(.*\.)?pos_embed",
        rules=(
            (r"(^|\.)decoder_\w+(\.|$)", None),
            (r"(^|\.)patch_embed\.proj\.", r"\1patch_embedding.patch_embeddings."),
            (r"(^|\.)pos_embed$", r"\1patch_embedding.position_embeddings"),
            (r"\.attn\.proj\.", ".attn.out_proj."),
            (r"\.mlp\.fc([12])\.", r".mlp.linear\1."),
            (r"(^|\.)head\.(weight|bias)$", r"\1classification_head.0.\2"),
        ),
        status="implementation-verified",
        reference="He et al., Masked Autoencoders, arXiv:2111.06377; timm vision_transformer",
    ),
    Dialect(
        "DenseNet as in torchvision",
        sign=r".*denselayer\d+\.(norm|conv)\.?[12]\.weight",
        rules=(
            (r"(denselayer\d+)\.(norm|conv)\.?([12])\.", r"\1.layers.\2\3."),
            (r"(^|\.)classifier\.(weight|bias)$", r"\1class_layers.out.\2"),
        ),
        status="implementation-verified",
        reference="torchvision densenet121-a639ec97.pth and its like, also with the older `norm.1`; TorchXRayVision",
    ),
    Dialect(
        "SENet as in pretrainedmodels",
        sign=r".*\.se_module\.fc1\.weight",
        rules=(
            (r"(layer[1-4]\.\d+)\.conv(\d)\.(\w+)$", r"\1.conv\2.conv.\3"),
            (r"(layer[1-4]\.\d+)\.bn(\d)\.", r"\1.conv\2.adn.N."),
            (r"\.se_module\.fc1\.", ".se_layer.fc.0."),
            (r"\.se_module\.fc2\.", ".se_layer.fc.2."),
            (r"\.downsample\.0\.", ".project.conv."),
            (r"\.downsample\.1\.", ".project.adn.N."),
        ),
        reshape=squeeze_linear,
        status="implementation-verified",
        reference="Cadene's pretrained-models.pytorch, se_resnet50-ce0d4300.pth and its like",
    ),
    Dialect(
        "EfficientNet as in EfficientNet-PyTorch or timm",
        sign=r"(.*\.)?(_blocks\.\d+\._depthwise_conv|blocks\.\d+\.\d+\.conv_dw)\.weight",
        rename=efficientnet_blocks,
        status="implementation-verified",
        reference="lukemelas' EfficientNet-PyTorch, efficientnet-b0-355c32eb.pth and its like; timm tf_efficientnet_b*",
    ),
    Dialect(
        "HoVer-Net's preact ResNet-50",
        sign=r"(.*\.)?d0\.units\.0\.conv1\.weight",
        rules=(
            (r"(^|\.)conv0\./\.?", r"\1conv0.conv."),
            (r"(^|\.)(d\d)\.units\.(\d+)\.", r"\1res_blocks.\2.layers.denselayer_\3.layers."),
            (r"(^|\.)(d\d)\.blk_bna\.", r"\1res_blocks.\2.bna_block."),
            (r"(^|\.)(d\d)\.shortcut\.", r"\1res_blocks.\2.shortcut."),
        ),
        status="implementation-verified",
        reference="HoVer-Net, ImageNet-ResNet50-Preact_pytorch.tar (Graham et al., arXiv:1812.06499)",
    ),
    Dialect(
        "standard ResNet-50 into HoVerNet",
        sign=r"(.*\.)?layer4\.2\.conv3\.weight",
        rename=hovernet_blocks,
        status="implementation-verified",
        reference="torchvision resnet50, as MONAI's adapt_standard_resnet maps it",
    ),
    Dialect(
        "nnU-Net v2 plain U-Net to DynUNet",
        sign=r"(.*\.)?encoder\.stages\.\d+\.0\.convs\.\d+\.conv\.weight",
        rename=nnunet_stages,
        widen=True,
        status="implementation-verified",
        reference="dynamic_network_architectures PlainConvUNet, saved by nnU-Net v2 (Isensee et al., Nat Methods 2021)",
    ),
)

WITHOUT_MATCH: dict[str, str] = {
    r".*encoder\.stages\.\d+\.blocks\.\d+\.conv1\.conv\.weight": (
        "These are weights of a residual-encoder U-Net (nnU-Net v2 or nnssl ResEnc), for which MONAI has no network:"
        " build it with monai_transfer.weights.resenc.residual_unet, which uses dynamic_network_architectures."
    ),
    r".*eva\.blocks\.\d+\..*": (
        "These are weights of Primus (nnssl, an EVA transformer), for which MONAI has no network:"
        " build it with the package dynamic_network_architectures and load into that."
    ),
    r".*down_tr64\.ops\.0\.conv1\.weight": (
        "These are weights of the U-Net of Models Genesis (SuPreM has one), for which MONAI has no network:"
        " build it from its own code and load into that."
    ),
    r".*attention\.attention\.query\.weight": (
        "These are weights of a Hugging Face transformer, which stores query, key and value apart:"
        " convert them to timm's names first."
    ),
}
"""Signs of known weights that no MONAI network matches, and what to do; added to the error of too little coverage."""
