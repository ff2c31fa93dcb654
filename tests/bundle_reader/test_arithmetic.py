"""The arithmetic of expressions: what zoo bundles compute comes out right, and nothing else is computed."""

from __future__ import annotations

import time

import pytest

from monai_transfer.bundle_reader.arithmetic import Unreadable, arithmetic

RIGHT = {
    "@size * 2": 192,
    "1.0 - float(80) / float(164)": 1.0 - 80 / 164,
    "((256 - 164) // 2,) * 4": (46, 46, 46, 46),
    "[1.5, 1.5, 1.5] if True else [3.0, 3.0, 3.0]": [1.5, 1.5, 1.5],
    "len([1, 2]) + len('abc')": 5,
    "[i + 1 for i in range(4) if i != 2]": [1, 2, 4],
    "list(range(3, 6)) + [9]": [3, 4, 5, 9],
    "torch.float32": "float32",
    "np.uint8": "uint8",
    "torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')": "cpu",
    "monai.utils.CommonKeys.IMAGE": "image",
    "'a' + '/b'": "a/b",
    "os.path.join('a', 'b')": "a/b",
    "{'a': 1}['a']": 1,
    "[1, 2, 3][:2]": [1, 2],
    "not 1 < 2 < 3 or None": None,
    "np.pi / 8": pytest.approx(0.392699),
    "min(3, 4) - max([1, 2]) ** 2": -1,
}
CODE = [
    "__import__('os').system('touch canary')",
    "open('canary', 'w')",
    "().__class__.__bases__[0].__subclasses__()",
    "(lambda: open('canary', 'w'))()",
    "[x for x in ().__class__.__mro__]",
    "f'{open(1)}'",
    "getattr(net, 'forward')",
    "net.forward",
    "net.to.__globals__",
    "net.to(open('canary', 'w'))[0]",
    "torch.load('x')",
    "torch.os.system('touch canary')",
    "monai.networks.trt_compiler.os.system('touch canary')",
    "eval('1')",
    "exec('1')",
    "str(net)",
    "len(net)",
    "sorted([2, 1], key=open)",
    "max(1, 2, key=open)",
    "[*net]",
    "{**net}",
    "(x := 1)",
    "'%s' % net",
    "'{0.__class__}'.format(1)",
    "1 if",
    "",
    "os",
    "1j",
    "b'x'",
    "print(1)",
    "range(10)[net]",
    "x",
]
COSTLY = [
    "9 ** 9 ** 9",
    "2 ** 100000000",
    "1 << 100000000",
    "'a' * 1000000000",
    "[0] * 1000000000",
    "[[0] * 10000 for i in range(10000)]",
    "[[j for j in range(10000)] for i in range(10000)]",
    "str([[0] * 10000] * 10000)",
    "[[0] * 9000] * 9000 == [[0] * 9000] * 9000",
    "range(10 ** 12)",
    "'%1000000000d' % 1",
    "int('9' * 10000)",
    "(" * 400 + ")" * 400,
    "-" * 900 + "1",
    "[" * 300 + "]" * 300,
    "1 + " * 5000 + "1",
    "round(1.5, 10 ** 12) * 10 ** 30",
    "sum([[0] * 10000] * 10000, [])",
    "sorted([[0] * 9000] * 9000)",
]


class Net:
    """Stands for an object of the config."""

    def to(self, device):
        raise AssertionError("nothing of an object is called")


@pytest.mark.parametrize("text", RIGHT)
def test_values_are_those_of_python(text):
    assert arithmetic(text.replace("@size", "size"), {"size": 96}) == RIGHT[text]


@pytest.mark.parametrize("text", CODE)
def test_code_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unreadable) as error:
        arithmetic(text, {"net": Net()})
    assert str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", COSTLY)
def test_costly_expressions_are_refused_at_once(text):
    start = time.monotonic()
    try:
        arithmetic(text, {})
    except Unreadable:
        pass
    else:
        assert text in ("-" * 900 + "1", "[" * 300 + "]" * 300, "(" * 400 + ")" * 400), "harmless after all"
    assert time.monotonic() - start < 1


def test_an_object_is_passed_on_and_put_on_a_device_without_touching_it():
    net = Net()
    assert arithmetic("net", {"net": net}) is net
    assert arithmetic("net.to(device)", {"net": net, "device": "cpu"}) is net
