"""Building manifests from folders as they are found: each layout, tables, labels, sites, duplicates and faults."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from monai.transforms import LoadImage
from PIL import Image

from monai_transfer.bundle.planning.intensities import is_ct
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest, build_manifest, merge_manifests
from monai_transfer.selection.augmentation_choice import source_augmentation

COUNTER = iter(range(10**6))


def picture(path: Path, values=None, size=(6, 5)) -> Path:
    """A PNG that is like no other, or one with the given values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = np.random.default_rng(next(COUNTER)).integers(0, 256, size)
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(path)
    return path


def volume(path: Path, values=None, dtype=np.int16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = np.random.default_rng(next(COUNTER)).integers(0, 99, (4, 5, 3))
    nibabel.save(nibabel.Nifti1Image(np.asarray(values, dtype=dtype), np.diag([1, 2, 3, 1])), path)
    return path


def msd(folder: Path, n=8, test=2) -> Path:
    mask = np.zeros((4, 5, 3))
    mask[1:3] = 1
    for i in range(n):
        volume(folder / "imagesTr" / f"a_{i:03d}.nii.gz")
        volume(folder / "labelsTr" / f"a_{i:03d}.nii.gz", mask)
    for i in range(test):
        volume(folder / "imagesTs" / f"t_{i}.nii.gz")
    content = {
        "name": "Organ",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "organ"},
        "licence": "CC0",
        "training": [
            {"image": f"./imagesTr/a_{i:03d}.nii.gz", "label": f"./labelsTr/a_{i:03d}.nii.gz"} for i in range(n)
        ],
        "test": [f"./imagesTs/t_{i}.nii.gz" for i in range(test)],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def pairs(folder: Path, n=6, values=(0, 1), image="images", mask="masks", suffix="") -> Path:
    for i in range(n):
        picture(folder / image / f"c{i}.png")
        picture(folder / mask / f"c{i}{suffix}.png", np.resize(values, (6, 5)))
    return folder


def classes(folder: Path, names=("ill", "well"), n=6) -> Path:
    for name in names:
        for i in range(n):
            picture(folder / name / f"{name}_{i}.png")
    return folder


def every(manifest):
    return [case for split in ("training", "validation", "test", "unlabeled") for case in manifest.cases(split)]


def test_msd(tmp_path):
    manifest, notes = build_manifest(msd(tmp_path / "d"), tmp_path / "out" / "m.json")
    assert manifest.class_names == ["background", "organ"] and manifest.licence == "CC0" and manifest.modality == "CT"
    assert len(manifest.unlabeled) == 2 and len(every(manifest)) == 10
    assert (len(manifest.training), len(manifest.validation), len(manifest.test)) == (5, 1, 2)
    assert any("read as msd" in note for note in notes) and any("2 cases without a label" in note for note in notes)
    items = load_decathlon_datalist(tmp_path / "out" / "m.json")
    for item in items:
        assert LoadImage(image_only=True)(item["image"]).shape == LoadImage(image_only=True)(item["label"]).shape


def test_paths_written_on_windows(tmp_path):
    folder = msd(tmp_path / "d")
    path = folder / "dataset.json"
    path.write_text(path.read_text().replace("./imagesTr/", "imagesTr\\\\").replace("./labelsTr/", ".\\\\labelsTr\\\\"))
    manifest, _ = build_manifest(folder, tmp_path / "m.json")
    assert len(every(manifest)) == 10 and all(Path(case.label).is_file() for case in manifest.training)


def test_msd_with_a_missing_file(tmp_path):
    folder = msd(tmp_path / "d")
    (folder / "labelsTr" / "a_003.nii.gz").unlink()
    with pytest.raises(InputError, match=r"dataset.json: training\[3\] lists ./labelsTr/a_003.nii.gz"):
        build_manifest(folder, tmp_path / "m.json")


def test_pairs_with_suffixes_and_strays(tmp_path):
    folder = pairs(tmp_path / "d", suffix="_mask", image="Image", mask="Labels")
    picture(folder / "Image" / "alone.png")
    picture(folder / "Labels" / "spare_seg.png", np.zeros((6, 5)))
    manifest, notes = build_manifest(folder, tmp_path / "m.json", labels=["background", "gland"], site="north")
    assert [case.case for case in manifest.unlabeled] == ["alone"]
    assert manifest.sites == ["north"] and manifest.class_names == ["background", "gland"]
    for case in every(manifest):
        assert case.label is None or Path(case.label).name == f"{case.case}_mask.png"
    assert any("1 image without a mask" in note for note in notes)
    assert any("1 mask without an image, left out: spare_seg.png" in note for note in notes)


def test_several_pairs_are_sites(tmp_path):
    for site in ("ge", "philips"):
        pairs(tmp_path / "d" / site)
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json")
    assert manifest.sites == ["ge", "philips"] and len(every(manifest)) == 12
    assert {case.case for case in every(manifest.filter("ge"))} == {f"ge_c{i}" for i in range(6)}
    assert any("same patient" in note for note in notes)  # c0 of both sites stays in one split
    assert manifest.class_names == ["background", "foreground"] and any("labels have no names" in n for n in notes)


def test_pairs_in_split_folders(tmp_path):
    for split in ("train", "test"):
        pairs(tmp_path / "d" / split, n=4 if split == "test" else 8)
    for i in range(4):  # names of their own
        for kind in ("images", "masks"):
            path = tmp_path / "d" / "test" / kind / f"c{i}.png"
            path.rename(path.with_name(f"t{i}.png"))
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json")
    assert {case.case for case in manifest.test} == {"t0", "t1", "t2", "t3"}
    assert len(manifest.validation) >= 1 and len(manifest.training) + len(manifest.validation) == 8
    assert any("hold no validation" in note for note in notes)


def test_values_with_a_gap_are_classes(tmp_path):
    manifest, notes = build_manifest(pairs(tmp_path / "d", values=(0, 128, 255)), tmp_path / "m.json")
    assert manifest.labels == {"0": "background", "128": "label_128", "255": "label_255"}
    assert any("128 = label_128" in note for note in notes)
    options = {"labels": {"0": "background", "128": "rim", "255": "cup"}}
    named, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", **options)
    assert named.label_mapping.classes == {"background": (0,), "rim": (128,), "cup": (255,)}
    listed, notes = build_manifest(tmp_path / "d", tmp_path / "m.json", labels=["background", "rim", "cup"])
    assert listed.labels == named.labels and any("128 = rim" in note for note in notes)
    merged, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", labels={0: "background", 128: "disc", 255: "disc"})
    assert merged.label_mapping.classes == {"background": (0,), "disc": (128, 255)}
    ignored, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", ignore=[128])
    assert ignored.labels == {"0": "background", "255": "foreground"} and ignored.ignore == [128]
    with pytest.raises(InputError, match="2 names, and the masks hold 0, 128, 255") as error:
        build_manifest(tmp_path / "d", tmp_path / "m.json", labels=["background", "disc"])
    assert "--binarize" in str(error.value)


@pytest.mark.parametrize("values", [tuple(range(0, 140, 2)), (0, 255)])
def test_instance_masks_are_refused_or_binarized(tmp_path, values):
    folder = pairs(tmp_path / "d", values=(0, 1))
    for path in (folder / "masks").iterdir():
        picture(path, np.resize(values, (12, 6)))
        picture(folder / "images" / path.name, size=(12, 6))
    if len(values) > 2:
        with pytest.raises(InputError, match="objects rather than classes.*--binarize"):
            build_manifest(folder, tmp_path / "m.json")
    manifest, _ = build_manifest(folder, tmp_path / "m.json", binarize=True, labels=["background", "nucleus"])
    for case in every(manifest):
        made, given = np.asarray(Image.open(case.label)), np.asarray(Image.open(folder / "masks" / f"{case.case}.png"))
        assert made.dtype == np.uint8 and np.array_equal(made, given > 0)
        assert (tmp_path / "m_files" / "masks") in Path(case.label).parents


def test_binarized_volumes_keep_their_geometry(tmp_path):
    mask = np.zeros((4, 5, 3))
    mask[1:3, 2] = 700
    for i in range(4):
        volume(tmp_path / "d" / "images" / f"{i}.nii.gz")
        volume(tmp_path / "d" / "masks" / f"{i}.nii.gz", mask)
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", binarize=True)
    made = nibabel.load(manifest.training[0].label)
    assert made.get_data_dtype() == np.uint8 and np.array_equal(made.affine, np.diag([1, 2, 3, 1]))
    assert np.array_equal(np.asarray(made.dataobj), mask > 0)


def test_more_classes_are_named_after_a_look_into_the_masks(tmp_path):
    manifest, _ = build_manifest(pairs(tmp_path / "d", values=(0, 1, 2)), tmp_path / "m.json")
    assert manifest.class_names == ["background", "label_1", "label_2"]


def test_one_name_is_the_foreground(tmp_path):
    folder = pairs(tmp_path / "d")
    manifest, _ = build_manifest(folder, tmp_path / "m.json", labels=["gland"])
    assert manifest.labels == {"0": "background", "1": "gland"}
    with pytest.raises(InputError, match="names the background only"):
        build_manifest(folder, tmp_path / "m.json", labels=["background"])


def test_class_folders_with_patients(tmp_path):
    folder = classes(tmp_path / "d")
    rows = [f"{n}/{n}_{i}.png,p{i % 4}" for n in ("ill", "well") for i in range(6)]
    (folder / "list.csv").write_text("file,patient\n" + "\n".join(rows))
    manifest, _ = build_manifest(folder, tmp_path / "m.json", seed=2)
    assert manifest.task == "classification" and manifest.class_names == ["ill", "well"]
    assert manifest.patients == ["p0", "p1", "p2", "p3"]
    for case in every(manifest):
        assert manifest.class_names[case.label] in case.case
    numbers = json.loads((tmp_path / "m.json").read_text())["training"][0]["label"]
    assert numbers in (0, 1)  # numbers, so that a folder of the class's name cannot be taken for it
    (folder / "list.csv").write_text("file,patient\n" + "\n".join(rows[:-1]))
    with pytest.raises(InputError, match="gives no patient for 1 case, first well_5"):
        build_manifest(folder, tmp_path / "m.json")


def test_class_folders_of_two_sites_and_equal_names(tmp_path):
    for site in ("a", "b"):
        for name in ("ill", "well"):
            for i in range(3):
                picture(tmp_path / "d" / site / name / f"{i}.png")
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json")
    assert manifest.sites == ["a", "b"] and len(every(manifest)) == 12 == len(manifest.patients)
    assert "a_ill_0" in {case.case for case in every(manifest)}
    assert any("sites" in note for note in notes)


def test_names_for_found_classes(tmp_path):
    folder = classes(tmp_path / "d", names=("Abnormal", "Normal"))
    manifest, _ = build_manifest(folder, tmp_path / "m.json", labels=["normal", "abnormal"])
    assert manifest.class_names == ["normal", "abnormal"]
    assert all((case.label == 1) == case.case.startswith("Abnormal") for case in every(manifest))
    with pytest.raises(InputError, match="--labels Abnormal=NAME,Normal=NAME"):
        build_manifest(folder, tmp_path / "m.json", labels=["healthy", "ill"])
    manifest, _ = build_manifest(folder, tmp_path / "m.json", labels={"Normal": "healthy", "Abnormal": "ill"})
    assert manifest.class_names == ["healthy", "ill"]
    assert all((case.label == 1) == case.case.startswith("Abnormal") for case in every(manifest))


def test_table_alone_with_every_column(tmp_path):
    folder = tmp_path / "d"
    rows = []
    for i in range(12):
        picture(folder / "x" / f"{i}.png")
        label = "" if i == 11 else ("yes", "no")[i % 2]
        rows.append(f"x/{i}.png;{label};P{i // 2};{'ab'[i % 4 == 0]};{i}")
    (folder / "t.csv").write_text("path;outcome;subject;centre;day\n" + "\n".join(rows))
    picture(folder / "x" / "unlisted.png")
    manifest, notes = build_manifest(folder, tmp_path / "m.json", label_column="outcome")
    assert manifest.class_names == ["no", "yes"] and manifest.sites == ["a", "b"] and len(manifest.patients) == 6
    assert {case.case: case.acquired for case in every(manifest)}["7"] == 7
    # Patient P5 has one image with a label and one without: both stay together, and none becomes a class.
    (hole,) = [case for case in every(manifest) if case.label is None]
    assert hole.case == "11" and manifest.unlabeled == []
    assert any("1 image file not listed" in note for note in notes)
    with pytest.raises(InputError, match="has no column 'outcom'; did you mean 'outcome'"):
        build_manifest(folder, tmp_path / "m.json", label_column="outcom")


def test_regression_from_a_joined_table(tmp_path):
    for i in range(20):
        volume(tmp_path / "d" / f"s{i}.nii.gz")
    table = tmp_path / "ages.tsv"
    table.write_text("case\tlabel\n" + "\n".join(f"s{i}\t{20 + i / 2}" for i in range(20)))
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", table=table)
    assert manifest.task == "regression" and len(manifest.test) == 5
    assert {case.case: case.label for case in every(manifest)}["s3"] == 21.5


def test_table_joins_sites_and_says_what_does_not_fit(tmp_path):
    folder = msd(tmp_path / "d", test=0)
    table = tmp_path / "sites.csv"
    table.write_text("case,vendor\n" + "\n".join(f"a_{i:03d},{'GS'[i % 2]}" for i in range(8)) + "\nother,G")
    manifest, notes = build_manifest(folder, tmp_path / "m.json", table=table)
    assert manifest.sites == ["G", "S"] and any("1 row named no case here (row 10)" in n for n in notes)
    table.write_text("case,vendor\na_000,G\n")
    with pytest.raises(InputError, match="gives no site for 7 cases, first a_001"):
        build_manifest(folder, tmp_path / "m.json", table=table)
    table.write_text("case,vendor\nnobody,G\n")
    with pytest.raises(InputError, match="names none of the cases; cases here are called a_000"):
        build_manifest(folder, tmp_path / "m.json", table=table)
    table.write_text("case,vendor\na_000,G\na_000,S\n")
    with pytest.raises(InputError, match="row 3 contradicts another row"):
        build_manifest(folder, tmp_path / "m.json", table=table)


def test_split_column_is_honoured_and_leaks_are_refused(tmp_path):
    folder = msd(tmp_path / "d", test=0)
    table = tmp_path / "t.csv"
    names = ["train", "train", "val", "test"]
    table.write_text("case,split,patient\n" + "\n".join(f"a_{i:03d},{names[i % 4]},p{i}" for i in range(8)))
    manifest, _ = build_manifest(folder, tmp_path / "m.json", table=table)
    assert [case.case for case in manifest.validation] == ["a_002", "a_006"]
    assert [case.case for case in manifest.test] == ["a_003", "a_007"]
    table.write_text("case,split,patient\n" + "\n".join(f"a_{i:03d},{names[i % 4]},p{i // 4}" for i in range(8)))
    with pytest.raises(InputError, match="patient 'p0' stands in two given splits"):
        build_manifest(folder, tmp_path / "m.json", table=table)


def medmnist(path: Path) -> Path:
    generator = np.random.default_rng(0)
    arrays = {}
    for split, n in {"train": 12, "val": 4, "test": 6}.items():
        arrays[f"{split}_images"] = generator.integers(0, 256, (n, 8, 8), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
    arrays["train_images"][3] = arrays["val_images"][1]
    arrays["train_images"][5] = arrays["test_images"][2]
    arrays["val_images"][0] = arrays["test_images"][2]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("as_file", [True, False])
def test_medmnist_keeps_its_splits_and_drops_duplicates(tmp_path, as_file):
    path = medmnist(tmp_path / "d" / "x.npz")
    source = path if as_file else path.parent
    manifest, notes = build_manifest(source, tmp_path / "m.json", labels=["normal", "ill"], site="s")
    assert (len(manifest.training), len(manifest.validation), len(manifest.test)) == (10, 3, 6)
    assert any("1 exact duplicate dropped from training: also in validation" in note for note in notes)
    assert any("1 exact duplicate dropped from validation: also in test" in note for note in notes)
    case = next(case for case in manifest.test if case.case == "test_00004")
    assert np.array_equal(np.asarray(Image.open(case.image)), np.load(path)["test_images"][4]) and case.label == 0


def test_npz_without_splits(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    images[7] = images[3]
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(40) % 2, class_names=np.array(["a", "b"]))
    manifest, _ = build_manifest(tmp_path / "x.npz", tmp_path / "m.json")
    assert manifest.class_names == ["a", "b"] and len(manifest.patients) == 39
    assert Counter(case.label for case in every(manifest)) == {0: 20, 1: 20}


def test_equal_images_of_other_patients_stay_in_one_split(tmp_path):
    same = np.full((6, 5), 7)
    for i in range(30):
        picture(tmp_path / "d" / "ab"[i % 2] / f"{i}.png", same if i < 15 else None)
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json")
    splits = {s for s in ("training", "validation", "test") for c in manifest.cases(s) if int(c.case) < 15}
    assert len(splits) == 1 and any("bit for bit" in note for note in notes)


def test_several_folders_make_one_manifest(tmp_path):
    classes(tmp_path / "one")
    medmnist(tmp_path / "two" / "x.npz")
    folders = [tmp_path / "one", tmp_path / "two"]
    names = {"ill": "ill", "well": "well", "0": "well", "1": "ill"}
    manifest, _ = build_manifest(folders, tmp_path / "m.json", site=["north", "south"], labels=names)
    assert manifest.sites == ["north", "south"] and manifest.class_names == ["ill", "well"]
    assert len(every(manifest.filter("north"))) == 12 and len(every(manifest.filter("south"))) == 19
    assert all((case.label == 0) == case.case.startswith("ill") for case in every(manifest.filter("north")))
    with pytest.raises(InputError, match="classes differ"):
        build_manifest(folders, tmp_path / "m.json")
    with pytest.raises(InputError, match="3 sites were given for 2 folders"):
        build_manifest(folders, tmp_path / "m.json", site=["a", "b", "c"])


def test_folders_of_several_modalities(tmp_path):
    """By the first one's alone MR would be normalised by the window of CT, its values taken for Hounsfield units."""
    folders = [msd(tmp_path / "one"), msd(tmp_path / "two")]
    listed = folders[1] / "dataset.json"
    listed.write_text(listed.read_text().replace('"CT"', '"MRI"').replace("CC0", "CC BY 4.0"))
    manifest, _ = build_manifest(folders, tmp_path / "m.json", site=["ct", "mr"])
    assert manifest.modality == "CT; MRI" and not is_ct(manifest.modality)
    assert manifest.licence == "CC0; CC BY 4.0", "each set's terms stand"
    assert source_augmentation(manifest, "ct", "mr").preset == "randomised_all"
    assert build_manifest([folders[0]], tmp_path / "alone.json")[0].modality == "CT"
    assert build_manifest(folders, tmp_path / "told.json", site=["a", "b"], modality="MR")[0].modality == "MR"


def test_a_name_in_several_folders_is_one_patient(tmp_path):
    for modality in ("mr", "pet"):
        pairs(tmp_path / modality, n=12)
    manifest, notes = build_manifest([tmp_path / "mr", tmp_path / "pet"], tmp_path / "m.json", site=["m", "p"])
    assert len(manifest.patients) == 12 and len({case.case for case in every(manifest)}) == 24
    assert any("12 names seen in several folders: each taken as one patient" in note for note in notes)
    for name in ("ill", "well"):  # counters of two class folders are no patients
        for i in range(3):
            picture(tmp_path / "d" / name / f"{i}.png")
    assert len(build_manifest(tmp_path / "d", tmp_path / "n.json")[0].patients) == 6


def test_manifests_are_merged_by_the_command(tmp_path):
    for site, names in {"north": ("ill", "well"), "south": ("well", "ill")}.items():
        folder = classes(tmp_path / site, n=8)
        build_manifest(folder, tmp_path / f"{site}.json", site=f"{site}ern", labels=names)
    made, _ = build_manifest([tmp_path / "north.json", tmp_path / "south.json"], tmp_path / "out" / "m.json")
    assert made.sites == ["northern", "southern"] and made.class_names == ["ill", "well"]
    for site in ("north", "south"):
        part = Manifest.load(tmp_path / f"{site}.json")
        assert {c.image for c in part.test} <= {c.image for c in made.test}
    assert all((case.label == 1) == ("well_" in case.image) for case in every(made))


def test_class_from_the_file_name(tmp_path):
    for i in range(10):
        picture(tmp_path / "d" / f"CXR_{i:04d}_{i % 2}.png")
    options = {"label_regex": r"_([01])$", "labels": ["normal", "ill"]}
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", **options)
    assert all(case.label == int(case.case[-1]) for case in every(manifest)) and manifest.task == "classification"
    with pytest.raises(InputError, match="--label-regex 'x' has no group"):
        build_manifest(tmp_path / "d", tmp_path / "m.json", label_regex="x")


def test_merge_maps_classes_by_name(tmp_path):
    one, _ = build_manifest(classes(tmp_path / "a"), tmp_path / "a.json", site="north", licence="CC0")
    two, _ = build_manifest(
        classes(tmp_path / "b"), tmp_path / "b.json", site="south", labels=["well", "ill"], licence="CC BY 4.0"
    )
    with pytest.raises(InputError, match="stands in two splits"):
        merge_manifests([one, build_manifest(tmp_path / "b", tmp_path / "c.json", site="south", seed=1)[0]])
    merged = merge_manifests([one, two])
    merged.save(tmp_path / "merged.json")
    assert merged.sites == ["north", "south"] and merged.licence == "CC0; CC BY 4.0"
    for case in every(merged):
        assert merged.class_names[case.label] in case.case and Path(case.image).exists()
    other, _ = build_manifest(classes(tmp_path / "e", names=("x", "y")), tmp_path / "e.json")
    with pytest.raises(InputError, match="its labels are x, y"):
        merge_manifests([one, other])


def test_folds(tmp_path):
    manifest, _ = build_manifest(classes(tmp_path / "d", n=20), tmp_path / "m.json", folds=4)
    assert manifest.validation == [] and len(manifest.test) == 10
    assert Counter(case.fold for case in manifest.training).keys() == {0, 1, 2, 3}
    assert {case.fold for case in manifest.test} == {None}


def test_patient_by_regular_expression(tmp_path):
    for i in range(12):
        picture(tmp_path / "d" / ("ab"[i % 2]) / f"pat{i // 3}_{i}.png")
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", patient_regex=r"(pat\d+)_")
    assert manifest.patients == ["pat0", "pat1", "pat2", "pat3"]
    with pytest.raises(InputError, match="does not fit 'a/pat0_0'"):
        build_manifest(tmp_path / "d", tmp_path / "m.json", patient_regex=r"(case\d+)_")
    with pytest.raises(InputError, match="has no group"):
        build_manifest(tmp_path / "d", tmp_path / "m.json", patient_regex="pat")


def test_sites_named_like_a_neighbour_are_renamed_or_refused(tmp_path):
    for site in ("ge", "philips"):
        pairs(tmp_path / "d" / site)
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "d" / "m.json")
    assert manifest.sites == ["site_ge", "site_philips"] and any("lies beside the manifest" in note for note in notes)
    (item, *_) = load_decathlon_datalist(tmp_path / "d" / "m.json")
    assert item["site"] in manifest.sites
    with pytest.raises(InputError, match="the site 'ge' is also the name of"):
        build_manifest(tmp_path / "d", tmp_path / "d" / "m.json", site="ge")


def test_odd_names_become_safe_case_names(tmp_path):
    for i in range(4):
        picture(tmp_path / "d" / "images" / f"Müller {i} (T2).png")
        picture(tmp_path / "d" / "masks" / f"Müller {i} (T2).png", np.resize((0, 1), (6, 5)))
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json")
    assert {case.case for case in every(manifest)} == {f"M_ller_{i}_T2" for i in range(4)}


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda d: d.mkdir(), {}, "no known layout is seen here"),
        (lambda d: None, {}, "no such folder"),
        (classes, {"layout": "clases"}, "did you mean 'classes'"),
        (classes, {"task": "segmentaton"}, "did you mean 'segmentation'"),
        (classes, {"site_from": ["Manufacturer"]}, "--site-from and --series-description read DICOM"),
        (classes, {"channels": ["t1"]}, "--channels says nothing to the layout classes"),
        (classes, {"patient_column": "p"}, "needs a table"),
        (classes, {"findings": ["p"]}, "needs a table"),
        (classes, {"ignore": [1]}, "are for masks"),
        (classes, {"uncertain": "maybe", "findings": ["p"], "table": "t.csv"}, "no such table"),
        (classes, {"binarize": True}, "is for masks"),
        (classes, {"fractions": (1, 1, 1)}, "sum to 1"),
        (classes, {"folds": 99}, "99 folds cannot be made"),
        (lambda d: picture(d / "1.png"), {}, "none of the 1 cases found has a label"),
        (lambda d: picture(d / "1.png"), {"table": "nowhere.csv"}, "no such table"),
        (lambda d: pairs(d, values=(0, 1), suffix="xyz"), {}, "no mask has the name of an image"),
    ],
)
def test_faults(tmp_path, make, options, message):
    make(tmp_path / "d")
    with pytest.raises(InputError, match=message) as error:
        build_manifest(tmp_path / "d", tmp_path / "m.json", **options)
    assert "\n" not in str(error.value) and not (tmp_path / "m.json").exists()


def test_unlabelled_images_alone(tmp_path):
    for i in range(3):
        picture(tmp_path / "d" / f"{i}.png")
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", task="segmentation", labels=["background", "x"])
    assert len(manifest.unlabeled) == 3 and all("label" not in item for item in manifest.datalist("unlabeled"))


def test_same_input_gives_the_same_bytes(tmp_path):
    folder = classes(tmp_path / "d")
    build_manifest(folder, tmp_path / "1.json")
    build_manifest(folder, tmp_path / "2.json")
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_an_unknown_option_is_named_with_its_neighbour(tmp_path):
    with pytest.raises(InputError, match="build_manifest has no option 'patient_regexp'; did you mean 'patient_regex'"):
        build_manifest(tmp_path, tmp_path / "m.json", patient_regexp="(.*)")
