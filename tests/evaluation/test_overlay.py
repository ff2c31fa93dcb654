"""Pictures: the right side on the left, true proportions, both contours, plain pictures as they are."""

from __future__ import annotations

import numpy as np
import pytest
from monai.transforms import LoadImage
from PIL import Image

from monai_transfer.evaluation.overlay import PREDICTION_COLOUR, TRUTH_COLOUR, draw_case, draw_segmentation


def where(path, colour):
    """Mean (column, row) of a colour in the first plane, as shares of its size."""
    picture = np.asarray(Image.open(path))[:-22]
    rows, columns = np.nonzero((picture == colour).all(axis=-1))
    return columns, rows, picture.shape


def axial(path, affine, voxel, shape=(20, 20, 20)):
    truth = np.zeros(shape, int)
    truth[tuple(slice(v - 1, v + 2) for v in voxel)] = 1
    draw_segmentation(path, np.zeros(shape), truth, np.zeros(shape, int), affine)
    columns, rows, _ = where(path, TRUTH_COLOUR)
    first = columns < 280  # planes stand side by side, 280 pixels each
    return columns[first].mean() / 280, rows[first].mean() / 280


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_the_patients_right_is_on_the_left_whatever_the_storage(tmp_path, flip):
    ras = np.diag([flip, flip, 1.0, 1.0])  # +x right, +y anterior, or stored the other way round
    right_anterior = (16, 16, 10) if flip > 0 else (3, 3, 10)
    column, row = axial(tmp_path / "a.png", ras, right_anterior)
    assert column < 0.3, "right is on the left"
    assert row < 0.3, "anterior is up"


def test_axes_in_another_order(tmp_path):
    sagittal = np.zeros((4, 4))  # first axis anterior, second superior, third right
    sagittal[1, 0] = sagittal[2, 1] = sagittal[0, 2] = sagittal[3, 3] = 1
    column, row = axial(tmp_path / "a.png", sagittal, (16, 10, 16))
    assert column < 0.3
    assert row < 0.3


def test_proportions_follow_the_voxel_size(tmp_path):
    truth = np.zeros((20, 20, 10), int)
    truth[5:15, 5:15, 3:7] = 1
    draw_segmentation(tmp_path / "a.png", None, truth, truth, np.diag([1.0, 1.0, 4.0, 1.0]))
    columns, rows, shape = where(tmp_path / "a.png", PREDICTION_COLOUR)
    assert shape[:2] == (280, 140 * 3 + 12), "20 x 20 x 40 mm: axial 140 wide, the other planes 140 wide and 280 high"
    coronal = (columns > 146) & (columns < 286)
    assert np.ptp(rows[coronal]) / np.ptp(columns[coronal]) == pytest.approx(16 / 10, abs=0.1)


def test_a_prediction_without_truth_is_shown(tmp_path):
    predicted = np.zeros((16, 16), int)
    predicted[4:8, 4:8] = 255
    draw_segmentation(tmp_path / "a.png", np.zeros((16, 16)), np.zeros((16, 16), int), predicted, np.eye(3))
    assert len(where(tmp_path / "a.png", PREDICTION_COLOUR)[0]) > 0
    assert len(where(tmp_path / "a.png", TRUTH_COLOUR)[0]) == 0


def test_a_png_is_drawn_as_it_looks(tmp_path):
    pixels = np.zeros((40, 60), np.uint8)
    pixels[:10, :15] = 255  # bright in the upper left
    Image.fromarray(pixels).save(tmp_path / "in.png")
    image = LoadImage(image_only=True)(tmp_path / "in.png")
    draw_case(tmp_path / "out.png", np.asarray(image), np.asarray(image.affine), "truth: a")
    out = np.asarray(Image.open(tmp_path / "out.png"))[:-22, :, 0]
    assert out.shape == (187, 280)
    assert out[:40, :60].mean() > 200
    assert out[60:, 90:].mean() < 5


def test_a_resized_picture_is_not_turned(tmp_path):
    """A plain picture's affine is the identity, or a scale after resizing: neither says where the patient's head is."""
    import numpy as np
    from PIL import Image

    from monai_transfer.evaluation.overlay import draw_case

    image = np.zeros((40, 40), dtype=np.float32)
    image[:, :10] = 1.0  # first axis to the right, second down: a bright top
    for scale in (1.0, 3.5):
        draw_case(tmp_path / "a.png", image, np.diag([scale, scale, 1.0]), "")
        drawn = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
        assert drawn[: drawn.shape[0] // 6].mean() > 150 > 60 > drawn[drawn.shape[0] // 3 : -40].mean()
