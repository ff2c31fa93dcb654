"""Hostile manifests, run folders, images and sets through the commands that open them."""

from __future__ import annotations

import gzip
import json
import os
import resource
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_transfer.cli import main
from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError
from monai_transfer.inspection.case import inspect_case
from monai_transfer.inspection.facts import CaseJob
from monai_transfer.manifest import Manifest
from tests.security.corpus import make_bundle

GIBIBYTES = 2.5
"""Of memory beyond what the process holds before."""
DEEP = "[" * 200_000 + "]" * 200_000
CODE = "$__import__('pathlib').Path('CANARY').touch()"
SCRIPT = "<script>document.title='canary'</script>"


def said(capsys, *words: str | Path) -> tuple[int, str]:
    """A command's exit code and what it printed; whatever it was given, never a traceback."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    out = capsys.readouterr()
    text, code = out.out + out.err, int(stop.value.code or 0)
    assert code in (0, 1, 2), text
    assert "Traceback" not in text and "--debug shows" not in text, text
    assert "weights_only=False" not in text and "allow_pickle=True" not in text, "a weaker setting is no advice"
    if code == 2:
        assert text.count("error:") == 1 and len(text.strip().splitlines()[-1]) < 1000, text
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20) - before < GIBIBYTES
    return code, text


# ---------------------------------------------------------------------- manifests
@pytest.fixture
def sound(tiny_set) -> dict:
    path = tiny_set("segmentation", 2)
    return json.loads(path.read_text()) | {"_folder": path.parent}


def _all_images(value: str) -> Callable[[dict], object]:
    def change(content: dict) -> object:
        for item in content["training"]:
            item["image"] = value
        return content

    return change


def _set(**entries: object) -> Callable[[dict], object]:
    return lambda content: content | entries


def _cases(key: str, value: object) -> Callable[[dict], object]:
    return lambda content: content | {"training": [item | {key: value} for item in content["training"]]}


MANIFESTS: dict[str, Callable[[dict], object]] = {
    "200,000 levels deep": lambda content: DEEP,
    "no text": lambda content: b"\x00\xff\xfe" * 1000,
    "70 MiB of nothing": lambda content: None,
    "a number of a million digits": lambda content: '{"name": ' + "9" * 1_000_000 + "}",
    "a list": lambda content: [content],
    "cases that are text": _set(training="x" * 1000),
    "cases that are numbers": _set(training=[1, None, [[]]]),
    "labels that nest": _set(labels={"0": {"a": {"b": []}}}),
    "classes that are MONAI's words": _set(labels={"0": "background", "1": "_target_"}),
    "a class that is code": _set(labels={"0": "background", "1": CODE}),
    "a class that is a page": _set(labels={"0": "background", "1": SCRIPT}),
    "a class with a newline": _set(labels={"0": "background", "1": "a\nimport os"}),
    "a modality with a newline": _set(modality="MR\n$import os"),
    "a channel that is code": _set(channel_names={"0": CODE}),
    "a channel that is an object": _set(channel_names={"0": {"_target_": "os.system"}}),
    "a site that is code": _cases("site", CODE),
    "a site with a null": _cases("site", "a\x00b"),
    "cases above the folder": _cases("case", "../../../canary"),
    "patients that are objects": _cases("patient", {"_target_": "os.system"}),
    "images that are passwords": _all_images("/etc/passwd"),
    "images that are a folder": _all_images("/"),
    "images that are a device": _all_images("/dev/zero"),
    "images that never end": _all_images("/proc/self/fd/0"),
    "images from a URL": _all_images("http://127.0.0.1:9/x.png"),
    "images with a null": _all_images("images/\x00.png"),
    "images of a long name": _all_images("a" * 10_000 + ".png"),
    "images that are code": _all_images(f"images/{CODE}.png"),
    "images by a pattern": _all_images("images/*.png"),
    "images of many channels": lambda content: _cases("image", ["images/x.png"] * 10_000)(content),
    "nine million values": lambda content: '{"a": [' + ",".join(["[]"] * 9_000_000) + "]}",
}


SAMPLE = ("200,000 levels deep", "a class that is code")


@pytest.mark.parametrize(
    "attack", [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.slow) for name in MANIFESTS]
)
def test_manifests_through_check(attack, sound, tmp_path, capsys):
    """The command reads images in a process of its own, which takes seconds to start."""
    path, canary = written(attack, sound, tmp_path)
    code, text = said(capsys, "check", path, "--jobs", "1")
    assert not canary.exists() and not list((tmp_path / "here").iterdir())
    assert "root:" not in text, "what is in a file that is no image is not printed"
    path.unlink()


@pytest.mark.parametrize("attack", MANIFESTS)
def test_manifests(attack, sound, tmp_path):
    path, canary = written(attack, sound, tmp_path)
    try:
        for case in Manifest.load(path).cases("training")[:1]:
            SafeReader().read(case.images[0])
    except InputError as error:
        assert len(str(error)) < 1000 and "root:" not in str(error)
    assert not canary.exists() and not list((tmp_path / "here").iterdir())
    path.unlink()


def written(attack: str, sound: dict, tmp_path: Path) -> tuple[Path, Path]:
    """The manifest of an attack, and the file that must never appear."""
    folder = sound.pop("_folder")
    path, canary = folder / "hostile.json", tmp_path / "canary"
    content = MANIFESTS[attack](json.loads(json.dumps(sound).replace("CANARY", str(canary))))
    if content is None:
        with path.open("wb") as stream:
            stream.truncate(70 << 20)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text.replace("CANARY", str(canary)))
    return path, canary


# ---------------------------------------------------------------------- run folders
ROWS = "case,patient,site,dice\n" + "".join(f"c{n},p{n},north,0.{n}5\n" for n in range(4))
RECORD = {"status": "finished", "task": "segmentation", "seed": 0, "arm": "fine_tuned", "workflow": "train"}
RECORD |= {"labels": {"0": "background", "1": "lesion"}, "primary_metric": "dice", "bundle": "theirs"}

RUNS: dict[str, dict[str, object]] = {
    "sound": {},
    "record 200,000 levels deep": {"run.json": DEEP},
    "record of another kind": {"run.json": [RECORD]},
    "record without an end": {"run.json": b"\x00" * (5 << 20)},
    "status that is an object": {"run.json": RECORD | {"status": {"a": 1}}},
    "seed beyond numbers": {"run.json": json.dumps(RECORD).replace('"seed": 0', '"seed": 1e999')},
    "labels of another kind": {"run.json": RECORD | {"labels": [1, {"a": 2}]}},
    "a page in its names": {"run.json": RECORD | {"arm": SCRIPT, "bundle": SCRIPT, "labels": {"0": SCRIPT}}},
    "a page in its cases": {"cases.csv": ROWS.replace("c1", SCRIPT).replace("p2", SCRIPT)},
    "a formula": {"cases.csv": ROWS.replace("c1", "\"=cmd|'/c calc'!A0\"")},
    "cell of a megabyte": {"cases.csv": ROWS.replace("c1", "x" * (1 << 20))},
    "cases that are no text": {"cases.csv": b"\xff\xfe\x00" * 1000},
    "cases with nulls": {"cases.csv": ROWS.replace("c1", "c\x001")},
    "values beyond numbers": {"cases.csv": ROWS.replace("0.15", "1e999").replace("0.25", "nan")},
    "ten thousand columns": {"cases.csv": ROWS.replace("dice", ",".join(f"x{n}" for n in range(10_000)))},
    "summary of another kind": {"summary.json": [[]]},
    "summary 200,000 levels deep": {"summary.json": DEEP},
    "weights of another kind": {"weights.json": {"coverage": [], "loaded": "x", "adapted": 3, "notes": 7}},
    "curves of another kind": {"metrics.csv": "epoch,split,loss\n1e999,train,x\n,,\n"},
    "pictures that are links": {"figures/c1.png": Path("/etc/passwd")},
    "pictures of a gigapixel": {"figures/c1.png": "PNG"},
    "trust of another kind": {"run.json": RECORD | {"trusted": [SCRIPT], "versions": SCRIPT, "machine": 3}},
    "fields of another kind": {
        "run.json": RECORD | {"steps": "x", "source_site": {"a": 1}, "joint": [1], "budget": 3, "auto": {"scores": [1]}}
    },
    "a decision of another kind": {
        "run.json": RECORD | {"arm": "auto", "auto": {"scores": {"a": SCRIPT}, "taken": [1]}}
    },
    "a record that is null": {"run.json": "null"},
    "an ellipsoid of another kind": {"../blob.json": {"metric": "dice", "value": {"a": [SCRIPT]}}},
    "an ellipsoid that is null": {"../blob.json": "null"},
    "an ellipsoid 200,000 levels deep": {"../blob.json": DEEP},
    "validators of another kind": {"validators.json": {"scores": {"snd": SCRIPT}, "alarm": {"a": [1]}}},
    "alignment of another kind": {"alignment.json": {"accuracy": [[]], "points": SCRIPT}},
    "guesses of another kind": {"summary.json": {"guesses": {"blob": [1], "everything": {"lesion": SCRIPT}}}},
    "epochs that are no numbers": {
        "metrics.csv": "epoch,split,val_dice\n\u00b2,validation,x\n" + "9" * 5000 + ",x,1\n"
    },
    "curves that are no text": {"metrics.csv": b"epoch,split\n\xff\x00,\xfe\n"},
    "config of aliases": {"config.yaml": "a: &a [x]\n" + "".join(f"b{n}: &b{n} [*a,*a]\n" for n in range(9))},
}


def png(width: int, height: int, packed_text: bytes = b"") -> bytes:
    """A PNG that promises so many pixels and holds none, with a compressed comment."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\x00" * 1000)
    comment = chunk(b"zTXt", b"Comment\0\0" + packed_text) if packed_text else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + comment + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def tiff(width: int, height: int, following: int = 0) -> bytes:
    """A TIFF that promises so many pixels, and whose next page is at ``following``."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 150, 277: 1, 278: height, 279: 64}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", following) + bytes(64)


@pytest.mark.parametrize("attack", RUNS)
def test_run_folders(attack, tmp_path, capsys):
    root = tmp_path / "runs"
    for name in ("ours", "theirs"):
        run = root / name
        run.mkdir(parents=True)
        (run / "run.json").write_text(
            json.dumps(RECORD | ({"arm": "source", "workflow": "evaluate"} if name == "ours" else {}))
        )
        (run / "cases.csv").write_text(ROWS)
    for name, content in RUNS[attack].items():
        path = root / "theirs" / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content)
        elif content == "PNG":
            path.write_bytes(png(65_000, 65_000))
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    page = tmp_path / "report.html"
    code, _ = said(capsys, "compare", root / "ours", root / "theirs", "-o", page)
    assert code in (0, 1) or attack != "sound"
    if page.exists():
        assert "<script>document" not in page.read_text() and "root:x" not in page.read_text()
    said(capsys, "runs", root)
    assert not list((tmp_path / "here").iterdir())


# ---------------------------------------------------------------------- images and sets
def _text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


def _nifti(
    path: Path, shape: tuple[int, ...], data: bytes = b"\x00" * 1000, first_row: tuple[float, ...] = (1, 0, 0, 0)
) -> None:
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float64)
    header["dim"][: len(shape) + 1] = [len(shape), *shape]
    header["vox_offset"], header["magic"], header["sform_code"] = 352, b"n+1", 1
    header["srow_x"], header["srow_y"], header["srow_z"] = first_row, (0, 1, 0, 0), (0, 0, 1, 0)
    content = header.binaryblock + b"\x00" * 4 + data
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _dicom(path: Path) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    item = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.MediaStorageSOPClassUID, item.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.SOPClassUID, item.SOPInstanceUID = CTImageStorage, item.file_meta.MediaStorageSOPInstanceUID
    item.SeriesInstanceUID, item.StudyInstanceUID, item.PatientID, item.Modality = "1.2", "1.3", "canary", "CT"
    item.Rows = item.Columns = 65535
    item.NumberOfFrames, item.SamplesPerPixel, item.PhotometricInterpretation = 1000, 1, "MONOCHROME2"
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 0
    item.PixelSpacing, item.ImageOrientationPatient, item.ImagePositionPatient = [1, 1], [1, 0, 0, 0, 1, 0], [0, 0, 0]
    item.PixelData = b"\x00" * 1000
    item.save_as(path, enforce_file_format=True)


def _deep_dicom(path: Path) -> None:
    """Sequences within sequences, of undefined length."""
    _dicom(path)
    content = path.read_bytes()
    at = content.index(b"\x10\x00\x20\x00LO")  # the patient's number; the sequence's own tag is smaller
    begin = b"\x08\x00\x10\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    path.write_bytes(content[:at] + begin * 5000 + end * 5000 + content[at:])


def _bomb(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for _ in range(256):
            stream.write(bytes(1 << 20))


IMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "NIfTI of 35 TB": ("a.nii", lambda path: _nifti(path, (32767, 32767, 32767))),
    "packed NIfTI of 35 TB": ("a.nii.gz", lambda path: _nifti(path, (32767, 32767, 32767))),
    "NIfTI of negative size": ("a.nii", lambda path: _nifti(path, (-5, 4, 4))),
    "gzip bomb": ("a.nii.gz", _bomb),
    "gzip that is cut off": ("a.nii.gz", lambda path: path.write_bytes(gzip.compress(os.urandom(4000))[:2000])),
    "PNG of 4 gigapixels": ("a.png", lambda path: path.write_bytes(png(65_000, 65_000))),
    "PNG of 2^60 pixels": ("a.png", lambda path: path.write_bytes(png((1 << 31) - 1, (1 << 31) - 1))),
    "DICOM of 8 TB": ("a.dcm", _dicom),
    "NRRD of 8 PB": (
        "a.nrrd",
        lambda path: path.write_text(
            "NRRD0004\ntype: double\ndimension: 3\nsizes: 100000 100000 100000\nencoding: raw\nendian: little\n"
            "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\nx"
        ),
    ),
    "NRRD that names another file": (
        "a.nhdr",
        lambda path: path.write_text(
            "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndata file: /etc/passwd\n\n"
        ),
    ),
    "MetaImage that names another file": (
        "a.mha",
        lambda path: path.write_text(
            "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = /etc/passwd\n"
        ),
    ),
    "MetaImage of 8 TB": (
        "a.mha",
        lambda path: path.write_text(
            "ObjectType = Image\nNDims = 3\nDimSize = 10000 10000 10000\nElementType = MET_DOUBLE\n"
            "ElementDataFile = LOCAL\nx"
        ),
    ),
    "NRRD of a dimension without an end": ("a.nrrd", _text("NRRD0004\ntype: uint8\ndimension: " + "9" * 5000)),
    "NRRD of files that it lists": (
        "a.nhdr",
        _text("NRRD0004\ntype: uint8\ndimension: 1\nsizes: 4\nencoding: raw\ndata file: LIST\n/etc/passwd\n"),
    ),
    "MetaImage of 99 dimensions": (
        "a.mha",
        _text("ObjectType = Image\nNDims = 99\nDimSize = 4\nElementDataFile = LOCAL\n" + "x" * 99),
    ),
    "MetaImage of files that it lists": (
        "a.mhd",
        _text("NDims = 1\nDimSize = 4\nElementType = MET_UCHAR\nElementDataFile = LIST\n/etc/passwd\n"),
    ),
    "NIfTI beyond numbers": ("a.nii", lambda path: _nifti(path, (4, 4, 4), first_row=(np.nan, np.inf, 0, 0))),
    "PNG with a packed text": ("a.png", lambda path: path.write_bytes(png(8, 8, zlib.compress(bytes(1 << 27))))),
    "TIFF of 4 exapixels": ("a.tif", lambda path: path.write_bytes(tiff((1 << 31) - 1, (1 << 31) - 1))),
    "TIFF without an end": ("a.tif", lambda path: path.write_bytes(tiff(8, 8, following=8))),
    "DICOM 5,000 levels deep": ("a.dcm", _deep_dicom),
    "an empty file": ("a.nii.gz", lambda path: path.write_bytes(b"")),
    "a pickle": ("a.npy", lambda path: np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    return make_bundle(folder / "bundle", "none", folder / "canary")


@pytest.mark.parametrize("attack", IMAGES)
def test_images(attack, bundle, tmp_path, capsys):
    name, write = IMAGES[attack]
    path = tmp_path / "images" / name
    path.parent.mkdir()
    write(path)
    manifest = tmp_path / "m.json"
    cases = [{"image": f"images/{name}", "label": f"images/{name}", "patient": "a", "case": "a", "site": "north"}]
    labels = {"0": "background", "1": "lesion"}
    manifest.write_text(json.dumps({"name": "n", "task": "segmentation", "labels": labels, "training": cases}))
    if attack in ("packed NIfTI of 35 TB", "DICOM of 8 TB"):  # in a process of its own, which takes seconds to start
        code, text = said(capsys, "check", manifest, "--jobs", "1")
        assert code == 1 and "root:" not in text, text
    else:
        report = inspect_case(CaseJob("a", [str(path)], label=str(path)))
        assert report.findings and not any("root:" in str(finding) for finding in report.findings)
    code, text = said(capsys, "predict", bundle, path, "-o", tmp_path / "out")
    assert code in (1, 2), text
    said(capsys, "manifest", tmp_path / "images", "-o", tmp_path / "made.json")
    assert not list((tmp_path / "here").iterdir())


def _npz(path: Path, shape: tuple[int, ...], data: int, name: str = "images") -> None:
    header = str({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as stream,
    ):
        stream.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        for _ in range(data >> 20):
            stream.write(bytes(1 << 20))


SETS: dict[str, Callable[[Path], object]] = {
    "npz that unpacks to much": lambda path: _npz(path, (512, 1024, 1024), 512 << 20),
    "npz whose array lies": lambda path: _npz(path, (1 << 20, 1 << 20, 1 << 20), 1 << 20),
    "npz that runs": lambda path: np.savez(path, images=np.array([{"a": 1}], dtype=object)),
    "npz that is none": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(1000)),
    "npz of other arrays": lambda path: np.savez(path, images=np.zeros((2, 3)), labels=np.array(["$a", "@b"])),
}


@pytest.mark.parametrize("attack", SETS)
def test_sets(attack, tmp_path, capsys):
    path = tmp_path / "set.npz"
    SETS[attack](path)
    code, text = said(capsys, "manifest", path, "-o", tmp_path / "made" / "m.json")
    assert code == 2, text
    assert not list(tmp_path.rglob("*.png"))


def test_class_folders_that_are_code(tmp_path, capsys, monkeypatch):
    """A folder's name becomes a class: through `manifest`, `new` and `run`'s configs it stays a name."""
    from PIL import Image

    canary = tmp_path / "canary"
    names = ["$open('canary','w')", "@bundle_root", "%x.json", "a'''b", '"quoted"']
    rng = np.random.default_rng(0)
    for name in names:
        (tmp_path / "set" / name).mkdir(parents=True)
        for n in range(6):
            Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(tmp_path / "set" / name / f"{n}.png")
    code, text = said(capsys, "manifest", tmp_path / "set", "-o", tmp_path / "m.json")
    assert code in (0, 1), text
    code, text = said(capsys, "new", tmp_path / "my_classification", "--data", tmp_path / "m.json", "--size", "small")
    assert code == 0, text
    from monai.bundle import ConfigParser

    monkeypatch.chdir(tmp_path / "my_classification")
    parser = ConfigParser(ConfigParser.load_config_file("configs/train.yaml"))
    parser.parse()
    assert sorted(parser.get_parsed_content("class_names")) == sorted(names)
    assert not canary.exists() and not list(tmp_path.rglob("canary*"))
