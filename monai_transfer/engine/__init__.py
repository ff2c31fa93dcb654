"""Handlers around MONAI's stock engines: adaptation, checkpoints, run folders."""
