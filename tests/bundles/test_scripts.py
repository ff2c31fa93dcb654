"""A bundle's own script is found wherever the bundle is opened, and bundles in one process do not mix."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from bundles.packaged import packaged_specs
from monai_transfer.bundle.export import export_bundle

pytestmark = pytest.mark.filterwarnings("ignore")
LOCALIZATION = pytest.mark.parametrize("bundle", ["head_mr_lesion_localization"], indirect=True)


def opened(bundle: Path, **overrides) -> ConfigWorkflow:
    flow = ConfigWorkflow(
        workflow_type="infer",
        config_file=str(bundle / "configs" / "inference.yaml"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        bundle_root=str(bundle),
        **overrides,
    )
    flow.initialize()
    return flow


@LOCALIZATION
def test_it_opens_without_pythonpath_from_anywhere(bundle, tmp_path, python):
    code = f"""
import sys
sys.modules["monai_transfer"] = None
from monai.bundle import ConfigWorkflow
root = {str(bundle)!r}
flow = ConfigWorkflow(workflow_type="infer", config_file=root + "/configs/inference.yaml", logging_file=False,
                      bundle_root=root)
flow.initialize()
assert flow.check_properties() == [], flow.check_properties()
assert type(flow.parser.get_parsed_content("find_boxes")).__name__ == "FindBoxes"
assert root not in sys.path and "scripts" not in sys.modules
"""
    python("-c", code, cwd=tmp_path, PYTHONPATH="")


@LOCALIZATION
def test_two_bundles_in_one_process_keep_their_own(bundle, tmp_path):
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    script = other / "scripts" / "boxes.py"
    script.write_text(script.read_text().replace("class FindBoxes:", "class FindBoxes:\n    mine = True"))
    before = set(sys.modules)
    flows = [opened(root) for root in (bundle, other, bundle)]
    found = [flow.parser.get_parsed_content("find_boxes") for flow in flows]
    assert [hasattr(one, "mine") for one in found] == [False, True, False]
    assert not any(name.split(".")[0] == "scripts" for name in set(sys.modules) - before)


@LOCALIZATION
def test_torchscript_carries_the_script(bundle, tmp_path, monkeypatch):
    path = export_bundle(bundle, "torchscript", tmp_path / "model.ts")
    spec = next(spec for spec in packaged_specs() if spec.name == bundle.name)
    (sample,) = (bundle / "sample").iterdir()
    kept = Path(shutil.copy(sample, tmp_path / sample.name))
    ours = opened(bundle, dataset_dir=str(tmp_path), output_dir=str(tmp_path / "a")).parser
    expected = _boxes(ours, kept, ours.get_parsed_content("network_def").eval(), bundle / "models" / "model.pt")
    shutil.rmtree(bundle)
    monkeypatch.chdir(tmp_path)
    extra = {"inference.json": ""}
    script = torch.jit.load(str(path), _extra_files=extra).eval()
    parser = ConfigParser(json.loads(extra["inference.json"]))
    parser["dataset_dir"], parser["output_dir"] = str(tmp_path), str(tmp_path / "b")
    assert _boxes(parser, kept, script, None) == expected and expected["boxes"]
    assert json.loads((tmp_path / "b" / f"{sample.name.split('.')[0]}_boxes.json").read_text()) == expected
    assert dataclasses.is_dataclass(spec)


def _boxes(parser: ConfigParser, image: Path, network, weights: Path | None) -> dict:
    if weights is not None:
        network.load_state_dict(torch.load(weights, weights_only=True))
    data = parser.get_parsed_content("preprocessing")({"image": str(image)})
    with torch.no_grad():
        data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], network)[0]
    return parser.get_parsed_content("postprocessing")(data)["boxes"]
