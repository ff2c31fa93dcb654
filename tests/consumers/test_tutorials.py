"""Six of MONAI's own tutorials, each with one of our methods: they run, and every step has the method's term.

``TUTORIALS`` names a checkout of the public repository Project-MONAI/tutorials (of which nothing is kept here). The
scripts run as they stand, with smaller images, networks and numbers of cases, so that it takes a processor seconds.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from monai_transfer.engine.method_step import MethodStep

pytest.importorskip("tensorboard", reason="the tutorials write to TensorBoard")
pytestmark = pytest.mark.filterwarnings("ignore")

SMALLER = [
    (r"\brange\(40\)", "range(8)"),
    (r":20\]", ":4]"),
    (r"\[-20:\]", "[-4:]"),
    (r"\b128, 128, 128\b", "64, 64, 64"),
    (r"\b128, 128\b", "64, 64"),
    (r"\b96\b", "32"),
    (r"\bnum_workers=\d", "num_workers=0"),
    (r"channels=\(16, 32, 64, 128, 256\)", "channels=(4, 8, 16)"),
    (r"strides=\(2, 2, 2, 2\)", "strides=(2, 2)"),
    (r"for epoch in range\(\d+\)", "for epoch in range(2)"),
    (r"max_epochs=5", "max_epochs=2"),
    (r"\btrain_epochs = \d+", "train_epochs = 2"),
    (r"trainer\.run\(train_loader, \w+\)", "trainer.run(train_loader, 2)"),
    (r"DenseNet121\(", "DenseNet(init_features=8, growth_rate=4, block_config=(2, 2, 2), "),
]
OURS = "import monai_transfer as ours, monai_transfer.methods as methods\n"
STEP = (
    "    optimizer = torch.optim.",
    "\n    method = ours.MethodStep(methods.{method}, model, val_loader, optimizer=optimizer, epochs=2,"
    " epoch_length=len(train_loader){keys})\n",
)
LOSS = (
    "loss = loss_function(outputs, labels)",
    "loss = method(inputs, labels, outputs, loss=loss_function(outputs, labels))",
)
AFTER = "    opt = torch.optim.Adam(net.parameters(), lr)\n"
WRAP = "    loss = ours.AdaptLoss(loss, methods.{method}, net, val_loader, optimizer=opt{keys})\n"
TRAINER = re.compile(r"    trainer = create_supervised_trainer\(.*\)\n")
IMAGES = ", keys={'image': 'img', 'label': 'seg'}"


def plain(text: str, method: str, keys: str = "") -> str:
    """A loop of PyTorch: one object before it, one call in it."""
    line = next(line for line in text.splitlines(True) if line.startswith(STEP[0]))
    assert LOSS[0] in text
    return text.replace(line, line + STEP[1].format(method=method, keys=keys).lstrip("\n")).replace(*LOSS)


def ignite(text: str, method: str, keys: str = "") -> str:
    """`create_supervised_trainer`: the loss function is wrapped, and attached."""
    found = TRAINER.search(text)
    assert AFTER in text and found is not None
    return text.replace(AFTER, AFTER + WRAP.format(method=method, keys=keys)).replace(
        found[0], found[0] + "    loss.attach(trainer)\n"
    )


def monai(text: str, method: str, keys: str = "") -> str:
    """`SupervisedTrainer`: one more handler."""
    trainer = "    trainer = SupervisedTrainer("
    assert trainer in text
    return text.replace(trainer, f"    train_handlers.append(ours.Adapt(methods.{method}, val_loader))\n{trainer}")


CASES = [
    ("3d_segmentation/torch/unet_training_dict.py", plain, "Dann(hidden=8)", IMAGES),
    ("2d_segmentation/torch/unet_training_array.py", plain, "Dann(hidden=8)", ""),
    ("3d_segmentation/ignite/unet_training_dict.py", ignite, "Coral()", IMAGES),
    ("3d_segmentation/ignite/unet_training_array.py", ignite, "Dann(hidden=8)", ""),
    ("modules/engines/unet_training_dict.py", monai, "Dann(hidden=8)", ""),
    ("3d_classification/torch/densenet_training_array.py", plain, "Dann(hidden=8)", ""),
]


@pytest.mark.parametrize(("name", "change", "method", "keys"), CASES, ids=[case[0] for case in CASES])
def test_a_tutorial_with_one_of_our_methods(name, change, method, keys, tmp_path, monkeypatch):
    path = Path(os.environ.get("TUTORIALS", "")) / name
    if not path.is_file():
        pytest.skip("TUTORIALS names no checkout of Project-MONAI/tutorials")
    text = path.read_text(encoding="utf-8")
    for pattern, smaller in SMALLER:
        text = re.sub(pattern, smaller, text)
    terms: list[float] = []
    call = MethodStep.__call__

    def counted(self, *given, **options):
        total = call(self, *given, **options)
        terms.append(float(self.logs["adapt_loss"]))
        return total

    monkeypatch.setattr(MethodStep, "__call__", counted)
    for folder, _, files in os.walk(tmp_path):
        assert not files, folder
    monkeypatch.chdir(tmp_path)
    ixi = tmp_path / "workspace" / "data" / "medical" / "ixi" / "IXI-T1"
    ixi.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for image in re.findall(r"IXI\d+[\w-]+\.nii\.gz", text):  # the set is 5 GB: noise stands in
        nibabel.save(nibabel.Nifti1Image(rng.normal(size=(40, 40, 40)).astype(np.float32), np.eye(4)), ixi / image)
    torch.manual_seed(0)
    exec(compile(OURS + change(text, method, keys), name, "exec"), {"__name__": "__main__"})
    assert len(terms) >= 2 and all(np.isfinite(terms)) and any(terms), terms
