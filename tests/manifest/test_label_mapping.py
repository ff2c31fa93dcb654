"""The label mapping: gaps, merged values, regions, ignored values, what was not looked for, and all of it back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_transfer.errors import InputError
from monai_transfer.manifest.label_mapping import UNKNOWN, LabelMapping

BRATS = LabelMapping(
    {"background": (0,), "necrosis": (1,), "oedema": (2,), "enhancing": (4,)},
    regions={"whole": (1, 2, 4), "core": (1, 4), "et": (4,)},
    ignore=(9,),
)
ORGANS = LabelMapping({"background": (0,), "liver": (1,), "spleen": (2,)})


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_values_with_gaps_become_class_numbers_and_come_back(kind):
    values = np.array([[0, 128, 255], [255, 128, 0]], dtype=kind)
    mapping = LabelMapping({"background": (0,), "edge": (128,), "disc": (255,)})
    numbers = mapping.encode(values)
    assert numbers.tolist() == [[0, 1, 2], [2, 1, 0]]
    back = mapping.decode(numbers)
    assert back.tolist() == values.tolist()
    assert back.dtype == (kind if np.issubdtype(kind, np.floating) else np.uint8)


def test_merged_values_are_one_class_and_written_as_the_first():
    mapping = LabelMapping({"background": (0, 3), "tumour": (4, 1)})
    numbers = mapping.encode(np.array([0, 1, 3, 4]))
    assert numbers.tolist() == [0, 1, 0, 1]
    assert mapping.decode(numbers).tolist() == [0, 4, 0, 4]


def test_a_tensor_stays_what_it_was():
    from monai.data import MetaTensor

    label = MetaTensor(torch.tensor([[[0.0, 4.0000153, 9.0]]]), affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))
    numbers = BRATS.encode(label)
    assert isinstance(numbers, MetaTensor) and numbers.dtype == torch.float32
    assert numbers.tolist() == [[[0, 3, UNKNOWN]]] and numbers.affine[0, 0] == 2
    assert BRATS.decode(numbers).tolist() == [[[0, 4, 9]]]


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([0, 3], "holds 3, which is not declared"),
        ([0, 77, 3], "holds 3, 77, which is not declared"),
        ([-1, 0], "holds -1, which is not declared"),
        ([0.0, 0.4], "holds 0.4, which is no whole number"),
        ([0.0, float("nan")], "holds nan"),
    ],
)
def test_what_is_not_declared_is_refused_and_named(values, fault):
    for array in (np.array(values), torch.tensor(values)):
        with pytest.raises(InputError, match=fault) as caught:
            BRATS.encode(array)
        assert caught.value.hint


def test_targets_of_regions_and_what_they_are_written_as():
    numbers = BRATS.encode(np.array([[0, 1, 2, 4, 9]]))
    targets = BRATS.targets(numbers)
    assert targets.tolist() == [[0, 1, 1, 1, -1], [0, 1, 0, 1, -1], [0, 0, 0, 1, -1]]
    assert BRATS.decode(BRATS.from_targets(targets))[0, :4].tolist() == [0, 1, 2, 4]
    # a core outside of the whole is still written as what tells the core from the rest
    odd = np.array([[0, 0], [1, 0], [0, 1]])
    assert BRATS.decode(BRATS.from_targets(odd)).tolist() == [[1, 4]]


def test_regions_class_order_is_followed_as_nnunet_does():
    classes = {"background": (0,), "a": (1,), "b": (2,), "c": (3,)}
    mapping = LabelMapping(classes, {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}, (), (1, 2, 3))
    on = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]])
    # nnU-Net: for i, c in enumerate(regions_class_order): segmentation[predicted[i]] = c
    expected = np.zeros(5, dtype=int)
    for region, value in enumerate((1, 2, 3)):
        expected[on[region] > 0] = value
    assert mapping.decode(mapping.from_targets(on))[0].tolist() == expected.tolist()
    assert mapping.decode(mapping.from_targets(torch.from_numpy(on)))[0].tolist() == expected.tolist()


def test_structures_that_overlap_are_regions_whose_intersection_is_a_value_of_its_own():
    mapping = LabelMapping(
        {"background": (0,), "liver": (1,), "cyst": (2,), "both": (3,)}, regions={"LIVER": (1, 3), "CYST": (2, 3)}
    )
    values = np.array([[0, 1, 2, 3]])
    targets = mapping.targets(mapping.encode(values))
    assert targets.tolist() == [[0, 1, 0, 1], [0, 0, 1, 1]]
    assert mapping.decode(mapping.from_targets(targets)).tolist() == values.tolist()


def test_a_class_that_was_not_looked_for_is_unknown_and_so_is_the_background():
    numbers = np.array([[0, 1, 2]])
    assert ORGANS.targets(numbers, ["liver"]).tolist() == [[-1, 0, -1], [0, 1, 0], [-1, 0, -1]]
    assert ORGANS.targets(numbers, ["liver", "spleen"]).tolist() == np.eye(3, dtype=int).tolist()
    assert ORGANS.annotated(["liver"]) == [False, True, False]
    assert BRATS.annotated(["whole"]) == [True, False, False]
    assert BRATS.annotated(["necrosis", "enhancing"]) == [False, True, True]
    assert BRATS.targets(numbers, ["whole"]).tolist() == [[0, 1, 1], [-1, -1, -1], [-1, -1, -1]]
    with pytest.raises(InputError, match="'kidney'"):
        ORGANS.annotated(["kidney"])


def test_cases_of_a_batch_may_be_annotated_differently():
    batch = torch.tensor([[[0, 1]], [[0, 2]]])
    flags = torch.tensor([ORGANS.annotated(["liver"]), ORGANS.annotated(["spleen"])])
    targets = ORGANS.targets(batch, flags, channel_dim=1)
    assert targets.shape == (2, 3, 2)
    assert targets[0].tolist() == ORGANS.targets(batch[0], ["liver"]).tolist()
    assert targets[1].tolist() == [[-1, 0], [-1, 0], [0, 1]]
    assert ORGANS.from_targets(torch.rand(2, 3, 4, 5), channel_dim=1).shape == (2, 1, 4, 5)


def test_classification_has_no_background_and_findings_have_unknowns():
    classes = LabelMapping.from_dict({"task": "classification", "labels": {"0": "normal", "1": "pneumonia", "2": "tb"}})
    assert classes.annotated(["normal", "pneumonia"]) == [True, True, False]
    assert classes.targets(np.array([0]), ["normal", "pneumonia"]).tolist() == [1, 0, -1]
    findings = LabelMapping({"oedema": (), "effusion": (), "mass": ()}, multi_label=True)
    assert findings.overlapping and findings.outputs == ["oedema", "effusion", "mass"]
    assert findings.encode_findings({"effusion": 1, "oedema": 0, "mass": None}) == [0, 1, UNKNOWN]
    assert findings.encode_findings({"effusion": 1, "oedema": 0, "mass": 0}, ["effusion"]) == [UNKNOWN, 1, UNKNOWN]
    for label, fault in (({"fracture": 1}, "'fracture'"), ({"mass": 2}, "is 2")):
        with pytest.raises(InputError, match=fault):
            findings.encode_findings(label)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (({"background": (0,), "a": (1,), "b": (1,)},), "value 1 stands under 'a' and 'b'"),
        (({"background": (0,), "a": (1,)}, {}, (1,)), "stands under 'a' and 'ignore'"),
        (({"background": (0,), "a": (1,)}, {"whole": (1, 5)}), "holds the value 5"),
        (({"background": (0,), "a": (1, 2)}, {"part": (2,)}), "only a part of the class 'a'"),
        (({"background": (0,), "a": (1,)}, {"whole": ()}), "holds no value"),
        (({"background": (0,), "a": (1,)}, {"whole": (1,)}, (), (1, 0)), "regions_class_order"),
        (({"background": (0,), "a": (2**24,)},), "value 16777216"),
    ],
)
def test_mappings_that_cannot_be_meant_are_refused(arguments, fault):
    with pytest.raises(InputError, match=fault) as caught:
        LabelMapping(*arguments)
    assert caught.value.hint


def test_plain_labels_are_an_identity():
    assert ORGANS.is_identity and not BRATS.is_identity
    assert ORGANS.encode(np.array([2, 0, 1])).tolist() == [2, 0, 1]
    empty = LabelMapping()
    assert empty.is_identity and empty.encode(np.array([7])).tolist() == [7] and empty.outputs == []


@st.composite
def mappings(draw):
    values = draw(st.lists(st.integers(0, 300), min_size=2, max_size=8, unique=True))
    cuts = sorted(draw(st.sets(st.integers(1, len(values) - 1), max_size=5)))
    groups = [tuple(values[a:b]) for a, b in zip([0, *cuts], [*cuts, len(values)], strict=True)]
    classes = {f"c{i}": group for i, group in enumerate(groups)}
    chosen = st.sets(st.integers(1, max(1, len(groups) - 1)), min_size=1)
    picks = draw(st.lists(chosen, max_size=3)) if len(groups) > 1 else []
    regions = {f"r{i}": tuple(v for n in sorted(pick) for v in groups[n]) for i, pick in enumerate(picks)}
    return LabelMapping(classes, regions)


@settings(max_examples=60, deadline=None)
@given(mappings(), st.integers(0, 2**31))
def test_any_mapping_survives_json_and_its_own_inverse(mapping, seed):
    assert LabelMapping.from_dict(mapping.to_dict()) == mapping
    declared = [v for group in mapping.classes.values() for v in group]
    values = np.random.default_rng(seed).choice(declared, (1, 4, 5))
    numbers = mapping.encode(values)
    assert mapping.encode(mapping.decode(numbers)).tolist() == numbers.tolist()
    targets = mapping.targets(numbers)
    assert targets.shape == (len(mapping.outputs), 4, 5)
    again = mapping.from_targets(targets)
    assert mapping.targets(again).tolist() == targets.tolist()
    assert np.asarray(mapping.targets(torch.from_numpy(numbers))).tolist() == targets.tolist()
