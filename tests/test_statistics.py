"""Means, shares, win rates and their intervals; frontiers and calibration."""

import math

import numpy as np
import pytest
from scipy import stats

from minialign.statistics import (
    frontier,
    mean_with_interval,
    reliability,
    share_with_interval,
    standard_error,
    win_rate,
)


def test_the_interval_of_a_mean_is_students():
    values = [1.0, 2.0, 4.0, 7.0]
    estimate = mean_with_interval(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert (estimate.low, estimate.high) == pytest.approx((low, high)) and estimate.mean == 3.5
    assert standard_error(values) == pytest.approx(stats.sem(values))


def test_the_interval_of_a_mean_covers_it_95_times_of_100():
    rng = np.random.default_rng(0)
    covered = sum(e.low <= 0 <= e.high for e in (mean_with_interval(rng.normal(size=5)) for _ in range(2000)))
    assert 0.935 < covered / 2000 < 0.965


def test_one_value_has_no_interval():
    with pytest.raises(ValueError, match="at least two values, here are 1"):
        mean_with_interval([1.0])


def test_the_interval_of_a_share_is_wilsons():
    estimate, z = share_with_interval(7, 10), stats.norm.ppf(0.975)
    centre, half = (
        (0.7 + z**2 / 20) / (1 + z**2 / 10),
        z * math.sqrt(0.21 / 10 + z**2 / 400) / (1 + z**2 / 10),
    )
    assert (estimate.low, estimate.high) == pytest.approx((centre - half, centre + half))
    assert share_with_interval(0, 10).high > 0.2, "none of ten does not mean never"
    with pytest.raises(ValueError, match="at least 1"):
        share_with_interval(0, 0)


def test_a_reliability_curve_by_hand():
    margins = np.array([3.0, -0.1, 0.2, -4.0])
    confidence, right = reliability(margins, bins=2)
    sure = [1 / (1 + math.exp(-m)) for m in (0.1, 0.2, 3.0, 4.0)]
    assert np.allclose(confidence, [np.mean(sure[:2]), np.mean(sure[2:])]) and right.tolist() == [0.5, 0.5]


def test_a_calibrated_model_has_a_straight_reliability_curve():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=40_000) * 2
    margins = np.where(rng.random(40_000) < 1 / (1 + np.exp(-rewards)), rewards, -rewards)
    confidence, right = reliability(margins)
    assert np.abs(confidence - right).max() < 0.02 and confidence[0] < 0.6 and confidence[-1] > 0.95
    doubled, right = reliability(2 * margins)
    assert (doubled - right)[2:6].min() > 0.04, "twice the margin is overconfident"


# --- win rates and frontiers ---


def test_a_win_rate_is_the_mean_over_prompts_of_all_comparisons():
    rng = np.random.default_rng(0)
    ours, theirs = np.round(rng.normal(0.3, 1, (8, 3))), np.round(rng.normal(0, 1, (8, 2)))
    by_prompt = [
        np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a in x for b in y])
        for x, y in zip(ours, theirs)
    ]
    assert win_rate(ours, theirs) == pytest.approx(mean_with_interval(by_prompt))
    assert win_rate(ours, theirs).mean + win_rate(theirs, ours).mean == pytest.approx(1)
    assert win_rate(ours, ours + 0).mean == pytest.approx(0.5)


def test_the_interval_of_a_win_rate_covers_the_truth_when_prompts_differ():
    """Prompts on which ours is much better or much worse: comparisons within a prompt agree, and an interval
    that ignores it misses.
    """
    rng, covered, naive_covered = np.random.default_rng(0), 0, 0
    for _ in range(400):
        edge = rng.normal(0, 2, (40, 1))
        ours, theirs = edge + rng.normal(size=(40, 4)), rng.normal(size=(40, 4))
        honest = win_rate(ours, theirs)
        naive = mean_with_interval((ours[:, :, None] > theirs[:, None, :]).ravel())
        covered, naive_covered = (
            covered + (honest.low <= 0.5 <= honest.high),
            naive_covered + (naive.low <= 0.5 <= naive.high),
        )
    assert covered / 400 >= 0.92 and naive_covered / 400 < 0.6


def test_the_frontier_by_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(20):
        costs, values = rng.integers(0, 5, (2, 12))
        beaten = [
            any(
                costs[j] <= costs[i]
                and values[j] >= values[i]
                and (costs[j] < costs[i] or values[j] > values[i])
                for j in range(12)
            )
            for i in range(12)
        ]
        assert frontier(costs, values).tolist() == [not b for b in beaten]
    assert frontier(np.array([1.0, 1.0]), np.array([2.0, 2.0])).all(), "equal points do not beat one another"
