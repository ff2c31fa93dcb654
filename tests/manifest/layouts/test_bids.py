"""BIDS folders: sessions, several contrasts, derivatives, participants and acquisition times."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from monai_transfer.errors import InputError
from monai_transfer.manifest import build_manifest

SEED = iter(range(10**6))


def write(path, values=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(next(SEED)).random((3, 4, 5)) if values is None else values
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), path)


@pytest.fixture
def bids(tmp_path):
    folder = tmp_path / "d"
    for i in range(8):
        subject = folder / f"sub-{i:02d}"
        for session in ("1", "2"):
            base = f"sub-{i:02d}_ses-{session}"
            write(subject / f"ses-{session}" / "anat" / f"{base}_T1w.nii.gz")
            if i < 6:
                write(subject / f"ses-{session}" / "anat" / f"{base}_FLAIR.nii.gz")
            where = folder / "derivatives" / "seg" / f"sub-{i:02d}" / f"ses-{session}" / "anat"
            write(where / f"{base}_dseg.nii.gz", np.arange(60).reshape(3, 4, 5) % 2)
            write(where / f"{base}_desc-brain_mask.nii.gz", np.ones((3, 4, 5)))
            write(where / f"{base}_space-MNI_dseg.nii.gz", np.ones((3, 4, 5)))
            (subject / f"ses-{session}" / f"{base}_scans.tsv").write_text(
                f"filename\tacq_time\nanat/{base}_T1w.nii.gz\t1999-03-0{session}T10:0{i}:00\n"
            )
    rows = [f"sub-{i:02d}\t{'ab'[i % 2]}\t{30 + i}.5" for i in range(8)]
    (folder / "participants.tsv").write_text("participant_id\tsite\tage\n" + "\n".join(rows))
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    return folder


def every(manifest):
    return [case for split in ("training", "validation", "test", "unlabeled") for case in manifest.cases(split)]


def test_sessions_masks_sites_and_days(bids, tmp_path):
    manifest, notes = build_manifest(bids, tmp_path / "m.json")
    assert manifest.task == "segmentation" and manifest.sites == ["a", "b"] and len(manifest.patients) == 8
    assert len(every(manifest)) == 16
    for case in every(manifest):
        assert case.image.endswith(f"{case.case}_T1w.nii.gz") and case.label.endswith(f"{case.case}_dseg.nii.gz")
        assert case.site == "ab"[int(case.patient[-2:]) % 2] and case.acquired == ("ses-2" in case.case)
    assert "1999" not in (tmp_path / "m.json").read_text()
    assert any("left out: FLAIR (12 images)" in note for note in notes)
    assert any("32 masks that fit no image, left out" in note for note in notes)


def test_channels_on_request(bids, tmp_path):
    with pytest.raises(InputError, match=r"4 cases without every channel \(missing: FLAIR in 4\).*--missing-channels"):
        build_manifest(bids, tmp_path / "m.json", channels=["T1w", "FLAIR"])
    left = {"channels": ["T1w", "FLAIR"], "missing_channels": "leave-out"}
    manifest, notes = build_manifest(bids, tmp_path / "m.json", **left)
    assert manifest.channel_names == {"0": "T1w", "1": "FLAIR"} and len(every(manifest)) == 12
    assert any("4 cases without every channel" in note and "left out" in note for note in notes)
    kept, _ = build_manifest(bids, tmp_path / "m.json", channels=["T1w", "FLAIR"], missing_channels="zeros")
    lacking = [case for case in every(kept) if case.missing]
    assert len(every(kept)) == 16 and len(lacking) == 4
    assert all(case.missing == [1] and case.image[0] == case.image[1] for case in lacking)
    assert [item["missing"] for item in kept.datalist("training")] == [case.missing for case in kept.training]
    with pytest.raises(InputError, match="did you mean 'FLAIR'"):
        build_manifest(bids, tmp_path / "m.json", channels=["FLARE"])


def test_scanner_fields_of_the_json_files_are_sites(bids, tmp_path):
    (bids / "T1w.json").write_text('{"Manufacturer": "Siemens", "MagneticFieldStrength": 3}')
    near = next(bids.glob("sub-01/**/*_T1w.nii.gz"))
    near.with_name(near.name.replace(".nii.gz", ".json")).write_text('{"Manufacturer": "GE Medical"}')
    (bids / "participants.tsv").unlink()
    manifest, _ = build_manifest(bids, tmp_path / "m.json", site_from=["Manufacturer", "MagneticFieldStrength"])
    of = {case.image: case.site for case in every(manifest)}
    assert of.pop(str(near)) == "GE_Medical_3" and set(of.values()) == {"Siemens_3"}
    for key, message in (("PatientID", "would identify"), ("AcquisitionDateTime", "would identify")):
        with pytest.raises(InputError, match=message):
            build_manifest(bids, tmp_path / "m.json", site_from=[key])
    with pytest.raises(InputError, match="JSON files have no 'Manufacturr'.*did you mean 'Manufacturer'"):
        build_manifest(bids, tmp_path / "m.json", site_from=["Manufacturr"])


def test_a_participant_column_as_label(bids, tmp_path):
    manifest, _ = build_manifest(bids, tmp_path / "m.json", label_column="age", task="regression")
    assert {case.label for case in every(manifest)} == {30.5 + i for i in range(8)}
    assert json.loads((tmp_path / "m.json").read_text())["task"] == "regression"


def test_two_equal_masks_are_refused(bids, tmp_path):
    write(bids / "derivatives" / "other" / "sub-00_ses-1_dseg.nii.gz")
    with pytest.raises(InputError, match="sub-00_ses-1_T1w.nii.gz: .* both fit it"):
        build_manifest(bids, tmp_path / "m.json")
