"""Variety, and pass@k: effective numbers, rarefaction and Chen's estimator, against enumeration and scipy."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from minialign.best_of_n import expected_best, pass_at_k
from minialign.statistics import effective_number, expected_distinct

COUNTS = ([5], [1, 1, 1], [7, 1], [4, 3, 2, 1], [1] * 8 + [3], [6, 0, 2])


@pytest.mark.parametrize("counts", COUNTS)
def test_the_effective_number_is_exp_of_scipys_entropy(counts):
    assert effective_number(counts) == pytest.approx(math.exp(stats.entropy(counts)))
    assert effective_number(np.array(counts) * 3) == pytest.approx(effective_number(counts))
    assert 1 <= effective_number(counts) <= np.count_nonzero(counts) + 1e-9


def test_equally_frequent_ones_count_one_each():
    assert effective_number([4] * 6) == pytest.approx(6) and effective_number([9]) == 1
    assert 2 > effective_number([3, 1]) > effective_number([30, 1]) > 1


def test_it_is_none_of_the_numbers_it_is_taken_for():
    p = np.array([4, 3, 2, 1]) / 10
    entropy = -(p * np.log(p)).sum()
    wrong = (4, entropy, math.exp(entropy / math.log(2)), 2**entropy, 1 / (p**2).sum())
    assert min(abs(effective_number([4, 3, 2, 1]) - x) for x in wrong) > 0.1


@pytest.mark.parametrize("counts", COUNTS)
def test_rarefaction_is_the_mean_over_all_choices(counts):
    things = np.repeat(np.arange(len(counts)), counts)
    for m in range(1, len(things) + 1):
        chosen = [len(set(choice)) for choice in combinations(things.tolist(), m)]
        assert expected_distinct(counts, m) == pytest.approx(np.mean(chosen))


def test_of_one_there_is_one_of_all_there_are_all_and_of_two_it_is_simpsons():
    counts = np.array([4, 3, 2, 1])
    assert expected_distinct(counts, 1) == pytest.approx(1) and expected_distinct(
        counts, 10
    ) == pytest.approx(4)
    alike = (counts * (counts - 1)).sum() / (10 * 9)
    assert expected_distinct(counts, 2) == pytest.approx(2 - alike)


def test_rarefaction_does_not_depend_on_how_many_were_drawn():
    """Unlike the number of different ones in a sample: 20 and 80 draws of one distribution, at m = 10."""
    rng, p = np.random.default_rng(0), np.array([0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    small, large = (rng.multinomial(n, p, 4000) for n in (20, 80))
    rarefied = [np.mean([expected_distinct(row, 10) for row in rows[:800]]) for rows in (small, large)]
    truth = (1 - (1 - p) ** 10).sum()
    assert rarefied == pytest.approx([truth, truth], abs=0.04)
    assert (large > 0).sum(1).mean() - (small > 0).sum(1).mean() > 0.5


def test_large_counts_do_not_overflow():
    counts = np.random.default_rng(0).integers(1, 400, 900)
    assert 0 < expected_distinct(counts, 1000) < 900


def test_what_counts_nothing_is_refused():
    for counts in ([], [0, 0], [1, -1], [1.5], [[1, 2]]):
        for act in (effective_number, lambda x: expected_distinct(x, 1)):
            with pytest.raises(ValueError, match="counts must"):
                act(counts)
    for m in (0, 4, 1.5):
        with pytest.raises(ValueError, match="m, of 3 occurrences, is"):
            expected_distinct([2, 1], m)


# --- pass@k ---


def rows(n=7):
    """One question for every number of right samples, in any order."""
    rng = np.random.default_rng(3)
    return np.array([rng.permutation(np.arange(n) < c) for c in range(n + 1)])


@pytest.mark.parametrize("k", range(1, 8))
def test_pass_at_k_is_the_mean_over_all_choices_of_k(k):
    found = pass_at_k(rows(), k)
    by_hand = [np.mean([max(choice) for choice in combinations(row.tolist(), k)]) for row in rows()]
    assert found == pytest.approx(by_hand)
    assert found == pytest.approx([stats.hypergeom.sf(0, 7, c, k) for c in range(8)])
    chen = [1.0 if 7 - c < k else 1 - np.prod(1 - k / np.arange(7 - c + 1, 8)) for c in range(8)]
    assert found == pytest.approx(chen), "the loop of Chen et al. 2021, figure 3"


def test_it_is_unbiased_and_the_share_put_into_the_formula_is_not():
    n, k, p = 7, 3, 0.3
    chances = stats.binom.pmf(np.arange(n + 1), n, p)
    truth = 1 - (1 - p) ** k
    assert chances @ pass_at_k(rows(n), k) == pytest.approx(truth, abs=1e-12)
    assert chances @ (1 - (1 - np.arange(n + 1) / n) ** k) < truth - 0.02


def test_it_is_best_of_k_for_a_perfect_judge_and_rarefaction_of_one_thing():
    for k in (1, 2, 5):
        assert (pass_at_k(rows(), k) == expected_best(rows(), rows(), k)).all()
    counts = [4, 2, 1]  # the different answers among 7: each is "right" for itself
    hits = np.array([np.arange(7) < c for c in counts])
    assert expected_distinct(counts, 3) == pytest.approx(pass_at_k(hits, 3).sum())


def test_it_rises_with_k_up_to_whether_any_is_right():
    values = np.array([pass_at_k(rows(), k) for k in range(1, 8)])
    assert (np.diff(values, axis=0) >= -1e-12).all() and values[-1] == pytest.approx([0] + [1] * 7)
    assert values[0] == pytest.approx(np.arange(8) / 7)


def test_what_is_no_table_of_right_and_wrong_is_refused():
    with pytest.raises(ValueError, match="right must say of each sample"):
        pass_at_k([[0.5, 1.0]], 1)
    with pytest.raises(ValueError, match="right must be a table"):
        pass_at_k([3, 4], 2)
    for k in (0, 8):
        with pytest.raises(ValueError, match="n, the best of 7 samples, is"):
            pass_at_k(rows(), k)
