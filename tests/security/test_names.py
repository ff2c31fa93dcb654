"""Names of any kind, written into a bundle: nothing of them is evaluated, and they come back unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser

from monai_transfer.bundle.known_code import foreign_code
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.bundle.write import write_bundle
from monai_transfer.bundle_reader import read_bundle
from monai_transfer.manifest.names import name_fault

NETWORK = {"_target_": "monai.networks.nets.UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
NETWORK |= {"channels": [4, 8], "strides": [2]}
CANARY = "canary_of_names"
CODE = f"$__import__('pathlib').Path('{CANARY}').touch()"
PIECES = st.sampled_from(
    [
        "$",
        "@",
        "%",
        "#",
        "::",
        "'",
        '"',
        "\\",
        "`",
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "&a",
        "*a",
        "!!",
        "|",
        ">",
        "lambda",
    ]
    + [
        "import os",
        "_target_",
        "@bundle_root",
        "%dataset_dir",
        CODE,
        "\\x24",
        "${x}",
        "{{x}}",
        "é",
        "病",
        "null",
        "1e3",
    ]
)
NAMES = st.lists(PIECES | st.text(max_size=6), min_size=1, max_size=6).map("".join).filter(lambda n: not name_fault(n))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(lesion=NAMES, site=NAMES, channel=NAMES, modality=NAMES, suffix=NAMES)
@example(lesion=CODE, site=CODE, channel=CODE, modality=CODE, suffix=CODE)
@example(lesion="%a.json::b", site="@::x", channel="#", modality="'''", suffix='"""')
def test_names_are_written_so_that_they_stay_names(
    lesion, site, channel, modality, suffix, tmp_path_factory, monkeypatch
):
    folder = tmp_path_factory.mktemp("names")
    monkeypatch.chdir(folder)
    spec = BundleSpec(
        name="segmentation", task="segmentation", spatial_dims=2, labels={0: "background", 1: lesion},
        channel_names=[channel], network=NETWORK, patch=[32, 32], normalise=[], source_site=site, target_site=site,
        modality=modality, suffix=f".{suffix}", description=lesion,
    )  # fmt: skip
    bundle = write_bundle(spec, folder / "bundle")
    for name in ("train", "inference"):
        parser = ConfigParser(ConfigParser.load_config_file(str(bundle / "configs" / f"{name}.yaml")))
        parser.read_meta(str(bundle / "configs" / "metadata.json"))
        parser.parse()
        if name == "train":
            assert parser.get_parsed_content("target_site") == site
            assert parser.get_parsed_content("class_names") == ["background", lesion]
        defined = parser.get_parsed_content("_meta_::network_data_format::outputs::pred::channel_def")
        assert list(defined.values()) == ["background", lesion]
    found = read_bundle(bundle)
    assert found.labels == ["background", lesion] and found.channels == [channel]
    assert foreign_code(bundle) == []
    for path in bundle.rglob("*.py"):
        compile(path.read_text(encoding="utf-8"), str(path), "exec")
    assert json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert yaml.safe_load((bundle / "configs" / "train.yaml").read_text(encoding="utf-8"))
    assert not Path(CANARY).exists() and sorted(path.name for path in folder.iterdir()) == ["bundle"]
