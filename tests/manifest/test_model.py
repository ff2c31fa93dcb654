"""The manifest: what it refuses, what it gives, and that MONAI's Decathlon loader reads what it writes."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from monai.data import load_decathlon_datalist

from monai_transfer.errors import InputError
from monai_transfer.manifest import Case, Manifest, select_labelled
from monai_transfer.manifest.checks import schema

SEGMENTATION = {
    "name": "toy",
    "task": "segmentation",
    "modality": "MR",
    "labels": {"0": "background", "1": "tumour"},
    "training": [
        {"image": "a/1.nii.gz", "label": "b/1.nii.gz", "case": "c1", "patient": "p1", "site": "north"},
        {"image": "a/2.nii.gz", "label": None, "case": "c2", "patient": "p2", "site": "south", "acquired": 3},
    ],
    "test": [{"image": "a/3.nii.gz", "label": "b/3.nii.gz", "case": "c3", "patient": "p3", "site": "south", "fold": 0}],
}


def classification(label_a=0, label_b="pneumonia"):
    items = [
        {"image": f"{i}.png", "label": label, "case": f"c{i}", "patient": f"p{i}", "site": "s"}
        for i, label in enumerate([label_a, label_b])
    ]
    labels = {"0": "normal", "1": "pneumonia"}
    return {"name": "x", "task": "classification", "labels": labels, "training": items}


def regression(label=1.5):
    item = {"image": ["t1.nii", "t2.nii"], "label": label, "case": "c", "patient": "p", "site": "s"}
    channels = {"0": "T1", "1": "T2"}
    return {"name": "x", "task": "regression", "channel_names": channels, "training": [item]}


def written(folder: Path, content: dict) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "m.json"
    path.write_text(json.dumps(content))
    return path


def test_schema_copies_are_equal_and_valid():
    import jsonschema

    committed = Path(__file__).parents[2] / "data_manifests" / "schema.json"
    assert json.loads(committed.read_text()) == schema()
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("content", [SEGMENTATION, classification(), regression()])
def test_round_trip_keeps_the_content(tmp_path, content):
    manifest = Manifest.load(written(tmp_path, content))
    assert manifest.to_dict() == content
    manifest.save(tmp_path / "again.json")
    again = Manifest.load(tmp_path / "again.json")
    assert again == manifest and again.sha256 == manifest.sha256


def test_saved_elsewhere_it_names_the_same_files(tmp_path):
    manifest = Manifest.load(written(tmp_path / "one", SEGMENTATION))
    manifest.save(tmp_path / "two" / "deep" / "m.json")
    again = Manifest.load(tmp_path / "two" / "deep" / "m.json")
    assert again.training == manifest.training
    assert again.training[0].image == str(tmp_path / "one" / "a" / "1.nii.gz")


def test_root_is_kept_and_moved(tmp_path):
    manifest = Manifest.load(written(tmp_path / "one", SEGMENTATION | {"root": "data"}))
    assert manifest.training[0].image == str(tmp_path / "one" / "data" / "a" / "1.nii.gz")
    assert manifest.to_dict()["training"][0]["image"] == "a/1.nii.gz"
    manifest.save(tmp_path / "two.json")
    assert json.loads((tmp_path / "two.json").read_text())["root"] == "one/data"
    items = load_decathlon_datalist(tmp_path / "two.json", base_dir=tmp_path / "one" / "data")
    assert items[0]["image"] == Manifest.load(tmp_path / "two.json").training[0].image


@pytest.mark.parametrize(
    ("content", "is_segmentation", "labels"),
    [
        (SEGMENTATION, True, ["b/1.nii.gz", None]),
        (classification(), False, [0, "pneumonia"]),
        (classification("normal"), False, ["normal", "pneumonia"]),
        (regression(), False, [1.5]),
    ],
)
def test_monai_reads_a_saved_manifest(tmp_path, content, is_segmentation, labels):
    manifest = Manifest.from_dict(content, tmp_path)
    path = manifest.save(tmp_path / "m.json")
    items = load_decathlon_datalist(path, is_segmentation=is_segmentation, data_list_key="training")
    for item, case, label in zip(items, manifest.training, labels, strict=True):
        assert item["image"] == case.image
        assert (item["case"], item["patient"], item["site"]) == (case.case, case.patient, case.site)
        assert item["label"] == (str(tmp_path / label) if is_segmentation and label else label)


def test_datalist_of_each_task(tmp_path):
    manifest = Manifest.from_dict(SEGMENTATION, tmp_path)
    first, second = manifest.datalist("training")
    assert first == {
        "image": str(tmp_path / "a/1.nii.gz"),
        "label": str(tmp_path / "b/1.nii.gz"),
        "case": "c1",
        "patient": "p1",
        "site": "north",
    }
    assert "label" not in second
    assert all("label" not in item for item in manifest.datalist("training", labelled=False))
    assert [item["label"] for item in Manifest.from_dict(classification()).datalist("training")] == [0, 1]
    (item,) = Manifest.from_dict(regression(2), tmp_path).datalist("training")
    assert item["label"] == 2.0 and item["image"] == [str(tmp_path / "t1.nii"), str(tmp_path / "t2.nii")]


def test_sites_are_domains():
    manifest = Manifest.from_dict(SEGMENTATION)
    assert manifest.sites == ["north", "south"]
    south = manifest.filter(site="south")
    assert south.sites == ["south"] and [c.case for c in south.training + south.test] == ["c2", "c3"]
    assert manifest.filter(site=["north", "south"]) == manifest
    assert [c.case for c in manifest.cases("training", labelled=True)] == ["c1"]
    with pytest.raises(InputError, match="did you mean 'south'"):
        manifest.filter(site="sout")
    with pytest.raises(InputError, match="did you mean 'training'"):
        manifest.cases("train")
    assert manifest.label_index("tumour") == 1 and manifest.class_names == ["background", "tumour"]
    with pytest.raises(InputError, match="did you mean 'tumour'"):
        manifest.label_index("tumor")


def change(place, value):
    def apply(content):
        *parents, last = place
        for key in parents:
            content = content[key]
        if value is None and last != "label":
            del content[last]
        else:
            content[last] = value

    return apply


FAULTS = {
    "unknown key": (SEGMENTATION, change(["lables"], {}), "unknown key 'lables'; did you mean 'labels'"),
    "unknown item key": (
        SEGMENTATION,
        change(["training", 0, "imag"], ""),
        r"training\[0\] \(case 'c1'\): unknown key",
    ),
    "no site": (SEGMENTATION, change(["test", 0, "site"], None), r"test\[0\] \(case 'c3'\): has no 'site'"),
    "no task": (SEGMENTATION, change(["task"], None), "has no 'task'"),
    "bad task": (SEGMENTATION, change(["task"], "segmentaton"), "did you mean 'segmentation'"),
    "patient in two": (SEGMENTATION, change(["test", 0, "patient"], "p1"), "patient 'p1' stands in two splits"),
    "same case": (SEGMENTATION, change(["test", 0, "case"], "c1"), r"also the name of training\[0\]"),
    "same but case": (SEGMENTATION, change(["test", 0, "case"], "C1"), r"also the name of training\[0\]"),
    "path as case": (SEGMENTATION, change(["test", 0, "case"], "../x"), "not safe as a file name"),
    "device": (SEGMENTATION, change(["test", 0, "case"], "nul.1"), "device name"),
    "date": (SEGMENTATION, change(["training", 1, "acquired"], "2020-01-31"), "never a calendar date"),
    "date number": (SEGMENTATION, change(["training", 1, "acquired"], 20200131), "never a calendar date"),
    "number for a mask": (SEGMENTATION, change(["test", 0, "label"], 1), "label 1 is not a path"),
    "no labels": (SEGMENTATION, change(["labels"], None), "needs labels"),
    "no background": (SEGMENTATION, change(["labels"], {"1": "tumour"}), "no background"),
    "reversed labels": (SEGMENTATION, change(["labels"], {"background": "0"}), "labels cannot hold 'background'"),
    "same names": (SEGMENTATION, change(["labels", "2"], "Tumour"), "share the name"),
    "two images": (SEGMENTATION, change(["test", 0, "image"], ["a", "b"]), "has 2 image files where"),
    "bad class": (classification(), change(["training", 1, "label"], "pneumona"), "did you mean 'pneumonia'"),
    "class in quotes": (classification(), change(["training", 1, "label"], "1"), "without quotes: 1"),
    "missing as class": (classification(), change(["training", 1, "label"], -1), "a missing label is null"),
    "true": (classification(), change(["training", 1, "label"], True), "label cannot be true"),
    "gap": (classification(), change(["labels"], {"0": "a", "2": "b"}), "without a gap"),
    "text": (regression(), change(["training", 0, "label"], "high"), "not a finite number"),
    "channels": (regression(), change(["channel_names"], {"0": "T1"}), "names 1 channels"),
    "checksum": (regression(), change(["training", 0, "sha256"], "0" * 64), "sha256 must be a list"),
    "no case": (regression(), change(["training"], []), "holds no case"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_clear_line(tmp_path, fault):
    content, apply, message = FAULTS[fault]
    content = copy.deepcopy(content)
    apply(content)
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=message) as error:
        Manifest.load(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "cannot be"),
        ('{"name": "a", "name": "b"}', "key 'name' twice"),
        ('{"name": NaN}', "NaN, which is not JSON"),
        ("\x00", "is not JSON"),
    ],
)
def test_not_a_manifest(tmp_path, text, message):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(InputError, match=message):
        Manifest.load(tmp_path / "m.json")
    with pytest.raises(InputError, match="is a folder"):
        Manifest.load(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        Manifest.load(tmp_path / "none.json")


@pytest.mark.parametrize("name", ["south", "c3", "p1"])
def test_text_that_names_a_path_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name}' is also the name of"):
        Manifest.from_dict(SEGMENTATION, tmp_path).save(tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


def test_class_name_beside_a_folder_is_refused(tmp_path):
    (tmp_path / "normal").mkdir()
    with pytest.raises(InputError, match="the label 'normal' is also the name"):
        Manifest.from_dict(classification("normal"), tmp_path).save(tmp_path / "m.json")
    Manifest.from_dict(classification(0), tmp_path).save(tmp_path / "m.json")  # a number is no path


def test_empty_lists_are_omitted(tmp_path):
    content = copy.deepcopy(SEGMENTATION) | {"unlabeled": [], "validation": []}
    path = Manifest.from_dict(content, tmp_path).save(tmp_path / "m.json")
    assert {"unlabeled", "validation"}.isdisjoint(json.loads(path.read_text()))


def cases(n_patients=8, per_patient=3, classes=2):
    return [
        Case(image=f"{p}-{k}", case=f"c{p}-{k}", patient=f"p{p}", site="s", label=p % classes)
        for p in range(n_patients)
        for k in range(per_patient)
    ]


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("seed", range(5))
def test_labelled_choice_is_nested_and_visits_patients_in_turn(task, seed):
    pool = cases()
    chosen = [[c.case for c in select_labelled(pool, n, seed, task)] for n in range(len(pool) + 1)]
    assert all(chosen[n] == chosen[-1][:n] for n in range(len(pool) + 1))
    assert select_labelled(pool[::-1], 5, seed, task) == select_labelled(pool, 5, seed, task)
    first = select_labelled(pool, 8, seed, task)
    assert len({c.patient for c in first}) == 8
    if task == "classification":
        for n in range(2, 24, 2):
            assert sum(c.label for c in select_labelled(pool, n, seed, task)) == n // 2


def test_labelled_choice_depends_on_the_seed_and_is_refused_where_too_large():
    pool = cases()
    assert len({tuple(c.case for c in select_labelled(pool, 3, seed)) for seed in range(10)}) > 5
    with pytest.raises(InputError, match="only 24 are there"):
        select_labelled(pool, 25)
    manifest = Manifest.from_dict(SEGMENTATION)
    assert [item["case"] for item in manifest.datalist("training", n_labelled=1)] == ["c1"]
    assert manifest.datalist("training", n_labelled=0) == []


BRATS = SEGMENTATION | {
    "labels": {"0": "background", "1": "necrosis", "2": "oedema", "4": "enhancing"},
    "regions": {"whole": [1, 2, 4], "core": [1, 4]},
    "regions_class_order": [2, 1],
    "ignore": [9],
    "annotated": {"south": ["whole"]},
}
MERGED = SEGMENTATION | {"labels": {"0": "background", "1": {"name": "tumour", "values": [1, 4]}}}


def findings(*labels, **changes):
    items = [
        {"image": f"{i}.png", "label": label, "case": f"c{i}", "patient": f"p{i}", "site": "s"}
        for i, label in enumerate(labels)
    ]
    content = {"name": "x", "task": "classification", "labels": {"0": "oedema", "1": "mass"}, "multi_label": True}
    return content | {"training": items} | changes


@pytest.mark.parametrize("content", [BRATS, MERGED, findings({"oedema": 1, "mass": None}, None)])
def test_label_mappings_survive_a_round_trip(tmp_path, content):
    manifest = Manifest.load(written(tmp_path, content))
    assert manifest.to_dict() == content
    again = Manifest.load(manifest.save(tmp_path / "again.json"))
    assert again == manifest and again.label_mapping == manifest.label_mapping
    items = load_decathlon_datalist(tmp_path / "again.json", is_segmentation=content["task"] == "segmentation")
    assert [item["case"] for item in items] == [case.case for case in manifest.training]


def test_what_the_mapping_of_a_manifest_says():
    brats = Manifest.from_dict(BRATS)
    assert brats.labels["4"] == "enhancing" and brats.class_names[3] == "enhancing"
    assert brats.label_mapping.outputs == ["whole", "core"] and brats.label_mapping.overlapping
    assert brats.label_mapping.written_values == [0, 1, 2, 4]
    assert Manifest.from_dict(MERGED).label_mapping.classes == {"background": (0,), "tumour": (1, 4)}
    assert Manifest.from_dict(findings({"mass": 1})).label_mapping.multi_label
    assert Manifest.from_dict(SEGMENTATION).label_mapping.is_identity


def test_annotated_is_of_the_site_or_the_case(tmp_path):
    content = copy.deepcopy(BRATS)
    content["test"][0]["annotated"] = ["core"]
    manifest = Manifest.from_dict(content, tmp_path)
    assert manifest.datalist("training")[0]["annotated"] == ["whole", "core"]
    assert manifest.datalist("test")[0]["annotated"] == ["core"]
    assert "annotated" not in manifest.datalist("training")[1]  # without a label there is nothing to tell
    assert manifest.filter("north").annotated == {}
    assert "annotated" not in Manifest.from_dict(SEGMENTATION).datalist("training")[0]
    assert manifest.filter("south").save(tmp_path / "south.json").is_file()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (SEGMENTATION | {"labels": {"0": "b", "1": {"name": "t", "values": [0]}}}, "value 0 stands under"),
        (SEGMENTATION | {"labels": {"0": "b", "1": {"name": "t", "value": [0]}}}, "labels.1"),
        (SEGMENTATION | {"regions": {"whole": [1, 2]}}, "holds the value 2"),
        (SEGMENTATION | {"regions": {"whole": []}}, "regions.whole"),
        (SEGMENTATION | {"ignore": 1}, "'tumour' and 'ignore'"),
        (SEGMENTATION | {"annotated": {"nroth": ["tumour"]}}, "did you mean 'north'"),
        (SEGMENTATION | {"annotated": {"north": ["tumor"]}}, "did you mean 'tumour'"),
        (SEGMENTATION | {"multi_label": True}, "findings in a segmentation"),
        (classification() | {"ignore": 2}, "about values in masks"),
        (classification() | {"labels": {"0": "normal", "1": {"name": "x", "values": [1]}}}, "about values in masks"),
        (findings({"mas": 1}), "did you mean 'mass'"),
        (findings({"mass": 1}, 0), "is no set of findings"),
        (findings({"mass": 2}), "a finding is 1, 0, or null"),
        (findings({"mass": "yes"}), "a finding is 1, 0, or null"),
    ],
)
def test_label_mappings_that_cannot_be_meant_are_refused(content, fault):
    with pytest.raises(InputError, match=fault) as caught:
        Manifest.from_dict(content, path="m.json")
    assert str(caught.value).startswith("m.json: ") and caught.value.hint


def test_few_labelled_cases_hold_the_rare_findings():
    labels = [{"oedema": 1, "mass": 0}] * 8 + [{"oedema": 1, "mass": 1}] * 2 + [{"oedema": 0, "mass": 0}] * 5
    manifest = Manifest.from_dict(findings(*labels))
    chosen = manifest.datalist("training", n_labelled=3, seed=4)
    assert sorted((item["label"]["oedema"], item["label"]["mass"]) for item in chosen) == [(0, 0), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    ("labels", "more", "value"),
    [
        ({"0": "background", "1": "spleen"}, {}, 2),
        ({"0": "background", "128": "rim", "255": "spleen"}, {}, 1),
        ({"0": "background", "1": {"name": "spleen", "values": [1, 2]}}, {"ignore": 3}, 4),
        ({"0": "background", "1000": "spleen"}, {}, 1001),
    ],
)
def test_a_further_class_has_a_free_value_and_nobody_looked_for_it(labels, more, value):
    case = {"image": "a.png", "label": "b.png", "case": "a", "patient": "p", "site": "us"}
    content = {"name": "x", "task": "segmentation", "labels": labels, "training": [case], **more}
    manifest = Manifest.from_dict(content).with_classes(["liver", "spleen"])
    assert manifest.labels[str(value)] == "liver" and len(manifest.labels) == len(labels) + 1
    mapping = manifest.label_mapping
    assert mapping.classes["liver"] == (value,)
    (item,) = manifest.datalist("training")
    assert "liver" not in item["annotated"] and "spleen" in item["annotated"]
    assert not mapping.annotated(item["annotated"])[mapping.outputs.index("liver")]
    assert Manifest.from_dict(manifest.to_dict()).label_mapping == mapping


def test_a_further_finding_is_unknown_and_regions_take_no_class():
    case = {"image": "a.png", "label": {"oedema": 1}, "case": "a", "patient": "p", "site": "us"}
    content = {"name": "x", "task": "classification", "labels": {"0": "oedema"}, "training": [case]}
    manifest = Manifest.from_dict(content).with_classes(["mass"])
    assert manifest.label_mapping.encode_findings(manifest.datalist("training")[0]["label"]) == [1.0, -1.0]
    masks = {"image": "a.png", "label": "b.png", "case": "a", "patient": "p", "site": "us"}
    labels = {"0": "background", "1": "core"}
    regions = {"name": "x", "task": "segmentation", "labels": labels, "regions": {"all": [1]}, "training": [masks]}
    with pytest.raises(InputError, match="declares regions"):
        Manifest.from_dict(regions).with_classes(["liver"])
