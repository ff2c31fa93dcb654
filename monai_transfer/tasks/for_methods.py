"""What a method may ask of the outputs, as the names of the tasks that have it; a method's ``tasks`` is one of these.

>>> CLASSES  # those whose outputs are probabilities of classes that exclude each other
('classification', 'segmentation')
"""

from __future__ import annotations

from monai_transfer.tasks import independent_tasks, method_tasks

__all__ = ["ANY_TASK", "CLASSES", "IMAGE_CLASSES", "PRESENCES", "VOXEL_CLASSES", "VOXEL_PRESENCES"]

ANY_TASK = method_tasks()
"""Nothing is asked."""
CLASSES = method_tasks(exclusive=True)
"""Probabilities of classes that exclude each other."""
IMAGE_CLASSES = method_tasks(exclusive=True, dense=False)
"""One class for every image."""
VOXEL_CLASSES = method_tasks(exclusive=True, dense=True)
"""One class for every voxel."""
PRESENCES = independent_tasks()
"""Outputs that are each present or absent, whatever the others are; see ``Method.exclusive``."""
VOXEL_PRESENCES = independent_tasks(dense=True)
"""The same for every voxel."""
