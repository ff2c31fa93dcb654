"""Test: cases that no training or selection has seen, measured one by one."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.datasets import loader, transforms
from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.grid import space
from monai_transfer.bundle.configs.labels import encode, targets
from monai_transfer.bundle.configs.parts import image_keys, monai, ours
from monai_transfer.bundle.configs.reading import read
from monai_transfer.bundle.configs.validation import batch_size, evaluator
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr, ref

__all__ = ["back_to_image", "boxes", "invert", "test"]


def invert(preprocessing: str) -> dict[str, Any]:
    """Predictions back to each image's own grid."""
    return monai(
        "transforms.Invertd",
        keys="pred",
        transform=ref(preprocessing),
        orig_keys="image",
        nearest_interp=False,
        to_tensor=True,
    )


def back_to_image(s: BundleSpec, preprocessing: str) -> list[Any]:
    """From outputs on the network's grid to the image's own; with a source's activation where that stood before."""
    if not s.dense:
        return []
    before = s.kept.before_inverse if s.kept is not None and s.kind.saved_as == "mask" else []
    return [*before, invert(preprocessing)]


def boxes(s: BundleSpec) -> dict[str, Any]:
    """How boxes are made of probabilities, as a root id; nothing where there are none."""
    if s.kind.saved_as != "boxes":
        return {}
    return {
        "boxes": note(
            s.boxes,
            "where the probability reaches the threshold; min_size in mm3 (2D: mm2, pictures: pixels); score: mean or\n"
            "max of a component; connectivity: from 1 (faces) to the number of axes (corners; null)",
        )
    }


def _recorder(s: BundleSpec) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if s.kind.has_classes and not s.dense:
        more = {"activation": s.kind.activation}
    if s.kind.saved_as == "boxes":
        more = {"boxes": ref("boxes"), "iou": note(0.1, "from which on a box has found a lesion")}
    if s.surface_tolerance:
        more["tolerance"] = note(s.surface_tolerance, "of the surface Dice by class, else 2; mm, of pictures pixels")
    if s.kept_classes:
        more["kept"] = note(s.kept_classes, "compared with the source's prediction where no case can tell")
    labels = {str(key): name for key, name in s.labels.items()}
    return ours("evaluation.recorder.CaseRecorder", output_dir=ref("output_dir"), task=s.task, labels=labels, **more)


def _source(s: BundleSpec) -> list[Any]:
    """What the untouched source says of test cases, where classes of its own are kept."""
    if not s.kept_classes:
        return []
    parts = {"inferer": ref("test#inferer"), "postprocessing": ref("test#postprocessing")}
    return [ours("evaluation.source_answers.SourceAnswers", network=expr("@prepared.source"), **parts)]


def test(s: BundleSpec) -> dict[str, Any]:
    """The test of ``train.yaml``."""
    back = back_to_image(s, "test#preprocessing")
    channels = targets(s) if s.kind.channels else []
    return {
        "loading_transforms": [*read(image_keys(s)), *encode(s), *space(s, ["image"]), *channels],
        "preprocessing": transforms("test#loading_transforms", "normalise"),
        "dataset": ours(
            "data.content_cache.ContentCacheDataset",
            data=expr("@lists.target_test"),
            transform=ref("test#preprocessing"),
            cache_dir=ref("cache_dir"),
            cache_rate=note(0, "used once: not held in memory"),
        ),
        "dataloader": loader("test", batch_size(s), num_workers=s.num_workers),
        "postprocessing": monai("transforms.Compose", transforms=[*back, *s.kind.scored(s.outputs)]),
        "handlers": [*_source(s), _recorder(s)],
        "inferer": ours(
            "testtime.flips.FlipInferer",
            inferer=ref("validate#inferer"),
            axes=expr("@mirror if @tta == 'flips' else []"),
        ),
        "evaluator": evaluator(
            "test",
            inferer=ref("test#inferer"),
            postprocessing=ref("test#postprocessing"),
            val_handlers=ref("test#handlers"),
        ),
    }
