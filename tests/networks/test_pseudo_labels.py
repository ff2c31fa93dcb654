import torch

from monai_transfer.networks.pseudo_labels import IGNORE, class_thresholds, move_thresholds, select_labels


def test_each_class_gives_the_same_share_of_labels_however_sure_it_is():
    """10 sure voxels of the ground, 4 unsure ones of a rare class: half of each is selected."""
    ground = torch.linspace(0.9, 0.99, 10)
    rare = torch.linspace(0.55, 0.7, 4)
    first = torch.cat([ground, 1 - rare])
    p = torch.stack([first, 1 - first], 1)
    labels = select_labels(p, class_thresholds(p, 0.5))
    assert (labels == 0).sum() == 5 and (labels == 1).sum() == 2
    assert (labels == IGNORE).sum() == 7


def test_thresholds_move_and_a_class_never_predicted_is_never_selected():
    kept = torch.full((3,), float("nan"))
    p = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2]])
    assert move_thresholds(kept, p, 1.0, 0.9).tolist() == [p[0, 0], p[1, 1], 1.0]
    surer = torch.tensor([[1.0, 0.0, 0.0]])
    torch.testing.assert_close(move_thresholds(kept, surer, 1.0, 0.9), torch.tensor([0.82, 0.6, 1.0]))
    assert kept[2].isnan()
