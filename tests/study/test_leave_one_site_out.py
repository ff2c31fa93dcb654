"""Each site in turn is tested by a source that has never seen it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from monai_transfer.bundle.new import new_bundle
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest
from monai_transfer.study.leave_one_site_out import leave_one_site_out, sites_to_hold_out
from monai_transfer.study.run_arms import parse_arms

pytestmark = pytest.mark.filterwarnings("ignore")


def make(folder: Path, manifest: Path) -> Path:
    new_bundle(
        folder, manifest, size="small", batch_size=2, source_site="north", target_site="south", pretrain_epochs=1,
        steps_per_epoch=2,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def bundle(tiny_set, tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("loso") / "tiny_segmentation", tiny_set("segmentation", 2))


def test_sites_that_can_be_held_out(bundle, tiny_set, tmp_path):
    assert sites_to_hold_out(bundle)[1:] == (["north", "south"], {})
    content = Manifest.load(tiny_set("segmentation", 2)).to_dict()
    for split in ("training", "validation", "test"):
        for item in content[split]:
            item["site"] = "north"
    one = tiny_set("segmentation", 2).with_name("one.json")
    Manifest.from_dict(content, one.parent).save(one)
    with pytest.raises(InputError, match="needs two sites, and there is north"):
        sites_to_hold_out(bundle, {"manifest": str(one)})


@pytest.mark.slow
def test_every_site_is_held_out_once_and_never_trained_on(bundle, tmp_path):
    console = Console(record=True, file=open("/dev/null", "w"), width=200)  # noqa: SIM115, PTH123
    rows = leave_one_site_out(bundle, tmp_path, parse_arms("source"), seeds=[0], jobs=1, console=console)
    assert [row.site for row in rows] == ["north", "south"]
    for row, other in zip(rows, ("south", "north"), strict=True):
        record = json.loads((tmp_path / f"without-{row.site}" / "pretrain-0" / "run.json").read_text())
        assert record["source_site"] == other
        cases = (tmp_path / f"without-{row.site}" / "source-0" / "cases.csv").read_text().splitlines()[1:]
        assert len(cases) == row.patients == 2
        assert all(line.startswith(f"{row.site}_test") for line in cases)
        assert (tmp_path / row.report).is_file()
    table = (tmp_path / "leave_one_site_out.md").read_text()
    content = json.loads((tmp_path / "leave_one_site_out.json").read_text())
    for site in content["sites"]:
        assert f"{site['arms']['source']['mean']:.3f}" in table
    mean = sum(site["arms"]["source"]["mean"] for site in content["sites"]) / 2
    assert f"{mean:.3f} |" in table.splitlines()[-1]
    assert "mean of sites" in console.export_text()


@pytest.mark.slow
def test_a_set_without_a_test_split_is_tested_all_the_same(tiny_set, tmp_path):
    source = tiny_set("segmentation", 2)
    content = Manifest.load(source).to_dict()
    content["training"] += content.pop("test")
    path = Manifest.from_dict(content, source.parent).save(source.with_name("no_test.json"))
    bundle = make(tmp_path / "tiny_segmentation", path)
    console = Console(record=True, file=open("/dev/null", "w"), width=200)  # noqa: SIM115, PTH123
    (north, south) = leave_one_site_out(
        bundle, tmp_path / "out", parse_arms("source"), seeds=[0], jobs=1, console=console
    )
    assert north.patients == len({item["patient"] for item in content["training"] if item["site"] == "north"}) + len(
        {item["patient"] for item in content["validation"] if item["site"] == "north"}
    )
    assert south.patients > 1 and "north has no test split: all of it is the test" in console.export_text()
