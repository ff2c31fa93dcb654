"""``inference.yaml``: new images in, predictions out; it stands alone and needs MONAI alone."""

from __future__ import annotations

import glob
from typing import Any

from monai_transfer.bundle.configs.datasets import loader
from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.grid import grid, space
from monai_transfer.bundle.configs.intensities import intensity_steps, label_scale
from monai_transfer.bundle.configs.network import inferer, network_def
from monai_transfer.bundle.configs.parts import amp, device, in_bundle, monai
from monai_transfer.bundle.configs.reading import load
from monai_transfer.bundle.configs.testing import back_to_image, boxes
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr, ref
from monai_transfer.networks.output_forms import main_place

__all__ = ["BOXES_SCRIPT", "inference", "inference_data", "inference_engine", "preprocessing", "table"]

BOXES_SCRIPT = "scripts/boxes.py"
"""The bundle's own code: from probabilities to boxes, for which MONAI has no transform."""


def inference_data(s: BundleSpec, *modules: str) -> dict[str, Any]:
    """What is predicted on and where the predictions go, up to the network's definition."""
    names = ["glob", "os", *modules, "torch"]
    imports = [expr(f"import {name}") for name in names]
    return {
        "imports": note(
            [*imports, expr("import PIL.ImageOps as ImageOps")] if s.picture else imports,
            "modules that expressions below use",
        ),
        "bundle_root": note(".", "the bundle's folder"),
        "device": device(),
        "amp": amp(),
        "dataset_dir": note(in_bundle("sample"), "folder of the images"),
        "pattern": note(f"**/*{glob.escape(s.suffix)}", "of the images' names, below dataset_dir"),
        "images": note(expr("glob.glob(@pattern, root_dir=@dataset_dir, recursive=True)"), "the files, from there"),
        "output_dir": note(in_bundle("predictions"), "folder for the predictions"),
        "ckpt": note(in_bundle("models/model.pt"), "the weights"),
        **grid(s),
        **label_scale(s),
    }


def preprocessing(s: BundleSpec, *more: Any) -> dict[str, Any]:
    """From files to what the network sees: one plain list, since tools look into it for readers, spacing and window."""
    steps = [*load(s), *space(s, ["image"], alone=True), *intensity_steps(s), *more]
    return {
        "preprocessing": note(monai("transforms.Compose", transforms=steps), "from files to what the network sees"),
        "dataset": note(
            monai(
                "data.Dataset",
                data=expr('[{"image": f"{@dataset_dir}/{path}"} for path in sorted(@images)]'),
                transform=ref("preprocessing"),
            ),
            "the images",
        ),
        "dataloader": note(loader("", 1, num_workers=0), "one image at a time"),
    }


def _boxes(s: BundleSpec) -> dict[str, Any]:
    """The functions of the bundle's own script, with the user's options."""
    if s.kind.saved_as != "boxes":
        return {}
    find = {
        "_target_": expr("@functions['FindBoxes']"),
        "boxes": ref("boxes"),
        "names": ref("lesions"),
        "root": ref("dataset_dir"),
    }
    write = {"_target_": expr("@functions['WriteBoxes']"), "output_dir": ref("output_dir")}
    return {
        **boxes(s),
        "lesions": note(s.lesions, "names of the classes that get boxes"),
        "functions": note(
            expr(f'runpy.run_path(f"{{@bundle_root}}/{BOXES_SCRIPT}")'),
            "what the script defines; by its path, so that it needs no PYTHONPATH and bundles do not mix",
        ),
        "find_boxes": note(find, "one box per connected component, the surest first"),
        "write_boxes": note(write, "one JSON file per image"),
    }


def _kept(s: BundleSpec) -> dict[str, Any]:
    """The source's own steps, from the bundle's script."""
    if s.kept is None or not s.kept.script:
        return {}
    found = s.kept.functions()
    return {key: note(value, f"the source's own steps, of {s.kept.script}") for key, value in found.items()}


def _saving(s: BundleSpec) -> list[Any]:
    if s.kind.saved_as == "boxes":
        steps = [
            monai("transforms.Lambdad", keys="boxes", func=ref(name), track_meta=False)
            for name in ("find_boxes", "write_boxes")
        ]
        mask = monai("transforms.AsDiscreted", keys="pred", argmax=True)
        return [
            monai("transforms.CopyItemsd", keys="pred", names=["boxes"]),
            *steps,
            note(mask, "the metadata promise an image, and MONAI Label and Deploy show one"),
        ]
    if s.kind.saved_as != "mask":
        return []
    picture = {"output_ext": ".png", "resample": False} if s.picture else {"output_ext": ".nii.gz"}
    largest = max([0, *(s.outputs.written or []), *s.outputs.combinations])
    return [
        monai(
            "transforms.SaveImaged",
            keys="pred",
            output_dir=ref("output_dir"),
            output_postfix="pred",
            output_dtype=expr("numpy.uint8" if largest < 256 else "numpy.uint16"),
            data_root_dir=ref("dataset_dir"),
            separate_folder=False,
            **picture,
        )
    ]


def table() -> dict[str, Any]:
    """The handler that writes one row per image."""
    return monai(
        "handlers.ClassificationSaver",
        output_dir=ref("output_dir"),
        filename="predictions.csv",
        save_rank=0,
        batch_transform=expr("lambda batch: [item['image'].meta for item in batch]"),
        output_transform=expr("monai.handlers.from_engine(['pred'])"),
    )


def inference_engine(load_into: str, *handlers: Any) -> dict[str, Any]:
    """The handlers, the engine, and what runs."""
    weights = monai(
        "handlers.CheckpointLoader",
        load_path=ref("ckpt"),
        load_dict={"model": ref(load_into)},
        map_location=ref("device"),
    )
    names = ("network", "inferer", "postprocessing")
    engine = monai(
        "engines.SupervisedEvaluator",
        device=ref("device"),
        val_data_loader=ref("dataloader"),
        **{name: ref(name) for name in names},
        val_handlers=ref("handlers"),
        amp=ref("amp"),
    )
    return {
        "handlers": note([weights, *handlers], "weights first"),
        "evaluator": note(engine, "runs over the images"),
        "initialize": note([expr("monai.utils.set_determinism(seed=0)")], "before anything is built"),
        "run": note([expr("@evaluator.run()")], "the workflow"),
    }


def _engine(s: BundleSpec) -> dict[str, Any]:
    made = inference_engine("network", *([table()] if s.kind.saved_as == "table" else []))
    place = main_place(s.network["_target_"])
    if place is not None:
        alone = expr(f"@network.register_forward_hook(lambda module, images, output: {place})")
        first = [*made["initialize"].value, note(alone, "of several outputs the one that counts")]
        made["initialize"] = note(first, made["initialize"].comment)
    return made


def inference(s: BundleSpec) -> dict[str, Any]:
    """The config."""
    modules = ["numpy"] if s.kind.saved_as == "mask" else ["runpy"] if s.kind.saved_as == "boxes" else []
    modules += ["runpy"] if s.kept is not None and s.kept.script and "runpy" not in modules else []
    said = s.kept.said if s.kept is not None else "how the network is applied to a whole image"
    back = back_to_image(s, "preprocessing")
    steps = [*back, *s.kind.predicted(s.outputs), *_saving(s)]
    data, network = inference_data(s, *modules), note(expr("@network_def.to(@device)"), "on the device")
    if s.folds:
        data["ckpt"] = note(expr("@functions['bundle_weights'](@bundle_root)"), "the weights: of all folds, if there")
        joined = "on the device; as many networks as the weights are of, and the mean of their outputs"
        network = note(expr("@functions['FoldMean'](@network_def.to(@device))"), joined)
    return {
        **data,
        **_kept(s),
        **network_def(s, "the network, as it was trained"),
        "network": network,
        **preprocessing(s),
        "inferer": note(inferer(s, alone=True), said),
        **_boxes(s),
        "postprocessing": note(monai("transforms.Compose", transforms=steps), "from outputs to predictions"),
        **_engine(s),
    }
