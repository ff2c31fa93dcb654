"""Supervised losses that leave out what is unknown: voxels that are ignored, classes that nobody looked for."""
