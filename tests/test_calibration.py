"""Calibration: bins of equal mass and the expected calibration error, held against counting by hand."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from minialign.statistics import equal_mass_bins, expected_calibration_error, reliability


def some_answers(seed, n=53):
    rng = np.random.default_rng(seed)
    confidence = 0.5 + 0.5 * rng.beta(2, 1, n)
    return confidence, (rng.random(n) < confidence**2).astype(float)


def counted_by_hand(confidence, right, bins):
    """The definition, in fractions: answers dealt out from the least sure on, the first bins one more."""
    answers = sorted(zip(map(Fraction, confidence), map(Fraction, right)), key=lambda pair: pair[0])
    n, total, start = len(answers), Fraction(0), 0
    for b in range(bins):
        size = n // bins + (b < n % bins)
        part = answers[start : start + size]
        sure, hits = (sum(column) / size for column in zip(*part))
        total, start = total + Fraction(size, n) * abs(sure - hits), start + size
    assert start == n
    return float(total)


@pytest.mark.parametrize("bins", [1, 3, 10, 53])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_is_what_counting_by_hand_gives(seed, bins):
    confidence, right = some_answers(seed)
    assert expected_calibration_error(confidence, right, bins) == pytest.approx(
        counted_by_hand(confidence, right, bins), abs=1e-12
    )


def test_wrong_variants_give_other_numbers():
    """Equal widths, gaps that cancel, and bins without weights: the test above would see them."""
    confidence, right = some_answers(0)
    found = expected_calibration_error(confidence, right, 7)
    number = np.minimum(6, (confidence * 7).astype(int))
    wide = sum(abs((confidence - right)[number == b].sum()) for b in range(7)) / 53
    gaps = [(confidence - right)[place].mean() for place in equal_mass_bins(confidence, 7)]
    for wrong in (wide, (confidence - right).mean(), np.abs(gaps).mean(), np.abs(gaps).max()):
        assert abs(wrong - found) > 1e-4


def test_whoever_is_as_sure_as_they_are_right_has_no_error_but_for_chance():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 200_000)
    assert expected_calibration_error(confidence, rng.random(200_000) < confidence) < 0.006
    few = expected_calibration_error(confidence[:100], rng.random(100) < confidence[:100])
    assert few > 0.02, "of few answers chance alone makes an error"
    assert expected_calibration_error(confidence, confidence) == pytest.approx(0, abs=1e-12)
    too_sure = np.minimum(1, confidence + 0.1)
    assert expected_calibration_error(
        too_sure[confidence < 0.9], confidence[confidence < 0.9]
    ) == pytest.approx(0.1)


def test_the_ends():
    assert expected_calibration_error([1.0] * 10, [0] * 10) == 1.0
    assert expected_calibration_error([1.0] * 10, [True] * 10) == 0.0
    assert expected_calibration_error(torch.tensor([0.75] * 4), [1, 1, 1, 0], bins=1) == 0.0


def test_a_reliability_curve_has_the_same_bins():
    margins = np.random.default_rng(1).normal(size=80)
    confidence, right = reliability(margins, bins=8)
    sure = 1 / (1 + np.exp(-np.abs(margins)))
    error = expected_calibration_error(sure, margins > 0, bins=8)
    assert error == pytest.approx(np.abs(confidence - right).mean()), "80 in 8 bins: all weigh the same"


def test_bins_hold_equally_many_from_low_to_high():
    values = np.random.default_rng(2).normal(size=23)
    places = equal_mass_bins(values, 5)
    assert [len(place) for place in places] == [5, 5, 5, 4, 4]
    assert sorted(np.concatenate(places)) == list(range(23))
    assert all(values[a].max() <= values[b].min() for a, b in zip(places, places[1:]))
    assert [place.tolist() for place in equal_mass_bins([1.0, 0.0, 1.0, 1.0], 2)] == [[1, 0], [2, 3]]


def test_what_cannot_be_measured_is_refused():
    for arguments, words in (
        (([0.5, 0.9], [1]), "2 confidences and 1 results"),
        (([0.5, 1.5], [1, 0], 1), "confidence must hold probabilities, from 0 to 1, here is 1.5"),
        (([0.5, 0.9], [1, -1], 1), "right must hold probabilities, from 0 to 1, here is -1"),
        (([0.5, 0.9], [1, 0]), "number of bins of 2 values is 10"),
        (([], []), "confidence must hold at least one number"),
        (([0.5, float("nan")], [1, 0], 1), "finite"),
    ):
        with pytest.raises(ValueError, match=words):
            expected_calibration_error(*arguments)
