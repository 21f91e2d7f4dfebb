"""Social choice, held against ballots counted one by one, known lotteries and brute force."""

from itertools import permutations

import numpy as np
import pytest
import torch

from minialign.social_choice import (
    as_preferences,
    borda_scores,
    condorcet_winner,
    nash_policy,
    preference_shares,
)
from minialign.world.exact import bradley_terry_optimum

CYCLE = [[0.5, 0.65, 0.4], [0.35, 0.5, 0.75], [0.6, 0.25, 0.5]]  # 0 beats 1 beats 2 beats 0


def some_ballots(seed, size=4, count=7):
    rng = np.random.default_rng(seed)
    return [rng.permutation(size).tolist() for _ in range(count)], rng.integers(1, 6, count).tolist()


def some_preferences(seed, size=4):
    upper = np.triu(np.random.default_rng(seed).uniform(0.05, 0.95, (size, size)), 1)
    return upper + np.tril(1 - upper.T, -1) + 0.5 * np.eye(size)


def cycle(a, b, c):
    """0 beats 1 by the margin a, 1 beats 2 by b, and 2 beats 0 by c."""
    margins = np.array([[0, a, -c], [-a, 0, b], [c, -b, 0]])
    return (1 + margins) / 2


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_those_of_the_ballots_one_by_one(seed):
    rankings, people = some_ballots(seed)
    shares = preference_shares(rankings, people)
    for i, j in permutations(range(4), 2):
        prefer = sum(n for order, n in zip(rankings, people) if order.index(i) < order.index(j))
        assert shares[i, j] == pytest.approx(prefer / sum(people))
    assert (shares.diagonal() == 0.5).all()


@pytest.mark.parametrize("seed", range(5))
def test_borda_scores_are_points_counted_on_the_ballots(seed):
    rankings, people = some_ballots(seed)
    points = np.zeros(4)
    for order, n in zip(rankings, people):
        for place, i in enumerate(order):
            points[i] += n * (3 - place)  # as many points as it has others behind it
    assert borda_scores(preference_shares(rankings, people)) == pytest.approx(points / 3 / sum(people))
    # The same counted as majorities is Copeland's score: another rule.
    copeland = (preference_shares(rankings, people) > 0.5).sum(1) / 3
    assert not np.allclose(copeland, points / 3 / sum(people))


@pytest.mark.parametrize("seed", range(8))
def test_bradley_terry_has_bordas_order_when_all_pairs_are_equally_frequent(seed):
    """Siththaranjan et al. 2023, Theorem 3.2; with other frequencies it need not."""
    shares = some_preferences(seed, 5)
    wins = torch.from_numpy(shares * (1 - np.eye(5)))
    rewards = bradley_terry_optimum(wins).numpy()
    assert (np.argsort(rewards) == np.argsort(borda_scores(shares))).all()


def test_a_majority_may_prefer_another_one_than_borda():
    rankings, people = [(0, 1, 2), (1, 2, 0)], (60, 40)
    shares = preference_shares(rankings, people)
    assert condorcet_winner(shares) == 0 and borda_scores(shares).argmax() == 1
    without = preference_shares([(0, 1), (1, 0)], people)  # nobody's favourite is taken off the list
    assert borda_scores(without).argmax() == 0


@pytest.mark.parametrize("seed", range(20))
def test_a_condorcet_winner_wins_against_each_by_brute_force(seed):
    rankings, people = some_ballots(seed, 3, 4)
    winners = []
    for i in range(3):
        against = [
            sum(n if order.index(i) < order.index(j) else -n for order, n in zip(rankings, people))
            for j in range(3)
            if j != i
        ]
        winners += [i] if min(against) > 0 else []
    assert condorcet_winner(preference_shares(rankings, people)) == (winners[0] if winners else None)


def test_half_of_the_people_is_no_majority():
    assert condorcet_winner([[0.5, 0.5], [0.5, 0.5]]) is None
    assert condorcet_winner(CYCLE) is None


# --- the maximal lottery ---


def test_rock_paper_scissors_is_mixed_equally():
    assert nash_policy(cycle(1, 1, 1)) == pytest.approx([1 / 3] * 3, abs=1e-12)
    assert nash_policy(cycle(1 / 3, 1 / 3, 1 / 3)) == pytest.approx([1 / 3] * 3, abs=1e-12)
    beats = np.array([[(j - i) % 5 in (1, 3) for j in range(5)] for i in range(5)], dtype=float)
    assert nash_policy(beats + 0.5 * np.eye(5)) == pytest.approx([1 / 5] * 5, abs=1e-9), "… lizard, Spock"


@pytest.mark.parametrize("margins", [(0.3, 0.5, 0.2), (0.9, 0.1, 0.4), (1.0, 0.02, 0.5)])
def test_each_of_a_cycle_is_as_likely_as_the_margin_between_the_other_two(margins):
    a, b, c = margins
    expected = np.array([b, c, a]) / sum(margins)
    assert nash_policy(cycle(a, b, c)) == pytest.approx(expected, abs=1e-9)
    for wrong in (np.array([a, b, c]) / sum(margins), borda_scores(cycle(*margins)) / 1.5, [1 / 3] * 3):
        assert np.abs(nash_policy(cycle(*margins)) - wrong).max() > 0.01


def test_a_cycle_below_a_winner_gets_nothing():
    shares = np.full((4, 4), 0.5)
    shares[:3, :3], shares[3, :3], shares[:3, 3] = CYCLE, 0.51, 0.49
    assert nash_policy(shares) == pytest.approx([0, 0, 0, 1], abs=1e-9)
    assert nash_policy(shares[:3, :3]) == pytest.approx([0.5, 0.2, 0.3], abs=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_preferred_to_the_mixture_and_nothing_else_is_as_good(seed):
    """By definition; and it is the only one, as with random margins: 400 others all lose to something."""
    shares = some_preferences(seed, 5)
    policy = nash_policy(shares)
    assert policy.sum() == pytest.approx(1) and policy.min() >= 0
    assert (policy @ shares).min() == pytest.approx(0.5, abs=1e-9)
    others = np.random.default_rng(seed).dirichlet(np.ones(5), 400)
    assert ((others @ shares).min(1) < 0.5).all()


def test_fictitious_play_comes_to_the_same_mixture():
    """An oracle without linear programming: always answer what beats the answers so far (Brown 1951)."""
    shares, counts = np.array(CYCLE), np.zeros(3)
    counts[0] = 1
    for _ in range(20000):
        counts[(shares @ counts).argmax()] += 1
    assert nash_policy(CYCLE) == pytest.approx(counts / counts.sum(), abs=0.01)


# --- what is refused ---


def test_lists_and_tensors_are_as_good_as_arrays_and_stay_as_they_are():
    given = torch.tensor(CYCLE)
    given.fill_diagonal_(0)
    assert nash_policy(given) == pytest.approx([0.5, 0.2, 0.3], abs=1e-6)
    given = given.double().numpy()
    assert as_preferences(given)[0, 0] == 0.5 and given[0, 0] == 0


def test_people_are_in_any_unit_and_some_may_be_none():
    rankings = [(0, 1), (1, 0), (0, 1)]
    assert preference_shares(rankings)[0, 1] == pytest.approx(2 / 3)
    assert preference_shares(rankings, (0.3, 0.7, 0))[0, 1] == pytest.approx(0.3)
    assert preference_shares(rankings, (30, 70, 0))[0, 1] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("preferences", "words"),
    [
        ([[0.5, 0.6, 0.1]], r"preferences are \(1, 3\): compare each of at least two"),
        ([[0.5]], "compare each of at least two"),
        ([[0.5, 0.6, 0.1], [0.4, 0.5, 0.1]], "compare each of at least two"),
        ([[0.5, 0.6], [0.4, 0.5], [0.1, 0.2]], "compare each of at least two"),
        ([[0.5, 1.2], [-0.2, 0.5]], "a share lies outside 0 to 1"),
        ([[0.5, 0.6], [0.6, 0.5]], "must add up to 1"),
        ([[0.5, float("nan")], [0.5, 0.5]], "finite numbers"),
    ],
)
def test_what_is_no_preference_matrix_is_refused(preferences, words):
    for function in (borda_scores, condorcet_winner, nash_policy):
        with pytest.raises(ValueError, match=words):
            function(preferences)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([(0, 1, 1)],), "each of 0 to 2 once"),
        (([(1, 2, 3)],), "each of 0 to 2 once"),
        (([(0, 1)], (1, 2)), "1 rankings and 2 numbers of people"),
        (([(0, 1)], (-1,)), "at least 0, and one of them more"),
        (([(0, 1)], ("many",)), "people"),
        (([(0, 1), (1, 0)], (0, 0)), "at least 0, and one of them more"),
    ],
)
def test_what_is_no_ballot_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        preference_shares(*arguments)
