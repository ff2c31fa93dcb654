import numpy as np
import pytest
from monai.metrics import compute_froc_curve_data, compute_froc_score

from monai_transfer.localization.froc import FP_RATES, Detections, average_precision, froc_curve, sensitivity_at


def draw(seed, images=30, everything_found=False):
    """Random outcomes: lesions found or missed, false and extra boxes, scores rounded so that some are equal."""
    rng = np.random.default_rng(seed)
    lesions, false, extra = [], [], []
    for _ in range(images):
        scores = np.round(rng.uniform(0.1, 1, rng.integers(0, 4)), 2)
        if not everything_found:
            scores[rng.random(len(scores)) < 0.3] = np.nan
        lesions.append(scores)
        false.append(np.round(rng.uniform(0, 0.8, rng.integers(0, 5)), 2))
        extra.append(np.round(rng.uniform(0, 0.8, rng.integers(0, 2)), 2))
    return lesions, false, extra


def brute_force(lesions, false, rates):
    """FROC by its definition: every threshold by itself, in a loop."""
    total, n = sum(map(len, lesions)), len(lesions)
    points = [(0.0, 0.0)]
    for t in sorted({s for group in (*lesions, *false) for s in group if not np.isnan(s)}, reverse=True):
        fp = sum(int((f >= t).sum()) for f in false) / n
        points.append((fp, sum(int((s >= t).sum()) for s in lesions) / total))
    out = []
    for rate in rates:
        below = [p for p in points if p[0] <= rate]
        above = [p for p in points if p[0] > rate]
        x0, y0 = max(below)
        if above:
            x1, y1 = min(above)
            out.append(y0 + (rate - x0) / (x1 - x0) * (y1 - y0))
        else:
            out.append(y0)
    return out


@pytest.mark.parametrize("seed", range(5))
def test_sensitivities_by_definition(seed):
    lesions, false, extra = draw(seed)
    ours = sensitivity_at(Detections(lesions, false, extra))[0]
    assert ours == pytest.approx(brute_force(lesions, false, FP_RATES))


def monai_score(lesions, false):
    found = np.concatenate(lesions)
    tp = np.where(np.isnan(found), 0.0, found)
    fps, sensitivity = compute_froc_curve_data(np.concatenate(false), tp, len(found), len(lesions))
    return compute_froc_score(fps, sensitivity, FP_RATES)


@pytest.mark.parametrize("seed", range(3))
def test_score_is_monais_where_a_lesion_was_missed(seed):
    lesions, false, extra = draw(seed)
    assert sensitivity_at(Detections(lesions, false, extra)).mean() == pytest.approx(monai_score(lesions, false))


def test_monai_loses_the_last_point_where_none_was_missed():
    """If a later MONAI keeps it, the docstring of froc.py needs a new sentence."""
    lesions, false = [np.array([0.9]), np.array([0.5])], [np.array([]), np.array([])]
    assert sensitivity_at(Detections(lesions, false)).mean() == 1
    assert monai_score(lesions, false) < 1


def test_healthy_images_count_for_the_rate_alone():
    lesions, false = [np.array([0.9, np.nan])], [np.array([0.95])]
    one = Detections(lesions, false)
    rates, sensitivity = (v[0].tolist() for v in froc_curve(one))
    assert rates == [0, 1, 1] and sensitivity == [0, 0, 0.5]
    four = Detections([*lesions, [], [], []], [*false, [], [], []])
    assert froc_curve(four)[0][0].tolist() == [0, 0.25, 0.25]
    assert sensitivity_at(four, [0.125, 0.25])[0].tolist() == [0, 0.5]
    nothing = Detections([[], []], [[0.3], []])
    assert np.isnan(sensitivity_at(nothing)).all() and np.isnan(average_precision(nothing)).all()
    silent = Detections([[np.nan], []], [[], []])
    assert sensitivity_at(silent).mean() == 0 and average_precision(silent)[0] == 0


def test_average_precision_written_out():
    """Boxes by score: found, false, found, extra; 3 lesions. Precision 1, 1/2, 2/3, 2/4; recall 1/3, 1/3, 2/3, 2/3."""
    found = Detections([[0.9, 0.7], [np.nan]], [[0.8], []], [[], [0.6]])
    assert average_precision(found)[0] == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    assert average_precision(Detections([[0.9], [0.8]], [[0.1], []]))[0] == 1
    # equal scores pass together: one of two is right
    assert average_precision(Detections([[0.5]], [[0.5]]))[0] == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_repetitions(seed):
    lesions, false, extra = draw(seed, images=8)
    weights = np.random.default_rng(seed).integers(0, 3, (2, 8))
    weights[0] = 1
    found = Detections(lesions, false, extra)
    repeated = [Detections(*([g for g, w in zip(part, row, strict=True) for _ in range(w)]
                             for part in (lesions, false, extra))) for row in weights]  # fmt: skip
    for measure in (lambda d, w=None: sensitivity_at(d, weights=w), average_precision):
        together = measure(found, weights)
        for row, single in zip(together, repeated, strict=True):
            np.testing.assert_allclose(row, measure(single)[0])
