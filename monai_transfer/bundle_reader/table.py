"""The closed table: which classes a foreign config may name, and which of their arguments it may set.

A name is looked up in a dictionary whose values are class objects; no dotted path of a config is ever imported or
followed (``monai.networks.trt_compiler.os.system`` is ``os.system`` by one). A class is known by its bare name, by its
public path and by the path of the module that defines it. An argument is allowed by its name: these lists were read
through for arguments that fetch, write, call or search for a file, and a test compares them with MONAI's signatures.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any

__all__ = ["ARGUMENTS", "DEFAULT_OFF", "DROPPED", "READERS", "Entry", "lookup", "table"]


def _words(text: str) -> list[str]:
    return text.split()


_NETWORKS = _words("""
        AHNet AttentionUnet AutoEncoder BasicUNet BasicUNetPlusPlus Classifier Critic DenseNet DenseNet121
        DenseNet169 DenseNet201 DenseNet264 DiNTS Discriminator DynUNet EfficientNetBN FlexibleUNet
        FullyConnectedNet Generator HighResNet HoVerNet MILModel MedNeXt Quicknat RegUNet Regressor ResNet
        SEResNet101 SEResNet152 SEResNet50 SEResNeXt101 SEResNeXt50 SENet154 SegResNet SegResNetDS SegResNetDS2
        SegResNetVAE SwinUNETR TorchVisionFCModel UNETR UNet VNet VarAutoEncoder ViT ViTAutoEnc VoxelMorph
        VoxelMorphUNet
        """)
_NETWORK_FUNCTIONS = _words("resnet10 resnet18 resnet34 resnet50 resnet101 resnet152 resnet200 vista3d132")
_PARTS = _words("TopologyInstance TopologyConstruction")
_TRANSFORMS = _words("""
        Compose LoadImage LoadImaged EnsureChannelFirst EnsureChannelFirstd EnsureType EnsureTyped Orientation
        Orientationd Spacing Spacingd ScaleIntensityRange ScaleIntensityRanged ScaleIntensity ScaleIntensityd
        ScaleIntensityRangePercentiles ScaleIntensityRangePercentilesd NormalizeIntensity NormalizeIntensityd
        CropForeground CropForegroundd SpatialPad SpatialPadd DivisiblePad DivisiblePadd BorderPad BorderPadd
        CenterSpatialCrop CenterSpatialCropd CenterScaleCrop CenterScaleCropd SpatialCrop SpatialCropd
        ResizeWithPadOrCrop ResizeWithPadOrCropd Resize Resized Zoom Zoomd CastToType CastToTyped ToTensor ToTensord
        ToDevice ToDeviced SqueezeDim SqueezeDimd Transpose Transposed SplitDimd ConcatItemsd SelectItemsd DeleteItemsd
        CopyItemsd Identity Identityd ThresholdIntensity ThresholdIntensityd ClipIntensityPercentiles
        ClipIntensityPercentilesd GaussianSmooth GaussianSmoothd GaussianSharpen GaussianSharpend MedianSmooth
        MedianSmoothd HistogramNormalize HistogramNormalized AdjustContrast AdjustContrastd Flip Flipd Rotate90
        Rotate90d AsChannelLast AsChannelLastd RepeatChannel RepeatChanneld ShiftIntensity ShiftIntensityd
        SignalFillEmpty SignalFillEmptyd MaskIntensityd ConvertToMultiChannelBasedOnBratsClassesd Activations
        Activationsd AsDiscrete AsDiscreted Invertd KeepLargestConnectedComponent KeepLargestConnectedComponentd
        RemoveSmallObjects RemoveSmallObjectsd FillHoles FillHolesd LabelFilter LabelFilterd MapLabelValue
        MapLabelValued MeanEnsembled VoteEnsembled ToNumpy ToNumpyd FromMetaTensord ToMetaTensord ForegroundMaskd
        AddCoordinateChannelsd
        """)
_INFERERS = _words("SimpleInferer SlidingWindowInferer SlidingWindowInfererAdapt SliceInferer")
_LOSSES = _words("""
        DiceLoss DiceCELoss DiceFocalLoss FocalLoss GeneralizedDiceLoss GeneralizedDiceFocalLoss TverskyLoss
        MaskedDiceLoss DeepSupervisionLoss AsymmetricUnifiedFocalLoss HausdorffDTLoss LogHausdorffDTLoss SSIMLoss
        LocalNormalizedCrossCorrelationLoss GlobalMutualInformationLoss NACLLoss
        """)
_TORCH_LOSSES = _words("""
        CrossEntropyLoss BCEWithLogitsLoss BCELoss MSELoss L1Loss SmoothL1Loss HuberLoss NLLLoss KLDivLoss
        """)
_SAVERS = ["SaveImage", "SaveImaged"]
_LAMBDAS = ["Lambda", "Lambdad"]
_ACTIVATIONS = _words("Softmax Sigmoid Identity ReLU LeakyReLU Tanh ELU GELU SiLU Softplus")

READERS = {
    "ITKReader": None, "NibabelReader": None, "PILReader": None, "NrrdReader": None, "PydicomReader": None,
}  # fmt: skip
"""Names of image readers; ``LoadImage`` would import any dotted path that stands there."""

ARGUMENTS: dict[str, frozenset[str]] = {
    "network": frozenset(
        _words("""
        act acti_type adn_ordering adv_prop attn_drop_rate backbone backbone_num_features bias bias_downsample block
        block_config block_inplanes blocks_bottleneck blocks_down blocks_up bn_size bottleneck_expansion_ratio
        channel_initial channel_matching channels classes classification concat_skip conv1_t_size conv1_t_stride
        conv_block decoder_bias decoder_channels decoder_expansion_ratio decoder_padding deconv_chns
        deep_supervision deep_supr_num depth depths dim dimensions dints_space downsample downsample_kernel_size
        drop_out drop_rate dropout dropout_dim dropout_path_rate dropout_prob dropout_prob_down dropout_prob_up
        dropout_rate dsdepth encode_kernel_sizes encoder_expansion_ratio extract_levels feature_size features
        feed_forward filters final_conv_act final_conv_channels global_resp_norm groups growth_rate half_res
        hidden_channels hidden_size img_size in_channels in_shape init_features init_filters inplanes input_3x3
        input_image_size integration_steps inter_channels inter_dilations interp_mode is_pad kernel_c kernel_size
        last_act latent_shape latent_size layer_params layers mil_mode mlp_dim mlp_ratio mode model_name
        n_input_channels no_max_pool node_a norm norm_name norm_type normalize np_out_channels num_channel_initial
        num_channels num_classes num_filters num_groups num_heads num_inter_units num_layers num_res_units
        out_activation out_channels out_classes out_shape padding patch_norm patch_size pool pooling pos_embed
        pos_embed_type post_activation pre_conv preprocess proj_type psp_block_num qkv_bias reduction res_block
        resolution se_block shortcut_type spatial_dims start_shape stride_conv stride_pool strides trans_bias
        trans_blocks trans_dropout unet_out_channels up_kernel_size upsample upsample_kernel_size upsample_mode
        use_checkpoint use_conv use_conv_final use_downsample use_flash_attention use_maxpool use_mean_at_inference
        use_residual_connection use_sigmoid use_v2 vae_default_std vae_estimate_std vae_nz widen_factor window_size
        """)
    ),
    "part": frozenset(_words("arch_code channel_mul num_blocks num_depths use_downsample")),
    "transform": frozenset(
        _words("""
        a_max a_min above align_corners allow_missing_keys allow_smaller alpha anti_aliasing anti_aliasing_sigma
        applied_labels approx argmax as_closest_canonical axcodes b_max b_min by_measure channel_dim channel_indices
        channel_wise clip connectivity cval data_type device diagonal dim divisor dtype end_coord_key
        ensure_channel_first ensure_same_shape et_label expanduser factor gamma hsv_threshold image_only independent
        independent_channels indices invert invert_image is_onehot k k_divisible keep_size keys labels lazy lower
        map_items margin max max_pixdim maxv meta_key_postfix meta_keys method min min_pixdim min_size minv mode
        name names nearest_interp new_key_prefix nonzero num_bins num_classes num_components offset orig_keys
        orig_labels orig_meta_keys output_key overwriting padding_mode pixdim radius reader recompute_affine
        relative repeats replacement retain_stats roi_center roi_end roi_scale roi_size roi_start rounding safe
        scale_extent sharpness_factor sigma sigma1 sigma2 sigmoid simple_keys size_mode softmax source_key
        spatial_axes spatial_axis spatial_border spatial_dims spatial_size start_coord_key strict_check subtrahend
        target_labels threshold times to_onehot to_tensor track_meta transform transforms unpack_items update_meta
        upper weights wrap_sequence zoom mask_key mask_data
        """)
    ),
    "inferer": frozenset(
        _words("""
        buffer_dim buffer_steps cpu_thresh cval mode overlap padding_mode roi_size sigma_scale
        spatial_dim sw_batch_size with_coord
        """)
    ),
    "loss": frozenset(
        _words("""
        alpha batch beta classes data_range delta dim distance_type gamma ignore_index include_background jaccard k1
        k2 kernel_ops kernel_sigma kernel_size kernel_type label_smoothing lambda_ce lambda_dice lambda_focal
        lambda_gdl log_target loss num_bins num_classes pos_weight reduction sigma sigma_ratio sigmoid size_average
        smooth_dr smooth_nr soft_label softmax spatial_dims squared_pred to_onehot_y use_softmax w_type weight
        weight_mode weights win_size
        """)
    ),
    # never made as they are: what they say of names and types is read, and where files go is the user's to say
    "saver": frozenset(
        _words("""
        keys meta_keys meta_key_postfix output_postfix output_ext output_dtype resample mode padding_mode scale dtype
        squeeze_end_dims separate_folder print_log allow_missing_keys
        """)
    ),
    # of one tensor, and only where it is arithmetic (``functions.TensorFunction``)
    "function": frozenset(_words("keys track_meta overwrite allow_missing_keys")),
    "activation": frozenset(_words("alpha approximate beta dim inplace negative_slope threshold")),
}
"""By kind of component, the names of the arguments that a config may set."""

DROPPED = {
    "progress": "a progress bar is ours to show",
    "device": "the user chooses the device",
    "sw_device": "the user chooses the device",
    "cache_roi_weight_map": "it saves time, and takes memory",
    "expanduser": "no file is opened by a config's own name",
    "include_fc": "it is about the published weights alone",
}
"""Arguments that are left out, with the reason: they change no value."""

DEFAULT_OFF = ("pretrained",)
"""Arguments that are set to false where a class has them: some fetch weights by default."""


@dataclass(frozen=True)
class Entry:
    """One class of the table.

    Attributes:
        name: its bare name.
        kind: see ``Component``.
        make: the class object, or a function of MONAI's that makes a network.
        path: its public path.
    """

    name: str
    kind: str
    make: Any
    path: str


@cache
def table() -> dict[str, Entry]:
    """Every name under which a config may mean a class of the table."""
    places = [
        ("monai.networks.nets", "network", [*_NETWORKS, *_NETWORK_FUNCTIONS]),
        ("monai.networks.nets", "part", _PARTS),
        ("monai.transforms", "transform", _TRANSFORMS),
        ("monai.inferers", "inferer", _INFERERS),
        ("monai.losses", "loss", _LOSSES),
        ("torch.nn", "loss", _TORCH_LOSSES),
        ("torch.nn", "activation", _ACTIVATIONS),
        ("monai.transforms", "saver", _SAVERS),
        ("monai.transforms", "function", _LAMBDAS),
    ]
    found: dict[str, Entry] = {}
    for module_name, kind, names in places:
        module = importlib.import_module(module_name)  # a name of this file
        for name in names:
            make = getattr(module, name, None)
            if make is None:  # an older MONAI
                continue
            entry = Entry(name, kind, make, f"{module_name}.{name}")
            own = f"{make.__module__}.{make.__qualname__}"
            spellings = [entry.path, own, f"torch.nn.modules.{own.rpartition('.')[0].rpartition('.')[2]}.{name}"]
            if not (module_name == "torch.nn" and name == "Identity"):  # MONAI's transform has that bare name
                spellings.append(name)
            if name.endswith("d") and kind == "transform":
                for other in (f"{name[:-1]}D", f"{name[:-1]}Dict"):
                    if getattr(module, other, None) is make:
                        spellings += [other, f"{module_name}.{other}"]
            for spelling in spellings:
                found.setdefault(spelling, entry)
    return found


def lookup(target: Any) -> Entry | None:
    """The class that a ``_target_`` means, or ``None``.

    >>> lookup("monai.networks.nets.unet.UNet").path
    'monai.networks.nets.UNet'
    >>> lookup("monai.networks.trt_compiler.os.system") is None
    True
    """
    return table().get(target) if isinstance(target, str) else None
