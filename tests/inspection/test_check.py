"""A sound set has no finding; each kind of damage has its own, with the case, the file, the fault and the hint."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_transfer.data.phantom.sites import SITES
from monai_transfer.data.phantom.write import write_dicom
from monai_transfer.errors import InputError
from monai_transfer.inspection import Finding, check_manifest
from monai_transfer.inspection.case import inspect_case
from monai_transfer.inspection.facts import CaseJob
from monai_transfer.inspection.pool import inspect_cases
from monai_transfer.manifest.model import Manifest


def only(findings: list[Finding], code: str) -> Finding:
    """The one finding there is, which must have this code."""
    assert [f.code for f in findings] == [code], [f.line() for f in findings]
    finding = findings[0]
    assert "\n" not in finding.line()
    if finding.file:
        assert finding.line().startswith(f"{finding.file}: {finding.severity}: ")
    return finding


def test_sound_set_has_no_finding(data):
    data.hash()
    assert check_manifest(data.manifest()) == []


def test_everything_is_reported_at_once(data):
    data.image(0).write_bytes(data.image(0).read_bytes()[:-9])
    data.label(1).unlink()
    data.write(data.label(7), data.mask(7)[:, :, :10])
    findings = check_manifest(data.manifest())
    assert [(f.case, f.code, f.split) for f in findings] == [
        ("c00", "unreadable", "training"),
        ("c01", "unreadable", "training"),
        ("c07", "label-grid", "validation"),
    ]
    assert all(f.severity == "error" and f.file and f.fault for f in findings)


def shifted(data):
    affine = image_affine(data)
    affine[0, 3] += 50
    data.write(data.label(2), data.mask(2), affine)


def image_affine(data):
    return nib.load(data.image(2)).affine.copy()


def label(change, dtype=None):
    def damage(data):
        array = change(data.mask(2).astype(dtype or np.float64))
        data.write(data.label(2), array if dtype else array.astype(np.float32))

    return damage


def missing_slices(data):
    data.write(data.label(2), data.mask(2)[:, :, :8])


def forgotten_slice(array):
    array[:, :, 5] = 0
    return array


def over_nothing(data):
    image = np.asarray(nib.load(data.image(2)).dataobj).copy()
    image[data.mask(2) > 0] = 0
    image[image < 0] = 1
    data.write(data.image(2), image)


def constant(data):
    data.write(data.image(2), np.full((24, 20, 12), 7, np.int16))


def two_channels(data):
    data.write(data.image(2), np.random.default_rng(0).normal(size=(24, 20, 12, 2)).astype(np.float32))


@pytest.mark.parametrize(
    ("damage", "code", "severity", "words"),
    [
        (shifted, "label-grid", "error", "50 mm"),
        (missing_slices, "label-grid", "error", "24 x 20 x 8"),
        (label(lambda a: a * 0.999), "label-fraction", "warning", "0.999"),
        (label(lambda a: a * 0.4), "label-fraction", "error", "nearest neighbour"),
        (label(lambda a: a * 255, np.uint8), "label-scale", "error", "255 where 1"),
        (label(lambda a: a * 3, np.uint8), "label-unknown", "error", "holds 3"),
        (
            label(lambda a: a + np.eye(24, 20, dtype=np.uint8)[..., None] * 4, np.uint8),
            "label-unknown",
            "error",
            "4, 5",
        ),
        (label(lambda a: a * (2**24 + 1), np.int32), "label-overflow", "error", "2^24"),
        (label(lambda a: a * 0, np.uint8), "label-empty", "warning", "empty"),
        (label(forgotten_slice, np.uint8), "label-gap", "warning", "slice 5 of axis 2"),
        (label(lambda a: a[..., None].repeat(2, 3), np.uint8), "label-channels", "error", "2 channels"),
        (over_nothing, "label-cover", "error", "minimum"),
        (constant, "constant", "error", "every voxel is 7"),
        (two_channels, "channels", "error", "2 channels where the manifest names 1"),
    ],
)
def test_damage_has_its_finding(data, damage, code, severity, words):
    damage(data)
    finding = only(check_manifest(data.manifest()), code)
    assert finding.severity == severity and words in finding.line()
    assert finding.case == "c02" and finding.split == "training"
    assert finding.file == str(data.label(2) if code.startswith("label") else data.image(2))


def test_an_unreadable_image_hides_no_fault_of_its_label(data):
    data.image(2).write_bytes(data.image(2).read_bytes()[:-9])
    data.write(data.label(2), data.mask(2) * 255)
    codes = [f.code for f in check_manifest(data.manifest()) if f.case == "c02"]
    assert sorted(codes) == ["label-scale", "unreadable"]


def test_checksum(data):
    data.hash()
    content = np.asarray(nib.load(data.image(3)).dataobj).copy()
    content[0, 0, 0] += 1
    data.write(data.image(3), content)  # a sound file, but not the one that the manifest knows
    assert only(check_manifest(data.manifest()), "sha256").file == str(data.image(3))
    data.write(data.label(4), data.mask(4) * 0 + 1)
    assert [f.code for f in check_manifest(data.manifest())][:2] == ["sha256", "sha256"]


def test_same_image_in_two_splits_and_two_patients(data):
    data.image(8).write_bytes(data.image(0).read_bytes())
    finding = only(check_manifest(data.manifest()), "repeated-image")
    assert finding.severity == "error" and "two splits" in finding.fault and finding.case == "c08"
    data.image(8).write_bytes(data.image(7).read_bytes())
    assert only(check_manifest(data.manifest()), "repeated-image").severity == "error"  # two patients
    data.content["validation"][2]["patient"] = data.content["validation"][1]["patient"]
    assert only(check_manifest(data.manifest()), "repeated-image").severity == "warning"


def test_axes_in_another_order_are_the_same_grid(data):
    image = nib.as_closest_canonical(nib.load(data.label(2)))
    turned = image.as_reoriented(np.array([[1, -1], [0, 1], [2, -1]]))
    data.write(data.label(2), np.asarray(turned.dataobj), turned.affine)
    finding = only(check_manifest(data.manifest()), "label-axes")
    assert finding.severity == "warning"


def test_set_warnings(data):
    data.content["test"] = data.content["test"][:2]
    del data.content["validation"]
    data.content["labels"]["2"] = "necrosis"
    findings = check_manifest(data.manifest())
    assert {f.severity for f in findings} == {"warning"}
    assert sorted(f.code for f in findings) == ["absent-class", "absent-class", "empty-split", "tiny-split"]
    assert any("necrosis" in f.fault for f in findings)


def test_equal_names_and_odd_ones_out(data):
    (data.folder / "other").mkdir()
    data.image(1).rename(data.folder / "other" / "c00.nii.gz")
    data.content["training"][1]["image"] = "other/c00.nii.gz"
    assert only(check_manifest(data.manifest()), "equal-names").severity == "warning"
    data.write(data.image(2), np.random.default_rng(1).normal(size=(24, 20)).astype(np.float32))
    codes = [f.code for f in check_manifest(data.manifest())]
    assert "dimensions" in codes
    far = np.diag([20.0, 20, 45, 1])
    data.write(data.image(2), np.random.default_rng(1).normal(size=(24, 20, 12)).astype(np.float32), far)
    data.write(data.label(2), data.mask(3), far)
    assert [f.code for f in check_manifest(data.manifest())] == ["spacing", "equal-names"]


def test_channels_on_two_grids(data):
    for split in ("training", "validation", "test"):
        for item in data.content[split]:
            item["image"] = [item["image"], item["image"].replace("c", "d")]
            array = np.random.default_rng(100 + int(item["case"][1:])).normal(size=(24, 20, 12)).astype(np.float32)
            data.write(data.folder / item["image"][1], array)
    data.content["channel_names"]["1"] = "T2"
    assert check_manifest(data.manifest()) == []
    data.write(data.folder / "images/d03.nii.gz", array[:, :, :6])
    assert only(check_manifest(data.manifest()), "channel-grid").file.endswith("d03.nii.gz")


def test_root_moves_the_files(data, tmp_path):
    manifest = data.manifest()
    data.folder.rename(tmp_path / "moved")
    assert len(check_manifest(manifest)) >= 36
    assert check_manifest(manifest, root=tmp_path / "moved") == []


def test_memory(data):
    findings = check_manifest(data.manifest(), max_memory=2000)
    assert len([f for f in findings if "GiB by its header" in f.fault]) == 36
    with pytest.raises(InputError):
        check_manifest(data.manifest(), max_memory="plenty")


@pytest.fixture
def pictures(tmp_path):
    """A 2D classification set of grey PNGs."""
    content = {"name": "xray", "task": "classification", "labels": {"0": "normal", "1": "ill"}}
    for n in range(18):
        array = np.random.default_rng(n).integers(0, 255, (20, 16), dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / f"x{n}.png")
        item = {"image": f"x{n}.png", "label": n % 2, "case": f"k{n}", "patient": f"p{n}", "site": "A"}
        content.setdefault(["training", "validation", "test"][n // 6], []).append(item)

    def manifest():
        (tmp_path / "m.json").write_text(json.dumps(content))
        return Manifest.load(tmp_path / "m.json")

    return tmp_path, content, manifest


def test_pictures(pictures):
    folder, content, manifest = pictures
    assert check_manifest(manifest()) == []
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 16, 3), dtype=np.uint8)).quantize(8).save(
        folder / "x0.png"
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "x1.png").save(folder / "x1.png", exif=exif)
    (folder / "x2.png").write_bytes((folder / "x2.png").read_bytes()[:-30])
    findings = check_manifest(manifest())
    assert [(f.case, f.code) for f in findings] == [
        ("k2", "unreadable"),
        ("k0", "channels"),
        ("k0", "picture"),
        ("k1", "picture"),
    ]
    for item in content["test"]:
        item["label"] = None
    assert "no-labels" in [f.code for f in check_manifest(manifest())]


def test_palette_mask_is_an_error(tmp_path, pictures):
    folder, content, manifest = pictures
    content["task"] = "segmentation"
    content["labels"] = {"0": "background", "1": "lesion"}
    for split in ("training", "validation", "test"):
        for item in content[split]:
            item["label"] = f"mask_{item['case']}.png"
            mask = Image.fromarray(np.pad(np.ones((6, 6), np.uint8), ((4, 10), (5, 5))))
            if item["case"] == "k4":
                mask = mask.convert("P")
                mask.putpalette([0, 0, 0, 255, 0, 0])
            mask.save(folder / item["label"])
    finding = only(check_manifest(manifest()), "label-picture")
    assert finding.severity == "error" and finding.fixable and finding.case == "k4"


def test_parallel_equals_serial_and_reports_progress(data):
    data.image(0).write_bytes(b"damaged")
    data.write(data.label(7), data.mask(7) * 255)
    seen = []
    for split in ("training", "validation", "test"):  # enough cases to be worth workers
        for item in list(data.content[split]):
            for copy in range(2):
                data.content[split].append(item | {"case": f"{item['case']}_{copy}"})
    manifest = data.manifest()
    parallel = check_manifest(manifest, jobs=2, progress=lambda done, total: seen.append((done, total)))
    assert parallel == check_manifest(manifest, jobs=1)
    assert seen == [(n, 54) for n in range(1, 55)]


def test_a_hanging_decoder_is_ended(monkeypatch, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr("monai_transfer.inspection.pool._COMMAND", [sys.executable, str(worker)])
    monkeypatch.setattr("monai_transfer.inspection.pool._LIMIT", 0.5)
    (result,) = inspect_cases([CaseJob(["folder"])], workers=2)
    assert "signal 9" in result.findings[0].fault


def test_a_worker_whose_parent_is_gone_ends_before_its_imports():
    """Standard input stays open, as a killed parent's other children may hold it."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    words = [sys.executable, "-X", "importtime", "-m", "monai_transfer.inspection.worker", str(gone.pid)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
        assert worker.wait(timeout=60) == -signal.SIGTERM
        assert "monai.transforms" not in worker.stderr.read()


def test_dicom_series_with_a_nifti_label(data, tmp_path):
    """DICOM grows to left and back, NIfTI masks often to right and front: the same grid all the same."""
    affine = np.diag([-1.0, -1.0, 3.0, 1.0])
    mask = data.mask(2)
    image = np.asarray(nib.load(data.image(2)).dataobj)
    write_dicom(tmp_path / "series", image, affine, patient_id="P", protocol=next(iter(SITES.values())).protocol)
    turned = nib.as_closest_canonical(nib.Nifti1Image(mask, affine))
    data.write(data.label(2), np.asarray(turned.dataobj), turned.affine)
    job = CaseJob([str(tmp_path / "series")], label=str(data.label(2)))
    assert [f.code for f in inspect_case(job).findings] == ["label-axes"]
    shifted = turned.affine.copy()
    shifted[0, 3] += 2
    data.write(data.label(2), np.asarray(turned.dataobj), shifted)
    assert [f.code for f in inspect_case(job).findings] == ["label-grid"]


def test_a_crashing_decoder_is_a_finding_of_its_case(data, monkeypatch, tmp_path):
    """A worker that dies on one case must neither lose the others nor hang."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    job = json.loads(line)\n"
        "    if job['images'][0].endswith('7'): os.kill(os.getpid(), 11)\n"
        "    print(json.dumps({'findings': [], 'images': [], 'label_values': {}}), flush=True)\n"
    )
    monkeypatch.setattr("monai_transfer.inspection.pool._COMMAND", [sys.executable, str(worker)])
    results = inspect_cases([CaseJob([f"case{n}"]) for n in range(40)], workers=2)
    died = [n for n, result in enumerate(results) if result.findings]
    assert died == [7, 17, 27, 37] and "signal 11" in results[7].findings[0].fault


def two_organs(data, values_of, **changes):
    """Every second case from the site ``south``; the mask of case n holds ``values_of(n)`` where the tumour was."""
    data.content |= {"labels": {"0": "background", "1": "liver", "2": "spleen"}} | changes
    n = 0
    for split in ("training", "validation", "test"):
        for item in data.content[split]:
            item["site"] = "south" if n % 2 else "north"
            mask = data.mask(n)
            low, high = values_of(n)
            upper = mask.copy()
            upper[:8] = 0
            data.write(data.label(n), np.where(upper > 0, high, mask * low).astype(np.uint8))
            n += 1
    data.hash()
    return check_manifest(data.manifest())


def test_a_class_that_never_occurs_at_a_site_is_said_with_the_line_to_add(data):
    finding = only(two_organs(data, lambda n: (1, 1) if n % 2 else (1, 2)), "absent-class-at-site")
    assert finding.severity == "warning"
    assert "'spleen' never occurs at the site south (9 labelled cases)" in finding.fault
    assert '"annotated": {"south": ["liver"]}' in str(finding.hint)


def test_a_class_that_lies_in_others_everywhere_is_shown_by_its_region(data):
    """As two structures that overlap are kept: the value of a cyst alone never occurs, since it lies in the liver."""
    told = {"labels": {"0": "background", "1": "liver", "2": "cyst", "3": "cyst+liver", "4": "spleen"}}
    regions = {"regions": {"cyst": [2, 3], "liver": [1, 3], "spleen": [4]}}
    absent = [f for f in two_organs(data, lambda n: (1, 3), **told, **regions) if f.code == "absent-class"]
    assert {f.fault.split(" never")[0] for f in absent} == {"the region 'spleen'"} and len(absent) == 3
    finding = only(two_organs(data, lambda n: (3 if n % 2 else 1, 4), **told, **regions), "absent-class-at-site")
    assert "the region 'cyst' never occurs at the site north" in finding.fault
    assert '"annotated": {"north": ["liver", "spleen"]}' in str(finding.hint)


def test_nothing_is_claimed_of_classes_where_a_mask_cannot_be_read(data):
    """The spleen may stand in the mask that is broken: that one is the fault, and the only one."""
    last = 17
    assert two_organs(data, lambda n: (1, 2) if n == last else (1, 1)) != []
    data.label(last).write_bytes(b"broken")
    data.hash()
    codes = {f.code for f in check_manifest(data.manifest())}
    assert "unreadable" in codes and "absent-class-at-site" not in codes


def test_a_class_that_was_not_looked_for_is_no_fault_but_its_occurrence_is(data):
    annotated = {"annotated": {"south": ["liver"]}}
    assert two_organs(data, lambda n: (1, 1) if n % 2 else (1, 2), **annotated) == []
    findings = two_organs(data, lambda n: (1, 2), **annotated)
    assert {f.code for f in findings} == {"not-annotated"} and len(findings) == 9
    assert findings[0].severity == "error" and "holds spleen" in findings[0].fault


def test_gaps_and_ignored_values_are_declared_values(data):
    labels = {"0": "background", "128": "liver", "255": {"name": "spleen", "values": [254, 255]}}
    sound = two_organs(data, lambda n: (128, 254 + n % 2), labels=labels, ignore=[9])
    assert sound == []
    data.write(data.label(4), np.where(data.mask(4) > 0, 9, 0).astype(np.uint8))
    data.hash()
    assert check_manifest(data.manifest()) == []
    data.write(data.label(4), np.where(data.mask(4) > 0, 127, 0).astype(np.uint8))
    data.hash()
    assert "holds 127" in only(check_manifest(data.manifest()), "label-unknown").fault
