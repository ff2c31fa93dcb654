"""References come out as MONAI's own parser resolves them, and chains and circles end."""

from __future__ import annotations

import time

import pytest
from monai.bundle import ConfigParser

from monai_transfer.bundle_reader.component import Component, Unread
from monai_transfer.bundle_reader.references import Resolver
from monai_transfer.errors import InputError

CONFIG = {
    "size": 96,
    "deep": {"list": [1, {"x": 2}], "same": "@#list#1#x", "up": "@##size", "copied": "%#list"},
    "ref": "@deep#list#1#x",
    "ref2": "@deep::list::0",
    "sum": "$@size + @deep#list#0",
    "roi": ["@size", "$@size // 2"],
    "macro": "%deep::list",
    "words": "mail@example.org and 50 %",
    "none": "$None",
}


@pytest.mark.parametrize("key", CONFIG)
def test_equal_to_monai(key):
    parser = ConfigParser(dict(CONFIG))
    assert Resolver(CONFIG).get(key) == parser.get_parsed_content(key)


def test_components_of_the_table_and_what_is_not_in_it():
    resolver = Resolver(
        {
            "net": {"_target_": "UNet", "spatial_dims": "@dims", "_desc_": "a network"},
            "dims": 3,
            "on_device": "$@net.to('cpu')",
            "called": "$monai.networks.nets.resnet10(spatial_dims=@dims, num_classes=2)",
            "off": [{"_target_": "UNet", "_disabled_": True}, 1],
            "shell": {"_target_": "os.system", "command": "touch canary"},
            "dotted": {"_target_": "monai.networks.trt_compiler.os.system", "command": "x"},
            "theirs": {"_target_": "scripts.net.Net"},
            "partial": {"_target_": "UNet", "_mode_": "callable"},
            "requires": {"_target_": "UNet", "_requires_": "$__import__('os').system('touch canary')"},
        }
    )
    net = resolver.get("net")
    assert (net.name, net.kind, net.arguments) == ("UNet", "network", {"spatial_dims": 3})
    assert resolver.get("on_device") is net
    assert resolver.get("called").arguments == {"spatial_dims": 3, "num_classes": 2}
    assert resolver.get("off") == [1]
    for key in ("shell", "dotted", "theirs", "partial"):
        assert isinstance(resolver.get(key), Unread), key
    assert "own scripts" in resolver.get("theirs").reason
    assert isinstance(resolver.get("requires"), Component)


def test_circles_chains_and_multiplied_references_end():
    start = time.monotonic()
    assert "itself" in str(Resolver({"a": "@b", "b": "$@a + 1"}).get("a"))
    chain = {f"a{n}": f"@a{n + 1}" for n in range(5000)} | {"a5000": 1}
    assert isinstance(Resolver(chain).get("a0"), Unread)
    bomb = {f"a{n}": [f"@a{n + 1}"] * 10 for n in range(20)} | {"a20": 1}
    with pytest.raises(InputError, match="references written out"):
        Resolver(bomb).get("a0")
    assert isinstance(Resolver({"a": {"b": "@####x"}}).get("a::b"), Unread)
    assert isinstance(Resolver({"a": "%other.json::x"}).get("a"), Unread)
    assert time.monotonic() - start < 2
