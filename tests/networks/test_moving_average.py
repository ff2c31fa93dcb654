import torch
from torch import nn

from monai_transfer.networks.moving_average import ema_update


def test_parameters_move_and_buffers_are_copied_where_asked():
    teacher, student = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        student.weight.fill_(3.0)
    student.running_mean.fill_(5.0)
    ema_update(teacher, student, 0.75, buffers=False)
    assert teacher.weight.tolist() == [1.5, 1.5]  # .75 * 1 + .25 * 3
    assert teacher.running_mean.tolist() == [0.0, 0.0]
    ema_update(teacher, student, 1.0)
    assert teacher.weight.tolist() == [1.5, 1.5] and teacher.running_mean.tolist() == [5.0, 5.0]
