"""Old import paths work for one version, as the same objects, with a warning that names the new place."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from monai_transfer import _moved

LIGHT = ["manifest.inspection.finding", "selection.sides", "quiet", "report.metrics", "bundle.predict_inputs"]


@pytest.mark.parametrize("old", sorted(_moved.MOVED))
def test_every_new_place_exists_and_no_old_one_does(old):
    assert importlib.util.find_spec(f"monai_transfer.{_moved.MOVED[old]}") is not None
    assert not isinstance(importlib.util.find_spec("monai_transfer.errors").loader, _moved._Alias)
    with pytest.warns(DeprecationWarning, match="is now monai_transfer"):
        spec = _moved._Finder().find_spec(f"monai_transfer.{old}")
    assert isinstance(spec.loader, _moved._Alias)


@pytest.mark.parametrize("old", LIGHT)
def test_the_old_name_gives_the_same_module(old):
    code = (
        "import importlib, warnings; warnings.simplefilter('ignore')\n"
        f"a = importlib.import_module('monai_transfer.{old}')\n"
        f"b = importlib.import_module('monai_transfer.{_moved.MOVED[old]}')\n"
        "assert a is b, (a, b)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_module_is_still_unknown():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("monai_transfer.report.no_such_module")
