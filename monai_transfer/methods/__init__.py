"""Adaptation methods, one file each; ``base`` holds what they keep to."""
