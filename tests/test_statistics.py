"""Means, shares, win rates and their intervals; frontiers and calibration."""

import math
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats

from minialign.statistics import (
    frontier,
    mean_with_interval,
    numbers,
    one_standard_error_rule,
    reliability,
    share_with_interval,
    standard_error,
    whole_number,
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


# --- the one-standard-error rule ---


def test_the_one_standard_error_rule_by_brute_force():
    rng, wrong = np.random.default_rng(0), np.zeros(4)
    for _ in range(100):
        means, errors, order = rng.integers(0, 6, 8) / 2, rng.integers(0, 4, 8) / 2, rng.integers(0, 4, 8)
        best = max(range(8), key=lambda i: means[i])
        near = [i for i in range(8) if means[i] >= means[best] - errors[best]]
        simplest = min(order[i] for i in near)
        expected = max((i for i in near if order[i] == simplest), key=lambda i: means[i])
        chosen = one_standard_error_rule(means, errors, order)
        assert chosen == expected and type(chosen) is int
        own = [i for i in range(8) if means[i] + errors[i] >= means[best]]
        wrong += [
            best != chosen,
            min(own, key=lambda i: (order[i], -means[i])) != chosen,  # each by its own error
            min(near, key=lambda i: (-order[i], -means[i])) != chosen,  # the least simple
            min(near, key=lambda i: (order[i], means[i])) != chosen,  # of equals the worse
        ]
    assert (wrong > 10).all(), "known mistakes choose another one"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (([1, 2], [0.1], [0, 1]), "^here are 2 means, 1 errors and 2 places in the order: a setting has one"),
        (([1, 2], [0.1, -0.2], [0, 1]), "^a standard error is -0.2: it must be at least 0$"),
        (([1, math.nan], [0.1, 0.2], [0, 1]), "^means must be finite numbers, here is nan$"),
        (([], [], []), "^means must hold at least one number"),
    ],
)
def test_no_setting_to_choose(given, said):
    with pytest.raises(ValueError, match=said):
        one_standard_error_rule(*given)


# --- what numpy and torch users pass ---

ROW = [1.0, 2.0, 4.0, 8.0]  # exact in any precision
ON_GRADIENT = torch.tensor(ROW, requires_grad=True)
ROWS = {
    "list": ROW,
    "ints": [1, 2, 4, 8],
    "tuple": tuple(ROW),
    "array": np.array(ROW),
    "float32": np.float32(ROW),
    "column": np.array(ROW)[:, None],
    "read-only": np.broadcast_to(np.array(ROW), (1, 4))[0],
    "tensor": torch.tensor(ROW),
    "on a gradient": ON_GRADIENT,
    "bfloat16": ON_GRADIENT.bfloat16(),
    "tensor column": ON_GRADIENT[:, None],
    "list of tensors": list(ON_GRADIENT),
    "list of arrays": [np.array([x]) for x in ROW],
    "exact": [Decimal(1), Fraction(2), 4, np.float16(8)],
    "objects": np.array(ROW, dtype=object),
    "nothing masked": np.ma.array(ROW, mask=False),
}


@pytest.mark.parametrize(
    ("ndim", "wanted"),
    [(0, "one real number"), (1, "a row"), (2, "a table of"), (3, r"a block of real numbers, \(s, n, m\)")],
)
def test_another_shape_than_wanted(ndim, wanted):
    with pytest.raises(ValueError, match=rf"^scores must be {wanted}.*not of shape \(2, 2, 2, 2\)"):
        numbers(np.ones((2, 2, 2, 2)), "scores", ndim)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_of_numbers_comes_in_many_ways(row):
    with warnings.catch_warnings(action="error"):
        assert numbers(row, ndim=1).tolist() == ROW and numbers(row).dtype == np.float64
        assert mean_with_interval(row) == mean_with_interval(ROW)
        assert standard_error(row) == standard_error(ROW)
        assert frontier(row, row).all()
        assert np.array_equal(reliability(row, bins=2), reliability(np.array(ROW), bins=2))


class Hostile:
    def refuse(self, *arguments, **options):
        raise ZeroDivisionError

    __float__ = __array__ = __repr__ = __len__ = refuse


NO_ROWS = {
    "words": ["1", "2", "3"],
    "array of words": np.array(["1.0", "2.0"]),
    "None": None,
    "a None": [1.0, None],
    "complex": np.array([1j, 2.0]),
    "complex tensor": torch.ones(2, dtype=torch.complex64),
    "sparse": torch.ones(2).to_sparse(),
    "on no device": torch.ones(2, device="meta"),
    "generator": (x for x in ROW),
    "dict": {"a": 1.0, "b": 2.0},
    "set": {1.0, 2.0},
    "dates": np.zeros(2, dtype="datetime64[s]"),
    "records": np.zeros(2, dtype=[("a", float)]),
    "ragged": [[1.0], [1.0, 2.0]],
    "huge": [10**400, 1],
    "hostile": Hostile(),
    "hostile entry": [Hostile(), 1.0],
    "one number": 3.0,
    "0-d": np.array(3.0),
    "table": np.ones((2, 2)),
    "row in a table": np.ones((1, 4)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", NO_ROWS.values(), ids=NO_ROWS)
def test_what_is_no_row_of_numbers_is_told_so_in_one_line(values):
    for act in (mean_with_interval, standard_error, reliability, lambda x: frontier(x, ROW)):
        with pytest.raises(ValueError, match=r"^\w+ must be a row of real numbers, \(n,\), not [^\n]+$"):
            act(values)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, float("nan")], "must be finite numbers, here is nan"),
        (torch.tensor([1.0, -float("inf")]), "must be finite numbers, here is -inf"),
        (np.ma.array([1.0, 2.0], mask=[True, False]), "must be finite numbers, here is nan"),
        ([], "must hold at least one number"),
        (torch.ones(0), "must hold at least one number"),
    ],
)
def test_what_cannot_be_counted_with(values, said):
    for act in (mean_with_interval, standard_error, reliability, lambda x: frontier(x, x)):
        with pytest.raises(ValueError, match=said):
            act(values)


def test_one_value_has_no_standard_error():
    with pytest.raises(ValueError, match="at least two values, here are 1"):
        standard_error(np.ones((1, 1)))


@pytest.mark.parametrize("seven", [7, 7.0, np.int32(7), np.array([7]), torch.tensor(7), torch.tensor([7.0])])
def test_a_whole_number_comes_in_many_ways(seven):
    assert whole_number(seven, "n", 1) == 7 and type(whole_number(seven, "n", 1)) is int
    assert share_with_interval(seven, 10) == share_with_interval(7, 10)
    assert share_with_interval(3, seven) == share_with_interval(3, 7)


@pytest.mark.parametrize(
    ("successes", "n", "said"),
    [
        (11, 10, "successes is 11: choose a whole number from 0 to 10"),
        (-1, 10, "successes is -1: choose a whole number from 0 to 10"),
        (0.7, 10, "successes is 0.7: choose a whole number from 0 to 10"),
        (np.array([True, False]), 2, r"successes must be one real number, not of shape \(2,\)"),
        (torch.tensor([True, False]), 2, r"successes must be one real number, not of shape \(2,\)"),
        (None, 10, "successes must be one real number, not None"),
        (float("nan"), 10, "successes must be a finite number, here is nan"),
        (1, 2.5, "n is 2.5: choose a whole number of at least 1"),
        (1, "10", "n must be one real number, not '10'"),
    ],
)
def test_a_share_of_what_cannot_be_counted(successes, n, said):
    with pytest.raises(ValueError, match=said):
        share_with_interval(successes, n)


OURS, THEIRS = np.arange(6.0).reshape(3, 2), np.ones((3, 4))


def test_a_win_rate_takes_lists_and_tensors():
    on_gradient = torch.tensor(OURS, requires_grad=True)
    for ours in (OURS.tolist(), on_gradient, list(on_gradient), np.float32(OURS), OURS[..., None]):
        assert win_rate(ours, THEIRS) == win_rate(OURS, THEIRS)


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (OURS, THEIRS[:2], "ours are of 3 prompts, theirs of 2: give the same prompts"),
        (OURS[:1], THEIRS, "ours are of 1 prompts, theirs of 3: give the same prompts"),
        (OURS[:, 0], THEIRS, r"ours must be a table of real numbers, \(n, m\), not of shape \(3,\)"),
        (OURS, THEIRS[0], r"theirs must be a table of real numbers, \(n, m\), not of shape \(4,\)"),
        (OURS * np.nan, THEIRS, "ours must be finite numbers, here is nan"),
        (OURS[:, :0], THEIRS, "ours must hold at least one number"),
        ([[1.0, 2.0], [3.0]], THEIRS[:2], r"ours must be a table of real numbers, \(n, m\), not \[\[1.0"),
    ],
)
def test_answers_that_cannot_be_compared(ours, theirs, said):
    with pytest.raises(ValueError, match=said):
        win_rate(ours, theirs)


def test_a_point_has_one_cost_and_one_value():
    with pytest.raises(ValueError, match="here are 3 costs and 1 values: a point has one of each"):
        frontier([1, 2, 3], [1])


@pytest.mark.parametrize("bins", [5, 0, 2.5])
def test_no_more_bins_than_margins(bins):
    with pytest.raises(ValueError, match=f"bins of 4 margins is {bins}: choose a whole number from 1 to 4"):
        reliability(ROW, bins)


# --- what a small change would spoil ---


def test_a_share_is_the_share():
    for successes, n in ((7, 10), (0, 3), (1, 1)):
        estimate = share_with_interval(successes, n)
        assert estimate.mean == successes / n and estimate.low <= estimate.mean <= estimate.high


def test_two_values_are_enough_for_an_interval():
    estimate = mean_with_interval([1.0, 3.0])
    assert (estimate.low, estimate.high) == pytest.approx((2 - 12.706, 2 + 12.706), abs=1e-3)


def test_means_are_of_float64_whatever_is_given():
    """In float32 the small values would be lost beside a large one."""
    values = np.array([2.0**24, 1.0, 1.0, 1.0], dtype=np.float32)
    assert mean_with_interval(values) == mean_with_interval(values.tolist())
    assert standard_error(values) == standard_error(values.tolist())


def test_a_margin_of_nothing_is_not_right():
    """Whoever says 0 has not said which response is better."""
    confidence, right = reliability(np.array([0.0, 0.0, 2.0, -2.0]), bins=2)
    assert confidence[0] == 0.5 and right.tolist() == [0.0, 0.5]


def test_equally_sure_comparisons_stay_in_their_order():
    rng = np.random.default_rng(0)
    margins = rng.integers(1, 3, 400) * rng.choice([-1.0, 1.0], 400)
    right = [margin > 0 for margin in sorted(margins, key=abs)]
    assert reliability(margins, bins=100)[1].tolist() == [np.mean(right[i : i + 4]) for i in range(0, 400, 4)]


def test_reliability_has_eight_bins_unless_told():
    assert all(values.shape == (8,) for values in reliability(np.arange(-20.0, 20.0)))


def test_an_error_names_what_was_given():
    for act, name in (
        (reliability, "margins"),
        (lambda x: frontier(x, [1]), "costs"),
        (lambda x: frontier([1], x), "values"),
        (lambda x: win_rate(x, [[1.0]]), "ours"),
        (lambda x: win_rate([[1.0]], x), "theirs"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be "):
            act(None)


def test_masked_whole_numbers_are_missing_ones():
    with pytest.raises(ValueError, match="must be finite numbers, here is nan"):
        mean_with_interval(np.ma.array([1, 2, 3], mask=[False, True, False]))
