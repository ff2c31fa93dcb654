"""A bundle's inference, read and made anew of known classes, or, for those who trust it, as its own configs say.

``predict`` and ``export`` open every bundle here. What was read becomes a config of full paths and plain values, in
which all expressions are ours; so a bundle of the model zoo predicts without a line of it being run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_transfer.bundle.known_code import foreign_code
from monai_transfer.bundle.run import open_workflow
from monai_transfer.bundle_reader import BundleDescription, Component, Unread, as_config, read_bundle
from monai_transfer.bundle_reader.building import bounded
from monai_transfer.bundle_reader.description import step_kind
from monai_transfer.bundle_reader.running import own_scripts
from monai_transfer.bundle_reader.trust import Trust, decide, untrusted
from monai_transfer.component_table import share_table
from monai_transfer.config_text import expr, ref, to_config
from monai_transfer.errors import InputError, describe, first_cause, is_out_of_memory
from monai_transfer.networks.output_forms import main_place

__all__ = ["Inference", "open_inference", "own_code", "stand_alone"]

_MAIN_ALONE = "monai_transfer.networks.output_forms.plain_in_evaluation"
_EXTENSIONS = (".nii.gz", ".nii", ".png")
_WORD = re.compile(r"[\w.-]{0,40}")
# of MONAI, for every bundle alike
_EVALUATOR = {
    "_target_": "monai.engines.SupervisedEvaluator",
    "device": ref("device"),
    "val_data_loader": ref("dataloader"),
    "network": ref("network"),
    "inferer": ref("inferer"),
    "postprocessing": ref("postprocessing"),
    "val_handlers": ref("handlers"),
    "amp": ref("amp"),
}


class Inference:
    """A bundle's inference, with the life-cycle of a ``ConfigWorkflow``.

    Attributes:
        parser: its config; ids as in every bundle: ``dataset, preprocessing, inferer, network_def, evaluator`` ...
        described: what was read of the bundle.
        trust: the decision by which the bundle's own code runs; ``None``: none of it does.
    """

    def __init__(self, config: dict[str, Any], found: BundleDescription) -> None:
        self.parser, self.described, self.folder = share_table(ConfigParser(config)), found, found.folder
        self.trust: Trust | None = None

    def initialize(self) -> None:
        """Forget what was made before, and make the network within the limits.

        Raises:
            InputError: it is beyond them, or cannot be made of its arguments.
        """
        self.parser.parse(True)
        name = self.parser.config["network_def"]["_target_"]
        try:
            with bounded(name):
                self.parser.get_parsed_content("network_def")
        except Exception as error:  # MONAI wraps whatever a class says to its arguments
            cause: BaseException = error
            while not isinstance(cause, InputError) and cause.__cause__ is not None:
                cause = cause.__cause__
            if isinstance(cause, InputError):
                raise cause from error
            text = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:160]
            hint = "it may be of another MONAI version"
            raise InputError(f"its network {name} cannot be made ({text})", path=self.folder, hint=hint) from error

    def run(self) -> None:
        """Go through the data."""
        self.parser.get_parsed_content("evaluator").run()

    def finalize(self) -> None:
        """Nothing is left to do."""


def open_inference(bundle: str | Path, *, trust_source: bool = False) -> Any:
    """The inference of a bundle, with ``parser``, ``described``, ``trust``, ``initialize``, ``run``, ``finalize``.

    Args:
        bundle: its folder.
        trust_source: run the bundle's own configs, and remember the decision.

    Raises:
        InputError: a part of it cannot be read and nobody decided to trust it; names the part.
    """
    bundle = Path(bundle)
    if not (bundle / "configs").is_dir():
        raise InputError("not a MONAI bundle: it has no configs folder", path=bundle, hint="name a bundle's folder")
    found = read_bundle(bundle)
    missing = _missing(found)
    trust = decide(bundle, trust_source) if trust_source or missing else None
    if trust is None and not missing:
        return Inference(_config(found), found)
    if trust is None and foreign_code(bundle):
        raise untrusted(bundle, missing, "inference")
    flow: Any = open_workflow(bundle, "infer", {}, log=False)
    flow.described, flow.trust = found, trust
    if trust is None:  # its config holds what we write, but need not hold together
        flow.initialize = _one_error(flow.initialize, bundle)
        flow.parser.get_parsed_content = _one_error(flow.parser.get_parsed_content, bundle, KeyError)
    return flow


def _one_error(call: Callable[..., Any], bundle: Path, *passed: type[Exception]) -> Callable[..., Any]:
    """A call of MONAI's parser, of which anything that it raises is one line about the bundle.

    Errors of the kinds ``passed`` go on as they are: of an id that is not there the caller knows whether it is needed.
    """

    def guarded(*args: Any, **options: Any) -> Any:
        try:
            return call(*args, **options)
        except passed:
            raise
        except Exception as error:
            cause = first_cause(error)
            if isinstance(cause, InputError) or is_out_of_memory(error):
                raise
            fault = f"its inference cannot be set up ({' '.join(describe(error).split())[:200]})"
            raise InputError(fault, path=bundle, hint="get it again from where it came, or ask its author") from error

    return guarded


def own_code(flow: Any) -> AbstractContextManager[None]:
    """While an inference is used: of a trusted bundle, its ``scripts`` can be imported."""
    return own_scripts(flow.trust.folder) if flow.trust is not None else nullcontext()


def _missing(found: BundleDescription) -> list[Unread]:
    """What of the parts that inference needs was not read."""
    missing = found.unread_of("network", "wrapper", "preprocessing", "inferer", "postprocessing")
    for part, value in (("network_def", found.network), ("preprocessing", found.preprocessing)):
        if not value and not found.unread_of(part.removesuffix("_def")):
            missing.append(Unread(part, "", "is not there"))
    if found.image_key != "image" or found.pred_key != "pred":
        missing.append(Unread("preprocessing", found.image_key, "has another key than 'image' for its image"))
    try:
        _config(found) if not missing else None
    except InputError as error:  # an argument that is not taken over
        missing.append(Unread("inference", "", error.fault))
    return missing


def _config(found: BundleDescription) -> dict[str, Any]:
    assert found.network is not None
    name = "cuda" if _has_gpu() else "cpu"
    table = {
        "_target_": "monai.handlers.ClassificationSaver",
        "output_dir": ref("output_dir"),
        "filename": "predictions.csv",
        "save_rank": 0,
        "batch_transform": expr("lambda batch: [item['image'].meta for item in batch]"),
        "output_transform": expr("monai.handlers.from_engine(['pred'])"),
    }
    weights = {
        "_target_": "monai_transfer.bundle.weights_handler.LoadWeights",
        "path": ref("ckpt"),
        "network": ref("network"),
    }
    steps = [_step(step) for step in found.postprocessing]
    if found.saving is not None:
        steps.append(_saving(found.saving))
    return {
        "bundle_root": to_config(str(found.folder.resolve())),
        "device": name,
        "amp": name == "cuda",
        "dataset_dir": "",
        "output_dir": "",
        "ckpt": to_config(str(found.folder.resolve() / "models" / "model.pt")),
        "network_def": as_config(found.network),
        "network": {"_target_": _MAIN_ALONE, "network": expr("@network_def.to(@device)")},
        "preprocessing": _compose([_loading(step, found) for step in found.preprocessing]),
        "dataset": {"_target_": "monai.data.Dataset", "data": [], "transform": ref("preprocessing")},
        "dataloader": {
            "_target_": "monai.data.DataLoader",
            "dataset": ref("dataset"),
            "batch_size": 1,
            "num_workers": 0,
        },
        "inferer": as_config(found.inferer) if found.inferer else {"_target_": "monai.inferers.SimpleInferer"},
        "postprocessing": _compose(steps),
        "handlers": [weights, *([table] if found.tabular else [])],
        "evaluator": dict(_EVALUATOR),
    }


def stand_alone(found: BundleDescription) -> dict[str, Any]:
    """A whole inference config that needs MONAI alone, of what was read; all expressions in it are ours.

    Args:
        found: a bundle that is read completely.

    Raises:
        InputError: a step of it is a function, for which MONAI has no transform.
    """
    if any(step.kind == "function" for step in found.postprocessing):
        function = next(step for step in found.postprocessing if step.kind == "function")
        raise untrusted(found.folder, [Unread(function.where, "", "calls a function")], "post-processing")
    made = _config(found)
    for step, config in zip(found.preprocessing, made["preprocessing"]["transforms"], strict=True):
        if step.name.startswith("LoadImage"):
            del config["reader"], config["image_only"]
            if found.loading.mode is not None:
                letter = {"grey": "L", "rgb": "RGB"}[found.loading.mode]
                convert = expr(f"lambda image: image.convert('{letter}')")
                config["reader"] = {"_target_": "monai.data.PILReader", "converter": convert}
            elif found.loading.reader is not None:
                config["reader"] = found.loading.reader
    loader = {
        "_target_": "monai.handlers.CheckpointLoader",
        "load_path": ref("ckpt"),
        "load_dict": {"model": ref("network")},
        "map_location": ref("device"),
    }
    place = main_place(made["network_def"]["_target_"])
    hook = expr(f"@network.register_forward_hook(lambda module, images, output: {place})")
    return {
        "imports": [expr(f"import {name}") for name in ("glob", "os", "torch")],
        **made,
        "network": expr("@network_def.to(@device)"),
        "bundle_root": ".",
        "device": expr("torch.device('cuda' if torch.cuda.is_available() else 'cpu')"),
        "amp": expr("torch.cuda.is_available()"),
        "dataset_dir": expr("os.path.join(@bundle_root, 'sample')"),
        "pattern": "**/*.nii.gz",
        "output_dir": expr("os.path.join(@bundle_root, 'predictions')"),
        "ckpt": expr("os.path.join(@bundle_root, 'models', 'model.pt')"),
        "dataset": made["dataset"]
        | {
            "data": expr(
                "[{'image': path} for path in sorted(glob.glob(os.path.join(@dataset_dir, @pattern), recursive=True))]"
            )
        },
        "handlers": [loader, *made["handlers"][1:]],
        "initialize": [expr("monai.utils.set_determinism(seed=0)"), *([hook] if place is not None else [])],
        "run": [expr("@evaluator.run()")],
    }


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _compose(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"_target_": "monai.transforms.Compose", "transforms": steps}


def _loading(step: Component, found: BundleDescription) -> dict[str, Any]:
    made = as_config(step)
    if step.name.startswith("LoadImage"):
        mode = found.loading.mode or ("rgb" if found.in_channels == 3 else None)
        made["reader"] = {"_target_": "monai_transfer.data.readers.SafeReader", "mode": mode}
        made["image_only"] = True
    return made


def _step(step: Component) -> dict[str, Any]:
    made = as_config(step)
    if step_kind(step.name) == "invert":
        made["transform"] = ref("preprocessing")
    function = made.get("func")
    if isinstance(function, dict):
        for key, id in (("root", "dataset_dir"), ("output_dir", "output_dir")):
            if key in function:
                function[key] = ref(id)
    return made


def _saving(step: Component) -> dict[str, Any]:
    """Where files go is ours to say; how they are named and what is in them is the bundle's."""
    given = as_config(step)
    postfix, extension = given.get("output_postfix", "trans"), given.get("output_ext", ".nii.gz")
    if not isinstance(postfix, str) or not _WORD.fullmatch(postfix) or extension not in _EXTENSIONS:
        fault = f"writes files with the odd postfix {str(postfix)[:40]!r} or extension {str(extension)[:40]!r}"
        raise InputError(fault, hint=f"the postfix is a word, the extension one of {', '.join(_EXTENSIONS)}")
    given |= {"output_dir": ref("output_dir"), "data_root_dir": ref("dataset_dir"), "separate_folder": False}
    return given | {"print_log": False}
