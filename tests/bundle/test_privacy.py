"""Privacy end to end: what is planted in headers, text chunks and folder names is in nothing that any command writes.

Searched are standard output, standard error and every byte of every file written, inside gzip and zip (``.pt``) too.
"""

from __future__ import annotations

import base64
import gzip
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image, PngImagePlugin

from monai_transfer.cli import main
from monai_transfer.data.phantom.sites import SITES
from monai_transfer.data.phantom.write import write_dicom
from monai_transfer.data.readers import SafeReader
from monai_transfer.predict.dicom_seg import write_dicom_seg

pytestmark = pytest.mark.filterwarnings("ignore")
PATIENTS = 12
PATCH = ("--patch", "16,16,16")
SHORT = ("--max_epochs", "1", "--steps_per_epoch", "1", "--val_interval", "1")


def planted(n: int) -> dict[str, str]:
    """What identifies patient ``n``, by DICOM keyword: texts that occur nowhere by chance."""
    return {
        "PatientName": f"Qzfamily{n:02d}^Qzgiven{n:02d}",
        "PatientID": f"QZID-77{n:02d}",
        "PatientBirthDate": f"18{40 + n}0317",
        "PatientAddress": f"Qzstreet {n:02d}",
        "AccessionNumber": f"QZACC{n:02d}",
        "InstitutionName": f"Qzhospital {n:02d}",
        "InstitutionAddress": f"Qzcity {n:02d}",
        "ReferringPhysicianName": f"Qzdoctor{n:02d}^A",
        "OperatorsName": f"Qzoperator{n:02d}^B",
        "StudyDate": f"19{40 + n}0523",
        "StudyID": f"QZST{n:02d}",
        "StudyDescription": f"Qzstudy {n:02d}",
        "SeriesDescription": f"Qzseries of Qzfamily{n:02d}",
        "ProtocolName": f"Qzprotocol {n:02d}",
        "StationName": f"QZSTATION{n:02d}",
        "DeviceSerialNumber": f"QZSERIAL{n:02d}",
        "ImageComments": f"Qzcomment {n:02d}",
        "StudyInstanceUID": f"1.2.826.0.1.9{n:02d}.7771",
        "SeriesInstanceUID": f"1.2.826.0.1.9{n:02d}.7772",
        "FrameOfReferenceUID": f"1.2.826.0.1.9{n:02d}.7773",
    }


WORDS = "acc aux city comment doctor family given hospital id-77 intent artist operator private protocol"
MORE = "serial series st0 st1 station street study"
_WORDS = "|".join(f"{WORDS} {MORE}".split())
NEEDLES = re.compile(rf"(?i)qz({_WORDS})|18[45]\d0317|19[45]\d0523|1\.2\.826\.0\.1\.9\d\d\.777".encode())


def test_the_needles_find_all_that_is_planted():
    for n in range(PATIENTS):
        for value in planted(n).values():
            assert NEEDLES.search(value.encode()), value


def scan(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    mask = np.zeros((24, 20, 10), np.uint8)
    x, y = rng.integers(6, 12, 2)
    mask[x : x + 7, y - 4 : y + 4, 3:7] = 1
    return (300 + 20 * rng.standard_normal(mask.shape) + mask * (200.0 + 100 * (n % 2))).astype(np.int16), mask


def write_study(folder: Path, n: int, *, label: bool = True) -> None:
    """A series with everything planted, and a DICOM SEG of it in the same study."""
    image, mask = scan(n)
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    series = folder / "series"
    write_dicom(series, image, affine, patient_id=f"x{n}", protocol=SITES["site_a"].protocol)
    for k, path in enumerate(sorted(series.iterdir())):
        dataset = pydicom.dcmread(path)
        for keyword, value in planted(n).items():
            setattr(dataset, keyword, value)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.9{n:02d}.7774.{k}"
        dataset.Manufacturer = ("Acme", "Bolt")[n % 2]
        dataset.private_block(0x0031, "Qzprivate", create=True).add_new(1, "LO", f"Qzprivate {n:02d}")
        dataset.save_as(path)
    if label:
        nibabel.save(nibabel.Nifti1Image(mask, SafeReader().read_volume(series).affine), folder / "mask.nii.gz")
        files = sorted(series.iterdir())
        write_dicom_seg(folder / "mask.nii.gz", files, folder / "seg" / "seg.dcm", {0: "background", 1: "ball"})
        (folder / "mask.nii.gz").unlink()


@pytest.fixture
def call(capfd, tmp_path, monkeypatch):
    """Run a command as the command line does; its output is searched. Returns what it printed."""
    monkeypatch.setenv("MONAI_TRANSFER_SECRET", str(tmp_path / "secret"))

    def run(*words: object, code: int | tuple[int, ...] = 0) -> str:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        out, err = capfd.readouterr()
        codes = (code,) if isinstance(code, int) else code
        assert end.value.code in codes, f"{words}\n{out[-2000:]}\n{err[-2000:]}"
        found = NEEDLES.search((out + err).encode())
        assert not found, f"{words[0]} prints {found}: ...{(out + err)[max(0, found.start() - 200) : found.end() + 40]}"
        return out

    return run


_BASE64 = rb"base64,([A-Za-z0-9+/=]{40,})"


def contents(path: Path, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The bytes of a file, and of what is packed in it."""
    yield str(path), re.sub(_BASE64, b"", data)  # in a picture's letters anything may stand by chance
    if data.startswith(b"\x1f\x8b"):
        yield f"{path} (gzip)", gzip.decompress(data)
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield f"{path}/{name}", name.encode() + archive.read(name)
    for packed in re.findall(_BASE64, data):
        yield f"{path} (base64)", base64.b64decode(packed)


def search(folder: Path) -> int:
    """Look into every file below; returns how many there were."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        assert not NEEDLES.search(str(path.relative_to(folder)).encode()), path
        for place, data in contents(path, path.read_bytes()):
            found = NEEDLES.search(data)
            assert not found, f"{place} holds {data[max(0, found.start() - 60) : found.end() + 20]!r}"
    return len(files)


def test_search_finds_what_it_should(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"x Qzfamily01 x"))
    with pytest.raises(AssertionError, match="gzip"):
        search(tmp_path)


def archive(folder: Path) -> Path:
    """Studies of all patients, in folders that are called after them."""
    for n in range(PATIENTS):
        write_study(folder / planted(n)["PatientName"].replace("^", "_") / f"QZID-77{n:02d}", n)
    return folder


@pytest.mark.slow
def test_dicom_from_the_archive_to_the_report(call, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    manifest, bundle = out / "set.json", out / "ball_segmentation"
    split = ("--fractions", "0.5,0.25,0.25")
    call("manifest", archive(tmp_path / "given"), "-o", manifest, "--site-from", "Manufacturer", *split)
    call("gap", manifest, manifest, "--site-a", "Acme", "--site-b", "Bolt", "-o", out / "gap.html")
    call("gap", manifest, manifest, "--json", code=0)
    sites = ("--source-site", "Acme", "--target-site", "Bolt")
    call("new", bundle, "--data", manifest, *sites, "--size", "small", "--patch", "16,16,8", "--batch-size", 2)
    call("run", bundle, "pretrain", *SHORT, "--cache_dir", out / "cache")
    call("run", bundle, "train", *SHORT, "--output_dir", out / "runs" / "fine")
    call("run", bundle, "evaluate", "--run", "pretrain-0", "--output_dir", out / "runs" / "plain")
    call("compare", out / "runs" / "fine", out / "runs" / "plain", "-o", out / "report.html", code=(0, 1))
    neutral = tmp_path / "neutral"
    write_study(neutral / "one", 0, label=False)
    call("predict", bundle, neutral, manifest, "-o", out / "predicted", "--run", "pretrain-0")
    for to in ("bundle", "torchscript"):
        call("export", bundle, "--to", to, "-o", out / f"exported_{to}", "--run", "pretrain-0")
    call("rank", manifest, "--sources", out / "exported_bundle", "--permutations", 5, "--no-gap")
    assert any(path.is_file() for path in (out / "cache").rglob("*"))
    assert search(out) > 60


@pytest.mark.slow
def test_check_of_dicom(call, tmp_path):
    """Apart, since its worker processes take seconds to start. A cut-off slice must not bring a name to light."""
    manifest = tmp_path / "out" / "set.json"
    manifest.parent.mkdir()
    call("manifest", archive(tmp_path / "given"), "-o", manifest, "--site-from", "Manufacturer")
    broken = next((tmp_path / "out").rglob("*.dcm"))
    broken.write_bytes(broken.read_bytes()[:-100])
    call("check", manifest, code=1)
    source = Path(__file__).parents[2] / "bundles" / "head_mr_segmentation"
    call("check", manifest, "--json", "--source", source, code=1)
    search(tmp_path / "out")


def test_prediction_on_dicom(call, tmp_path):
    write_study(tmp_path / "given", 0, label=False)
    bundle = Path(__file__).parents[2] / "bundles" / "head_mr_segmentation"
    call("predict", bundle, tmp_path / "given", "-o", tmp_path / "out")
    assert search(tmp_path / "out") == 1


def test_headers_of_nifti_and_text_in_pictures(call, tmp_path):
    given, out = tmp_path / "given", tmp_path / "out"
    out.mkdir()
    (given / "scans").mkdir(parents=True)
    rows = ["case,patient,site,label"]
    for n in range(PATIENTS):
        image = nibabel.Nifti1Image(scan(n)[0], np.diag([2.0, 2.0, 3.0, 1.0]))
        image.header["descrip"], image.header["db_name"] = f"Qzfamily{n:02d}".encode(), f"QZID-77{n:02d}".encode()
        image.header["aux_file"], image.header["intent_name"] = b"Qzaux", b"Qzintent"
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", f"Qzcomment {n:02d}".encode()))
        nibabel.save(image, given / "scans" / f"case{n:02d}.nii.gz")
        rows.append(f"case{n:02d},p{n:02d},{'ab'[n // 6]},{n + 0.5}")
    (given / "table.csv").write_text("\n".join(rows))
    manifest, bundle = out / "set.json", out / "age_regression"
    table = ("--table", given / "table.csv", "--task", "regression")
    call("manifest", given / "scans", "-o", manifest, *table, "--fractions", "0.5,0.25,0.25")
    call("check", manifest)
    call("new", bundle, "--data", manifest, "--source-site", "a", "--target-site", "b", "--size", "small", *PATCH)
    call("run", bundle, "pretrain", *SHORT)
    call("predict", bundle, given / "scans" / "case00.nii.gz", "-o", out / "predicted", "--run", "pretrain-0")
    assert search(out) > 20


def test_text_chunks_and_exif_of_pictures(call, tmp_path):
    given, out = tmp_path / "given", tmp_path / "out"
    out.mkdir()
    for n in range(PATIENTS):
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", f"Qzfamily{n:02d}")
        exif = Image.Exif()
        exif[0x013B] = f"Qzartist{n:02d}"
        folder = given / ("normal", "ill")[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(scan(n)[0][..., 5].clip(0, 255).astype(np.uint8))
        image.save(folder / f"case{n:02d}.png", pnginfo=text, exif=exif)
    manifest, bundle = out / "set.json", out / "ill_classification"
    call("manifest", given, "-o", manifest, "--site", "a", "--fractions", "0.5,0.25,0.25")
    call("check", manifest)
    call("new", bundle, "--data", manifest, "--target-site", "a", "--size", "small")
    call("run", bundle, "train", *SHORT, "--pretrained", "null")
    call("predict", bundle, given / "ill", "-o", out / "predicted", "--run", "train-0")
    assert search(out) > 20
