"""domain_gap on sets whose gap is known: none, one that was put in, partly shared patients, drift."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_transfer.errors import InputError
from monai_transfer.files import write_json
from monai_transfer.manifest import Manifest
from monai_transfer.selection.gap import domain_gap, gap_over_time, gap_to_the_rest
from monai_transfer.selection.gap_picture import save_gap_picture


def blob(rng, noise):
    """A bright ball in a textured field."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (20, 20, 12)], indexing="ij"))
    centre = rng.uniform(7, 12, 3)[:, None, None, None] * [[[[1]]], [[[1]]], [[[0.6]]]]
    mask = ((grid - centre) ** 2).sum(0) < rng.uniform(12, 25)
    image = 100 + 20 * np.sin(grid[0] / 4 + rng.uniform(0, 3)) + 60 * mask + noise * rng.standard_normal(mask.shape)
    return image.astype(np.float32), mask.astype(np.uint8)


def make(folder, name, n=12, *, seed=0, noise=4.0, spacing=(1, 1, 2), drift_at=None, first=0, site="s"):
    folder.mkdir(exist_ok=True)
    items = []
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        image, mask = blob(rng, noise * (4 if drift_at is not None and i >= drift_at else 1))
        for kind, array in (("image", image), ("label", mask)):
            nibabel.save(nibabel.Nifti1Image(array, np.diag([*spacing, 1.0])), folder / f"{name}{i}_{kind}.nii")
        items.append(
            {
                "image": f"{name}{i}_image.nii",
                "label": f"{name}{i}_label.nii",
                "case": f"{name}{i}",
                "patient": f"p{first + i}",
                "site": site,
                "acquired": i,
            }
        )
    path = folder / f"{name}.json"
    write_json(
        path, {"name": name, "task": "segmentation", "labels": {"0": "background", "1": "ball"}, "training": items}
    )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gap")


@pytest.fixture(scope="module")
def plain(folder):
    return make(folder, "plain")


@pytest.fixture(scope="module")
def noisy(folder):
    return make(folder, "noisy", seed=1, noise=12.0, spacing=(1, 1, 3), first=100)


@pytest.fixture(scope="module")
def none(plain):
    return domain_gap(plain, plain)


@pytest.fixture(scope="module")
def known(plain, noisy):
    return domain_gap(plain, noisy)


def test_a_set_has_no_gap_to_itself(none):
    gap = none
    assert len(gap.rows) >= 14
    for row in gap.rows:
        assert row.value is not None
        assert row.low <= 0 <= row.high, row
        assert not row.differs
    for name in ("noise", "contrast", "spacing feet-head", "size of ball"):
        assert gap[name].value == pytest.approx(0, abs=1e-6)
    assert "half against half" in gap.notes[0]


def test_a_known_gap_is_found_and_the_rest_is_not(plain, noisy, known):
    gap = known
    noise = gap["noise"]
    assert noise.differs
    assert noise.value > 0
    assert "higher in" in noise.sentence
    assert gap["spacing feet-head"].value == pytest.approx(50)
    assert gap["field of view feet-head"].value == pytest.approx(50)
    assert gap["spacing left-right"].value == 0
    assert not gap["spacing left-right"].differs
    assert not gap["prevalence of ball"].differs
    assert gap["proxy A-distance on handcrafted features"].value > 1.5
    assert gap["MMD^2 on handcrafted features"].p_value < 0.02
    back = domain_gap(noisy, plain)
    assert back["noise"].value == pytest.approx(-noise.value)


def test_two_halves_of_one_population_rarely_differ(folder, plain):
    other = make(folder, "other", seed=7, first=200)
    gap = domain_gap(plain, other)
    assert sum(row.differs for row in gap.rows) <= 2  # 5 % of 16 by chance
    assert gap["intensity distribution"].low < 0.5


def test_partly_shared_patients_are_never_on_both_sides(folder, plain):
    overlapping = make(folder, "overlapping", seed=0, first=6)  # six patients of `plain`, by name
    gap = domain_gap(plain, overlapping)
    assert gap.shared_patients == 6
    assert any("both sets" in note for note in gap.notes)
    assert not gap["noise"].differs


def test_sites_of_one_manifest_and_repeatability(folder, plain, noisy):
    a, b = (json.loads(path.read_text()) for path in (plain, noisy))
    for item in b["training"]:
        item["site"] = "t"
    both = Manifest.from_dict(a | {"training": a["training"] + b["training"]}, folder)
    gap = domain_gap(both, both, site_a="s", site_b="t")
    assert gap["noise"].differs
    assert gap.to_dict() == domain_gap(both, both, site_a="s", site_b="t").to_dict()
    json.dumps(gap.to_dict())
    assert not any(name in json.dumps(gap.to_dict()) for name in ("p100", "noisy3"))  # no patient, no case


def test_one_site_against_the_rest(folder, plain, noisy, capsys):
    content = Manifest.load(plain).to_dict(folder)
    others = Manifest.load(noisy).to_dict(folder)
    items = [item | {"site": "ab"[i % 2], "patient": f"x{i}"} for i, item in enumerate(content["training"])]
    items += [item | {"site": "odd", "case": f"o{i}", "patient": f"o{i}"} for i, item in enumerate(others["training"])]
    path = folder / "three.json"
    write_json(path, content | {"training": items})
    found = gap_to_the_rest(path)
    assert list(found) == ["a", "b", "odd"]
    assert found["odd"].name_a == "odd" and found["odd"].name_b == "the 2 other sites"
    assert found["odd"].patients_a + found["odd"].patients_b == len(items) and not found["odd"].shared_patients
    differing = {site: sum(row.differs for row in one.rows) for site, one in found.items()}
    assert differing["odd"] > max(differing["a"], differing["b"])
    assert list(gap_to_the_rest(path, site="odd")) == ["odd"]
    with pytest.raises(InputError, match="needs two"):
        gap_to_the_rest(plain)
    write_json(path, content | {"training": [*items, items[0] | {"site": "single", "case": "z", "patient": "z"}]})
    with_one = gap_to_the_rest(path)
    assert list(with_one) == ["a", "b", "odd"], "a site of one patient does not hinder the others"
    assert with_one["odd"].notes[-1].endswith("two patients on each side: single")
    with pytest.raises(InputError, match="at least two patients"):
        gap_to_the_rest(path, site="single")


def test_drift_rings_when_images_change_and_is_silent_when_not(folder, plain, none):
    assert [d.alarm for d in none.drifts] == [False]
    drifting = make(folder, "drifting", n=20, drift_at=12, first=300)
    gap = domain_gap(plain, drifting)
    alarmed = [d for d in gap.drifts if d.alarm]
    assert len(alarmed) == 1
    assert alarmed[0].since == pytest.approx(12, abs=1)
    assert "ALARM" in alarmed[0].sentence


def test_a_set_against_its_own_past(folder, plain, tmp_path):
    drifting = make(folder, "aging", n=20, drift_at=12, first=400)
    gap = gap_over_time(drifting)
    assert (gap.name_a, gap.name_b) == ("earlier (acquired < 10)", "later (acquired >= 10)")
    assert gap.patients_a == gap.patients_b == 10 and gap.shared_patients == 0
    assert gap["noise"].differs and gap["noise"].value > 0
    assert not gap["size of ball"].differs
    (one,) = gap.drifts
    assert one.alarm and one.since == pytest.approx(12, abs=1) and len(one.times) == 20, "over both halves"
    page = save_gap_picture(gap, tmp_path / "time.html").read_text()
    assert "ALARM" in page and "Over time" in page
    still = gap_over_time(plain)
    assert not still["noise"].differs and not any(d.alarm for d in still.drifts)


def test_over_time_says_what_it_lacks(folder, plain):
    content = json.loads(plain.read_text())
    two = [dict(item, site="st"[i % 2]) for i, item in enumerate(content["training"])]
    both = Manifest.from_dict(content | {"training": two}, folder)
    with pytest.raises(InputError, match="holds 2 sites .s, t., whose mixture may change over time; name one"):
        gap_over_time(both)
    some = gap_over_time(both, site="t")
    assert any("drift over time needs 8 patients, and there are 6" in note for note in some.notes)
    for value, fault in ((None, "no case says when"), (3, "at one time")):
        items = [
            {k: v for k, v in (item | {"acquired": value}).items() if v is not None} for item in content["training"]
        ]
        with pytest.raises(InputError, match=fault):
            gap_over_time(Manifest.from_dict(content | {"training": items}, folder))
    dated = [item if i else {k: v for k, v in item.items() if k != "acquired"} for i, item in enumerate(two)]
    part = gap_over_time(Manifest.from_dict(content | {"training": dated}, folder), site="s")
    assert "1 cases without `acquired` were left out" in part.notes


def test_the_command_line(plain, capsys):
    from monai_transfer.cli import main

    def run(*words):
        with pytest.raises(SystemExit) as end:
            main(["gap", *map(str, words)])
        return end.value.code, capsys.readouterr()

    code, out = run(plain, "--over-time")
    assert code == 0 and "no drift seen over time at s (12 patients" in out.out
    code, out = run(plain)
    assert code == 2 and "a gap has two sides" in out.err and out.err.count("\n") == 1
    code, out = run(plain, plain, "--over-time")
    assert code == 2 and "--over-time looks at one set" in out.err


def test_pictures_are_written(tmp_path, known):
    png = save_gap_picture(known, tmp_path / "gap.png")
    with Image.open(png) as image:
        assert image.size[0] > 800
    page = save_gap_picture(known, tmp_path / "gap.html").read_text()
    assert "data:image/png;base64," in page
    assert "noise is higher" in page
    assert "http" not in page
    with pytest.raises(InputError, match="png or .html"):
        save_gap_picture(known, tmp_path / "gap.pdf")


def test_too_few_patients_are_refused(folder):
    few = make(folder, "few", n=3, first=400)
    with pytest.raises(InputError, match="four"):
        domain_gap(few, few)


def test_contrast_inversion_of_pictures_is_seen(tmp_path):
    items = {"a": [], "b": []}
    for i in range(8):
        rng = np.random.default_rng(i)
        mask = np.zeros((40, 40), np.uint8)
        mask[8 : 20 + i, 10:25] = 255
        image = np.clip(60 + 120 * (mask > 0) + 8 * rng.standard_normal(mask.shape), 0, 255).astype(np.uint8)
        for side, pixels in (("a", image), ("b", 255 - image)):
            Image.fromarray(pixels).save(tmp_path / f"{side}{i}.png")
            Image.fromarray(mask).save(tmp_path / f"{side}{i}m.png")
            items[side].append(
                {
                    "image": f"{side}{i}.png",
                    "label": f"{side}{i}m.png",
                    "case": f"{side}{i}",
                    "patient": f"{side}{i}",
                    "site": side,
                }
            )
    head = {"task": "segmentation", "labels": {"0": "background", "1": "nucleus"}}
    a, b = (Manifest.from_dict(head | {"name": s, "training": items[s]}, tmp_path) for s in "ab")
    row = domain_gap(a, b)["contrast of nucleus to the rest"]
    assert row.differs
    assert row.value < -100  # from bright on dark to dark on bright
