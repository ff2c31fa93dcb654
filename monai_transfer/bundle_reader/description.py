"""What the reader knows of a bundle: typed parts, and a list of those that it could not read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_transfer.bundle_reader.building import build
from monai_transfer.bundle_reader.component import Component, Unread, components_in
from monai_transfer.bundle_reader.pipeline import ImageLoading, preprocessing
from monai_transfer.errors import InputError

__all__ = ["STEP_KINDS", "BundleDescription", "step_kind"]

STEP_KINDS = {
    "load": ("LoadImage",),
    "channels": ("EnsureChannelFirst", "AsChannelLast", "ConcatItems", "RepeatChannel", "SqueezeDim", "Transpose",
                 "AddCoordinateChannels"),
    "orientation": ("Orientation", "Flip", "Rotate90"),
    "spacing": ("Spacing", "Zoom"),
    "resize": ("Resize",),
    "crop": ("CropForeground", "CenterSpatialCrop", "CenterScaleCrop", "SpatialCrop", "ResizeWithPadOrCrop"),
    "pad": ("SpatialPad", "DivisiblePad", "BorderPad"),
    "intensity": ("ScaleIntensityRange", "ScaleIntensity", "ScaleIntensityRangePercentiles", "NormalizeIntensity",
                  "ThresholdIntensity", "ClipIntensityPercentiles", "GaussianSmooth", "GaussianSharpen", "MedianSmooth",
                  "HistogramNormalize", "AdjustContrast", "ShiftIntensity", "SignalFillEmpty", "MaskIntensity"),
    "type": ("EnsureType", "CastToType", "ToTensor", "ToDevice", "ToNumpy", "FromMetaTensor", "ToMetaTensor"),
    "activation": ("Activations",),
    "discrete": ("AsDiscrete",),
    "invert": ("Invert",),
    "components": ("KeepLargestConnectedComponent", "RemoveSmallObjects", "FillHoles", "LabelFilter", "MapLabelValue"),
}  # fmt: skip
"""What a transform does, by its name without the ``d`` of dictionary transforms."""


def step_kind(name: str) -> str:
    """The kind of a transform, ``other`` where it has none.

    >>> step_kind("ScaleIntensityRanged")
    'intensity'
    """
    names = (name, name.removesuffix("d"))
    return next((kind for kind, known in STEP_KINDS.items() if any(n in known for n in names)), "other")


@dataclass
class BundleDescription:
    """A bundle or run folder, read without running any of it.

    Attributes:
        folder: where it lies.
        files: the files that were read.
        metadata: ``configs/metadata.json``, or a run's copy of it; ``{}`` where there is none.
        config: the content of the inference config (else train), as data, references unresolved.
        network: the network; ``None`` where it is not there or not readable.
        preprocessing: the deterministic steps that an image takes to the network, in order.
        loading: how the image is read.
        inferer: how the network goes over an image; ``None``: unknown.
        postprocessing: the steps from the network's output to the prediction, in order.
        saving: the step that writes predictions as images; it is read for the names and types that it gives them.
        tabular: the bundle writes its predictions as rows of a table.
        activation: ``softmax`` or ``sigmoid`` of the network's output; ``None``: unknown.
        loss: what it was trained with; ``None``: unknown.
        labels, channels: names of the outputs and of the image's channels, in order; ``None``: it does not say.
        image_key, pred_key: of the image and of the prediction in the dictionaries of transforms.
        modality, task, licence: as the bundle says, ``None`` where it does not.
        output_type: of the prediction, as the metadata call it: ``image``, ``probabilities`` ...
        dims: spatial dimensions, ``in_channels``: of the image, ``patch``: voxels, all from the metadata or network.
        unread: what of the above could not be read, with place and reason.
        notes: arguments of older MONAI versions that were translated.
        overlay: where the description is of a run: its ``run.json``.

    A bundle's inference config, of which nothing is run:

    >>> import json, tempfile
    >>> from monai_transfer.bundle_reader import read_bundle
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "configs").mkdir()
    >>> spacing = {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 2.0]}
    >>> steps = [{"_target_": "LoadImaged", "keys": "image"}, spacing]
    >>> config = json.dumps({"preprocessing": {"_target_": "Compose", "transforms": steps}})
    >>> _ = (folder / "configs" / "inference.json").write_text(config)
    >>> found = read_bundle(folder)
    >>> found.network is None, [step.name for step in found.preprocessing], found.preprocessing[-1].arguments["pixdim"]
    (True, ['LoadImaged', 'Spacingd'], [1.0, 1.0, 2.0])
    """

    folder: Path
    files: list[Path] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    network: Component | None = None
    preprocessing: list[Component] = field(default_factory=list)
    loading: ImageLoading = field(default_factory=ImageLoading)
    inferer: Component | None = None
    postprocessing: list[Component] = field(default_factory=list)
    saving: Component | None = None
    tabular: bool = False
    activation: str | None = None
    loss: Component | None = None
    labels: list[str] | None = None
    channels: list[str] | None = None
    image_key: str = "image"
    pred_key: str = "pred"
    modality: str | None = None
    task: str | None = None
    licence: str | None = None
    output_type: str | None = None
    dims: int | None = None
    in_channels: int | None = None
    patch: list[int] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    run: dict[str, Any] | None = None

    def steps(self, *kinds: str) -> list[Component]:
        """The preprocessing steps of the given kinds (``STEP_KINDS``), in order."""
        return [step for step in self.preprocessing if step_kind(step.name) in kinds]

    @property
    def spacing(self) -> list[float] | None:
        """mm per axis that images are resampled to; ``None``: they are not, or it is not known."""
        told = self.metadata["transfer"].get("spacing") if self._ours else None
        for step in self.steps("spacing"):
            told = told or (step.arguments.get("pixdim") if step.name.startswith("Spacing") else None)
        return _numbers(told)

    @property
    def orientation(self) -> str | None:
        """Axis codes that images are brought to."""
        told = self.metadata["transfer"].get("orientation") if self._ours else None
        for step in self.steps("orientation"):
            told = told or step.arguments.get("axcodes")
        return told if isinstance(told, str) else None

    @property
    def window(self) -> tuple[float, float] | None:
        """Intensities that are scaled from a fixed range; ``None``: no fixed range."""
        for step in self.steps("intensity"):
            if step.name in ("ScaleIntensityRange", "ScaleIntensityRanged"):
                found = _numbers([step.arguments.get("a_min"), step.arguments.get("a_max")])
                return (found[0], found[1]) if found else None
        return None

    @property
    def roi_size(self) -> list[int] | None:
        """Voxels of the sliding window; ``None``: whole images, or unknown."""
        size = self.inferer.arguments.get("roi_size") if self.inferer is not None else None
        if isinstance(size, (list, tuple)) and all(isinstance(n, int) for n in size):
            return [int(n) for n in size]
        return None

    @property
    def _ours(self) -> bool:
        return isinstance(self.metadata.get("transfer"), dict)

    def unread_of(self, *parts: str) -> list[Unread]:
        """What could not be read of these parts (``network``, ``preprocessing``, ``inferer`` ...)."""
        return [item for item in self.unread if item.part in parts]

    def build_network(self) -> Any:
        """The network with random weights, on the CPU.

        Raises:
            InputError: the bundle defines none, or it cannot be read without running code.
        """
        if self.network is None:
            reasons = self.unread_of("network")
            fault = str(reasons[0]) if reasons else "its configs define no network"
            hint = "--trust-source runs the bundle's own code, if you trust its author"
            raise InputError(f"the network cannot be read ({fault})", path=self.folder, hint=hint)
        return build(self.network)

    def build_preprocessing(self, *, device: str = "cpu", checked: bool = True) -> Any:
        """The preprocessing as a ``Compose`` that takes ``{image_key: path or paths}``.

        Args:
            device: for transforms that put images on a device.
            checked: read images with ``SafeReader``, which refuses broken files; else with MONAI's own readers.

        Raises:
            InputError: a part of it was not read.
        """
        unread = self.unread_of("preprocessing")
        if unread:
            hint = "--trust-source runs the bundle's own code, if you trust its author"
            raise InputError(f"the preprocessing cannot be read ({unread[0]})", path=self.folder, hint=hint)
        if not self.preprocessing:
            raise InputError(
                "the bundle's configs define no preprocessing",
                path=self.folder,
                hint="name a bundle whose inference config has a preprocessing",
            )
        return preprocessing(
            self.preprocessing, self.loading, channels=self.in_channels, device=device, checked=checked
        )

    def build_inferer(self) -> Any:
        """The inferer; ``SimpleInferer`` where the bundle names none.

        Raises:
            InputError: it cannot be read.
        """
        from monai.inferers import SimpleInferer

        unread = self.unread_of("inferer")
        if self.inferer is None and unread:
            raise InputError(f"the inferer cannot be read ({unread[0]})", path=self.folder, hint="see --trust-source")
        return build(self.inferer) if self.inferer is not None else SimpleInferer()

    def components(self) -> list[Component]:
        """Every component of the description."""
        return list(components_in([self.network, self.preprocessing, self.inferer, self.postprocessing, self.loss]))


def _numbers(value: Any) -> list[float] | None:
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, (int, float)) for v in value):
        return [float(v) for v in value]
    return None
