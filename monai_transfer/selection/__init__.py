"""Choosing: domain gap, transferability of sources, validators without target labels."""
