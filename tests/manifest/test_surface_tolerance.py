"""A surface tolerance of each class, from the manifest into the bundle's test."""

from __future__ import annotations

import pytest

from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest

CONTENT = {
    "name": "organs",
    "task": "segmentation",
    "labels": {"0": "background", "1": "liver", "2": "vessel"},
    "training": [{"image": "a.nii.gz", "label": "m.nii.gz", "case": "a", "patient": "p", "site": "s"}],
}


def test_it_is_kept_and_written_back():
    manifest = Manifest.from_dict(CONTENT | {"surface_tolerance": {"vessel": 1.5}})
    assert manifest.surface_tolerance == {"vessel": 1.5}
    assert manifest.to_dict()["surface_tolerance"] == {"vessel": 1.5}
    assert "surface_tolerance" not in Manifest.from_dict(CONTENT).to_dict()


@pytest.mark.parametrize(("given", "words"), [({"vesel": 1}, "did you mean 'vessel'"), ({"vessel": 0}, "surface_tol")])
def test_a_wrong_class_or_distance_is_refused(given, words):
    with pytest.raises(InputError, match=words):
        Manifest.from_dict(CONTENT | {"surface_tolerance": given})
