"""Random changes to small files, opened through the doors: no canary, no traceback, no hang. For the night.

``python -m tests.security.mutate --minutes 10 [--seed 0]``; a failing file is kept and named.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_transfer.errors import CoverageError, InputError
from tests.security.corpus import ATTACKS, make_bundle

SECONDS = 20
_WORDS = [
    b"$", b"@", b"%", b"::", b"#", b"&a ", b"*a", b"[", b"]", b"{", b"}", b'"', b"'", b"\x00", b"\xff", b"_target_",
    b"_requires_", b"_disabled_", b"1e999", b"-1", b"18446744073709551616", b"null", b"true", b"\n", b"os.system",
    b"$open('canary','w')", b"$__import__('os')", b"!!python/object/apply:os.system", b"lambda x: x", b"../..",
]  # fmt: skip


def changed(data: bytes, rng: random.Random) -> bytes:
    """A few changes: bits, bytes, words, pieces left out, doubled or moved."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not out:
            break
        at = rng.randrange(len(out))
        end = min(len(out), at + rng.choice((1, 2, 8, 64)))
        kind = rng.randrange(6)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at:end] = bytes(rng.randrange(256) for _ in range(end - at))
        elif kind == 2:
            out[at:at] = rng.choice(_WORDS)
        elif kind == 3:
            del out[at:end]
        elif kind == 4:
            out[at:at] = out[at:end] * rng.choice((1, 2, 50))
        else:
            out[at:end] = rng.choice(_WORDS)
    return bytes(out)


KINDS: list[Any] = [None, [], {}, "x", -1, True, 1e400, 1 << 70, [[1, {"a": 2}]], {"a": [1]}, "$open('canary','w')"]


def of_another_kind(text: bytes, rng: random.Random) -> bytes:
    """A JSON file with one value, at a random place, of another kind; other files are changed by bytes."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return changed(text, rng)
    parents, node = [], content
    while isinstance(node, (dict, list)) and node and rng.random() < 0.8:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        parents.append((node, key))
        node = node[key]
    if not parents:
        return json.dumps(rng.choice(KINDS)).encode()
    node, key = parents[-1]
    node[key] = rng.choice(KINDS)
    return json.dumps(content).replace("Infinity", "1e400").encode()


def doors() -> dict[str, Callable[[Path], Any]]:
    """What opens a bundle, without training."""
    from monai_transfer import Source
    from monai_transfer.bundle.inference import open_inference
    from monai_transfer.bundle.known_code import foreign_code
    from monai_transfer.bundle_reader import read_bundle
    from monai_transfer.inspection.suitability import read_source
    from monai_transfer.weights.hashes import changed_files

    def network(bundle: Path) -> None:
        Source.load(bundle).network()

    def inference(bundle: Path) -> None:
        open_inference(bundle).initialize()

    return {
        "read_bundle": read_bundle, "read_source": read_source, "foreign_code": foreign_code, "hashes": changed_files,
        "Source.network": network, "open_inference": inference,
    }  # fmt: skip


def main() -> int:
    """Until the time is over; the number of faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    rng, found, tried, end = random.Random(given.seed), 0, 0, time.monotonic() + 60 * given.minutes
    keep = Path(tempfile.mkdtemp(prefix="mutations-"))

    def too_long(*_args: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, too_long)
    opened = doors()
    while time.monotonic() < end:
        tried += 1
        folder = keep / str(tried)
        canary = folder / "canary"
        bundle = make_bundle(folder / "bundle", rng.choice(list(ATTACKS)), canary)
        files = sorted(path for path in bundle.rglob("*") if path.is_file() and not path.is_symlink())
        for path in rng.sample(files, rng.randint(1, min(2, len(files)))):
            path.write_bytes(rng.choice((changed, of_another_kind))(path.read_bytes(), rng))
        fault = ""
        for name, door in opened.items():
            signal.alarm(SECONDS)
            try:
                door(bundle)
            except (InputError, CoverageError):
                pass
            except BaseException:
                fault = f"{name}: {traceback.format_exc()}"
            finally:
                signal.alarm(0)
            if canary.exists() or Path("canary").exists():
                fault = f"{name} ran code"
            if fault:
                break
        if fault:
            found += 1
            print(f"{bundle}: {fault}", file=sys.stderr)
        else:
            import shutil

            shutil.rmtree(folder)
    print(f"{tried} bundles, {found} faults")
    return found


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
