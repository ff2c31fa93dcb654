"""nnU-Net's own predictor on one array, for ``prediction.py --nnunet``: runs in an environment that has nnU-Net.

    python _nnunet_predictor.py NETWORK.ts IMAGE.npy LABELS.npy CLASSES OVERLAP WINDOW WINDOW WINDOW

The network is TorchScript, the image C x spatial; nothing is cropped, normalised or resampled, no view is mirrored.
Prints seconds of the processor of the prediction, and the most bytes that the process has held.
"""

from __future__ import annotations

import contextlib
import io
import resource
import sys
import time

import numpy as np
import torch

with contextlib.redirect_stdout(io.StringIO()):  # it speaks of its environment variables
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

RESAMPLE = "resample_data_or_seg_to_shape"


def plans(window: list[int]) -> dict:
    """A plan that leaves images as they are."""
    kwargs = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    facts = dict.fromkeys(("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"), 1.0)
    return {
        "dataset_name": "Dataset001_x",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "experiment_planner_used": "ExperimentPlanner",
        "foreground_intensity_properties_per_channel": {"0": facts},
        "configurations": {
            "3d_fullres": {
                "data_identifier": "x",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": window,
                "spacing": [1.0, 1.0, 1.0],
                "normalization_schemes": ["NoNormalization"],
                "use_mask_for_norm": [False],
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",  # not made
                    "arch_kwargs": {},
                    "_kw_requires_import": [],
                },
                **{f"resampling_fn_{kind}": RESAMPLE for kind in ("data", "seg", "probabilities")},
                **{f"resampling_fn_{kind}_kwargs": kwargs for kind in ("data", "seg", "probabilities")},
            }
        },
    }


def main() -> None:
    network, image, labels, classes, overlap, *window = sys.argv[1:]
    torch.set_num_threads(1)
    net = torch.jit.load(network)
    with contextlib.redirect_stdout(io.StringIO()):
        step, cpu = 1 - float(overlap), torch.device("cpu")
        predictor = nnUNetPredictor(tile_step_size=step, use_mirroring=False, device=cpu, allow_tqdm=False)
    manager = PlansManager(plans([int(n) for n in window]))
    names = {"background": 0, **{f"class_{n}": n for n in range(1, int(classes))}}
    facts = {"channel_names": {"0": "x"}, "labels": names, "numTraining": 1, "file_ending": ".nii.gz"}
    configuration = manager.get_configuration("3d_fullres")
    predictor.manual_initialization(net, manager, configuration, [net.state_dict()], facts, "nnUNetTrainer", None)
    since = time.process_time()
    found = predictor.predict_single_npy_array(np.load(image), {"spacing": [1.0, 1.0, 1.0]}, None, None, False)
    spent = time.process_time() - since
    np.save(labels, np.asarray(found, dtype=np.uint8))
    print(spent, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main()
