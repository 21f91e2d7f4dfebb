"""Intervals over seeds and prompts: the variance by enumeration, Student's and Welch's where they hold, and
how often the truth is covered.
"""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from minialign.bootstrap import (
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_win_rate,
    crossed_interval,
    equal_length_win_rate,
    variances,
)
from minialign.statistics import mean_with_interval, win_rate


def table(rng, seeds: int, prompts: int, by_seed=1.0, by_prompt=1.0, by_cell=1.0) -> np.ndarray:
    """Values (S, P) with mean 0: a part of each seed, one of each prompt, and noise."""
    parts = (by_seed, (seeds, 1)), (by_prompt, (1, prompts)), (by_cell, (seeds, prompts))
    return sum(scale * rng.normal(size=shape) for scale, shape in parts)


def covers(estimate, truth: float = 0.0) -> bool:
    return estimate.low <= truth <= estimate.high


# --- the variance ---


def test_the_variances_are_those_of_all_redraws():
    """Every draw of n − 1 of n units, with replacement, of seeds, of prompts, and of both."""
    values = table(np.random.default_rng(0), 3, 4)
    seeds, prompts = (list(product(range(n), repeat=n - 1)) for n in (3, 4))
    everything = [tuple(range(3))], [tuple(range(4))]

    def redrawn(rows, columns) -> float:
        return np.var([values[np.ix_(r, c)].mean() for r in rows for c in columns])

    found = {axes: variance for axes, (variance, _) in variances(values).items()}
    assert redrawn(seeds, everything[1]) == pytest.approx(found[(0,)])
    assert redrawn(everything[0], prompts) == pytest.approx(found[(1,)])
    both = found[(0,)] + found[(1,)] + found[(0, 1)]
    assert redrawn(seeds, prompts) == pytest.approx(both)
    all_three = list(product(range(3), repeat=3))
    assert redrawn(all_three, everything[1]) == pytest.approx(found[(0,)] * 2 / 3), (
        "the usual one is too small"
    )


def test_the_variances_are_unbiased():
    """σ_s²/S + σ_p²/P + σ²/(SP): cells count once, not twice (a sum) or three times (both redrawn)."""
    rng, sums = np.random.default_rng(0), np.zeros(3)
    for _ in range(4000):
        one, other, cells = (variance for variance, _ in variances(table(rng, 3, 5, 0.5, 0.7, 2)).values())
        sums += [one + other - cells, one + other, one + other + cells]
    truth, cell = 0.5**2 / 3 + 0.7**2 / 5 + 2**2 / 15, 2**2 / 15
    assert sums / 4000 == pytest.approx([truth, truth + cell, truth + 2 * cell], rel=0.04)


def test_three_axes_by_inclusion_and_exclusion():
    rng, total, truth = np.random.default_rng(0), 0.0, 0.0
    shape = 3, 2, 4
    scales = {(0,): 1.0, (1,): 0.5, (2,): 1.0, (0, 1): 0.7, (0, 2): 1.5, (1, 2): 1.0, (0, 1, 2): 2.0}
    for axes, scale in scales.items():
        truth += scale**2 / math.prod(shape[axis] for axis in axes)
    for _ in range(6000):
        values = sum(
            scale * rng.normal(size=[n if axis in axes else 1 for axis, n in enumerate(shape)])
            for axes, scale in scales.items()
        )
        total += sum((-1) ** (len(axes) + 1) * v for axes, (v, _) in variances(values).items())
    assert total / 6000 == pytest.approx(truth, rel=0.04)


# --- the intervals, where others are known ---


def test_a_single_run_has_students_interval_over_prompts():
    values = np.random.default_rng(0).normal(size=(1, 12))
    assert bootstrap_mean(values) == pytest.approx(mean_with_interval(values[0]))
    assert bootstrap_mean(values.T) == pytest.approx(mean_with_interval(values[0])), "a prompt, many seeds"


def test_a_difference_of_single_runs_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=(1, 12)) * 5
    ours, theirs = hard + rng.normal(size=(1, 12)), hard + rng.normal(size=(1, 12))
    low, high = stats.ttest_rel(ours[0], theirs[0]).confidence_interval()
    estimate = bootstrap_difference(ours, theirs)
    assert estimate == pytest.approx(((ours - theirs).mean(), low, high))
    unpaired = stats.ttest_ind(ours[0], theirs[0]).confidence_interval()
    assert unpaired.high - unpaired.low > 3 * (estimate.high - estimate.low)


def test_a_difference_on_one_prompt_is_welchs_t_test():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(1, 2, (4, 1)), rng.normal(0, 1, (3, 1))
    low, high = stats.ttest_ind(ours[:, 0], theirs[:, 0], equal_var=False).confidence_interval()
    assert bootstrap_difference(ours, theirs) == pytest.approx((ours.mean() - theirs.mean(), low, high))


def test_a_win_rate_of_single_runs_is_the_one_of_statistics():
    rng = np.random.default_rng(0)
    ours, theirs = np.round(rng.normal(0.3, 1, (8, 3))), np.round(rng.normal(0, 1, (8, 2)))
    assert bootstrap_win_rate(ours[None], theirs[None]) == pytest.approx(win_rate(ours, theirs))


def test_a_win_rate_is_the_mean_over_all_pairs_of_runs():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0.5, 1, (2, 5, 3)), rng.normal(0, 1, (3, 5, 2))
    by_hand = np.mean(
        [
            (ours[s, p, i] > theirs[t, p, j])
            for s, t, p, i, j in product(range(2), range(3), range(5), range(3), range(2))
        ]
    )
    assert bootstrap_win_rate(ours, theirs).mean == pytest.approx(by_hand)
    assert bootstrap_win_rate(theirs, ours).mean == pytest.approx(1 - by_hand)


# --- coverage ---


def percentiles(values, rng) -> tuple[float, float]:
    """The plain bootstrap's interval, of 300 draws."""
    S, P = values.shape
    seeds, prompts = (rng.multinomial(n, [1 / n] * n, 300) / n for n in (S, P))
    return np.quantile(((seeds @ values) * prompts).sum(1), [0.025, 0.975])


def test_the_interval_covers_the_truth_with_three_seeds():
    """However the values vary; percentiles, and an interval over prompts alone, miss where seeds differ."""
    rng, n = np.random.default_rng(0), 300
    for parts in ((1, 0.2, 0.2), (0.3, 1, 1), (0.1, 1, 2), (0.5, 1, 0.5)):
        ours = plain = prompts_alone = 0
        for _ in range(n):
            values = table(rng, 3, 40, *parts)
            low, high = percentiles(values, rng)
            ours += covers(bootstrap_mean(values))
            plain += low <= 0 <= high
            prompts_alone += covers(mean_with_interval(values.mean(0)))
        assert 0.90 <= ours / n <= 0.985, parts
        if parts[0] == 1:
            assert plain / n < 0.8 and prompts_alone / n < 0.5 and ours / n > 0.93


def test_differences_and_win_rates_cover_the_truth():
    rng, n = np.random.default_rng(0), 250
    found = np.zeros(3)
    for _ in range(n):
        hard = rng.normal(size=(1, 30))
        ours, theirs = ((hard + table(rng, 3, 30, 0.3, 0.3, 1))[..., None] for _ in range(2))
        lengths = 5 + rng.normal(size=ours.shape), rng.normal(size=theirs.shape)
        found += [
            covers(bootstrap_difference(ours, theirs)),
            covers(bootstrap_win_rate(ours, theirs), 0.5),
            covers(equal_length_win_rate(ours, theirs, lengths[0] - 5, lengths[1]), 0.5),
        ]
    assert (0.92 <= found / n).all() and (found / n <= 0.985).all(), found / n


# --- equal length ---


def by_newton(won, longer) -> np.ndarray:
    """θ and φ by plain loops."""
    scale = math.sqrt(sum(d * d for d in longer) / len(longer))
    x = [(1.0, math.tanh(d / scale)) for d in longer]
    w = np.zeros(2)
    for _ in range(50):
        slope, curvature = np.zeros(2), np.zeros((2, 2))
        for (a, b), y in zip(x, won):
            p = 1 / (1 + math.exp(-(w[0] * a + w[1] * b)))
            slope += (y - p) * np.array([a, b])
            curvature += p * (1 - p) * np.outer([a, b], [a, b])
        w = w + np.linalg.solve(curvature, slope)
    return w


@pytest.fixture(scope="module")
def longer_wins():
    """Ours are worth a little less, but longer, and length is liked: (ours, theirs, their lengths)."""
    rng = np.random.default_rng(0)
    our_lengths, their_lengths = rng.normal(60, 20, (2, 80, 2)), rng.normal(45, 20, (1, 80, 3))
    value = lambda lengths, worth: worth + lengths / 15 + rng.logistic(size=lengths.shape)  # noqa: E731
    return value(our_lengths, -0.4), value(their_lengths, 0.0), our_lengths, their_lengths


def test_the_equal_length_win_rate_by_hand(longer_wins):
    ours, theirs, our_lengths, their_lengths = longer_wins
    places = list(product(range(2), range(1), range(80), range(2), range(3)))
    won = [float(ours[s, p, i] > theirs[t, p, j]) for s, t, p, i, j in places]
    longer = [our_lengths[s, p, i] - their_lengths[t, p, j] for s, t, p, i, j in places]
    theta, phi = by_newton(won, longer)
    estimate = equal_length_win_rate(*longer_wins)
    expected = 1 / (1 + math.exp(-theta))
    assert estimate.mean == pytest.approx(expected, abs=1e-4) and estimate.low < expected < estimate.high
    wrong = {
        "lengths left alone": np.mean(won),
        "our lengths alone": equal_length_win_rate(ours, theirs, our_lengths, 0 * their_lengths).mean,
        "the longest instead of equal": 1 / (1 + math.exp(-theta - phi)),
        "the logit": theta,
    }
    assert all(abs(value - expected) > 0.03 for value in wrong.values()), (expected, wrong)
    assert np.mean(won) > 0.55 > 0.5 > expected, "it is the length that wins"


def test_both_sides_see_the_same_equal_length_win_rate(longer_wins):
    ours, theirs, our_lengths, their_lengths = longer_wins
    one, other = (
        equal_length_win_rate(*longer_wins),
        equal_length_win_rate(theirs, ours, their_lengths, our_lengths),
    )
    assert one == pytest.approx((1 - other.mean, 1 - other.high, 1 - other.low), abs=1e-5)


def test_its_interval_is_that_of_other_prompts(longer_wins):
    """The spread of the result over redrawn prompts, of one run."""
    one = [values[:1] for values in longer_wins]
    estimate, rng = equal_length_win_rate(*one), np.random.default_rng(0)
    chosen = rng.integers(80, size=(300, 80))
    spread = np.std([equal_length_win_rate(*(values[:, rows] for values in one)).mean for rows in chosen])
    assert (estimate.high - estimate.low) / 2 == pytest.approx(stats.t.ppf(0.975, 79) * spread, rel=0.15)


def test_where_length_does_not_matter_nothing_changes():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0.4, 1, (2, 40, 2)), rng.normal(0, 1, (2, 40, 2))
    same = np.full(ours.shape, 30)
    assert equal_length_win_rate(ours, theirs, same, same) == pytest.approx(
        bootstrap_win_rate(ours, theirs), abs=1e-4
    )


def test_who_always_wins_has_a_win_rate_of_one():
    ours, theirs = np.ones((2, 20, 1)), np.zeros((2, 20, 1))
    lengths = np.arange(40.0).reshape(2, 20, 1)
    assert bootstrap_win_rate(ours, theirs) == (1.0, 1.0, 1.0)
    estimate = equal_length_win_rate(ours, theirs, lengths, lengths[::-1])
    assert estimate.mean > 0.99 and 0 <= estimate.low <= estimate.high <= 1


# --- what cannot be measured ---


def test_lists_and_tensors_will_do():
    values = np.random.default_rng(0).normal(size=(3, 5, 1))
    on_gradient = torch.tensor(values, requires_grad=True)
    assert bootstrap_win_rate(values.tolist(), on_gradient) == bootstrap_win_rate(values, values)
    assert bootstrap_mean(on_gradient) == bootstrap_mean(values[..., 0].tolist())


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (
            lambda: bootstrap_mean([[1.0]]),
            "^an interval needs at least two seeds or two prompts, here is one",
        ),
        (
            lambda: bootstrap_mean([1.0, 2.0]),
            r"^values must be a table of real numbers, \(n, m\), not of shape",
        ),
        (lambda: bootstrap_mean([[1.0, math.nan]]), "^values must be finite numbers, here is nan"),
        (
            lambda: bootstrap_difference(np.ones((2, 3)), np.ones((2, 4))),
            "^ours are of 3 prompts, theirs of 4: give the same prompts$",
        ),
        (
            lambda: bootstrap_win_rate(np.ones((2, 3, 1)), np.ones((2, 4, 1))),
            "^ours are of 3 prompts, theirs of 4: give the same prompts$",
        ),
        (
            lambda: bootstrap_win_rate(np.ones((2, 3)), np.ones((2, 3))),
            r"^ours must be a block of real numbers, \(s, n, m\), not of shape \(2, 3\)$",
        ),
        (
            lambda: equal_length_win_rate(*[np.ones((2, 3, 2))] * 3, np.ones((2, 3, 1))),
            r"^their lengths are \(2, 3, 1\), the rewards \(2, 3, 2\): a response has one of each$",
        ),
    ],
)
def test_what_has_no_interval(act, said):
    with pytest.raises(ValueError, match=said):
        act()


def test_equal_values_have_an_interval_of_no_width():
    assert crossed_interval(np.full((3, 4), 2.0)) == (2.0, 2.0, 2.0)
