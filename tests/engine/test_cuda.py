"""What only a GPU shows: bundles under float16 with its scaler, resumed runs, real exhaustion of memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet

from monai_transfer.bundle.run import config_files, run_workflow
from monai_transfer.engine.checkpoint import load_checkpoint
from monai_transfer.engine.memory import MemoryAdvice
from monai_transfer.errors import InputError
from tests.tiny_sets import copied

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a CUDA device")

BUNDLES = Path(__file__).parents[2] / "bundles"
CELLS = [(path.parts[-3], path.stem) for path in sorted(BUNDLES.glob("*/configs/*.yaml"))]
CELLS = [cell for cell in CELLS if cell[1] in ("pretrain", "train", "adapt", "contrastive")]
SHORT = {"max_epochs": 4, "steps_per_epoch": 3, "val_interval": 4}


@pytest.mark.parametrize(("name", "workflow"), CELLS)
def test_packaged_bundles_learn_in_float16(name, workflow, tmp_path):
    run_workflow(str(copied(name, tmp_path)), workflow, {**SHORT, "output_dir": str(tmp_path / "run")})
    machine = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert torch.cuda.get_device_name() in json.dumps(machine)
    last = load_checkpoint(tmp_path / "run" / "models" / "last.pt")
    assert last["scaler"]["scale"] > 0
    weights = load_checkpoint(tmp_path / "run" / "models" / "model.pt")
    assert all(not value.is_cuda and torch.isfinite(value).all() for value in weights.values())


@pytest.mark.parametrize("precision", ["float16", "bf16"])
def test_an_interrupted_run_goes_on(precision, tmp_path):
    """The same epochs in two sittings as in one; on a GPU sums differ in their order, so to float16's accuracy only."""
    bundle = str(copied("head_mr_segmentation", tmp_path))
    common = {**SHORT, "bf16": precision == "bf16"}
    run_workflow(bundle, "train", {**common, "output_dir": str(tmp_path / "whole")})
    cut = {**common, "output_dir": str(tmp_path / "cut")}
    configs = str(Path(bundle) / "configs")
    flow = ConfigWorkflow(
        workflow_type="train", config_file=[str(path) for path in config_files(bundle, "train")],
        meta_file=f"{configs}/metadata.json", logging_file=False, bundle_root=bundle, **cut,
    )  # fmt: skip
    flow.initialize()

    @flow.parser.get_parsed_content("train#trainer").on(Events.EPOCH_COMPLETED(once=2))
    def _stop(engine):
        raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        flow.run()
    run_workflow(bundle, "train", cut)
    one, two = (load_checkpoint(tmp_path / name / "models" / "last.pt") for name in ("whole", "cut"))
    assert one["epoch"] == two["epoch"] == 4
    for key, value in one["network"].items():
        torch.testing.assert_close(two["network"][key], value, rtol=2e-2, atol=5e-3, msg=key)


def test_one_process_under_nccl(tmp_path):
    bundle = copied("head_mr_slice_classification", tmp_path)
    files = "['configs/train.yaml','configs/adapt.yaml','configs/multi_gpu_train.yaml']"
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1", "-m", "monai.bundle", "run"]
    words += ["--config_file", files, "--max_epochs", "1", "--steps_per_epoch", "2", "--val_interval", "1"]
    done = subprocess.run([sys.executable, *words], cwd=bundle, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[done.stderr.find("Traceback") :][:3000]
    assert (bundle / "runs" / "adapt-0" / "summary.json").is_file()


@pytest.mark.parametrize(("amp", "words"), [(False, "needs at least"), (True, "does not fit")])
def test_what_does_not_fit_is_said_and_the_device_is_left_usable(amp, words):
    """Without AMP it is refused beforehand; with AMP, which is not foreseen, the allocator's error is explained."""

    def train(shape: tuple[int, ...]) -> None:
        network = UNet(3, 1, 2, (16, 32), (2,), num_res_units=2, norm="batch").cuda()
        image = torch.zeros(shape, device="cuda")
        label = torch.zeros(shape[0], *shape[2:], dtype=torch.uint8, device="cuda")
        SupervisedTrainer(
            device=torch.device("cuda"), max_epochs=1, train_data_loader=[{"image": image, "label": label}],
            network=network, optimizer=torch.optim.SGD(network.parameters(), 1e-3), amp=amp, decollate=False,
            loss_function=lambda pred, label: torch.nn.functional.cross_entropy(pred, label.long()),
            train_handlers=[MemoryAdvice()],
        ).run()  # fmt: skip

    torch.cuda.empty_cache()
    cases = int(0.3 * torch.cuda.mem_get_info()[0] / 4 / 256**3)  # the images alone take three tenths
    with pytest.raises(InputError, match=words):
        train((cases, 1, 256, 256, 256))
    torch.cuda.empty_cache()
    train((1, 1, 16, 16, 16))
