"""Which channel a file is by its name."""

from __future__ import annotations

import pytest

from monai_transfer.manifest.channels import channel_of
from monai_transfer.manifest.layouts.base import mask_of
from monai_transfer.manifest.layouts.pairs import mask_folders


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("P1_t1", ("P1", "t1")),
        ("P1_t1ce", ("P1", "t1ce")),
        ("P1__t1", ("P1", "t1")),
        ("sub-01_ses.2_t1", ("sub-01_ses.2", "t1")),
        ("t1", ("", "t1")),
        ("P1t1", None),
        ("P1_T1", None),
        ("P1_t1_seg", None),
        ("P1_a.b", ("P1", "a.b")),
        ("P1_axb", None),  # a name is no pattern
    ],
)
def test_the_channel_that_a_name_ends_in(name, found):
    assert channel_of(name, ["t1", "t1ce", "a.b"]) == found


def test_upper_and_lower_case_are_one_where_asked():
    assert channel_of("P1_FLAIR", ["t1", "flair"], any_case=True) == ("P1", "flair")


def test_masks_by_name_and_folder():
    assert [mask_of(name) for name in ("P1_seg", "mask", "P1", "segment_2")] == ["P1", "", None, None]
    assert mask_folders(["imagesTr", "labelsTr", "notes"]) == {"labelsTr"}
    assert mask_folders(["labelsTr", "notes"]) == set()  # no images: whoever names it means it
