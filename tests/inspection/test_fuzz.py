"""With a checksum in the manifest, damage to a file of any format is found: an identical volume or an error."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from monai_transfer.data.readers import SafeReader
from monai_transfer.inspection.case import inspect_case
from monai_transfer.inspection.facts import CaseJob
from monai_transfer.manifest.checksums import sha256_image


def write(path, kind):
    array = np.random.default_rng(1).integers(0, 255, (30, 20), dtype=np.uint8)
    if kind == "nii":
        import nibabel as nib

        nib.Nifti1Image(array[..., None].repeat(4, 2), np.diag([1, 1, 2, 1.0])).to_filename(path)
    elif kind == "dcm":
        from monai_transfer.data.phantom.sites import SITES
        from monai_transfer.data.phantom.write import write_dicom

        protocol = next(iter(SITES.values())).protocol if isinstance(SITES, dict) else SITES[0].protocol
        volume = array[..., None].repeat(2, 2).astype(np.int16)
        write_dicom(path.parent / "series", volume, np.diag([-1, -1, 2, 1.0]), patient_id="P", protocol=protocol)
        sorted((path.parent / "series").iterdir())[0].rename(path)
    else:
        Image.fromarray(array).save(path)


@pytest.mark.parametrize("kind", ["nii", "dcm", "png", "tif", "jpg", "bmp"])
def test_identical_or_error(tmp_path, kind):
    path = tmp_path / f"file.{kind}"
    write(path, kind)
    content = path.read_bytes()
    sound = SafeReader().read_volume(path)
    job = CaseJob([str(path)], [sha256_image(path)])
    facts = inspect_case(job)
    assert facts.findings == [] and facts.images[0].channels == sound.channels
    for seed in range(60):
        rng = np.random.default_rng(seed)
        data = bytearray(content)
        at = int(rng.integers(len(data)))
        if seed % 3 == 2:
            del data[at:]
        else:
            data[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        result = inspect_case(job)
        assert any(f.severity == "error" for f in result.findings), f"seed {seed} was not found"
        assert all("\n" not in f.fault for f in result.findings)
