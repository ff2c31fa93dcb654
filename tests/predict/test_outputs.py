"""What ``predict`` says it wrote is there and whole; what cannot be written or read costs itself alone."""

from __future__ import annotations

import csv
import gzip
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset

from monai_transfer.cli import main
from monai_transfer.data.phantom.sites import SITES, scan_patient
from monai_transfer.data.phantom.write import write_dicom
from monai_transfer.errors import InputError
from monai_transfer.predict.images import predict_images
from monai_transfer.predict.outputs import check_output

pytestmark = pytest.mark.filterwarnings("ignore")
BUNDLES = Path(__file__).parents[2] / "bundles"
HEADS, SLICES = BUNDLES / "head_mr_segmentation", BUNDLES / "head_mr_slice_classification"


def test_commas_quotes_and_formulas_in_names_shift_no_column(tmp_path):
    sample = next((SLICES / "sample").iterdir())
    plain = predict_images(SLICES, [sample], tmp_path / "plain").written[0]
    (tmp_path / "in").mkdir()
    names = ["a,b", 'say "x"', "=1+1", "-2+3", "@sum", "$print(1)", "new\nline", "ordinary", "ä ü"]
    for name in names:
        shutil.copyfile(sample, tmp_path / "in" / f"{name}.png")
    (table,) = predict_images(SLICES, [tmp_path / "in"], tmp_path / "out").written
    (expected,) = csv.DictReader(plain.open(newline=""))
    rows = list(csv.DictReader(table.open(newline="")))
    assert {row["image"].removeprefix("'") for row in rows} == {f"{name}.png" for name in names}
    for row in rows:
        assert row["image"][0] not in "=-+@"
        assert {key: row[key] for key in row if key not in ("image", "path")} == {
            key: expected[key] for key in expected if key not in ("image", "path")
        }
        assert Path(row["path"]).is_file() and Path(row["path"]).parent == tmp_path / "in"


def test_a_fault_that_all_images_have_is_told_once(tmp_path, capsys):
    for name in ("a", "b", "c"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(HEADS), str(tmp_path), "-o", str(tmp_path / "out")])
    (error, more, count) = capsys.readouterr().err.splitlines()[-3:]
    assert stop.value.code == 1 and "a.png: is a 2D image, and the model takes 3D" in error
    assert (more, count) == ("the same of 2 more", "3 of 3 images could not be predicted on")
    (tmp_path / "b.png").write_bytes(b"broken")  # where faults differ, each is told
    with pytest.raises(SystemExit):
        main(["predict", str(HEADS), str(tmp_path), "-o", str(tmp_path / "out")])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert [Path(line.split(": ")[1]).name for line in errors] == ["a.png", "b.png", "c.png"]


@pytest.fixture
def small_disk():
    """Files of at most 128 bytes, as on a full disk: masks of the packaged bundle do not fit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (128, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_masks_that_do_not_fit_are_named_and_none_is_left_half(tmp_path, capsys, small_disk):
    sample = next((HEADS / "sample").iterdir())
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(sample.parent)
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(HEADS), str(tmp_path / "one"), str(tmp_path / "two"), "-o", str(tmp_path / "out")])
    err = capsys.readouterr().err
    assert stop.value.code == 2
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) >= 1 and all("cannot be written (file too large)" in line for line in errors)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk")
def test_a_full_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", place]
    mounted = subprocess.run(words, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        with pytest.raises(InputError, match="cannot be written .no space left on device"):
            predict_images(HEADS, [HEADS / "sample"], place / "out")
        assert [path for path in place.rglob("*") if path.is_file()] == []
    finally:
        subprocess.run(["umount", place], check=False)


def test_what_a_killed_predict_left_is_cleared_and_a_living_one_is_not(tmp_path):
    code = "import sys, time; from monai_transfer.predict.images import _aside; from pathlib import Path\n"
    code += "with _aside(Path(sys.argv[1])) as f:\n    print(f, flush=True); time.sleep(90)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    aside = Path(process.stdout.readline().strip())
    sample = next((SLICES / "sample").iterdir())
    predict_images(SLICES, [sample], tmp_path)
    assert aside.is_dir()
    process.kill()
    process.wait()
    assert aside.is_dir()
    predict_images(SLICES, [sample], tmp_path)
    assert not aside.exists() and not list(tmp_path.glob(".*"))


def test_a_study_with_contours_beside_its_images(tmp_path):
    scan = scan_patient(SITES["site_b"], 20)
    study = tmp_path / "study"
    write_dicom(study / "images", scan.image, scan.affine, patient_id="P20", protocol=SITES["site_b"].protocol)
    first = pydicom.dcmread(next((study / "images").iterdir()))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    meta.MediaStorageSOPInstanceUID = "2.25.77"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    contours = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    contours.SOPClassUID, contours.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    contours.Modality, contours.SeriesInstanceUID = "RTSTRUCT", "2.25.78"
    contours.StudyInstanceUID, contours.PatientID = first.StudyInstanceUID, "P20"
    (study / "contours").mkdir()
    contours.save_as(study / "contours" / "rs.dcm")
    for place in (study, tmp_path / "together"):
        if place.name == "together":
            shutil.copytree(study / "images", place)
            shutil.copyfile(study / "contours" / "rs.dcm", place / "rs.dcm")
        done = predict_images(HEADS, [place], tmp_path / f"out_{place.name}")
        assert done.faults == [] and len(done.written) == 1
    with pytest.raises(InputError, match="no image among them"):
        predict_images(HEADS, [study / "contours"], tmp_path / "none")


def test_files_are_read_to_their_end(tmp_path):
    whole = tmp_path / "whole.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.arange(24000, dtype=np.int16).reshape(20, 30, 40), np.eye(4)), whole)
    check_output(whole)
    data = whole.read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    (tmp_path / "short.nii.gz").write_bytes(gzip.compress(gzip.decompress(data)[:-10]))
    (tmp_path / "changed.nii.gz").write_bytes(data[:-8] + bytes([data[-8] ^ 1]) + data[-7:])
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 50), dtype=np.uint8)).save(tmp_path / "p.png")
    check_output(tmp_path / "p.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "p.png").read_bytes()[:900])
    (tmp_path / "cut.json").write_text('{"boxes": [')
    (tmp_path / "cut.csv").write_text("a,b\n1,2\n3")
    names = ["cut.nii.gz", "empty.nii.gz", "short.nii.gz", "changed.nii.gz", "cut.png", "cut.json", "cut.csv"]
    for name in names:
        with pytest.raises(InputError, match=f"{name}: what was written is not whole"):
            check_output(tmp_path / name)
