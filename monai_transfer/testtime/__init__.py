"""Adaptation at test time, from target images alone."""
