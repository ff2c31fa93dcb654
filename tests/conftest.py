"""Shared fixtures. Real data is optional: tests that want it skip with a reason where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

pytest_plugins = ["tests.tiny_sets", "tests.drawn_study", "tests.toy_problems"]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real public sets, from ``MONAI_TRANSFER_DATA`` or beside the checkout."""
    folder = Path(os.environ.get("MONAI_TRANSFER_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("real data is not here: set MONAI_TRANSFER_DATA to a folder that holds it")
    return folder


@pytest.fixture(autouse=True)
def _one_thread_and_seed():
    """Tests share two cores: one thread each, and a fixed seed."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_decisions_of_the_user(tmp_path_factory, monkeypatch):
    """Tests neither read nor write which bundles somebody trusts on this machine."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
