"""The examples in the docstrings run and print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pkgutil import iter_modules

import pytest

from monai_transfer.data import augmentation

NAMES = [module.name for module in iter_modules(augmentation.__path__)]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    found = doctest.testmod(import_module(f"monai_transfer.data.augmentation.{name}"))
    assert found.failed == 0 and (found.attempted or name in ("base", "sampling"))


def test_names_are_found():
    for name in augmentation.__all__:
        assert callable(getattr(augmentation, name))
