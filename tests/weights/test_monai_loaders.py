"""Against MONAI itself where it is the original: its loaders of the SwinUNETR encoders, its autoencoder's forward."""

from __future__ import annotations

import re

import pytest
import torch
from monai.networks import nets
from monai.networks.nets import hovernet
from monai.networks.nets.swin_unetr import filter_swinunetr
from monai.networks.utils import copy_model_state
from torch import Tensor, nn

from monai_transfer.weights import load_weights


def swin(seed: int) -> nets.SwinUNETR:
    torch.manual_seed(seed)
    return nets.SwinUNETR(1, 2, feature_size=12, spatial_dims=2)


def shaken(network: nn.Module) -> dict[str, Tensor]:
    """A state dict in which no two norms are alike."""
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.state_dict()


def same_output(ours: nn.Module, theirs: nn.Module, image: Tensor) -> bool:
    with torch.no_grad():
        a, b = ours.eval()(image), theirs.eval()(image)
    assert a[-1].std() > 1e-3
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_model_swinvit_as_load_from_reads_it():
    """All four stages; the pretraining's heads are left over and named."""
    state = shaken(swin(1).swinViT)
    published = {"module." + re.sub(r"mlp\.linear([12])", r"mlp.fc\1", k): v for k, v in state.items()}
    published |= {f"module.{head}_head.weight": torch.ones(2, 2) for head in ("rotation", "contrastive")}
    theirs, ours = swin(2), swin(2)
    theirs.load_from({"state_dict": published})
    report = load_weights(ours.swinViT, {"state_dict": published})
    assert report.dialect.startswith("Swin transformer, fc1/fc2") and report.coverage == 1
    assert report.unused == ["module.rotation_head.weight", "module.contrastive_head.weight"]
    assert same_output(ours.swinViT, theirs.swinViT, torch.randn(1, 1, 64, 64))


def test_ssl_pretrained_weights_as_filter_swinunetr_reads_them():
    state = shaken(swin(1).swinViT)
    published = {"encoder." + re.sub(r"^(layers\d\.0)\.", r"\1.0.", k): v for k, v in state.items()}
    published |= {"encoder.mask_token": torch.ones(1, 1), "encoder.norm.weight": torch.ones(3)}
    published |= {"decoder.0.weight": torch.ones(3), "out.conv.conv.weight": torch.ones(2, 12, 1, 1)}
    theirs, ours = swin(2), swin(2)
    _, changed, _ = copy_model_state(theirs, published, filter_func=filter_swinunetr)
    report = load_weights(ours.swinViT, {"model": published})
    assert report.dialect.startswith("Swin transformer, nested") and report.coverage == 1
    # MONAI also copies `out.conv.conv`, though its filter leaves it out: names that agree are taken before the filter
    assert sorted(n for n in changed if n != "out.conv.conv.weight") == sorted(f"swinViT.{n}" for n in report.loaded)
    assert same_output(ours.swinViT, theirs.swinViT, torch.randn(1, 1, 64, 64))


@pytest.mark.parametrize("dims", [2, 3])
def test_masked_autoencoder_encodes_alike(dims):
    """With no patch masked, the autoencoder's encoder sees what ``ViT`` with its class token sees, in another order."""
    size = {"img_size": (16,) * dims, "patch_size": (8,) * dims, "hidden_size": 24, "mlp_dim": 32, "num_heads": 4}
    small = {"decoder_hidden_size": 24, "decoder_mlp_dim": 32, "decoder_num_heads": 4, "decoder_num_layers": 1}
    autoencoder = nets.MaskedAutoEncoderViT(1, num_layers=2, spatial_dims=dims, **size, **small).eval()
    state = shaken(autoencoder)
    nn.init.normal_(autoencoder.cls_token)
    network = nets.ViT(1, num_layers=2, spatial_dims=dims, classification=True, **size).eval()
    report = load_weights(network, state)
    assert report.skipped == report.adapted == []
    assert {name.split(".")[0] for name in report.missing} == {"classification_head"}
    assert all(name.startswith(("decoder_", "mask_tokens")) for name in report.unused)
    heard: dict[str, Tensor] = {}
    autoencoder.blocks.register_forward_hook(lambda _m, _i, output: heard.update(theirs=output))
    network.norm.register_forward_hook(lambda _m, _i, output: heard.update(ours=output))
    image = torch.randn(2, 1, *[16] * dims)
    with torch.no_grad():
        torch.manual_seed(5)
        autoencoder(image, masking_ratio=0.0)
        torch.manual_seed(5)  # the order in which the autoencoder drew its patches
        order = torch.multinomial(torch.ones(2, 2**dims), 2**dims, replacement=False)
        network(image)
    ours = torch.stack([heard["ours"][b, torch.cat([torch.zeros(1).long(), 1 + order[b]])] for b in range(2)])
    torch.testing.assert_close(ours, heard["theirs"], rtol=1e-4, atol=1e-5)


def preact(network: nn.Module) -> dict[str, Tensor]:
    """The encoder's tensors under the names of HoVer-Net's published file, from the patterns that MONAI reads."""
    names = (
        (r"^conv0\.conv\.", "conv0./."),
        (r"^res_blocks\.(d\d)\.layers\.denselayer_(\d+)\.layers\.", r"\1.units.\2."),
        (r"^res_blocks\.(d\d)\.bna_block\.", r"\1.blk_bna."),
        (r"^res_blocks\.(d\d)\.shortcut\.", r"\1.shortcut."),
    )
    state = {}
    for name, tensor in network.state_dict().items():
        if name.startswith(("conv0", "res_blocks")):
            for pattern, replacement in names:
                name = re.sub(pattern, replacement, name)
            state[name] = torch.randn_like(tensor) if tensor.is_floating_point() else tensor
    return state | {"upsample2x.unpool_mat": torch.ones(2, 2)}


@pytest.mark.slow
@pytest.mark.parametrize("standard", [False, True], ids=["preact", "standard"])
def test_hovernet_encoder_as_pretrained_url_reads_it(standard, original, monkeypatch):
    """The oracle: MONAI's own renaming, given the same file instead of a download."""
    ours = nets.HoVerNet(mode="fast")
    published = original("torchvision_resnet50").state if standard else preact(ours)
    fresh = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    monkeypatch.setattr(hovernet, "download_url", lambda *args, **more: None)
    content = dict(published) if standard else {"desc": dict(published)}
    monkeypatch.setattr(hovernet.torch, "load", lambda *args, **more: content)
    theirs = nets.HoVerNet(mode="fast", pretrained_url="x", adapt_standard_resnet=standard).state_dict()
    report = load_weights(ours, published if standard else {"desc": published}, min_coverage=0.2)
    state = ours.state_dict()
    assert report.dialect.startswith("standard ResNet-50" if standard else "HoVer-Net's preact")
    encoder = {name for name in state if name.startswith(("conv0", "res_blocks"))}
    assert all(torch.equal(state[name], theirs[name]) for name in report.loaded)
    assert len(report.loaded) == len(encoder) if not standard else len(report.loaded) > 0.9 * len(encoder)
    assert all(torch.equal(state[name], fresh[name]) for name in report.missing)
