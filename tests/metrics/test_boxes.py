"""Boxes against the truth: matching, FROC, average precision, and what survives a table."""

import numpy as np
import pytest

from monai_transfer.errors import InputError
from monai_transfer.evaluation.patients import available_metrics, patient_values
from monai_transfer.evaluation.recorder import write_cases
from monai_transfer.evaluation.summary import summarise
from monai_transfer.metrics.boxes import BOX_METRICS, localization_case, localization_set
from monai_transfer.tables import read_table


def case(truth, found, scores=None, spacing=(4.0, 4.0), **how):
    """A picture with true blocks and probable blocks, each (rows, columns)."""
    mask, p = np.zeros((1, 24, 24)), np.zeros((2, 24, 24))
    for rows, columns in truth:
        mask[0, slice(*rows), slice(*columns)] = 1
    for i, (rows, columns) in enumerate(found):
        p[1, slice(*rows), slice(*columns)] = 0.9 if scores is None else scores[i]
    p[0] = 1 - p[1]
    return localization_case(p, mask, spacing, **how)


A, B, C = ((0, 4), (0, 4)), ((10, 14), (10, 14)), ((18, 22), (2, 4))


def test_a_case_written_out():
    row, found, lesions = case([A, B], [((0, 4), (0, 5)), C], [0.7, 0.8])
    assert row == {
        "lesions": 2,
        "boxes": 2,
        "found": 1,
        "false_positives": 1.0,
        "box_iou": pytest.approx(0.8 / 2),
        "pointing_game": 0.0,  # the surest place is the false box
        "lesion_mm": "18.1 18.1",  # discs of 256 mm2
        "lesion_scores": "0.7000 -",
        "false_scores": "0.8000",
        "extra_scores": "",
    }
    assert (len(found), len(lesions)) == (2, 2)
    assert case([A], [A])[0]["pointing_game"] == 1


def test_the_four_corners_of_the_table():
    nothing = case([], [])[0]
    assert (nothing["lesions"], nothing["false_positives"]) == (0, 0)
    assert np.isnan(nothing["box_iou"]) and np.isnan(nothing["pointing_game"])
    invented = case([], [A, B])[0]
    assert invented["false_positives"] == 2 and np.isnan(invented["box_iou"])
    missed = case([A], [])[0]
    assert (missed["found"], missed["box_iou"], missed["lesion_scores"]) == (0, 0.0, "-")


def test_options_reach_the_boxes():
    assert case([A], [A], [0.4])[0]["boxes"] == 0
    assert case([A], [A], [0.4], threshold=0.3)[0]["found"] == 1
    assert case([A], [C], min_size=8 * 16 + 1.0)[0]["false_positives"] == 0
    assert case([A], [((2, 6), (0, 4))], iou=0.5)[0]["false_positives"] == 1
    with pytest.raises(InputError, match="original grid"):
        localization_case(np.zeros((2, 4, 4)), np.zeros((1, 4, 5)), (1.0, 1.0))


def rows():
    found = [
        case([A, C], [A, C, B], [0.9, 0.6, 0.7])[0],
        case([A], [])[0],
        case([], [B], [0.8])[0],
        case([A, B], [A, B], [0.8, 0.9])[0],
    ]
    return [{"case": str(i), "patient": f"p{i // 2}", "site": "s", **row} for i, row in enumerate(found)]


def test_sets_written_out():
    data = rows()
    # 4 of 5 lesions; thresholds 0.9: 2 found, 0 false; 0.8: 3, 1 (1/4 per case); 0.7: 3, 2; 0.6: 4, 2 (1/2)
    assert localization_set(data, "sensitivity")[0] == pytest.approx(4 / 5)
    assert localization_set(data, "sensitivity_at_1")[0] == pytest.approx(4 / 5)
    expected = np.mean([(2 + 3) / 2 / 5, 3 / 5, *[4 / 5] * 5])
    assert localization_set(data, "froc")[0] == pytest.approx(expected)
    assert localization_set(data, "ap")[0] == pytest.approx((2 * 1 + 3 / 4 + 4 / 6) / 5)
    # C is 4 x 2 pixels of 4 mm: a disc of 12.8 mm, the others of 18.1 mm
    assert localization_set(data, "sensitivity_medium")[0] == pytest.approx(4 / 5)
    assert np.isnan(localization_set(data, "sensitivity_small")[0])
    assert list(BOX_METRICS["sensitivity"].of_set(data, np.ones((1, 4)))) == ["", "medium"]
    twice = localization_set(data, "froc", np.array([[1, 1, 1, 1], [2, 0, 0, 0]]))
    assert twice[1] == localization_set([data[0]], "froc")[0]


def test_summary_with_intervals_over_patients():
    many = [{**row, "patient": f"{i}-{row['patient']}"} for i in range(6) for row in rows()]
    summary = summarise(many, "localization")
    assert list(summary)[:4] == ["froc", "false_positives", "pointing_game", "box_iou"]
    froc = summary["froc"]
    assert froc.mean == pytest.approx(localization_set(rows(), "froc")[0])
    assert froc.low < froc.mean < froc.high
    assert summary["false_positives"].mean == 0.5 and summary["pointing_game"].n_patients == 12
    assert not {"lesions", "boxes", "found", "lesion_mm"} & set(summary)


def test_values_of_patients():
    data = rows()
    metrics = available_metrics(data, "localization")
    assert metrics[0] == "froc" and metrics[-1] == "sensitivity_medium"
    assert patient_values(data, "false_positives", "localization") == {"p0": 0.5, "p1": 0.5}
    pseudo = patient_values(data, "froc", "localization")
    whole, first, second = (localization_set(part, "froc")[0] for part in (data, data[:2], data[2:]))
    assert pseudo == {"p0": pytest.approx(2 * whole - second), "p1": pytest.approx(2 * whole - first)}


def test_all_of_it_survives_the_file(tmp_path):
    """cases.csv holds text: what is read back gives the same numbers."""
    write_cases(tmp_path / "cases.csv", rows())
    read = read_table(tmp_path / "cases.csv")
    for metric in ("froc", "ap", "sensitivity", "sensitivity_medium"):
        np.testing.assert_array_equal(localization_set(read, metric), localization_set(rows(), metric))
    iou = summarise(read, "localization", intervals=False)["box_iou"].mean
    assert iou == pytest.approx(np.nanmean([row["box_iou"] for row in rows()]))
