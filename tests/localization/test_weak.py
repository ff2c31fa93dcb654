"""Case labels alone: the documented example runs, and MIL takes the place of a bundle's network by one override."""

import re
import shlex
from pathlib import Path

import torch

from monai_transfer.bundle.run import open_workflow, parse_overrides
from monai_transfer.networks.mil import Mil

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "localization.md").read_text(encoding="utf-8")


def test_the_documented_example(monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict = {}
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(code, names)
    assert names["heat"].shape == (1, 1, 64, 64) and names["heat"].max() == 1
    assert len(names["boxes"]) >= 1 and names["boxes"].voxels.shape[1] == 4


def test_the_documented_override(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = re.search(r"^    (monai-transfer run \S+ pretrain .*?\}')$", TEXT, re.DOTALL | re.MULTILINE)[1]
    _, _, bundle, workflow, *words = shlex.split(command.replace("\\\n", " ").replace("RUN", str(tmp_path / "run")))
    network = (
        open_workflow(bundle, workflow, parse_overrides(words), log=False).parser.get_parsed_content("network").cpu()
    )
    assert isinstance(network, Mil) and network.instances == "patches"
    packaged = torch.load(f"{bundle}/models/model.pt", weights_only=True)
    taken = network.backbone.state_dict()
    assert taken and all(torch.equal(value, packaged[f"features.{name}"]) for name, value in taken.items())
    assert network(torch.randn(2, 1, 64, 64)).shape == (2, 2)
    assert network.lesion_map(torch.randn(2, 1, 64, 64), 1).shape == (2, 1, 64, 64)
