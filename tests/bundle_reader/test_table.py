"""The closed table: every class of it comes from a known place, and no argument of it fetches, writes or calls."""

from __future__ import annotations

import inspect

import pytest

from monai_transfer.bundle_reader.table import ARGUMENTS, DEFAULT_OFF, lookup, table

# words in names of arguments that fetch, write, call, or open what a text names
FORBIDDEN = ("url", "path", "file", "func", "fn", "callable", "writer", "formatter", "hook", "state_dict", "save",
             "cache_dir", "output_dir", "root_dir", "data_dir", "src", "loader", "pretrained", "checkpoint_dir",
             "download", "log_stats", "pattern", "use_re", "overrides", "kwargs")  # fmt: skip


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_no_argument_fetches_writes_or_calls(kind):
    harmless = {"dropout_path_rate", "use_residual_connection", "use_checkpoint"}  # a rate and two switches
    assert {name for name in ARGUMENTS[kind] - harmless if any(word in name for word in FORBIDDEN)} == set()
    known = set()
    for entry in table().values():
        if entry.kind == kind:
            known |= set(inspect.signature(entry.make).parameters)
    older = {"dimensions", "img_size", "pos_embed", "channel_initial", "size_average"}
    assert ARGUMENTS[kind] - known - older == set(), "arguments that no class of the table has"


@pytest.mark.parametrize("word", ["other", "other_act", "select_fn", "post_func", "writer", "overrides", "filename"])
def test_functions_and_files_are_no_arguments(word):
    assert all(word not in names for names in ARGUMENTS.values())


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "monai.networks.trt_compiler.os.system",
        "monai.networks.nets.unet.torch.load",
        "monai.bundle.scripts.run",
        "monai.apps.download_and_extract",
        "builtins.eval",
        "pydoc.locate",
        "scripts.net.Net",
        "RandLambdad",
        "SaveClassificationd",
        "WriteFileMapping",
        "torch.load",
        "torch.nn.Module",
        "RandomState",
        "EfficientNet",
        "ITKReader",
        "UNet.__init__",
        "",
        None,
        ["UNet"],
    ],
)
def test_not_in_the_table(target):
    assert lookup(target) is None


def test_every_spelling_of_public_bundles():
    for name in ("UNet", "monai.networks.nets.UNet", "monai.networks.nets.unet.UNet"):
        assert lookup(name).path == "monai.networks.nets.UNet"
    for name in ("LoadImaged", "LoadImageD", "LoadImageDict", "monai.transforms.LoadImaged"):
        assert lookup(name).name == "LoadImaged"
    assert lookup("torch.nn.CrossEntropyLoss").kind == "loss"
    assert lookup("torch.nn.modules.loss.CrossEntropyLoss").kind == "loss"
    assert {entry.kind for entry in table().values()} == set(ARGUMENTS)


def test_every_class_that_fetches_by_default_is_known_to_be_switched_off():
    fetching = {
        entry.name
        for entry in table().values()
        for name, parameter in inspect.signature(entry.make).parameters.items()
        if parameter.default is True and "pretrain" in name and name not in DEFAULT_OFF
    }
    assert fetching == set()
    assert inspect.signature(lookup("EfficientNetBN").make).parameters["pretrained"].default is True
