"""The model zoo's own checks on each packaged bundle, and MONAI's `push_to_hf_hub` against a hub on this machine.

``MODEL_ZOO`` names a checkout of the public repository Project-MONAI/model-zoo (of which nothing is kept here).
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(path.parents[1].name for path in (ROOT / "bundles").glob("*/configs/inference.yaml"))

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def zoo(monkeypatch):
    """The zoo's `ci/` as importable modules; what it would fetch is the schema alone."""
    folder = Path(os.environ.get("MODEL_ZOO", ""))
    if not (folder / "ci" / "verify_bundle.py").is_file():
        pytest.skip("MODEL_ZOO names no checkout of Project-MONAI/model-zoo")
    schemas = sorted((ROOT.parent / "shared" / "schema").glob("meta_schema_*.json"))
    schemas = [Path(os.environ["MONAI_BUNDLE_SCHEMA"])] if "MONAI_BUNDLE_SCHEMA" in os.environ else schemas
    if not schemas:
        pytest.skip("MONAI_BUNDLE_SCHEMA names no copy of MONAI's schema of metadata")
    monkeypatch.syspath_prepend(str(folder / "ci"))
    import utils  # type: ignore[import-not-found]

    monkeypatch.setattr(utils, "download_url", lambda url, filepath, **_: shutil.copyfile(schemas[-1], filepath))
    yield utils
    for name in ("utils", "verify_bundle", "bundle_custom_data"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", BUNDLES)
def test_the_zoos_checks(name, zoo, tmp_path, monkeypatch):
    """`prepare_schema` and `verify_bundle` in its fullest mode: files, version, metadata, shapes, TorchScript."""
    models = tmp_path / "models"
    kept = shutil.ignore_patterns("runs", "predictions", "__py*")
    shutil.copytree(ROOT / "bundles" / name, models / name, ignore=kept)
    (models / "model_info.json").write_text("{}")
    monkeypatch.setattr(sys, "path", list(sys.path))
    zoo.prepare_schema([name], str(models))
    import verify_bundle  # type: ignore[import-not-found]

    verify_bundle.verify(name, str(models), "full")


class Hub(http.server.BaseHTTPRequestHandler):
    """What `HfApi` asks of a hub: a repository, how files go up, one commit, a tag."""

    files: dict[str, bytes] = {}
    tags: list[str] = []

    def do_POST(self) -> None:  # noqa: N802 - the standard library's name
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = f"http://127.0.0.1:{self.server.server_address[1]}/me/bundle"
        if "/preupload/" in self.path:
            named = [entry["path"] for entry in json.loads(data)["files"]]
            self.answer({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in named]})
        elif "/commit/" in self.path:
            import base64

            for line in data.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self.answer({"commitUrl": f"{url}/commit/{'0' * 40}", "commitOid": "0" * 40, "pullRequestUrl": None})
        elif "/tag/" in self.path:
            self.tags.append(json.loads(data)["tag"])
            self.answer({})
        else:
            self.answer({"url": url, "name": "me/bundle", "validated": "ok"})

    def do_GET(self) -> None:  # noqa: N802
        self.answer({"id": "me/bundle", "sha": "0" * 40, "siblings": [], "tags": []})

    def answer(self, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args: object) -> None:
        pass


def test_push_to_the_hub(tmp_path, monkeypatch):
    """MONAI's command and Hugging Face's client are real; the hub that they talk to is ours."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pytest.importorskip("huggingface_hub", reason="make test-consumers installs it")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    from monai.bundle import push_to_hf_hub

    name = "head_mr_segmentation"
    kept = shutil.ignore_patterns("runs", "predictions", "__py*")
    bundle = Path(shutil.copytree(ROOT / "bundles" / name, tmp_path / name, ignore=kept))
    try:
        push_to_hf_hub("me/bundle", name, str(tmp_path), token="none", version="0.1.0")
    finally:
        server.shutdown()
    assert "0.1.0" in Hub.tags
    sent = {name for name in Hub.files if not name.startswith(".git")}
    here = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert sent == here and "README.md" in sent, "the card is made of docs/README.md"
    assert Hub.files["models/model.pt"] == (bundle / "models" / "model.pt").read_bytes()
    assert Hub.files["README.md"].startswith(b"---\n"), "with what the hub reads of it"
