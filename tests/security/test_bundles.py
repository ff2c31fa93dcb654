"""Every hostile bundle through every door: no canary, no traceback, no hang, no network, no memory beyond a bound."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_transfer import Source, load_weights
from monai_transfer.bundle_reader import read_bundle
from monai_transfer.cli import main
from monai_transfer.errors import CoverageError, InputError
from monai_transfer.inspection.suitability import read_source
from tests.security.corpus import ATTACKS, HARMLESS, make_bundle

GIBIBYTES = 3.0
"""Of memory beyond what the process holds before."""


@pytest.fixture(scope="module")
def data(tiny_set):
    return tiny_set("segmentation", 2)


def _used() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


class Door:
    """One way in: a command or a call, and whether it needs all of the bundle's inference."""

    def __init__(self, name: str, call: Callable[[Path, Path, Path], object]) -> None:
        self.name, self.call = name, call


def command(*words: str) -> Callable[[Path, Path, Path], object]:
    def call(bundle: Path, data: Path, out: Path) -> int:
        places = {"BUNDLE": str(bundle), "DATA": str(data), "OUT": str(out)}
        places["IMAGE"] = str(next((data.parent / "images").glob("north_test*.png")))
        with pytest.raises(SystemExit) as stop:
            main([places.get(word, word) for word in words])
        return int(stop.value.code or 0)

    return call


def python(function: Callable[[Path], object]) -> Callable[[Path, Path, Path], object]:
    def call(bundle: Path, data: Path, out: Path) -> int:
        try:
            function(bundle)
        except (InputError, CoverageError) as error:
            assert "\n" not in str(error) or isinstance(error, CoverageError)
            print(f"error: {error}")
            return 2
        return 0

    return call


def _weights(bundle: Path) -> object:
    from monai.networks.nets import UNet

    return load_weights(UNet(2, 1, 2, (4, 8), (2,)), bundle)


QUICK = {
    "predict": command("predict", "BUNDLE", "IMAGE", "-o", "OUT"),
    "read_bundle": python(read_bundle),
    "read_source": python(read_source),
    "Source.load": python(Source.load),
    "Source.network": python(lambda bundle: Source.load(bundle).network()),
    "load_weights": python(_weights),
}
SLOW = {  # `check` reads images in a process of its own, the others train, rank or script
    "check": command("check", "DATA", "--source", "BUNDLE", "--jobs", "1"),
    "new": command("new", "OUT", "--source", "BUNDLE", "--data", "DATA", "--target-site", "north"),
    "rank": command("rank", "DATA", "--sources", "BUNDLE", "--permutations", "2", "--cases", "4", "--no-gap"),
    "gap": command("gap", "DATA", "--site-a", "north", "--site-b", "south", "--source", "BUNDLE"),
    "export as a bundle": command("export", "BUNDLE", "--to", "bundle", "-o", "OUT"),
    "export as TorchScript": command("export", "BUNDLE", "--to", "torchscript", "-o", "OUT"),
}


def attacked(door: Callable[[Path, Path, Path], object], attack: str, data: Path, tmp_path: Path, capsys) -> int:
    canary, before = tmp_path / "canary", _used()
    bundle = make_bundle(tmp_path / "theirs" / "bundle", attack, canary)
    code = door(bundle, data, tmp_path / "out" / "made")
    said = capsys.readouterr()
    text = said.out + said.err
    assert not canary.exists(), f"{attack} ran"
    assert not (tmp_path / "elsewhere").exists() and not list((tmp_path / "here").iterdir())
    assert code in (0, 1, 2), text
    assert "Traceback" not in text and "--debug shows" not in text, text
    assert "weights_only=False" not in text, "a weaker setting is no advice"
    assert "root:" not in text, "what another file says is not printed"
    if code == 2:
        assert text.count("error:") == 1 and len(text.strip().splitlines()[-1]) < 1000, text
    assert _used() - before < GIBIBYTES
    return code


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("door", QUICK)
def test_quick_doors(door, attack, data, tmp_path, capsys):
    code = attacked(QUICK[door], attack, data, tmp_path, capsys)
    if attack in HARMLESS:
        assert code in (0, 1), f"{attack} stands in the way of what does not need it"


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("door", SLOW)
def test_slow_doors(door, attack, data, tmp_path, capsys):
    code = attacked(SLOW[door], attack, data, tmp_path, capsys)
    if attack in HARMLESS and door != "rank":  # which takes no network without features, whatever else is in the bundle
        assert code in (0, 1), f"{attack} stands in the way of what does not need it"


SAMPLE = ("expression as an argument of the network", "own scripts", "pickle that runs", "imports")


@pytest.mark.parametrize("attack", SAMPLE)
@pytest.mark.parametrize("door", SLOW)
def test_a_sample_of_the_slow_doors(door, attack, data, tmp_path, capsys):
    attacked(SLOW[door], attack, data, tmp_path, capsys)
