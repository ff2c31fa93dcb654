"""Sides in class names, in many languages and spellings, and words that only look like them."""

from __future__ import annotations

import pytest

from monai_transfer.errors import InputError
from monai_transfer.manifest.laterality import find_sides, mirror_pairs, swapped


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left kidney", "right kidney"), ("kidney_left", "kidney_right"), ("Kidney-L", "Kidney-R"),
        ("LeftKidney", "RightKidney"), ("KidneyLeft", "KidneyRight"), ("leftkidney", "rightkidney"),
        ("L_Hippocampus", "R_Hippocampus"), ("ctx-lh-insula", "ctx-rh-insula"), ("Lung_Lt", "Lung_Rt"),
        ("Niere links", "Niere rechts"), ("linke Niere", "rechte Niere"), ("linker Vorhof", "rechter Vorhof"),
        ("rein gauche", "rein droit"), ("oreillette gauche", "oreillette droite"),
        ("riñón izquierdo", "riñón derecho"), ("pulmón izq", "pulmón der"), ("rim esquerdo", "rim direito"),
        ("rene sinistro", "rene destro"), ("ren sinister", "ren dexter"), ("A. carotis sinistra", "A. carotis dextra"),
        ("nerka lewa", "nerka prawa"), ("levá ledvina", "pravá ledvina"), ("vänster njure", "höger njure"),
        ("левая почка", "правая почка"), ("左肾", "右肾"), ("왼쪽 신장", "오른쪽 신장"),
        ("LV", "RV"), ("rib_left_1", "rib_right_1"), ("OS", "OD"),
    ],
)  # fmt: skip
def test_pairs_are_found_whatever_their_order(left, right):
    names = ["background", right, "spleen", left]
    found = find_sides(names)
    assert found.pairs == ((3, 1),) and not found.alone and set(found.sided) == {left, right}
    assert mirror_pairs(names) == [[3, 1]]


@pytest.mark.parametrize(
    "name", ["left atrium", "Vorhof_links", "RightLung", "aorta sinistra", "poumon droit", "右肺", "linke Niere"]
)
def test_a_side_alone_counts(name):
    found = find_sides(["background", name, "spleen"])
    assert found.alone == (name,) and found.sided == (name,) and found.pairs == ()
    with pytest.raises(InputError, match="mirror image of"):
        mirror_pairs(["background", name])


@pytest.mark.parametrize(
    "name",
    [
        "leftover", "upright", "L", "R", "lung", "link", "lt", "der", "sin", "sole", "balance", "level", "vertebra_L1",
        "G2", "liver", "lesion", "oedema", "rv", "rim", "solid", "balloon", "recht", "dexterity", "bal",
    ],
)  # fmt: skip
def test_other_words_are_no_side(name):
    assert not find_sides(["background", name, "spleen"]).sided


def test_many_pairs_and_singles_together():
    names = ["background", "lung_left", "heart", "lung_right", "kidney_right", "kidney_left", "T", "left thalamus"]
    found = find_sides(names)
    assert found.pairs == ((1, 3), (5, 4)) and found.alone == ("left thalamus",)
    assert swapped(range(8), found.pairs) == [0, 3, 2, 1, 5, 4, 6, 7]
