"""A bundle's own code runs for those who said so, for these files alone, and two bundles' scripts do not mix."""

from __future__ import annotations

import json
import os
import py_compile
import sys

import pytest
import torch

from monai_transfer.bundle_reader.trust import code_sha256, decide
from monai_transfer.errors import InputError
from monai_transfer.weights import Source

CODE = """
from pathlib import Path
import torch
Path(CANARY).touch()
class Net(torch.nn.Linear):
    def __init__(self, width):
        super().__init__(width, WIDTH)
"""


def custom_bundle(folder, width):
    (folder / "configs").mkdir(parents=True)
    (folder / "scripts").mkdir()
    (folder / "models").mkdir()
    (folder / "scripts" / "__init__.py").touch()
    code = CODE.replace("CANARY", repr(str(folder.parent / "canary"))).replace("WIDTH", str(width))
    (folder / "scripts" / "net.py").write_text(code)
    config = {"network_def": {"_target_": "scripts.net.Net", "width": 3}}
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    torch.save(torch.nn.Linear(3, width).state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.fixture
def bundle(tmp_path):
    return custom_bundle(tmp_path / "theirs", 2)


def test_own_code_runs_only_when_trusted_and_is_remembered_until_it_changes(bundle, tmp_path):
    source = Source.load(bundle)
    with pytest.raises(InputError, match="scripts.net.Net.*--trust-source"):
        source.network()
    assert not (tmp_path / "canary").exists()
    assert type(source.network(trust_source=True)).__name__ == "Net"
    assert (tmp_path / "canary").exists()
    assert source.network().in_features == 3, "remembered"
    (bundle / "scripts" / "net.py").write_text((bundle / "scripts" / "net.py").read_text() + "\n# more\n")
    with pytest.raises(InputError, match="--trust-source"):
        source.network()


def test_two_bundles_with_scripts_in_one_process(bundle, tmp_path):
    other = custom_bundle(tmp_path / "others", 5)
    assert Source.load(bundle).network(trust_source=True).out_features == 2
    assert Source.load(other).network(trust_source=True).out_features == 5
    assert Source.load(bundle).network().out_features == 2
    assert not any(name.split(".")[0] == "scripts" for name in sys.modules)


def test_the_hash_is_of_names_and_content(bundle):
    first = code_sha256(bundle)
    (bundle / "models" / "model.pt").write_bytes(b"weights are no code")
    assert code_sha256(bundle) == first
    (bundle / "scripts" / "net.py").rename(bundle / "scripts" / "net2.py")
    assert code_sha256(bundle) != first
    assert decide(bundle) is None and decide(bundle / "nowhere") is None


@pytest.mark.parametrize("place", ["models/net.py", "runs/train-0/net.py", "predictions/net.pyc", "net.so"])
def test_modules_count_wherever_they_lie(bundle, place):
    first = code_sha256(bundle)
    (bundle / place).parent.mkdir(parents=True, exist_ok=True)
    (bundle / place).write_text("import os")
    assert code_sha256(bundle) != first
    second = code_sha256(bundle)
    (bundle / "runs" / "train-1").mkdir(parents=True)
    (bundle / "runs" / "train-1" / "run.json").write_text("{}")
    assert code_sha256(bundle) == second, "a run is no code of the bundle"


def test_code_behind_a_link_counts(bundle, tmp_path):
    (bundle / "scripts").rename(tmp_path / "elsewhere")
    (bundle / "scripts").symlink_to(tmp_path / "elsewhere")
    (bundle / "scripts" / "again").symlink_to(bundle)
    assert Source.load(bundle).network(trust_source=True).in_features == 3
    code = tmp_path / "elsewhere" / "net.py"
    code.write_text(code.read_text() + "# more\n")
    with pytest.raises(InputError, match="--trust-source"):
        Source.load(bundle).network()


def test_a_link_to_the_whole_disk_is_refused(bundle):
    (bundle / "scripts" / "disk").symlink_to("/")
    with pytest.raises(InputError, match="holds more than"):
        code_sha256(bundle)


def test_compiled_code_beside_the_source_is_not_used(bundle, tmp_path):
    code = bundle / "scripts" / "net.py"
    sound = code.read_text()
    code.write_text(sound.replace("width, 2", "width, 7"))
    times = code.stat()
    py_compile.compile(str(code), doraise=True)
    code.write_text(sound)
    os.utime(code, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert list((bundle / "scripts" / "__pycache__").iterdir())
    assert Source.load(bundle).network(trust_source=True).out_features == 2


def test_a_broken_memory_forgets(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert decide(bundle, trust_source=True).record()["code_sha256"] == code_sha256(bundle)
    assert decide(bundle) is not None
    (tmp_path / "config" / "monai-transfer" / "trusted.json").write_text("[" * 1000)
    assert decide(bundle) is None
