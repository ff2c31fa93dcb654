"""Every way in which a DICOM folder is silently misread today ends in a right volume or in one line."""

from __future__ import annotations

import io
import os

import numpy as np
import pydicom
import pytest
import torch
from monai.data import ITKReader
from monai.transforms import Compose, LoadImage, LoadImaged
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian, RLELossless, generate_uid

from monai_transfer.data.readers import DicomReader, SafeReader
from monai_transfer.errors import InputError
from tests.data.readers.refusals import refused as refused_by_any


def refused(path, pattern, **options):
    """As of every reader, and without the planted names."""
    message = refused_by_any(path, pattern, reader=DicomReader, **options)
    assert "PLANTED" not in message and "Zyx" not in message
    return message


def test_sound_series_equals_itk_reader(make_series, volume):
    folder = make_series()
    ours = LoadImage(reader="monai_transfer.data.readers.SafeReader")(folder)
    theirs = LoadImage(reader=ITKReader())(folder)
    np.testing.assert_array_equal(ours.array, volume)
    np.testing.assert_array_equal(ours.array, theirs.array)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-6)
    assert abs(float(ours.pixdim[2]) - 2.5) < 1e-9  # from positions; SliceThickness says 5


def test_oblique_series_equals_itk_reader(make_series):
    angle = np.deg2rad(20)
    row, column = (
        np.array([np.cos(angle), np.sin(angle), 0]),
        np.array([-np.sin(angle) * 0.6, np.cos(angle) * 0.6, 0.8]),
    )
    normal = np.cross(row, column)

    def oblique(dataset, n):
        dataset.ImageOrientationPatient = [round(float(v), 8) for v in (*row, *column)]
        dataset.ImagePositionPatient = [round(float(v), 8) for v in np.array([3.0, 4, 5]) - normal * 2.5 * n]

    folder = make_series(edit=oblique)
    ours = LoadImage(reader=SafeReader())(folder)
    theirs = LoadImage(reader=ITKReader())(folder)
    np.testing.assert_array_equal(ours.array, theirs.array)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-4)


def test_shuffled_instance_numbers_and_midnight(make_series, volume):
    def shuffle(dataset, n):
        dataset.InstanceNumber = (n * 3) % 8 + 1
        dataset.SeriesDate = "20260101" if n < 4 else "20260102"
        dataset.AcquisitionTime = "235959" if n < 4 else "000001"

    np.testing.assert_array_equal(DicomReader().read_volume(make_series(edit=shuffle)).array, volume)


@pytest.mark.parametrize("signed", [0, 1])
def test_unused_bits_are_cleared_and_the_sign_is_kept(make_series, volume, signed):
    values = (volume - 600 * signed).astype(np.int16)

    def twelve_bits(dataset, n):
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, signed
        stored = (values[:, :, n].T & 0x0FFF).astype("<u2") | (0 if signed else 0xA000)
        dataset.PixelData = stored.astype("<u2").tobytes()

    np.testing.assert_array_equal(DicomReader().read_volume(make_series(edit=twelve_bits)).array, values)


@pytest.mark.parametrize("planar", [0, 1])
def test_colour_series(make_series, volume, planar):
    rng = np.random.default_rng(3)
    colours = rng.integers(0, 255, (*volume.shape, 3), dtype=np.uint8)

    def edit(dataset, n):
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", planar
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
        pixels = colours[:, :, n].transpose(1, 0, 2)
        dataset.PixelData = (pixels.transpose(2, 0, 1) if planar else pixels).tobytes()

    image = LoadImage(reader=SafeReader(), ensure_channel_first=True)(make_series(edit=edit))
    np.testing.assert_array_equal(np.moveaxis(image.array, 0, -1), colours)


def test_rescale_per_slice(make_series, volume):
    def scale(dataset, n):
        dataset.RescaleSlope, dataset.RescaleIntercept = (1 if n == 0 else 0.25), 0

    array = DicomReader().read_volume(make_series(edit=scale)).array
    np.testing.assert_allclose(array[..., 0], volume[..., 0])
    np.testing.assert_allclose(array[..., 1:], volume[..., 1:] * 0.25)


def other(keyword, value, at=5):
    def edit(dataset, n):
        if n == at:
            setattr(dataset, keyword, value)

    return edit


def compressed(dataset, syntax):
    """Declare ``syntax``, with a frame that ends too early."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([b"\xff\x4f\xff\x93" + bytes(200)])
    dataset["PixelData"].is_undefined_length = True


@pytest.mark.parametrize(
    ("edit", "pattern"),
    [
        (lambda d, n: n not in (3, 4), "2 slices are missing.*im015|2 slices are missing"),
        (other("ImagePositionPatient", [-10.0, -20.0, 43.6]), "uneven slice spacing"),
        (other("ImagePositionPatient", [-10.0, -20.0, 40.0]), "two slices at the same place"),
        (other("PatientID", "PLANTEDOTHER"), "2 different patients"),
        (other("SeriesInstanceUID", generate_uid()), "2 DICOM series"),
        (other("FrameOfReferenceUID", generate_uid()), "frames of reference"),
        (other("PixelSpacing", [0.9, 0.7]), "PixelSpacing changes"),
        (other("ImageOrientationPatient", [0, 1, 0, 0, 0, -1]), "scout"),
        (other("PhotometricInterpretation", "MONOCHROME1"), "PhotometricInterpretation"),
        (lambda d, n: setattr(d, "GantryDetectorTilt", 12), "gantry tilt of 12"),
        (lambda d, n: setattr(d, "ImagePositionPatient", [-10, -20 + 0.6 * n, 30 + 2.5 * n]), "sideways .*gantry tilt"),
        (
            lambda d, n: setattr(d, "ImagePositionPatient", [-10, -20, 30 + 2.5 * (n % 4)]),
            "2 images at each of 4 places",
        ),
        (other("PixelData", bytes(100)), "cut off .100 bytes where 240"),
        (other("PixelData", bytes(300)), "longer than its header"),
        (other("ImagePositionPatient", None), "no position"),
        (lambda d, n: setattr(d, "PixelSpacing", [0.001, 0.001]), "implausible"),
        (lambda d, n: setattr(d, "NumberOfSlices", 9), "scanner made 9"),
        (lambda d, n: setattr(d, "ModalityLUTSequence", Sequence([Dataset()])), "lookup table"),
        (lambda d, n: setattr(d, "RescaleSlope", 0), "RescaleSlope is 0"),
        (lambda d, n: compressed(d, "1.2.840.10008.1.2.4.201"), "High-Throughput JPEG 2000.*cannot be decoded here"),
        (lambda d, n: compressed(d, "1.2.840.10008.1.2.4.90"), "compressed frame is cut off"),
        (lambda d, n: delattr(d, "PixelData"), "holds no image .modality MR"),
        (lambda d, n: setattr(d, "ImageOrientationPatient", [1, 0, 0, 0, 0.5, 0]), "right angle"),
        (lambda d, n: setattr(d, "PixelSpacing", [-0.8, 0.7]), "not positive"),
        (lambda d, n: setattr(d, "EchoNumbers", 1 + n % 2), "2 different echoes"),
        (lambda d, n: setattr(d, "TemporalPositionIdentifier", 1 + n // 4), "2 different time points"),
        (lambda d, n: setattr(d, "AcquisitionDate", f"2026010{1 + n}"), "7 days apart"),
        (other("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), "scout"),
        (lambda d, n: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "mosaic"),
        (lambda d, n: n % 2 == 0 and setattr(d, "SliceThickness", 2.5) is None, "only one slice in 2"),
    ],
)
def test_refused(make_series, edit, pattern):
    refused(make_series(edit=edit), pattern)


def test_two_patients_two_series_are_named_without_identifiers(make_series):
    def edit(dataset, n):
        if n > 3:
            dataset.PatientID, dataset.SeriesInstanceUID = "PLANTEDOTHER", "1.2.3"

    refused(make_series(edit=edit), "2 DICOM series of 2 patients")


def test_series_can_be_chosen(make_series, volume):
    folder = make_series()
    make_series("series", edit=lambda d, n: n == 0)  # one file of the second series replaces one of the first
    refused(folder, "2 DICOM series")
    extra = folder.parent / "twice"
    extra.mkdir()
    for n, file in enumerate(sorted(make_series("a").iterdir()) + sorted(make_series("b").iterdir())):
        dataset = pydicom.dcmread(file)
        dataset.SeriesDescription = "T2 axial" if n < 8 else "T1 axial"
        dataset.save_as(extra / f"{n}.dcm")
    np.testing.assert_array_equal(DicomReader(series="^t1").read_volume(extra).array, volume)
    refused(extra, "no series matches", series="flair")


@pytest.mark.parametrize("keep", [0, 100, 600, -50])
def test_truncated_slice_is_not_dropped(make_series, keep):
    folder = make_series()
    file = sorted(folder.iterdir())[-1]
    file.write_bytes(file.read_bytes()[:keep])
    refused(folder, "empty file|not a DICOM file|cut off|broken|cannot be read|missing")


def test_text_beside_slices_is_no_fault(make_series, volume):
    folder = make_series()
    (folder / "README.txt").write_text("about this series")
    (folder / "DICOMDIR").write_bytes(b"x")
    np.testing.assert_array_equal(DicomReader().read_volume(folder).array, volume)


def test_memory_is_refused_before_allocation(make_series):
    refused(make_series(), "needs .* GiB by its header", max_memory=1000)


def test_empty_folder_and_missing(tmp_path):
    (tmp_path / "inner").mkdir()
    refused(tmp_path, "no DICOM file; name one of its 1 subfolders")
    refused(tmp_path / "nothing", "not found")


def test_monochrome1_has_one_polarity_in_every_path(make_series, volume, tmp_path):
    plain = volume.clip(0, 1023).astype(np.uint16)

    def one(dataset, n):
        dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME1", 0
        dataset.BitsStored, dataset.HighBit = 10, 9
        dataset.PixelData = (1023 - plain[:, :, n].T).astype("<u2").tobytes()

    series = make_series(edit=one)
    np.testing.assert_array_equal(DicomReader().read_volume(series).array, plain)
    single = SafeReader().read_volume(sorted(series.iterdir())[0]).array
    np.testing.assert_array_equal(single[..., 0], plain[..., 0])

    def packed(dataset, n):
        one(dataset, n)
        dataset.compress(RLELossless, generate_instance_uid=False)

    np.testing.assert_array_equal(DicomReader().read_volume(make_series("rle", edit=packed)).array, plain)


def test_implicit_transfer_syntax(make_series, volume):
    folder = make_series(edit=lambda d, n: setattr(d.file_meta, "TransferSyntaxUID", ImplicitVRLittleEndian))
    np.testing.assert_array_equal(DicomReader().read_volume(folder).array, volume)


def enhanced(make_series, volume, positions, slope=None):
    """One enhanced multi-frame MR file made from a slice of the series."""
    dataset = pydicom.dcmread(sorted(make_series("raw").iterdir())[0])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(dataset, keyword)
    dataset.NumberOfFrames = len(positions)
    dataset.PixelData = np.concatenate([volume[:, :, n].T[None] for n in range(len(positions))]).astype("<i2").tobytes()
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.7], 5.0
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    frames = []
    for n, z in enumerate(positions):
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = [-10.0, -20.0, float(z)]
        frame.PlanePositionSequence = Sequence([place])
        if slope is not None:
            transform = Dataset()
            transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = slope[n], -5, "US"
            frame.PixelValueTransformationSequence = Sequence([transform])
        frames.append(frame)
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    path = make_series("raw").parent / "enhanced.dcm"
    dataset.save_as(path)
    return path


def test_multi_frame_is_ordered_by_position(make_series, volume):
    order = [3, 1, 0, 2, 7, 6, 5, 4]
    result = SafeReader().read_volume(enhanced(make_series, volume, [30 + 2.5 * n for n in order]))
    np.testing.assert_array_equal(result.array, volume[:, :, np.argsort(order)])
    np.testing.assert_allclose(result.spacing, (0.7, 0.8, 2.5))
    np.testing.assert_allclose(result.affine[:3, 3], (10, 20, 30))


@pytest.mark.parametrize("slopes", [[2] * 8, [1, 0.5, 2, 1, 3, 1, 1, 0.25]])
def test_multi_frame_rescales_each_frame(make_series, volume, slopes):
    result = SafeReader().read_volume(enhanced(make_series, volume, [30 + 2.5 * n for n in range(8)], slopes))
    np.testing.assert_allclose(result.array, volume * np.array(slopes) - 5)


def test_multi_frame_faults(make_series, volume):
    refused(enhanced(make_series, volume, [30, 32, 34, 36, 30, 32, 34, 36]), "2 images at each of 4 places")
    refused(enhanced(make_series, volume, [0, 2, 4, 6, 8, 12, 14, 16]), "1 slice is missing.*frame 5 and frame 6")
    path = enhanced(make_series, volume, list(range(8)))
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(path)
    refused(path, "a film")


def test_no_identifier_survives(make_series, tmp_path):
    image = LoadImaged(keys="image", reader="monai_transfer.data.readers.SafeReader")({"image": make_series()})["image"]
    buffer = io.BytesIO()
    torch.save(image, buffer)
    for secret in (b"Zyxgrimm", b"PLANTED", b"19470229", b"20991231"):
        assert secret not in buffer.getvalue()
    assert "PLANTED" not in str(image.meta)


def test_broken_values_are_not_quoted_in_warnings_or_logs(make_series, caplog, recwarn):
    def broken(dataset, n):
        dataset.add_new("PatientBirthDate", "DA", "1970")
        dataset["PatientBirthDate"]._value = "PLANTEDDATE"
        dataset["SeriesInstanceUID"]._value = "PLANTEDUID"

    DicomReader().read_volume(make_series(edit=broken))
    assert "PLANTED" not in caplog.text and not [w for w in recwarn if "PLANTED" in str(w.message)]


def test_errors_reach_the_user_through_monai(make_series):
    folder = make_series(edit=lambda d, n: n != 3)
    with pytest.raises(InputError, match="missing"):  # no other reader takes over
        LoadImage(reader="monai_transfer.data.readers.SafeReader")(folder)
    with pytest.raises(RuntimeError) as caught:
        Compose([LoadImaged(keys="image", reader=SafeReader())])({"image": folder})
    assert isinstance(caught.value.__cause__, InputError)


def test_folders_as_channels(make_series, volume):
    image = LoadImage(reader=SafeReader(), ensure_channel_first=True)([make_series("a"), make_series("b")])
    assert image.shape == (2, *volume.shape)
    shifted = make_series("c", edit=lambda d, n: setattr(d, "ImagePositionPatient", [0, 0, 2.5 * n]))
    with pytest.raises(InputError, match="not on the same grid"):
        LoadImage(reader=SafeReader())([make_series("a"), shifted])


# pydicom's test files: what ITK decodes must equal what pydicom decodes; everything else is refused in one line.
REFUSED = {
    "MR_truncated.dcm": "cut off",
    "badVR.dcm": "NumberOfFrames",
    "liver_1frame.dcm": "segmentation",
    "rtplan.dcm": "holds no image .modality RTPLAN",
    "test-SR.dcm": "holds no image",
    "examples_ybr_color.dcm": "a film",
    "no_meta.dcm": "not a DICOM file",
    "meta_missing_tsyntax.dcm": "missing|not declared",
    "JPEG2000-embedded-sequence-delimiter.dcm": "where the header says 256 x 1024",
}


@pytest.mark.parametrize("name", REFUSED)
def test_odd_files_are_refused(real_data, name):
    refused(real_data / "dicom" / "files" / name, REFUSED[name])


@pytest.mark.parametrize(
    "name",
    ["MR_small", "MR_small_RLE", "MR_small_bigendian", "MR_small_implicit", "MR_small_jp2klossless",
     "MR_small_jpeg_ls_lossless", "CT_small", "693_J2KI", "JPEG2000", "J2K_pixelrep_mismatch", "JPEGLSNearLossless_16",
     "SC_rgb_rle", "SC_rgb_rle_16bit", "SC_rgb_jpeg_dcmtk", "ExplVR_BigEnd", "examples_jpeg2k", "examples_overlay",
     "image_dfl", "SC_ybr_full_422_uncompressed", "rtdose", "rtdose_expb", "rtdose_rle", "rtdose_1frame"],
)  # fmt: skip
def test_decoding_equals_pydicom(real_data, name):
    path = real_data / "dicom" / "files" / f"{name}.dcm"
    dataset = pydicom.dcmread(path)
    expected = dataset.pixel_array.astype(float)
    scale = float(dataset.get("RescaleSlope", 1)) * float(dataset.get("DoseGridScaling", 1))
    expected = expected * scale + float(dataset.get("RescaleIntercept", 0))
    array = np.swapaxes(DicomReader().read_volume(path).array, 0, 2)
    np.testing.assert_allclose(array.reshape(expected.shape), expected, rtol=1e-6)


def test_real_series_equal_itk_reader(real_data):
    for folder in (real_data / "dicom" / "series").iterdir():
        ours, theirs = (LoadImage(reader=r)(folder) for r in (SafeReader(), ITKReader()))
        np.testing.assert_array_equal(ours.array, theirs.array)
        np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-6)


def test_pixels_of_another_patient_do_not_fill_short_data(make_series, volume):
    """ITK leaves memory of an earlier read in what a short PixelData does not cover."""
    DicomReader().read_volume(make_series("earlier"))
    folder = make_series("short", edit=other("PixelData", os.urandom(120), at=2))
    refused(folder, "cut off .120 bytes where 240")
