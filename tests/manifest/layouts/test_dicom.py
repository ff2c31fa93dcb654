"""DICOM trees: series, patients, sites, days, masks from every kind of label, and nothing that names a patient."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from monai.transforms import LoadImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from monai_transfer.errors import InputError
from monai_transfer.inspection import check_manifest
from monai_transfer.manifest import build_manifest

CT, RTSTRUCT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.481.3"
PLANTED = ("Grimaldi", "Eleonora", "PID-77123", "19510203", "ACC-5567")
ROWS, COLUMNS, SLICES, SPACING = 12, 16, 6, (0.8, 0.7, 2.5)
TILT = np.deg2rad(20)  # slices that lie obliquely, so that a wrong axis or sign shows
ACROSS, DOWN = np.array([1.0, 0, 0]), np.array([0, np.cos(TILT), np.sin(TILT)])
NORMAL, ORIGIN = np.cross(ACROSS, DOWN), np.array([-5.0, 7.0, 30.0])


@pytest.fixture(autouse=True)
def _own_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_TRANSFER_SECRET", str(tmp_path / "secret" / "key"))


def save(dataset: Dataset, path: Path, sop_class: str) -> None:
    dataset.SOPClassUID = sop_class
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def patient_header(patient: str, study: str, series: str, modality: str) -> Dataset:
    header = Dataset()
    header.PatientID, header.PatientName = patient, "Grimaldi^Eleonora"
    header.PatientBirthDate, header.AccessionNumber = "19510203", "ACC-5567"
    header.StudyInstanceUID, header.SeriesInstanceUID = study, series
    header.Modality, header.SOPInstanceUID = modality, generate_uid()
    header.FrameOfReferenceUID = study + ".1"
    return header


def series(
    folder: Path, patient="PID-77123", study="1.2.3", uid=None, n=SLICES, date="20200105", prefix="", **tags
) -> list[Path]:
    """Write a CT series in shuffled file order; the pixel value at (row, column, slice) tells the voxel."""
    uid, paths = uid or generate_uid(), []
    for k in range(n):
        slice_ = patient_header(patient, study, uid, tags.get("Modality", "CT"))
        slice_.StudyDate = slice_.SeriesDate = date
        slice_.Manufacturer, slice_.SeriesDescription, slice_.SeriesNumber = "ACME / GmbH", "thin", 1
        slice_.ImageType, slice_.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], k + 1
        slice_.Rows, slice_.Columns, slice_.PixelSpacing = ROWS, COLUMNS, [SPACING[0], SPACING[1]]
        slice_.ImageOrientationPatient = [float(f"{v:.6f}") for v in (*ACROSS, *DOWN)]
        slice_.ImagePositionPatient = [float(f"{v:.6f}") for v in ORIGIN + k * SPACING[2] * NORMAL]
        slice_.SliceThickness = SPACING[2]
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.RescaleSlope, slice_.RescaleIntercept = 1, 0
        for name, value in tags.items():
            setattr(slice_, name, value)
        pixels = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) + 1000 * k
        slice_.PixelData = pixels.astype("<i2").tobytes()
        paths.append(folder / f"{prefix}{(7 * k + 3) % 101:03d}.dcm")
        save(slice_, paths[-1], CT)
    return paths


def rtstruct(path: Path, image: Path, rois: dict[str, list[list[tuple[float, float, int]]]]) -> None:
    """Contours given as (column, row, slice) in voxels."""
    head = pydicom.dcmread(image)
    structure = patient_header(head.PatientID, head.StudyInstanceUID, generate_uid(), "RTSTRUCT")
    reference, study, of_series = Dataset(), Dataset(), Dataset()
    of_series.SeriesInstanceUID = head.SeriesInstanceUID
    study.RTReferencedSeriesSequence = [of_series]
    reference.FrameOfReferenceUID, reference.RTReferencedStudySequence = head.FrameOfReferenceUID, [study]
    structure.ReferencedFrameOfReferenceSequence = [reference]
    structure.StructureSetROISequence, structure.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            kind, points = points if isinstance(points, tuple) else ("CLOSED_PLANAR", points)
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            mm = [
                ORIGIN + c * SPACING[1] * ACROSS + r * SPACING[0] * DOWN + k * SPACING[2] * NORMAL for c, r, k in points
            ]
            contour.ContourData = [f"{value:.4f}" for point in mm for value in point]
            drawn.ContourSequence.append(contour)
        structure.StructureSetROISequence.append(roi)
        structure.ROIContourSequence.append(drawn)
    save(structure, path, RTSTRUCT)


def box(c0, c1, r0, r1, k):
    """A rectangle around voxels c0..c1 and r0..r1 of slice k."""
    c0, c1, r0, r1 = c0 - 0.4, c1 + 0.4, r0 - 0.4, r1 + 0.4
    return [(c0, r0, k), (c1, r0, k), (c1, r1, k), (c0, r1, k)]


def every(manifest):
    return [case for split in ("training", "validation", "test", "unlabeled") for case in manifest.cases(split)]


def assert_nothing_planted(folder: Path) -> None:
    for path in folder.rglob("*"):
        text = path.relative_to(folder).as_posix().encode() + (path.read_bytes() if path.is_file() else b"")
        if path.name.endswith(".gz"):
            text += nibabel.load(path).header.binaryblock
        assert not [planted for planted in PLANTED if planted.encode() in text], path


def test_structures_become_masks_on_the_series_grid(tmp_path):
    files = series(tmp_path / "d" / "one" / "image")
    rings = [box(2, 9, 3, 8, 2), box(4, 6, 5, 6, 2)]  # the inner one is a hole
    rtstruct(tmp_path / "d" / "one" / "rs.dcm", files[0], {"GTV_a": rings, "organ": [box(8, 12, 2, 9, 2)]})
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "out" / "m.json")
    assert manifest.class_names == ["background", "GTV_a", "organ"]
    (case,) = every(manifest)
    image, mask = LoadImage(image_only=True)(case.image), LoadImage(image_only=True)(case.label)
    assert image.shape == mask.shape == (COLUMNS, ROWS, SLICES)
    assert np.allclose(image.affine, mask.affine, atol=1e-3)
    expected = np.zeros((COLUMNS, ROWS, SLICES))
    expected[2:10, 3:9, 2] = 1
    expected[4:7, 5:7, 2] = 0
    expected[8:13, 2:10, 2] = 2  # 40 voxels: the smaller one lies on top
    assert np.array_equal(mask, expected)
    assert int(image[5, 4, 3]) == 3000 + 4 * COLUMNS + 5  # the image as MONAI reads it has the same order of axes
    (note,) = [note for note in notes if "structures overlap" in note]
    assert "in the order GTV_a, organ (by size)" in note and "lost: GTV_a 28.6%, organ 0.0%" in note
    assert any("GTV_a: 1 contour wholly inside another (2.82 mm2" in note and "--nested" in note for note in notes)
    filled, _ = build_manifest(
        tmp_path / "d", tmp_path / "out" / "m.json", nested="fill", labels=["x", "organ", "GTV_a"]
    )
    mask = LoadImage(image_only=True)(every(filled)[0].label)
    assert (mask[4:7, 5:7, 2] == 2).all() and (mask[8:10, 3:9, 2] == 2).all()


def test_regions_keep_what_overlaps(tmp_path):
    files = series(tmp_path / "d" / "one" / "image")
    rois = {"liver": [box(1, 10, 1, 9, 2)], "cyst": [box(3, 5, 3, 5, 2)], "rib": [box(12, 13, 1, 2, 2)]}
    rtstruct(tmp_path / "d" / "one" / "rs.dcm", files[0], rois)
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json", overlaps="regions")
    assert manifest.labels == {"0": "background", "1": "cyst", "2": "liver", "3": "rib", "4": "cyst+liver"}
    assert manifest.regions == {"cyst": [1, 4], "liver": [2, 4], "rib": [3]}
    mask = LoadImage(image_only=True)(every(manifest)[0].label)
    targets = manifest.label_mapping.targets(manifest.label_mapping.encode(mask[None]))
    assert [int(channel.sum()) for channel in targets] == [9, 90, 4]
    assert any("cyst 100.0%, liver 10.0%" in note or "liver 10.0%, cyst 100.0%" in note for note in notes)
    on_top, notes = build_manifest(tmp_path / "d", tmp_path / "m.json", labels={"cyst": "cyst", "liver": "liver"})
    assert any("in the order cyst, liver (as --labels has it)" in note and "cyst 100.0%" in note for note in notes)
    with pytest.raises(InputError, match="no way; one of order, regions"):
        build_manifest(tmp_path / "d", tmp_path / "m.json", overlaps="union")


def test_contours_that_enclose_nothing_are_named(tmp_path):
    files = series(tmp_path / "d" / "one" / "image")
    point = ("POINT", [(4, 4, 2)])
    line = ("OPEN_PLANAR", [(1, 1, 2), (5, 5, 2), (5, 6, 2)])
    ring = [("CLOSEDPLANAR_XOR", box(2, 9, 3, 8, 2)), ("CLOSEDPLANAR_XOR", box(4, 6, 5, 6, 2))]
    rois = {"GTV": [*ring, point, line, line], "iso": [point], "far": [box(1, 2, 1, 2, 40), box(1, 2, 1, 2, 3)]}
    rtstruct(tmp_path / "d" / "one" / "rs.dcm", files[0], rois)
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json")
    mask = LoadImage(image_only=True)(every(manifest)[0].label)
    assert int((mask == 1).sum()) == 48 - 6
    for said in (
        "GTV: 2 contours left out: OPEN_PLANAR",
        "GTV: 1 contour left out: POINT",
        "iso: 1 contour left out: POINT",
        "far: 1 contour left out: outside the images",
    ):
        assert any(said in note for note in notes), notes


def test_structures_are_chosen_by_name_and_pattern(tmp_path):
    for i, roi in enumerate(["GTV_CT", "GTV_MR"]):
        files = series(tmp_path / "d" / f"s{i}" / "image", patient=f"P{i}", study=f"1.2.{i}")
        rtstruct(
            tmp_path / "d" / f"s{i}" / "rs.dcm", files[0], {roi: [box(1, 2, 1, 2, 0)], "cord": [box(5, 6, 5, 6, 0)]}
        )
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json", labels={"GTV*": "tumour"})
    assert manifest.class_names == ["background", "tumour"]
    assert all(LoadImage(image_only=True)(case.label).sum() == 4 for case in every(manifest))
    assert any("1 structure not among the labels, left out: cord" in note for note in notes)
    with pytest.raises(InputError, match="structures are called GTV_CT, GTV_MR, cord"):
        build_manifest(tmp_path / "d", tmp_path / "m.json", labels={"liver": "liver"})


def test_segmentation_objects_by_highdicom(tmp_path):
    highdicom = pytest.importorskip("highdicom")
    from pydicom.sr.codedict import codes

    files = series(tmp_path / "d" / "one" / "image", PatientSex="F", StudyTime="120000", StudyID="1")
    images = [pydicom.dcmread(path) for path in files]
    for image in images:
        image.ReferringPhysicianName = ""
    mask = np.zeros((SLICES, ROWS, COLUMNS, 2), dtype=np.uint8)
    mask[1:4, 2:5, 3:9, 0] = 1
    mask[4, 6, 7, 1] = 1
    describe = [
        highdicom.seg.SegmentDescription(
            number,
            label,
            codes.SCT.Tissue,
            codes.SCT.Tissue,
            highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(["tumour", "node"], start=1)
    ]
    segmentation = highdicom.seg.Segmentation(
        images,
        mask,
        highdicom.seg.SegmentationTypeValues.BINARY,
        describe,
        generate_uid(),
        1,
        generate_uid(),
        1,
        "maker",
        "model",
        "1",
        "1",
    )
    segmentation.save_as(tmp_path / "d" / "one" / "seg.dcm")
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json")
    (case,) = every(manifest)
    assert manifest.class_names == ["background", "node", "tumour"]
    drawn = np.asarray(LoadImage(image_only=True)(case.label))
    expected = np.zeros((COLUMNS, ROWS, SLICES))
    expected[3:9, 2:5, 1:4] = 2
    expected[7, 6, 4] = 1
    assert np.array_equal(drawn, expected)


def test_nothing_names_a_patient_and_pseudonyms_are_stable(tmp_path):
    files = series(tmp_path / "d" / "PID-77123" / "19510203" / "ct")
    rtstruct(tmp_path / "d" / "PID-77123" / "rs.dcm", files[0], {"GTV": [box(1, 3, 1, 3, 1)]})
    other = {"patient": "PID-9", "study": "1.2.9", "date": "20200112"}
    series(tmp_path / "d" / "other", **other, SeriesDescription="Grimaldi brain")
    series(tmp_path / "d" / "other", **other, n=3, prefix="b")  # a second series in the same folder
    tags = ["Manufacturer", "Modality"]
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "out" / "m.json", site_from=tags)
    assert_nothing_planted(tmp_path / "out")
    assert not [planted for planted in PLANTED if planted in "\n".join(notes)]
    assert manifest.sites == ["ACME_GmbH_CT"] and len(manifest.patients) == 2
    assert sorted(case.acquired for case in every(manifest)) == [0, 7]
    for case in every(manifest):
        image = LoadImage(image_only=True)(case.image)
        assert image.shape == (COLUMNS, ROWS, SLICES) and int(image[5, 4, 3]) == 3000 + 4 * COLUMNS + 5
    again, _ = build_manifest(tmp_path / "d", tmp_path / "out" / "again.json")
    assert again.patients == manifest.patients
    assert (tmp_path / "secret" / "key").stat().st_mode & 0o077 == 0
    (tmp_path / "secret" / "key").write_text("another secret of sufficient length")
    other, _ = build_manifest(tmp_path / "d", tmp_path / "out" / "other.json")
    assert not set(other.patients) & set(manifest.patients)


def test_masks_beside_the_series(tmp_path):
    for i in range(3):
        series(tmp_path / "d" / f"a{i}" / "dicom", patient=f"P{i}", study=f"1.2.{i}")
        mask = np.zeros((COLUMNS, ROWS, SLICES), dtype=np.uint8)
        mask[i + 1] = 1
        place = [f"a{i}/mask.nii.gz", f"labels/a{i}.nii.gz", f"a{i}/seg/PID-x.nii"][i]
        (tmp_path / "d" / place).parent.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / "d" / place)
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", labels=["background", "x"])
    assert len(every(manifest)) == 3
    for case in every(manifest):
        number = int(next(part for part in Path(case.image).parts if part in ("a0", "a1", "a2"))[1])
        assert np.asarray(nibabel.load(case.label).dataobj)[number + 1].all()


def test_a_mask_among_the_slices_does_not_hinder_reading(tmp_path):
    files = series(tmp_path / "d" / "a")
    mask = np.zeros((COLUMNS, ROWS, SLICES), dtype=np.uint8)
    mask[2:5] = 1
    image = LoadImage(image_only=True)(tmp_path / "d" / "a")
    nibabel.save(nibabel.Nifti1Image(mask, image.affine.numpy()), tmp_path / "d" / "a" / "mask.nii.gz")
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json", labels=["background", "x"])
    (case,) = every(manifest)
    assert "m_files/series" in case.image and len(list(Path(case.image).iterdir())) == len(files)
    assert not [finding.line() for finding in check_manifest(manifest) if finding.severity == "error"]


def test_which_series_is_taken(tmp_path):
    base = tmp_path / "d" / "p"
    series(base / "scout", n=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesDescription="scout")
    series(base / "thin", n=6, SeriesDescription="Axial thin")
    series(base / "thick", n=3, SeriesDescription="Axial thick")
    options = {"task": "segmentation", "labels": ["background", "x"]}
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json", **options)
    assert [Path(case.image).name for case in every(manifest)] == ["thin"]
    assert any("2 series left out" in note for note in notes)
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", series_description="THICK", **options)
    assert [Path(case.image).name for case in every(manifest)] == ["thick"]
    with pytest.raises(InputError, match="no series description holds 'coronal'"):
        build_manifest(tmp_path / "d", tmp_path / "m.json", series_description="coronal", **options)


def test_classes_from_a_table_by_patient_id(tmp_path):
    for i in range(8):
        series(tmp_path / "d" / f"s{i}", patient=f"PID-{i}", study=f"1.2.{i}", n=1, Modality="DX")
    rows = "\n".join(f"PID-{i},{'ill' if i % 2 else 'well'}" for i in range(8))
    (tmp_path / "t.csv").write_text(f"PatientID,label\n{rows}\nPID-99,ill")
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json", table=tmp_path / "t.csv")
    assert manifest.task == "classification"
    for case in every(manifest):
        assert case.label == 1 - int(Path(case.image).parent.name[1]) % 2  # classes are sorted: ill, well
    assert "PID" not in (tmp_path / "m.json").read_text() and not any("PID" in note for note in notes)


@pytest.mark.parametrize(
    ("keyword", "message"),
    [("PatientName", "identify patients"), ("StudyDate", "identify"), ("Manufacturr", "did you mean 'Manufacturer'")],
)
def test_site_tags(tmp_path, keyword, message):
    series(tmp_path / "d" / "a")
    with pytest.raises(InputError, match=message):
        build_manifest(tmp_path / "d", tmp_path / "m.json", site_from=[keyword])


def test_a_missing_slice_leaves_the_label_out_aloud(tmp_path):
    files = series(tmp_path / "d" / "one" / "image")
    rtstruct(tmp_path / "d" / "one" / "rs.dcm", files[0], {"GTV": [box(1, 3, 1, 3, 1)]})
    files[3].unlink()
    _, notes = build_manifest(tmp_path / "d", tmp_path / "m.json", labels=["background", "x"])
    assert any("label left out, slices are doubled, missing or unevenly spaced" in note for note in notes)


def test_short_secret(tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("abc")
    series(tmp_path / "d" / "a")
    with pytest.raises(InputError, match="too short for a secret"):
        build_manifest(tmp_path / "d", tmp_path / "m.json", task="segmentation", labels=["background", "x"])


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_real_structure_sets_equal_the_published_masks(real_data, tmp_path, modality):
    """The IBSI set gives the same contour as RTSTRUCT and as NIfTI: every voxel must agree."""
    source = real_data / "sarcoma" / "dicom" / {"ct": "STS_032_CT", "mr": "STS_032_MR_T1"}[modality]
    manifest, _ = build_manifest(source, tmp_path / "m.json", labels=["background", "tumour"])
    (case,) = every(manifest)
    drawn = LoadImage(image_only=True)(case.label)
    published = LoadImage(image_only=True)(real_data / "sarcoma" / modality / "masks" / "STS_032.nii.gz")
    assert np.allclose(drawn.affine, published.affine, atol=1e-2)
    assert np.array_equal(drawn > 0, published > 0) and drawn.sum() > 1000
