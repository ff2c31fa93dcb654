"""Case labels alone: the documented example runs, and MIL takes the place of a bundle's network by one override."""

import re
from pathlib import Path

import torch

from monai_transfer.bundle.run import open_workflow, parse_overrides
from monai_transfer.methods.mil import Mil

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "localization.md").read_text(encoding="utf-8")


def test_the_documented_example(monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict = {}
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(code, names)
    assert names["heat"].shape == (1, 1, 64, 64) and names["heat"].max() == 1
    assert len(names["boxes"]) >= 1 and names["boxes"].voxels.shape[1] == 4


def test_the_documented_override(tmp_path):
    value = re.search(r"\"(\{'_target_'.*?\})\"", TEXT)[1]
    overrides = parse_overrides(["--network_def", value, "--output_dir", str(tmp_path / "run")])
    flow = open_workflow(ROOT / "bundles" / "head_mr_slice_classification", "pretrain", overrides, log=False)
    network = flow.parser.get_parsed_content("prepared").network
    assert isinstance(network, Mil) and network.instances == "patches"
    assert network(torch.randn(2, 1, 64, 64)).shape == (2, 2)
    assert network.lesion_map(torch.randn(2, 1, 64, 64)).shape == (2, 1, 64, 64)
