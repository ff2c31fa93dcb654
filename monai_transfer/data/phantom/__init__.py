"""Embedded data: a simulated multi-site head MR set, made on first use, without any image file or network.

**Simulated.** The heads are procedural and the images follow textbook signal equations; no patient was scanned. The
sets are good for trying the tools, for tests and for teaching: the domain shift between the sites is real physics
(pulse sequence, coil, noise, voxel size, orientation) and the truth is exactly known. They say nothing about how a
model does on patients.

``embedded_set(task)`` gives the folder; ``python -m monai_transfer.data.phantom --task segmentation --out DIR`` writes
it where you want it.
"""

from .embedded import embedded_set
from .sets import TASKS
from .sites import SITES, Scan, Site, scan_patient

__all__ = ["SITES", "TASKS", "Scan", "Site", "embedded_set", "scan_patient"]
