"""Stands for torchvision, which has no build for this CPU-only torch; MONAI Label draws previews with it, not used here."""

__version__ = "0"
