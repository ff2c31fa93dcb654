"""Structure files as different makers write them: without optional attributes, with private ones, between slices."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from monai.transforms import LoadImage
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from monai_transfer.data.augmentation.mirroring import has_sides
from monai_transfer.manifest import build_manifest
from tests.manifest.layouts.test_dicom import COLUMNS, ROWS, SLICES, box, every, rtstruct, save, series

SEG = "1.2.840.10008.5.1.4.1.1.66.4"


@pytest.fixture(autouse=True)
def _own_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_TRANSFER_SECRET", str(tmp_path / "secret" / "key"))


def drawn(tmp_path, **options):
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json", **options)
    (case,) = every(manifest)
    return manifest, notes, None if case.label is None else np.asarray(LoadImage(image_only=True)(case.label))


def changed(path, change):
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path, enforce_file_format=True)


def test_a_structure_set_with_private_tags_and_without_names_and_references(tmp_path):
    files = series(tmp_path / "d" / "image")
    rtstruct(tmp_path / "d" / "rs.dcm", files[0], {"GTV": [box(2, 5, 3, 6, 2)], "": [box(8, 9, 1, 2, 3)]})

    def change(dataset):
        dataset.private_block(0x3007, "MAKER", create=True).add_new(0x10, "LO", "private")
        del dataset.ReferencedFrameOfReferenceSequence
        del dataset.StructureSetROISequence[1].ROIName
        empty = Dataset()
        empty.ReferencedROINumber = 7  # an ROI of which nothing is told, and without contours
        dataset.ROIContourSequence.append(empty)

    changed(tmp_path / "d" / "rs.dcm", change)
    manifest, _, mask = drawn(tmp_path)
    assert manifest.class_names == ["background", "GTV", "ROI 2"]
    assert (mask == 1).sum() == 16 and (mask == 2).sum() == 4


@pytest.mark.parametrize("where", ["identification", "region"])
def test_the_side_that_a_region_of_interest_is_coded_with(tmp_path, where):
    """Two structures of one name that only their observations tell apart (PS3.3 C.8.8.8)."""
    files, path = series(tmp_path / "d" / "image"), tmp_path / "d" / "rs.dcm"
    organs = {"Kidney": [box(1, 2, 1, 2, 1)], "other": [box(5, 7, 1, 2, 1)], "left cord": [box(1, 1, 4, 4, 1)]}
    rtstruct(path, files[0], organs)

    def change(dataset):
        dataset.StructureSetROISequence[1].ROIName = "Kidney"
        observations = []
        for number, code in ((1, "7771000"), (2, "G-A100"), (3, "24028007")):
            side = Dataset()
            side.CodeValue, side.CodingSchemeDesignator, side.CodeMeaning = code, "SCT", "side"
            inner, observation = Dataset(), Dataset()
            observation.ObservationNumber = observation.ReferencedROINumber = number
            observation.RTROIInterpretedType = "ORGAN"
            if where == "region":
                inner.AnatomicRegionModifierSequence = [side]
                observation.AnatomicRegionSequence = [inner]
            else:
                inner.SegmentedPropertyTypeModifierCodeSequence = [side]
                observation.RTROIIdentificationCodeSequence = [inner]
            observations.append(observation)
        dataset.RTROIObservationsSequence = observations

    changed(path, change)
    manifest, _, mask = drawn(tmp_path)
    assert set(manifest.class_names) == {"background", "Kidney left", "Kidney right", "left cord"}
    sizes = {name: int((mask == number).sum()) for number, name in enumerate(manifest.class_names) if number}
    assert sizes == {"Kidney left": 4, "Kidney right": 6, "left cord": 1}
    assert has_sides(manifest.class_names), "no flip from left to right"


def test_a_structure_set_without_contours_is_no_empty_mask(tmp_path):
    files = series(tmp_path / "d" / "image")
    rtstruct(tmp_path / "d" / "rs.dcm", files[0], {"GTV": []})
    _, notes, mask = drawn(tmp_path, labels={"GTV": "tumour"}, task="segmentation")
    assert mask is None
    assert any("label left out, none of its structures has a contour" in note for note in notes), notes


def test_contours_between_slices_make_no_holes_in_one_another(tmp_path):
    """Drawn at twice the resolution: two planes fall on one slice, the smaller inside the larger."""
    files = series(tmp_path / "d" / "image")
    rtstruct(tmp_path / "d" / "rs.dcm", files[0], {"GTV": [box(2, 9, 2, 9, 2.0), box(4, 6, 4, 6, 2.4)]})
    _, notes, mask = drawn(tmp_path)
    assert (mask[:, :, 2] == 1).sum() == 64, "the union"
    assert not any("wholly inside" in note for note in notes)


def test_a_structure_that_only_some_cases_have_is_said(tmp_path):
    for i, rois in enumerate(
        ({"liver": [box(2, 5, 3, 6, 2)], "node": [box(8, 9, 1, 2, 3)]}, {"liver": [box(2, 5, 3, 6, 2)]})
    ):
        files = series(tmp_path / "d" / f"s{i}" / "image", patient=f"P{i}", study=f"1.2.{i}")
        rtstruct(tmp_path / "d" / f"s{i}" / "rs.dcm", files[0], rois)
    _, notes = build_manifest(tmp_path / "d", tmp_path / "m.json")
    assert any("of 2 structure files, node in 1: elsewhere it counts as absent" in note for note in notes), notes


def seg(path, files, frames, *, kind="BINARY", places=True, labels=("tumour", "node")):
    """A SEG written by hand; ``frames``: (segment, slice, mask of rows x columns)."""
    images = sorted((pydicom.dcmread(f) for f in files), key=lambda one: one.InstanceNumber)
    head, found = images[0], Dataset()
    for key in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        setattr(found, key, getattr(head, key))
    found.Modality, found.SOPInstanceUID, found.SeriesInstanceUID = "SEG", generate_uid(), generate_uid()
    reference = Dataset()
    reference.SeriesInstanceUID = head.SeriesInstanceUID
    found.ReferencedSeriesSequence = [reference]
    found.SegmentationType = kind
    if kind == "FRACTIONAL":
        found.SegmentationFractionalType, found.MaximumFractionalValue = "PROBABILITY", 200
    found.Rows, found.Columns, found.NumberOfFrames = ROWS, COLUMNS, len(frames)
    found.SamplesPerPixel, found.PhotometricInterpretation, found.PixelRepresentation = 1, "MONOCHROME2", 0
    bits = 1 if kind == "BINARY" else 8
    found.BitsAllocated, found.BitsStored, found.HighBit = bits, bits, bits - 1
    found.SegmentSequence = []
    for number, label in enumerate(labels, 1):
        segment = Dataset()
        segment.SegmentNumber = number
        if label:
            segment.SegmentLabel = label
        found.SegmentSequence.append(segment)
    shared, found.PerFrameFunctionalGroupsSequence = Dataset(), []
    if places:
        measures, orientation = Dataset(), Dataset()
        measures.PixelSpacing, orientation.ImageOrientationPatient = head.PixelSpacing, head.ImageOrientationPatient
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    found.SharedFunctionalGroupsSequence = [shared]
    for segment, k, _ in frames:
        group, identity = Dataset(), Dataset()
        if kind != "LABELMAP":
            identity.ReferencedSegmentNumber = segment
            group.SegmentIdentificationSequence = [identity]
        if places:
            position = Dataset()
            position.ImagePositionPatient = images[k].ImagePositionPatient
            group.PlanePositionSequence = [position]
        else:
            source, derivation = Dataset(), Dataset()
            source.ReferencedSOPInstanceUID = images[k].SOPInstanceUID
            derivation.SourceImageSequence, group.DerivationImageSequence = [source], [derivation]
        found.PerFrameFunctionalGroupsSequence.append(group)
    stack = np.stack([mask for _, _, mask in frames])
    data = np.packbits(stack.astype(bool), bitorder="little") if kind == "BINARY" else stack.astype(np.uint8)
    data = data.tobytes()
    found.PixelData = data + b"\0" * (len(data) % 2)
    save(found, path, SEG)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def patch(value, rows, columns):
    mask = np.zeros((ROWS, COLUMNS))
    mask[rows, columns] = value
    return mask


@pytest.mark.parametrize("places", [True, False])
@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segmentations_of_every_kind_with_and_without_plane_positions(tmp_path, kind, places):
    files = series(tmp_path / "d" / "image")
    full = {"BINARY": 1, "FRACTIONAL": 150, "LABELMAP": 1}[kind]
    one, other = patch(full, slice(2, 5), slice(3, 9)), patch(full, slice(6, 8), slice(7, 8))
    if kind == "LABELMAP":
        frames = [(0, 1, one), (0, 4, 2 * other)]
    else:
        one[9, 9] = {"BINARY": 0, "FRACTIONAL": 80}[kind]  # less than half probable
        frames = [(1, 1, one), (2, 4, other)]
    seg(tmp_path / "d" / "seg.dcm", files, frames, kind=kind, places=places)
    manifest, _, mask = drawn(tmp_path)
    expected = np.zeros((COLUMNS, ROWS, SLICES))
    names = {name: number for number, name in enumerate(manifest.class_names)}
    expected[3:9, 2:5, 1], expected[7:8, 6:8, 4] = names["tumour"], names["node"]
    assert np.array_equal(mask, expected)


def test_segments_without_a_label_and_two_of_one_name(tmp_path):
    files = series(tmp_path / "d" / "image")
    frames = [(n, n, patch(1, slice(2, 4), slice(2, 4))) for n in (1, 2, 3)]
    seg(tmp_path / "d" / "seg.dcm", files, frames, labels=("lesion", "lesion", ""))
    manifest, _, mask = drawn(tmp_path)
    assert manifest.class_names == ["background", "lesion", "segment 3"]
    assert (mask == 1).sum() == 8 and (mask == 2).sum() == 4
