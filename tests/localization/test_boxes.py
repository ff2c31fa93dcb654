import numpy as np
import pytest
import torch
from monai.apps.detection.transforms.box_ops import convert_mask_to_box
from monai.data.box_utils import is_valid_box_values

from monai_transfer.errors import InputError
from monai_transfer.localization import boxes_from_labels, boxes_from_probabilities


def test_two_blobs_of_a_picture_written_out():
    mask = np.zeros((6, 8), dtype=np.uint8)
    mask[1:3, 2:5] = 1
    mask[4:6, 6:8] = 2
    boxes = boxes_from_labels(mask, [2.0, 0.5])
    assert boxes.voxels.tolist() == [[1, 2, 3, 5], [4, 6, 6, 8]]
    assert boxes.labels.tolist() == [1, 2]
    assert boxes.sizes.tolist() == [6.0, 4.0]
    assert boxes.scores.tolist() == [1.0, 1.0] and len(boxes) == 2
    assert is_valid_box_values(torch.from_numpy(boxes.voxels))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_boxes_are_monais(dims):
    """Each component as a channel, as ``MaskToBoxd`` wants it, gives the same boxes."""
    rng = np.random.default_rng(0)
    mask = (rng.random((12,) * dims) > (0.75 if dims == 2 else 0.93)).astype(np.int16)
    boxes = boxes_from_labels(mask, connectivity=1)
    from scipy import ndimage

    components, count = ndimage.label(mask)
    channels = np.stack([np.where(components == i, 1, -1) for i in range(1, count + 1)]).astype(np.int16)
    theirs, _ = convert_mask_to_box(channels)
    assert count > 5
    assert sorted(map(tuple, boxes.voxels.tolist())) == sorted(map(tuple, theirs.astype(int).tolist()))
    assert boxes.sizes.sum() == mask.sum()


def test_connectivity_and_smallest_size():
    mask = np.zeros((4, 4, 4))
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = 1
    assert len(boxes_from_labels(mask)) == 2  # the first two share a corner
    assert len(boxes_from_labels(mask, connectivity=1)) == 3
    assert len(boxes_from_labels(mask, [2.0, 2.0, 2.0], min_size=9.0)) == 1
    assert len(boxes_from_labels(mask, [2.0, 2.0, 2.0], min_size=16.0)) == 1
    assert len(boxes_from_labels(mask, [2.0, 2.0, 2.0], min_size=16.1)) == 0


def test_scores_and_order():
    p = torch.zeros(3, 5, 5)
    p[1, 0, 0:2] = torch.tensor([0.6, 0.9])
    p[2, 3, 3] = 0.8
    p[2, 3, 0] = 0.4
    boxes = boxes_from_probabilities(p)
    assert boxes.labels.tolist() == [2, 1]
    assert boxes.scores == pytest.approx([0.8, 0.75])
    assert boxes_from_probabilities(p, score="max").scores == pytest.approx([0.9, 0.8])
    assert len(boxes_from_probabilities(p, threshold=0.3)) == 3
    one = boxes_from_probabilities(p[2:3])  # a single map is of the one class
    assert one.labels.tolist() == [1] and one.voxels.tolist() == [[3, 3, 4, 4]]


def test_nothing_gives_empty_arrays_of_the_right_shape():
    boxes = boxes_from_probabilities(np.zeros((2, 4, 4, 4)))
    assert boxes.voxels.shape == (0, 6) and boxes.scores.shape == (0,) and len(boxes) == 0


def test_a_leading_channel_is_dropped_where_the_spacing_tells_it():
    mask = np.zeros((1, 4, 4))
    mask[0, 1, 1] = 1
    assert boxes_from_labels(mask, [1.0, 1.0]).voxels.tolist() == [[1, 1, 2, 2]]
    assert boxes_from_labels(mask).voxels.shape == (1, 6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: boxes_from_labels(np.full((3, 3), 0.4)), "not whole"),
        (lambda: boxes_from_labels(np.zeros(3)), "axes"),
        (lambda: boxes_from_labels(np.zeros((3, 3)), [1.0, 0.0]), "spacing"),
        (lambda: boxes_from_labels(np.zeros((3, 3)), connectivity=3), "connectivity 3"),
        (lambda: boxes_from_probabilities(np.full((1, 3, 3), np.nan)), "NaN"),
        (lambda: boxes_from_probabilities(np.zeros((1, 3, 3)), score="median"), "mean, max"),
        (lambda: boxes_from_probabilities(np.zeros((3, 3))), "axes"),
    ],
)
def test_bad_input_is_told(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_logits_are_refused_and_half_precision_is_read():
    with pytest.raises(InputError, match="no probabilities; apply softmax"):
        boxes_from_probabilities(5 * torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0)))
    heat = torch.zeros(1, 6, 6, dtype=torch.bfloat16)
    heat[0, 1:3, 2:5] = 0.75
    boxes = boxes_from_probabilities(heat)
    assert boxes.voxels.tolist() == [[1, 2, 3, 5]] and boxes.scores.tolist() == [0.75]
