"""Stands for torchvision, which has no build for a CPU-only torch; MONAI Label draws previews with it."""

__version__ = "0"
