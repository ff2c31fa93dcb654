"""The committed bundles are what their specs render to: nobody edits a config that the templates would write over."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bundles.packaged import packaged_specs
from monai_transfer.bundle.write import render_bundle
from monai_transfer.weights.hashes import HASHES, changed_files

ROOT = Path(__file__).parents[2]
SPECS = {spec.name: spec for spec in packaged_specs()}
# these stand for the installation that wrote the bundle, not for the bundle
VERSIONS = ("monai_version", "pytorch_version", "numpy_version", "required_packages_version")


def metadata(text: str) -> dict:
    return {key: value for key, value in json.loads(text).items() if key not in VERSIONS}


@pytest.mark.parametrize("name", SPECS)
def test_committed_equals_regenerated(name):
    folder = ROOT / "bundles" / name
    for path, text in render_bundle(SPECS[name]).items():
        committed = (folder / path).read_text(encoding="utf-8")
        hint = f"{name}/{path} differs: run `python -m bundles.packaged bundles`"
        if path.endswith("metadata.json"):
            assert metadata(committed) == metadata(text), hint
        else:
            assert committed == text, hint


@pytest.mark.parametrize("name", SPECS)
def test_nothing_else_is_in_the_bundle(name):
    folder = ROOT / "bundles" / name
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    found = {
        path
        for path in found
        if not path.startswith(("runs/", "sample/", "predictions/")) and "__pycache__" not in path
    }
    assert found == {*render_bundle(SPECS[name]), "models/model.pt", "models/model.pt.sha256", HASHES}


@pytest.mark.parametrize("name", SPECS)
def test_the_hashes_are_those_of_the_files(name):
    assert changed_files(ROOT / "bundles" / name) == [], "run `python -m bundles.packaged bundles`"


@pytest.mark.parametrize("name", SPECS)
def test_metadata_names_the_tested_versions(name):
    content = json.loads((ROOT / "bundles" / name / "configs" / "metadata.json").read_text(encoding="utf-8"))
    pinned = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    named = {"monai": content["monai_version"], "torch": content["pytorch_version"], "numpy": content["numpy_version"]}
    named |= {key: value for key, value in content["required_packages_version"].items() if key in pinned}
    assert named == {key: pinned[key] for key in named}


@pytest.mark.parametrize("name", SPECS)
def test_every_config_says_how_to_run_it_and_what_to_expect(name):
    for path in (ROOT / "bundles" / name / "configs").glob("*.yaml"):
        head = path.read_text(encoding="utf-8").split("\n\n")[0]
        for word in ("# run:", "# wants:", "# expect:"):
            assert word in head, f"{path.name} lacks '{word}'"
        assert "not measured" not in head, f"{path.name}: no measured score"
