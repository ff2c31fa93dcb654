"""Which statistics in a bundle's metadata are a run's own."""

from __future__ import annotations

import json

import pytest
import yaml

from monai_transfer.inspection.run_statistics import run_statistics
from monai_transfer.inspection.suitability import read_source

OWN = {"n_images": 1, "site": "a", "other_sites": {"b": {"n_images": 2}, "c": {"n_images": 3}}}
STARTED = {"weights": {"description": "bundle x"}}


def test_the_site_where_training_began_and_another():
    assert run_statistics({"data_statistics": OWN}, "a") == OWN
    found = run_statistics({"data_statistics": OWN}, "b")
    assert found == {"n_images": 2, "site": "b", "other_sites": {"a": {"n_images": 1}, "c": {"n_images": 3}}}
    assert OWN["other_sites"] == {"b": {"n_images": 2}, "c": {"n_images": 3}}, "what was given stays"


def test_several_sites_and_all_of_a_set_without_sites():
    found = run_statistics({"data_statistics": OWN}, ["c", "a"])
    assert found == {"n_images": 3, "site": "c", "other_sites": {"a": {"n_images": 1}, "b": {"n_images": 2}}}
    assert run_statistics({"data_statistics": {"n_images": 9}}, None) == {"n_images": 9}


def test_a_source_is_not_mistaken_for_a_namesake_among_the_data():
    transfer = {"data_statistics": OWN} | STARTED
    assert run_statistics(transfer, "a") is None, "these are the source's data, whatever its site is called"
    assert run_statistics(transfer, "b")["other_sites"] == {"c": {"n_images": 3}, "a": {"n_images": 1}}
    both = {"data_statistics": OWN | {"other_sites": {"a": {"n_images": 7}}}} | STARTED
    assert run_statistics(both, "a") == {"n_images": 7, "site": "a"}
    nameless = {"data_statistics": {"n_images": 5, "other_sites": {"b": {"n_images": 2}}}} | STARTED
    assert run_statistics(nameless, "b")["other_sites"] == {"source": {"n_images": 5}}


@pytest.mark.parametrize("site", ["elsewhere", None, ["a", "elsewhere"], []])
def test_what_is_not_told_is_not_made_up(site, tmp_path):
    assert run_statistics({"data_statistics": OWN}, site) is None
    assert run_statistics({}, site) is None
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"_meta_": {"transfer": {"data_statistics": OWN}}}))
    (tmp_path / "run.json").write_text(json.dumps({"status": "finished", "target_site": site}))
    assert read_source(tmp_path).statistics == {}
