"""NRRD and MetaImage: equal to ITK where sound, one line where not."""

from __future__ import annotations

import itk
import numpy as np
import pytest
from monai.data import ITKReader
from monai.transforms import LoadImage

from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError


def write(tmp_path, volume, name, compression=False):
    image = itk.image_from_array(np.ascontiguousarray(volume.T))
    image.SetSpacing([0.7, 0.8, 2.5])
    image.SetOrigin([-10.0, 5.0, 30.0])
    direction = np.eye(3)
    direction[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    image.SetDirection(itk.matrix_from_array(direction))
    itk.imwrite(image, str(tmp_path / name), compression=compression)
    return tmp_path / name


@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.parametrize("name", ["a.nrrd", "a.seg.nrrd", "a.mha", "a.mhd"])
def test_equals_itk_reader(tmp_path, volume, name, compression):
    path = write(tmp_path, volume, name, compression)
    ours, theirs = (LoadImage(reader=r)(path) for r in (SafeReader(), ITKReader()))
    np.testing.assert_array_equal(ours.array, theirs.array)
    np.testing.assert_allclose(ours.affine, theirs.affine)


@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_truncated(tmp_path, volume, name, compression):
    path = write(tmp_path, volume, name, compression)
    content = path.read_bytes()
    for keep in (70, len(content) // 2, len(content) - 40, len(content) - 1):
        path.write_bytes(content[:keep])
        with pytest.raises(InputError) as caught:
            SafeReader().read_volume(path)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_limits_and_lost_data(tmp_path, volume):
    path = write(tmp_path, volume, "a.mhd")
    with pytest.raises(InputError, match="GiB by its header"):
        SafeReader(max_memory=1000).read_volume(path)
    (tmp_path / "a.raw").unlink()
    with pytest.raises(InputError):
        SafeReader().read_volume(path)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_nan_is_refused(tmp_path, volume, name):
    array = volume.astype(np.float32)
    array[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        SafeReader().read_volume(write(tmp_path, array, name))
