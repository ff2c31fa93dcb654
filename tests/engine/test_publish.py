"""Publishing is off by default, keeps the old weights, and leaves a hash that fits."""

from __future__ import annotations

import hashlib

import pytest

from monai_transfer.engine.publish import PublishWeights
from monai_transfer.errors import InputError
from monai_transfer.weights.hashes import verify_file, write_hashes


@pytest.fixture
def folders(tmp_path):
    for name, content in (("bundle", b"old"), ("run", b"new")):
        (tmp_path / name / "models").mkdir(parents=True)
        (tmp_path / name / "models" / "model.pt").write_bytes(content)
    return tmp_path / "run", tmp_path / "bundle"


def test_off_by_default(folders):
    PublishWeights(*folders).run()
    assert (folders[1] / "models" / "model.pt").read_bytes() == b"old"


def test_the_old_file_is_kept(folders):
    write_hashes(folders[1])  # as a packaged bundle carries them
    publisher = PublishWeights(*folders, enabled=True)
    publisher.run()
    verify_file(folders[1] / "models" / "model.pt")
    publisher.run()  # again: nothing new to keep
    models = folders[1] / "models"
    old = hashlib.sha256(b"old").hexdigest()[:8]
    assert {path.name: path.read_bytes() for path in models.glob("*.pt")} == {
        "model.pt": b"new",
        f"model-{old}.pt": b"old",
    }
    assert (models / "model.pt.sha256").read_text().split()[0] == hashlib.sha256(b"new").hexdigest()


def test_a_run_without_weights(folders):
    (folders[0] / "models" / "model.pt").unlink()
    with pytest.raises(InputError, match="left no weights"):
        PublishWeights(*folders, enabled=True).run()
    assert (folders[1] / "models" / "model.pt").read_bytes() == b"old"


def test_the_folds_of_a_source_step_aside(folders):
    """Else the bundle would still predict with them."""
    (folders[1] / "models" / "folds.pt").write_bytes(b"both")
    PublishWeights(*folders, enabled=True).run()
    aside = folders[1] / "models" / f"folds-{hashlib.sha256(b'both').hexdigest()[:8]}.pt"
    assert aside.read_bytes() == b"both" and not (folders[1] / "models" / "folds.pt").exists()
